"""The first sheet of an Excel workbook (.xlsx, .xlsm) as CSV: values only, no macro and no formula is run."""

import csv
import sys
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from common import DataError
from tables import CELL_CHARACTERS_MAX, COLUMNS_MAX, as_text

LIBRARIES = Path(__file__).with_name("libraries.zip")
"""What SageMaker's image lacks, published beside the scripts."""

MEMBERS_MAX = 2_000
ROWS_MAX = 1_048_576
"""Of a sheet, as Excel has them."""

WHOLE_MAX = 2**53
DOCTYPE_WITHIN = 1024
"""Bytes of an XML file in which a document type stands if it has one. Excel writes none, and its entities can be
bombs."""

BROKEN = (
    *(
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
        EOFError,
        SyntaxError,
        ArithmeticError,
    ),
    *(RuntimeError, csv.Error),
)
"""What openpyxl raises for a file that is not as Excel writes it, beside the errors of zip."""


def is_workbook(names: list[str]) -> bool:
    """Tell whether a zip archive with these members is a workbook."""
    return "xl/workbook.xml" in names


def sheet_to_csv(path: Path, target: Path, limit: int) -> list[str]:
    """Write the first visible sheet as CSV in UTF-8; return what a person should know about it.

    Raises DataError, naming the file, for a broken workbook, one without rows, and one that unpacks to more than
    `limit` bytes.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if any(member.flag_bits & 1 for member in members):
            raise DataError(f"{path.name} is a workbook with a password: save it without one")
        for member in members:
            if member.filename.endswith((".xml", ".rels")):
                with archive.open(member) as file:
                    if b"<!DOCTYPE" in file.read(DOCTYPE_WITHIN).replace(b"\0", b""):  # in UTF-16 too
                        raise DataError(f"{path.name} is a broken workbook: save it again, or its sheet as CSV")
    if unpacked > limit or len(members) > MEMBERS_MAX:
        raise DataError(
            f"{path.name} is a workbook that unpacks to {unpacked:,} bytes, for which the instance has no memory: "
            "save its sheet as CSV"
        )
    if LIBRARIES.exists() and str(LIBRARIES) not in sys.path:
        sys.path.append(str(LIBRARIES))
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
        if not sheets:
            raise DataError(
                f"{path.name} is a workbook without a visible sheet that can be read: save it as Excel Workbook "
                "(.xlsx), or its sheet as CSV"
            )
        _write(sheets[0], target, path.name, limit)
        book.close()
    except (zipfile.BadZipFile, zlib.error, *BROKEN) as error:
        raise DataError(f"{path.name} is a broken workbook: save it again, or its sheet as CSV") from error
    notes = ["read from an Excel workbook: values only, formulas as Excel calculated them last"]
    if len(book.sheetnames) > 1:
        others = len(book.sheetnames) - 1
        notes.append(f"only the first visible sheet was read; the workbook has {others} more")
    return notes


def _write(sheet: Any, target: Path, name: str, limit: int) -> None:
    """Write the rows of a sheet, each with as many fields as the longest has up to its last filled cell."""
    raw = target.with_suffix(".raw")
    width = written = 0
    csv.field_size_limit(CELL_CHARACTERS_MAX)
    try:
        with raw.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            for row, cells_there in _rows(sheet):
                width = max(width, len(row))
                if width > COLUMNS_MAX:
                    raise DataError(
                        f"{name} has more than {COLUMNS_MAX:,} columns, the most that can be trained on"
                    )
                written += sum(map(len, row)) + cells_there + 1  # also those without a value, which take time
                if written > limit:
                    raise DataError(
                        f"{name} is a workbook with more than {limit:,} characters, for which the instance "
                        "has no memory: save it as CSV"
                    )
                writer.writerow(row)
        if width == 0:
            raise DataError(f"{name} is empty: its first visible sheet has no values")
        with (
            raw.open(encoding="utf-8", newline="") as file,
            target.open("w", encoding="utf-8", newline="") as csv_file,
        ):
            writer = csv.writer(csv_file)
            for cells in csv.reader(file):
                writer.writerow(cells + [""] * (width - len(cells)))
    finally:
        raw.unlink(missing_ok=True)


def _rows(sheet: Any) -> Iterator[tuple[list[str], int]]:
    """Yield the texts of each row up to its last one, and how many cells the row has in the file."""
    sheet.reset_dimensions()  # which programs other than Excel state wrongly
    for row in sheet.iter_rows(values_only=True, max_row=ROWS_MAX):
        cells = [_text(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        yield cells, len(row)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        is_day = value.time() == time()
        return value.date().isoformat() if is_day else value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, time):
        return str(value.hour + value.minute / 60 + value.second / 3600)
    if isinstance(value, timedelta):
        return str(value.total_seconds() / 3600)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= WHOLE_MAX:
        value = float(value)
    return " ".join((as_text(value) or "").split("\n"))
