"""Safe terminal output: text from tenants and AWS cannot move the cursor, or set colours or the title."""

import codecs
import io
import os
import sys
import unicodedata

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls, format characters (such as those that change the writing direction), surrogates,
private-use and unassigned characters, and line separators.
"""

_PLAINER = {"…": "...", "→": "->", "–": "-", "×": "x", "·": "-", "█": "#", "░": "."}
"""What stands for a character where the terminal's encoding lacks it."""


def printable(text: str) -> str:
    r"""Return text on one line, with each character that a terminal could interpret escaped, as \x1b or \u202e."""
    return "".join(_written_out(c) if unicodedata.category(c) in _HARMFUL else c for c in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 request", "2 requests"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(text: str) -> None:
    """Print a line on standard error: progress, or an error."""
    print(_encodable(printable(text), sys.stderr.encoding), file=sys.stderr)


def show_line(text: str) -> None:
    """Print a line of the answer on standard output."""
    print(_encodable(printable(text), sys.stdout.encoding))


def tolerate() -> None:
    """Make the standard streams take all text, whatever their encoding, also where the caller has closed them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # its number must be taken, or the next file opened would get it
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plainer")


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_PLAINER.get(c) or _written_out(c) for c in text), error.end


codecs.register_error("plainer", _plainer)


def _encodable(text: str, encoding: str | None) -> str:
    """Return text that the stream can encode: a terminal in the C locale supports only ASCII."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "plainer").decode(encoding)
