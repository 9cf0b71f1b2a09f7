"""Safe terminal output: text from tenants and AWS cannot move the cursor, or set colours or the title."""

import sys
import unicodedata

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls, format characters (such as those that change the writing direction), surrogates,
private-use and unassigned characters, and line separators.
"""


def printable(text: str) -> str:
    r"""Return text on one line, with each character that a terminal could interpret escaped, as \x1b or \u202e."""
    return "".join(_written_out(c) if unicodedata.category(c) in _HARMFUL else c for c in text)


def say(text: str) -> None:
    """Print a line on standard error: progress, or an error."""
    print(_encodable(printable(text), sys.stderr.encoding), file=sys.stderr)


def show_line(text: str) -> None:
    """Print a line of the answer on standard output."""
    print(_encodable(printable(text), sys.stdout.encoding))


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _encodable(text: str, encoding: str | None) -> str:
    """Return text that the stream can encode: a terminal in the C locale supports only ASCII."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
