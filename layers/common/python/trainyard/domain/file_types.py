"""What the first bytes of an object tell: that it is no table, or has no column to predict.

Both are refused before a job is paid for. The step scripts refuse the same files (pipeline/steps), also among
several and in archives. Here, only what is certain is refused: a text whose first lines do not contain the name of
the column has no header with it.
"""

import codecs
from difflib import get_close_matches

FIRST_BYTES = 16 * 1024
"""Read of an object: more than the longest signature, and more than nearly all header lines."""

TABLES = (b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"BZh", b"{", b"[")
"""How files begin whose columns do not stand in their first bytes as a header."""

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
        if first.startswith(signature):
            return f"is {meaning}"
    if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(TABLES):
        return None
    return _without_target(first, target)


def _without_target(first: bytes, target: str) -> str | None:
    is_wide = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    texts = [first.decode(name, "replace") for name in (["utf-16"] if is_wide else ["utf-8-sig", "cp1252"])]
    lines = texts[0].splitlines()
    if len(lines) < 3 or '"' in target or any(target in text for text in texts):
        return None  # the header may not end here; in a quoted name, quotes are written twice
    header = max(([cell.strip('" ') for cell in lines[0].split(mark)] for mark in ",;\t|"), key=len)
    near = get_close_matches(target, header, n=3, cutoff=0.75)
    return f"has no column {target!r} to predict" + (
        f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    )
