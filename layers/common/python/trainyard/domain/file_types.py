"""Files that are no table, by their first bytes: refused before a job is paid for.

The step scripts refuse the same files (pipeline/steps/formats.py), also among several and in archives.
"""

FIRST_BYTES = 16
"""As many as the longest signature has."""

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


def objection(first: bytes) -> str | None:
    """Return what a file with these first bytes is and what to do about it; None if it may be a table."""
    return next((meaning for signature, meaning in UNREADABLE.items() if first.startswith(signature)), None)
