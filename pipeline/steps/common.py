"""What the step scripts share: reading CSV files with clear errors, and telling SageMaker why a step failed.

The scripts are plain script-mode Python: every path comes from an argument or an SM_* variable, as the
SageMaker scikit-learn container sets them, and nothing here knows about AWS.
"""

import csv
import sys
import tarfile
import traceback
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
    with path.open("rb") as raw:
        if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path.name} is UTF-16: save it as UTF-8")
    _check_text(path)
    try:
        return pd.read_csv(path, encoding="utf-8-sig", low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise DataError(f"{path.name} is not a CSV table: {' '.join(str(error).split())}") from error


def _check_text(path: Path) -> None:
    """Raise DataError for text that is not UTF-8, is empty, or opens a quote that it never closes.

    pandas takes what follows such a quote for one huge field. Reads line by line, however large the file.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            filled = sum(1 for row in csv.reader(lines, strict=True) if any(field.strip() for field in row))
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path.name} has broken quotes: {error}") from error
    if filled == 0:
        raise DataError(f"{path.name} is empty: a header line and rows are needed")


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract an archive, with the safe filter if this Python has it (3.11.4 and later)."""
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    archive.extractall(folder, **safely)  # noqa: S202


def run(step: Callable[[], None], failure_file: Path) -> None:
    """Run a step; on failure leave its last error line where SageMaker looks for it, and exit with 1.

    The message goes to receipts, logs and the event bus, and is kept longer than the data: it contains locations
    and counts, never values of rows. So for an unexpected error, neither message nor traceback has the error's
    own text, in which libraries quote what they could not read.
    """
    try:
        step()
    except DataError as error:
        _fail(str(error), failure_file)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        for frame in frames:
            print(f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}", file=sys.stderr)
        ours = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent] or frames
        where = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "the step"
        _fail(
            f"unexpected {type(error).__name__} in {where}: see the traceback in the job's log",
            failure_file,
        )


def _fail(message: str, failure_file: Path) -> None:
    print(message, file=sys.stderr)
    failure_file.parent.mkdir(parents=True, exist_ok=True)
    failure_file.write_text(message[:MESSAGE_LENGTH_MAX], encoding="utf-8")
    sys.exit(1)
