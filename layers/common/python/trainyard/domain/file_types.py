"""What the first bytes of an object tell: that it is no table, or has no column to predict.

Both are refused before a job is paid for. The step scripts refuse the same files (pipeline/steps), also among
several and in archives. Here, only what is certain is refused: a text whose first lines do not contain the name of
the column has no header with it.
"""

import codecs
import re
from collections.abc import Sequence
from difflib import get_close_matches

FIRST_BYTES = 16 * 1024
"""Read of an object: more than the longest signature, and more than nearly all header lines."""

COUNTED_BYTES = 256 * 1024
"""Read of an object to count its rows: of a larger one they are estimated."""

HEADER_ROWS = 100
"""Among so many rows, the step scripts look for the header (pipeline/steps/tables.py)."""

PACKED = (b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"BZh")
"""How files begin whose columns do not stand in their first bytes as text."""

WORDS = (b"ORC", b"ARROW1")
"""Signatures that a text may begin with as well: they count if control characters follow."""

UNREADABLE = {
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel (.xls), or one with a password: save the sheet as CSV",
    b"%PDF": "a PDF document: export the table as CSV",
    b"\xfd7zXZ": "compressed with xz: compress it with gzip, or upload it unpacked",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: compress it with gzip, or upload it unpacked",
    b"\x04\x22\x4d\x18": "compressed with lz4: compress it with gzip, or upload it unpacked",
    b"7z\xbc\xaf": "a 7z archive: compress it with gzip, or upload it unpacked",
    b"Rar!": "a rar archive: compress it with gzip, or upload it unpacked",
    b"Obj\x01": "an Avro file: convert it to Parquet or CSV",
    b"ORC": "an ORC file: convert it to Parquet or CSV",
    b"\x89HDF": "an HDF5 file: convert it to Parquet or CSV",
    b"SQLite format 3": "a SQLite database: export the table as CSV",
    b"\x89PNG": "a picture: a table is needed",
    b"\xff\xd8\xff": "a picture: a table is needed",
    b"ARROW1": "an Arrow file: convert it to Parquet or CSV",
    b"\x80\x04\x95": "a Python pickle: save the table as CSV or Parquet",
    b"\x80\x05\x95": "a Python pickle: save the table as CSV or Parquet",
}


def objection(first: bytes, target: str) -> str | None:
    """Return why an object with these first bytes cannot be trained on ("is …", "has …"); None if it may be."""
    for signature, meaning in UNREADABLE.items():
        if first.startswith(signature) and (signature not in WORDS or min(first) < ord("\t")):
            return f"is {meaning}"
    return None if first.startswith(PACKED) or _UNNAMED.fullmatch(target) else _without_target(first, target)


def rows_of(first: bytes, size_bytes: int) -> int:
    """Return about how many lines an object of a size has, by its first bytes; 0 where they do not tell, as of
    compressed files.
    """
    if not first or first.startswith((*PACKED, *UNREADABLE)) or b"\0" in first:
        return 0
    is_whole = len(first) >= size_bytes
    lines = first.count(b"\n") + (is_whole and not first.endswith(b"\n"))
    return lines if is_whole else lines * size_bytes // len(first)


def absent_columns(first: bytes, columns: Sequence[str]) -> list[str]:
    """Return which columns an object certainly does not have, by its first bytes; none where they do not tell."""
    if first.startswith((*PACKED, *UNREADABLE)):
        return []
    named = [column for column in columns if not _UNNAMED.fullmatch(column)]
    return [column for column in named if _without_target(first, column) is not None]


_UNNAMED = re.compile("column [0-9]+")
"""How a column without a name is called, by its position."""


def _without_target(first: bytes, target: str) -> str | None:
    is_wide = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    texts = [first.decode(name, "replace") for name in (["utf-16"] if is_wide else ["utf-8-sig", "cp1252"])]
    lines = texts[0].splitlines()
    is_whole = len(first) < FIRST_BYTES
    # Of an object that goes on, the header must have ended. Each row is a line only where nothing is quoted.
    has_header = len(lines) > 2 if is_whole else len(lines) > HEADER_ROWS + 1 and '"' not in texts[0]
    is_json = texts[0].lstrip().startswith(("{", "["))
    if is_json or not has_header or '"' in target or any(target in text for text in texts):
        return None  # in a quoted name, quotes are written twice
    return f"has no column {target!r} to predict{_meant(lines, target)}"


def _meant(lines: Sequence[str], target: str) -> str:
    """Return a question with the names that are nearly the target, if a line looks like a header."""
    split = [[cell.strip('" ') for cell in line.split(mark)] for line in lines[:10] for mark in ",;\t|"]
    header = max(split, key=len)
    if len(set(header)) < len(header) or not all(header) or any(_NUMBER.fullmatch(cell) for cell in header):
        return "; is there a header line?"
    near = get_close_matches(target, header, n=3, cutoff=0.75)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


_NUMBER = re.compile("[-+]?[0-9][0-9.,eE+-]*")
