"""What the step scripts share: errors that the tenant reads, and telling SageMaker why a step failed.

The scripts are plain script-mode Python: every path comes from an argument or an SM_* variable, as the
SageMaker scikit-learn container sets them, and nothing here knows about AWS.
"""

import json
import math
import os
import sys
import tarfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

MESSAGE_LENGTH_MAX = 1024
"""Characters of a failure that SageMaker keeps (API reference, ExitMessage and FailureReason)."""


class DataError(Exception):
    """The tenant's data cannot be trained on; the message tells the tenant why, and what to do."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if there is not one."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def json_text(content: Any) -> str:
    """Return content as JSON, with null for numbers that JSON does not have."""
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


MEMORY_PER_BYTE = 6
"""Bytes of memory that a step needs at most per byte of text that it reads (`make memory`)."""

LIBRARIES_BYTES = 256_000_000
"""What the steps' libraries, and what is of the same size for each file, take of the memory."""


def table_bytes_max() -> int:
    """Return the bytes of the largest table that this machine has memory for."""
    return max(memory_bytes() - LIBRARIES_BYTES, 0) // MEMORY_PER_BYTE


def memory_bytes() -> int:
    """Return the memory of this machine: of the container's limit, if it has one, else all of it."""
    with suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
    warnings.showwarning = _warn
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


def _warn(_message: object, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """Print a warning without its text, in which libraries quote values."""
    print(f"{category.__name__} in {Path(filename).name}, line {lineno}", file=sys.stderr)


def _fail(message: str, failure_file: Path) -> None:
    print(message, file=sys.stderr)
    failure_file.parent.mkdir(parents=True, exist_ok=True)
    failure_file.write_text(message[:MESSAGE_LENGTH_MAX], encoding="utf-8")
    sys.exit(1)
