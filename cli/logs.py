"""What the steps of a request printed, from CloudWatch Logs; the same on AWS and in the local cloud."""

import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import say, show_line
from trainyard.adapters.aws.job_logs import Printed, last_lines, printed
from trainyard.adapters.aws.sagemaker import SageMakerExecutionReports
from trainyard.domain.errors import ExecutionGone, Refused, TrainyardError
from trainyard.domain.executions import JobFacts, StepFacts
from trainyard.domain.requests import TERMINAL, Request, State

SECONDS_BETWEEN_LOOKS = 2.0
LAST_LINES_SECONDS = 10.0
"""How long a follower waits for lines of a request that has ended: SageMaker sends the last ones after the end."""

LATE = timedelta(seconds=30)
"""How far back a look reaches: CloudWatch shows lines some seconds late, and not in their order."""


def logs(deployment: Deployment, arguments: Arguments) -> Answer | None:
    """Print what the steps of a request's last attempt, or of an earlier one, printed."""
    request = deployment.request(arguments.request_id)
    printer = _Printer(arguments.step, as_json=arguments.as_json, tail=arguments.tail)
    if arguments.follow:
        if arguments.attempt is not None:
            raise Refused("--follow follows the last attempt: it does not go with --attempt")
        _follow(deployment, request, printer)
        return None
    steps = _steps(deployment, request, arguments.attempt)
    printer.check(steps)
    for step, job in printer.wanted(steps):
        printer.show(step, job)
    if not printer.lines:
        raise Refused(_nothing(request, arguments, steps))
    return None


def step_now(deployment: Deployment, request: Request) -> StepFacts | None:
    """Return the step that a running request is at; None when SageMaker does not tell, or is between two steps."""
    try:
        steps = _steps(deployment, request, None)
    except (TrainyardError, ClientError, BotoCoreError):
        return None
    return next((step for step in reversed(steps) if step.started_at and not step.ended_at), None)


def tail_of_failure(deployment: Deployment, request: Request) -> list[str]:
    """Return the last lines that the failed step of a request printed; [] where none are known."""
    name = request.outcome.failed_step if request.outcome else None
    return [
        line.rstrip().expandtabs()
        for step in _steps(deployment, request, None)
        if step.name == name and step.job
        for text in last_lines(step.job)[-TAIL_LINES:]
        for line in text.splitlines()
    ][-TAIL_LINES:]


TAIL_LINES = 10


@dataclass
class _Printer:
    """Prints lines of jobs, each once, and which step they come from if several do."""

    step: str | None
    as_json: bool
    tail: int | None = None
    lines: int = 0
    _seen: dict[str, datetime] = field(default_factory=dict)
    """Lines that were printed, by their event's id."""
    _latest: dict[str, datetime] = field(default_factory=dict)

    def check(self, steps: list[StepFacts]) -> None:
        """Raise Refused where the step that was asked for is none of those that had a job."""
        names = [step.name for step in steps if step.job]
        if self.step and steps and self.step.lower() not in {name.lower() for name in names}:
            raise Refused(f"there is no step {self.step!r} with a job; there are {', '.join(names) or 'none yet'}")

    def wanted(self, steps: list[StepFacts]) -> Iterator[tuple[StepFacts, JobFacts]]:
        """Yield the steps that have a job, or the one that was asked for."""
        for step in steps:
            if step.job and (not self.step or self.step.lower() == step.name.lower()):
                yield step, step.job

    def show(self, step: StepFacts, job: JobFacts) -> None:
        """Print what a job has printed since the last call."""
        latest = self._latest.get(job.arn)
        lines: Iterator[Printed] = (
            line for line in printed(job, since=latest and latest - LATE) if line.event_id not in self._seen
        )
        if self.tail and latest is None:  # of what was printed before; what follows is shown whole
            lines = iter(deque(lines, maxlen=self.tail))
        for line in lines:
            self._print(step, line)
            self._seen[line.event_id] = line.at
            self._latest[job.arn] = max(line.at, self._latest.get(job.arn, line.at))
        oldest = min(self._latest.values(), default=None)
        if oldest is not None:  # earlier ones are not read again
            self._seen = {name: at for name, at in self._seen.items() if at >= oldest - LATE}

    def _print(self, step: StepFacts, line: Printed) -> None:
        self.lines += 1
        if self.as_json:
            show_line(json.dumps({"step": step.name, "at": line.at.isoformat(), "message": line.text}))
        else:
            text = line.text.expandtabs()
            show_line(text if self.step else f"{step.name} | {text}")


def _follow(deployment: Deployment, request: Request, printer: _Printer) -> None:
    """Print lines as they come, until the request has ended and CloudWatch had time to show the last ones."""
    state: State | None = None
    ended_at: float | None = None
    while True:
        if request.state is not state:
            state = request.state
            reason = f": {request.reason}" if request.reason else ""
            say(f"{request.request_id[:8]} is {state.value}{reason}")
        steps = _steps(deployment, request, None)
        before = printer.lines
        for step, job in printer.wanted(steps):
            printer.show(step, job)
        if request.state in TERMINAL:
            printer.check(steps)
            ended_at = ended_at or time.monotonic()
            if printer.lines == before and time.monotonic() - ended_at >= LAST_LINES_SECONDS:
                return
        time.sleep(SECONDS_BETWEEN_LOOKS)
        request = deployment.request(request.request_id)


def _steps(deployment: Deployment, request: Request, attempt: int | None) -> list[StepFacts]:
    """Return the steps of an attempt, by default the last: from SageMaker, or from our record."""
    if attempt in (None, request.attempt) and request.execution_arn:
        deployment.region  # noqa: B018 - settles the Region of all clients
        try:
            return list(SageMakerExecutionReports().read(request.execution_arn).steps)
        except ExecutionGone:
            pass
    records = deployment.book.executions(request.request_id)
    wanted = [record for record in records if attempt in (None, record.attempt)]
    if attempt is not None and not wanted:
        attempts = ", ".join(str(record.attempt) for record in records) or "none yet"
        raise Refused(f"there is no record of attempt {attempt}; there are: {attempts}")
    return [record.step for record in wanted[-1].steps] if wanted else []


def _nothing(request: Request, arguments: Arguments, steps: list[StepFacts]) -> str:
    """Return why there is no log."""
    short = request.request_id[:8]
    whose = f"request {short}"
    if not steps and request.state in (State.QUEUED, State.ADMITTED):
        return f"{whose} has printed nothing yet: it is {request.state.value} (trainyard why {short})"
    if not any(step.job for step in steps):
        return f"{whose} ran no job: it is {request.state.value} (trainyard why {short})"
    return (
        f"{whose} has no log{f' of {arguments.step}' if arguments.step else ''}: its jobs printed nothing yet, or "
        "CloudWatch has deleted it (the groups /aws/sagemaker/ProcessingJobs and TrainingJobs have a retention)"
    )
