"""What a job prints, sent to CloudWatch Logs as SageMaker does.

Each kind of job has a group, and each of its containers a stream.

Source: SageMaker developer guide, "CloudWatch Logs for Amazon SageMaker AI".
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LINE_BYTES_MAX = 262_144
"""Of one event; a longer line becomes several (CloudWatch Logs quotas)."""

EVENTS_MAX = 5_000
"""In one call; CloudWatch takes 10,000, or 1 MB."""

SECONDS_BETWEEN = 0.5


@dataclass
class JobLog:
    """Sends the lines of a file; without permission to write logs, a job runs on and leaves none, as on AWS."""

    logs: Any
    group: str
    job_name: str
    file: Path
    _position: int = 0
    _stream: str = ""
    _sent_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._position = self.file.stat().st_size if self.file.exists() else 0
        self._stream = f"{self.job_name}/algo-1-{int(time.time() * 1000)}"

    def send(self, *, last: bool = False) -> None:
        """Send the lines that were printed since the last call; the last one also without its line end."""
        now = time.monotonic()
        if not self.file.exists() or (now - self._sent_at < SECONDS_BETWEEN and not last):
            return
        created, self._sent_at = self._sent_at > 0, now
        with self.file.open("rb") as stream:
            stream.seek(self._position)
            printed = stream.read()
        whole = printed if last else printed[: printed.rfind(b"\n") + 1]
        self._position += len(whole)
        stamp = int(time.time() * 1000)
        events = [
            {"timestamp": stamp, "message": part.decode("utf-8", "replace")}
            for line in whole.split(b"\n")
            for part in (line[at : at + LINE_BYTES_MAX] for at in range(0, len(line), LINE_BYTES_MAX))
        ]
        with suppress(Exception):
            if not created:
                with suppress(Exception):  # it may exist
                    self.logs.create_log_group(logGroupName=self.group)
                self.logs.create_log_stream(logGroupName=self.group, logStreamName=self._stream)
            for at in range(0, len(events), EVENTS_MAX):
                self.logs.put_log_events(
                    logGroupName=self.group,
                    logStreamName=self._stream,
                    logEvents=events[at : at + EVENTS_MAX],
                )
