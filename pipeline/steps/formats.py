"""What a file is, by its content and not by its name, and its bytes without compression.

Recognised: text (CSV and its kin, JSON lines), Parquet, and each of them in gzip, bz2, or a zip archive of one
file; and Excel workbooks, which become CSV. Everything else that has a signature is refused by name.
"""

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from common import DataError
from workbook import is_workbook, sheet_to_csv

READ_BYTES = 1 << 20
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
"""The first bytes of files that are no table, or none that the steps' image can read."""

PACKED_IN_ZIP = {
    "xl/workbook.bin": "a binary Excel workbook (.xlsb)",
    "word/document.xml": "a Word document",
    "content.xml": "an OpenDocument file",
}
"""Members that only files of these kinds have."""

UNPACKERS: dict[bytes, tuple[str, Any]] = {b"\x1f\x8b": ("gzip", gzip.open), b"BZh": ("bz2", bz2.open)}
WORDS = (b"ORC", b"ARROW1", b"PAR1", b"BZh")
"""Signatures that a text may begin with as well: they count if control characters follow."""


class Content(NamedTuple):
    """What a file holds: the place of its unpacked bytes, and what was found out about them."""

    path: Path
    is_parquet: bool
    encoding: str
    """Of text, as Python names it."""

    notes: tuple[str, ...]
    """What the tenant should know about how the file was read."""


@contextmanager
def content(path: Path, folder: Path, limit: int) -> Iterator[Content]:
    """Yield what a file holds; its unpacked bytes, if it is compressed, are in the folder until the end.

    Raises DataError, naming the file, for what cannot be read, and for what unpacks to more than `limit` bytes.
    """
    notes = []
    unpacked = folder / "unpacked"
    source = path
    try:
        unpacked_from = _unpack(path, unpacked, limit)
        if unpacked_from:
            notes += unpacked_from
            source = unpacked
        first = _first_bytes(source)
        is_parquet = _has(first, b"PAR1")
        encoding = "" if is_parquet else _encoding(source, path.name, first)
        if encoding == "cp1252":
            notes.append("is not UTF-8: read as Windows-1252 (cp1252)")
        elif encoding == "utf-16":
            notes.append("read as UTF-16")
        yield Content(source, is_parquet, encoding, tuple(f"{path.name}: {note}" for note in notes))
    finally:
        unpacked.unlink(missing_ok=True)


def _has(first: bytes, signature: bytes) -> bool:
    return first.startswith(signature) and (signature not in WORDS or min(first) < ord("\t"))


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as raw:
        return raw.read(512)


def _unpack(path: Path, target: Path, limit: int) -> list[str]:
    """Write the bytes that a compressed file holds; return what to say about it, nothing if it is none."""
    first = _first_bytes(path)
    _refuse_unreadable(path.name, first)
    if first.startswith(b"PK\x03\x04"):
        return _unpack_zip(path, target, limit)
    for signature, (name, opened) in UNPACKERS.items():
        if _has(first, signature):
            try:
                with opened(path, "rb") as source:
                    _copy(source, target, path.name, limit)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(
                    f"{path.name} is broken {name}: compress it again, or upload it unpacked"
                ) from error
            _refuse_nested(path.name, target)
            return [f"unpacked from {name}"]
    return []


def _unpack_zip(path: Path, target: Path, limit: int) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if is_workbook(names):
                return sheet_to_csv(path, target, limit)
            for member, meaning in PACKED_IN_ZIP.items():
                if member in names:
                    raise DataError(f"{path.name} is {meaning}: save the table as CSV")
            files = [
                member
                for member in archive.infolist()
                if not member.is_dir() and not member.filename.startswith("__MACOSX/")
            ]
            if len(files) != 1:
                raise DataError(f"{path.name} is a zip archive of {len(files)} files: it must hold one table")
            if files[0].flag_bits & 1:
                raise DataError(f"{path.name} is a zip archive with a password: upload it without one")
            with archive.open(files[0]) as source:
                _copy(source, target, path.name, limit)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError, OSError) as error:
        raise DataError(f"{path.name} is a broken zip archive: pack it again, or upload it unpacked") from error
    _refuse_nested(path.name, target)
    return ["unpacked from a zip archive"]


def _copy(source: IO[bytes], target: Path, name: str, limit: int) -> None:
    written = 0
    with target.open("wb") as unpacked:
        while chunk := source.read(READ_BYTES):
            written += len(chunk)
            if written > limit:
                raise DataError(
                    f"{name} unpacks to more than {limit:,} bytes, more than the instance that was chosen by its "
                    "compressed size has memory for: upload it unpacked"
                )
            unpacked.write(chunk)


def _refuse_unreadable(name: str, first: bytes) -> None:
    for signature, meaning in UNREADABLE.items():
        if _has(first, signature):
            raise DataError(f"{name} is {meaning}")


def _refuse_nested(name: str, unpacked: Path) -> None:
    first = _first_bytes(unpacked)
    _refuse_unreadable(name, first)
    if first[257:262] == b"ustar":
        raise DataError(f"{name} holds a tar archive: upload its files as they are")
    if first.startswith((b"PK\x03\x04", *UNPACKERS)):
        raise DataError(f"{name} is compressed twice: compress it once")


def _encoding(path: Path, name: str, first: bytes) -> str:
    """Return the encoding of a text; raises DataError when it is no text. Reads all of it, piece by piece."""
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _decode(path, name, "utf-16")
        return "utf-16"
    if b"\0" in first:
        raise DataError(
            f"{name} is not a text: it has NUL bytes (UTF-16 is read if it begins with its byte order mark)"
        )
    try:
        _decode(path, name, "utf-8-sig")
    except UnicodeDecodeError:
        _refuse_broken_utf8(path, name)
        try:
            _decode(path, name, "cp1252")
        except UnicodeDecodeError as error:
            raise DataError(f"{name} is neither UTF-8 nor Windows-1252: save it as UTF-8") from error
        return "cp1252"
    return "utf-8-sig"


def _refuse_broken_utf8(path: Path, name: str) -> None:
    """Raise DataError for a text that is UTF-8 but for a few bytes: read otherwise, all accents were wrong."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    valid = broken = line = 0
    first_broken = 0
    with path.open("rb") as raw:
        while chunk := raw.read(READ_BYTES):
            text = decoder.decode(chunk)
            if not broken and "\ufffd" in text:
                first_broken = line + text[: text.index("\ufffd")].count("\n") + 1
            line += text.count("\n")
            broken += text.count("\ufffd")
            valid += len(text) - len(text.encode("ascii", "ignore")) - text.count("\ufffd")
    if valid > broken:
        raise DataError(f"{name} is UTF-8 with broken characters ({broken}, the first in line {first_broken})")


def _decode(path: Path, name: str, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as raw:
            while chunk := raw.read(READ_BYTES):
                text = decoder.decode(chunk)
                if "\0" in text:
                    raise DataError(f"{name} is not a text: it has NUL characters")
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise DataError(f"{name} begins like UTF-16 and is not: save it as UTF-8") from error
        raise
