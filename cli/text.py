"""Text as a terminal may show it: what tenants and AWS wrote moves no cursor, and sets no colour or title."""

import sys
import unicodedata

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories: controls, formats (such as those that turn the direction of writing), halves of pairs,
what stands for nothing, and what breaks lines.
"""


def printable(text: str) -> str:
    r"""Return text on one line in which each character that a terminal may obey is written out, as \x1b or
    \u202e."""
    return "".join(_written_out(c) if unicodedata.category(c) in _HARMFUL else c for c in text)


def say(text: str) -> None:
    """Print a line beside the answer: progress, or an error."""
    print(_encodable(printable(text), sys.stderr.encoding), file=sys.stderr)


def show_line(text: str) -> None:
    """Print a line of the answer."""
    print(_encodable(printable(text), sys.stdout.encoding))


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _encodable(text: str, encoding: str | None) -> str:
    """Return text that the stream takes: a terminal in C locale knows ASCII alone."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
