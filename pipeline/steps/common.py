"""What the step scripts share: reading CSV files with clear errors, and telling SageMaker why a step failed.

The scripts are plain script-mode Python: every path comes from an argument or an SM_* variable, as the
SageMaker scikit-learn container sets them, and nothing here knows about AWS.
"""

import csv
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

MESSAGE_LENGTH_MAX = 1024
"""Characters of a failure that SageMaker keeps (API reference, ExitMessage and FailureReason)."""


class DataError(Exception):
    """The tenant's data cannot be trained on; the message tells the tenant why, and what to do."""


def read_csv(path: Path) -> pd.DataFrame:
    """Return the table in a CSV file: UTF-8, a header line, rows of equal length.

    Raises DataError, naming the file and what is wrong with it.
    """
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path.name} is UTF-16: save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    if not text.strip():
        raise DataError(f"{path.name} is empty: a header line and rows are needed")
    _check_quotes(path.name, text)
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise DataError(f"{path.name} is not a CSV table: {' '.join(str(error).split())}") from error
    return table


def _check_quotes(name: str, text: str) -> None:
    """Raise DataError where a quote is opened and never closed, which pandas takes for one huge field."""
    try:
        for _ in csv.reader(text.splitlines(keepends=True), strict=True):
            pass
    except csv.Error as error:
        raise DataError(f"{name} has broken quotes: {error}") from error


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract an archive, safely where this Python knows how (3.11.4 and later)."""
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    archive.extractall(folder, **safely)  # noqa: S202


def run(step: Callable[[], None], failure_file: Path) -> None:
    """Run a step; on failure leave its last error line where SageMaker looks for it, and exit with 1."""
    try:
        step()
    except DataError as error:
        _fail(str(error), failure_file)
    except Exception as error:
        import traceback

        traceback.print_exc()
        _fail(f"{type(error).__name__}: {' '.join(str(error).split())}", failure_file)


def _fail(message: str, failure_file: Path) -> None:
    print(message, file=sys.stderr)
    failure_file.parent.mkdir(parents=True, exist_ok=True)
    failure_file.write_text(message[:MESSAGE_LENGTH_MAX], encoding="utf-8")
    sys.exit(1)
