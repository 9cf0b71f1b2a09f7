"""Print an answer as a table, or as lines."""

import sys
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.text import printable, show_line

UNBROKEN = frozenset(
    {"REQUEST", "STATUS", "STATE", "TIER", "ARRIVED", "WAITED", "RAN", "QUALITY", "COST USD", "USD", "MONTH"}
)
"""Columns whose cells are never wrapped, so that they can be copied whole."""


@dataclass(frozen=True)
class Answer:
    """The result of a command: `data` for machines; a table (`columns`, `rows`) and `lines` for people."""

    data: Any
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def show(answer: Answer) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    if answer.columns and answer.rows:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in answer.columns:
            table.add_column(column, overflow="fold", no_wrap=column in UNBROKEN)
        for row in answer.rows:
            # As Text, since rich reads "[/x]" in a str as its own markup.
            table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
        console.print(table)
    elif answer.columns:
        console.print("none")
    for line in answer.lines:
        show_line(line)
