"""What a request ran: its attempts with their steps, and what the job of a step printed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from trainyard.application.ports import ExecutionReports
from trainyard.domain.errors import ExecutionGone, Malformed, Refused
from trainyard.domain.executions import JobFacts, StepRecord
from trainyard.domain.requests import Request
from trainyard.persistence.book import Book
from trainyard.persistence.store import Cursor

LAST_LINES = timedelta(minutes=2)
"""How long after the end of an attempt its last lines may still arrive in CloudWatch Logs."""

DIGITS_MAX = 14
"""Of a number in a cursor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An execution of a request, as far as it is known."""

    number: int
    state: str
    """How it ended; of one that has not, the state of the request."""
    started_at: datetime | None
    ended_at: datetime | None
    """None while it runs."""
    cost_usd: Decimal | None
    """Of the steps whose cost is known; None while it runs."""
    unknown: int
    """Steps of which the cost is not known."""
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where the reading of a log goes on: at a time, after so many lines of the same millisecond."""

    milliseconds: int = 0
    skipped: int = 0

    @classmethod
    def parse(cls, cursor: Cursor | None, step: str) -> "tuple[LogPosition, int | None]":
        """Return the position that a cursor names, and its attempt; raises Malformed for one of another list."""
        if cursor is None:
            return cls(), None
        names = ("at", "skipped", "attempt")
        numbers = [str(cursor.get(name, "")) for name in names]
        if set(cursor) != {*names, "step"} or not all(_is_number(text) for text in numbers):
            raise Malformed("cursor: it was not issued for this list")
        if cursor["step"] != step:
            raise Malformed(f"cursor: it belongs to step {str(cursor['step'])[:64]}")
        at, skipped, attempt = map(int, numbers)
        return cls(at, skipped), attempt

    def cursor(self, step: str, attempt: int) -> Cursor:
        return {"at": str(self.milliseconds), "skipped": str(self.skipped), "step": step, "attempt": str(attempt)}


@dataclass(frozen=True, slots=True)
class LogLine:
    at: datetime
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some of the lines of a job, and where the next ones are, perhaps of what is not printed yet."""

    attempt: int
    lines: tuple[LogLine, ...]
    following: LogPosition | None
    """None where no more lines can come."""


class JobLogs(Protocol):
    """What jobs print."""

    def read(self, job: JobFacts, position: LogPosition, limit: int) -> tuple[list[LogLine], LogPosition, bool]:
        """Return lines from a position on, oldest first, at most `limit`; where the next ones will be; and whether
        that is the end at present.

        A line that arrives later than a younger one that was returned is not returned. A job without a log has no
        lines.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    book: Book
    reports: ExecutionReports
    logs: JobLogs

    def attempts(self, request: Request) -> list[Attempt]:
        """Return the attempts of a request, the first one first; from SageMaker where one is not recorded yet."""
        recorded = [
            Attempt(
                number=each.attempt,
                state=each.state.value,
                started_at=each.started_at,
                ended_at=each.ended_at,
                cost_usd=each.cost_usd,
                unknown=each.unknown,
                steps=each.steps,
            )
            for each in self.book.executions(request.request_id)
        ]
        is_recorded = any(each.number == request.attempt for each in recorded)
        if request.execution_arn is None or is_recorded:
            return recorded
        return [*recorded, *self._unrecorded(request, request.execution_arn)]

    def _unrecorded(self, request: Request, execution_arn: str) -> Iterator[Attempt]:
        try:
            report = self.reports.read(execution_arn)
        except ExecutionGone:
            return
        yield Attempt(
            number=request.attempt,
            state=request.state.value,
            started_at=report.started_at,
            ended_at=None,
            cost_usd=None,
            unknown=0,
            steps=tuple(
                StepRecord(step=step, seconds=None, cost_usd=None, is_final=False) for step in report.steps
            ),
        )

    def log(
        self, request: Request, step: str, number: int | None, position: LogPosition, *, limit: int, now: datetime
    ) -> LogPage:
        """Return lines that a step of an attempt printed, by default of the last one.

        Raises Refused where there is no such attempt, or where it has no such step with a job.
        """
        attempts = {each.number: each for each in self.attempts(request)}
        attempt = attempts.get(max(attempts, default=0) if number is None else number)
        if attempt is None:
            if not attempts:
                raise Refused("the request has no attempts yet")
            raise Refused(f"there is no attempt {number}; the request has {', '.join(map(str, attempts))}")
        jobs = {each.step.name: each.step.job for each in attempt.steps if each.step.job is not None}
        job = jobs.get(step)
        if job is None:
            raise Refused(f"attempt {attempt.number} has no step {step!r} with a log; {_choices(list(jobs))}")
        lines, following, is_end = self.logs.read(job, position, limit)
        is_over = attempt.ended_at is not None and now - attempt.ended_at > LAST_LINES
        return LogPage(
            attempt=attempt.number, lines=tuple(lines), following=None if is_over and is_end else following
        )


def _choices(names: list[str]) -> str:
    return f"there are {', '.join(names)}" if names else "none of its steps has one yet"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX
