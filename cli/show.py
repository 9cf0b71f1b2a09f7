"""Print an answer: a table where it fits, one value below the other where it does not."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len

from cli.text import printable

BOLD, RED, PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[0m"
REQUEST, ID_CHARACTERS_MIN = "REQUEST", 8
"""The column of requests' ids, and how many of their characters a terminal shows: commands take the beginning."""

GAP, INDENT = 2, 4
"""Spaces between two columns, and before what stands below a row."""


@dataclass(frozen=True)
class Answer:
    """The result of a command: `data` for machines; a table (`columns`, `rows`) and `lines` for people.

    `below` names a column of long texts: where the table does not fit, its cell stands on a line below its row.
    `alarms` are lines that ask for attention. `verbatim` are lines that may be pasted or saved: they are never
    wrapped. `code` is the exit code.
    """

    data: Any
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    below: str = ""
    alarms: list[str] = field(default_factory=list)
    verbatim: list[str] = field(default_factory=list)
    code: int = 0


@dataclass(frozen=True)
class Line:
    """A line of printable text, and the terminal's code for how it looks."""

    text: str
    style: str = ""


def show(answer: Answer) -> None:
    """Print an answer; to a pipe or a file, each row is one line, whatever its length."""
    colour = is_coloured()
    for line in lines_of(answer, terminal_width()):
        print(f"{line.style}{line.text}{PLAIN}" if colour and line.style else line.text)


def is_coloured() -> bool:
    """Tell whether colours may be used: on a terminal that has them, unless NO_COLOR (no-color.org) is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Return the terminal's width in characters; None for a pipe or a file, whose lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def lines_of(answer: Answer, width: int | None) -> Iterator[Line]:
    """Yield the lines that show an answer in a width of so many characters; None: in any width."""
    if answer.columns and answer.rows:
        rows = [tuple("" if cell is None else printable(str(cell)) for cell in row) for row in answer.rows]
        if width is not None and REQUEST in answer.columns:
            rows = _with_short_ids(rows, answer.columns.index(REQUEST))
        yield from _table(answer.columns, rows, width, answer.below)
    elif answer.columns:
        yield Line("none")
    for line in answer.alarms:
        yield from _wrapped(printable(line), width, style=RED)
    for line in answer.verbatim:
        yield Line(printable(line))
    for line in answer.lines:
        yield from _wrapped(printable(line), width)


def _with_short_ids(rows: list[tuple[str, ...]], at: int) -> list[tuple[str, ...]]:
    """Return the rows with ids as short as they can be told apart in this list."""
    ids = {row[at] for row in rows}
    size = next(n for n in range(ID_CHARACTERS_MIN, 99) if len({i[:n] for i in ids}) == len(ids))
    return [(*row[:at], row[at][:size], *row[at + 1 :]) for row in rows]


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]], width: int | None, below: str) -> Iterator[Line]:
    """Yield the lines of a table.

    Where it does not fit, the long texts go below their rows; then as many columns from the right as must.
    """
    if width is None or _natural(columns, rows) <= width:
        yield from _aligned(columns, rows)
        return
    if len(columns) == 2:
        yield from _named_values(rows, width)
        return
    order = [name for name in columns if name != below]
    fitting = len(order)
    while fitting > 1 and _natural(*_picked(columns, rows, order[:fitting])) > width:
        fitting -= 1
    header, *aligned = _aligned(*_picked(columns, rows, order[:fitting]))
    yield header
    places = {name: number for number, name in enumerate(columns)}
    for line, row in zip(aligned, rows, strict=True):
        yield line
        pairs = [f"{name.lower()} {row[places[name]]}" for name in order[fitting:] if row[places[name]]]
        yield from _packed(pairs, width)
        if below in places and row[places[below]]:
            yield from _wrapped(row[places[below]], width, indent=INDENT)


def _picked(
    columns: tuple[str, ...], rows: list[tuple[str, ...]], names: list[str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return some columns of a table."""
    places = [columns.index(name) for name in names]
    return tuple(names), [tuple(row[place] for place in places) for row in rows]


def _packed(pairs: list[str], width: int) -> Iterator[Line]:
    """Yield texts, as many on a line as fit; only one that is longer than a line is broken."""
    line = ""
    for pair in pairs:
        longer = f"{line} · {pair}" if line else pair
        if line and cell_len(longer) + INDENT > width:
            yield from _wrapped(line, width, indent=INDENT)
            longer = pair
        line = longer
    if line:
        yield from _wrapped(line, width, indent=INDENT)


def _natural(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> int:
    return sum(_widths(columns, rows)) + GAP * (len(columns) - 1)


def _widths(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[int]:
    return [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]


def _aligned(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[Line]:
    widths = _widths(columns, rows)
    for number, row in enumerate((columns, *rows)):
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        yield Line((" " * GAP).join(cells).rstrip(), "" if number else BOLD)


def _named_values(rows: list[tuple[str, ...]], width: int) -> Iterator[Line]:
    """Yield names and values in two columns, a long value wrapped in its own."""
    margin = min(max(cell_len(name) for name, _ in rows) + GAP, width // 3)
    for name, value in rows:
        head, *rest = _wrapped(value, width, indent=margin)
        if cell_len(name) + GAP > margin:
            yield Line(name)
            yield from (head, *rest)
        else:
            yield Line((name + " " * (margin - cell_len(name)) + head.text[margin:]).rstrip())
            yield from rest


def _wrapped(text: str, width: int | None, indent: int = 0, style: str = "") -> Iterator[Line]:
    """Yield text in lines of at most a width, broken between words; a longer word is never cut.

    A text that begins with spaces keeps them on each line.
    """
    if width is None:
        yield Line(" " * indent + text, style)
        return
    indent += len(text) - len(text.lstrip(" "))
    line = ""
    for word in text.strip(" ").split(" "):
        longer = f"{line} {word}" if line else word
        if line and cell_len(longer) + indent > width:
            yield Line(" " * indent + line, style)
            longer = word
        line = longer
    yield Line(" " * indent + line, style)
