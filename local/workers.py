"""The processes in which the local cloud runs functions, as listed by Linux."""

from collections.abc import Iterator
from pathlib import Path

from local.cloud import Cloud


def workers(cloud: Cloud, stack: str) -> Iterator[tuple[int, str]]:
    """Yield the process ID and the function name of each worker."""
    server = cloud.process_id
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != server:
            try:
                status = (entry / "status").read_text()
                environment = (entry / "environ").read_bytes()
            except OSError:  # it has just ended
                continue
            if f"PPid:\t{server}\n" in status and b"AWS_LAMBDA_FUNCTION_NAME=" in environment:
                name = environment.split(b"AWS_LAMBDA_FUNCTION_NAME=")[1].split(b"\0")[0].decode()
                yield int(entry.name), name.removeprefix(f"{stack}-").partition("Function")[0]


def memory_mb(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def open_files(process: int) -> int:
    try:
        return len(list(Path(f"/proc/{process}/fd").iterdir()))
    except OSError:
        return 0
