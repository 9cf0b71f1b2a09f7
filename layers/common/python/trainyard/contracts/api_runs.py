"""What the HTTP API answers about what a request ran: attempts, steps, and logs."""

from collections.abc import Iterable
from datetime import datetime
from math import isfinite
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trainyard.application.api.runs import Attempt, LogPage
from trainyard.contracts.api import cursor_text
from trainyard.domain.executions import StepRecord
from trainyard.domain.receipts import without_account_number

LINE_CHARACTERS_MAX = 2_000
METRICS_MAX = 40

StepName = Annotated[
    str, StringConstraints(min_length=1, max_length=64), Field(description="Of a step that has a job")
]
AttemptNumber = Annotated[int, Field(ge=1, le=1000, description="The last one without")]
LineLimit = Annotated[int, Field(ge=1, le=1000, description="How many lines a page has at most")]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class MetricAnswer(_Answer):
    """What a training reported at its end."""

    name: str
    value: float | None
    """None for what is no finite number."""


class StepAnswer(_Answer):
    """A step of an attempt."""

    name: str
    status: Annotated[str, Field(description="As SageMaker calls it: `Executing`, `Succeeded`, `Failed`, …")]
    started_at: datetime | None
    ended_at: datetime | None
    failure: str | None
    has_log: Annotated[bool, Field(description="Whether it has a job, which may print something")]
    instance_type: str | None
    instance_count: int | None
    is_spot: bool
    seconds: Annotated[int | None, Field(description="Billable, of each instance; null while it is not known")]
    usd: Annotated[str | None, Field(description="At list prices; null while it is not known")]
    saved_usd: Annotated[str, Field(description="What spot instances saved")]
    remarks: Annotated[list[str], Field(description="What is odd about it")]
    metrics: list[MetricAnswer]


class AttemptAnswer(_Answer):
    """An execution of a request."""

    attempt: int
    state: Annotated[str, Field(description="How it ended; of one that runs, the state of the request")]
    started_at: datetime | None
    ended_at: datetime | None
    usd: Annotated[str | None, Field(description="Of the steps whose cost is known; null while it runs")]
    unknown_steps: Annotated[int, Field(description="Steps of which the cost is not known, and not in `usd`")]
    steps: list[StepAnswer]


class AttemptList(_Answer):
    """The executions of a request, the first one first."""

    items: list[AttemptAnswer]


class LineAnswer(_Answer):
    at: datetime
    text: str


class LogAnswer(_Answer):
    """Some of the lines that a step printed."""

    attempt: Annotated[int, Field(description="The attempt that they are of")]
    items: list[LineAnswer]
    next: Annotated[
        str | None,
        Field(description="The cursor of what follows, perhaps later; null where no more lines can come"),
    ]


def attempts_of(attempts: Iterable[Attempt]) -> AttemptList:
    return AttemptList(
        items=[
            AttemptAnswer(
                attempt=each.number,
                state=each.state,
                started_at=each.started_at,
                ended_at=each.ended_at,
                usd=None if each.cost_usd is None else f"{each.cost_usd:f}",
                unknown_steps=each.unknown,
                steps=[_step(record) for record in each.steps],
            )
            for each in attempts
        ]
    )


def log_of(page: LogPage, step: str) -> LogAnswer:
    """Return lines as their tenant may see them: shortened, and without what names the account."""
    return LogAnswer(
        attempt=page.attempt,
        items=[
            LineAnswer(at=line.at, text=without_account_number(line.text, LINE_CHARACTERS_MAX))
            for line in page.lines
        ],
        next=cursor_text(page.following.cursor(step, page.attempt)) if page.following else None,
    )


def _step(record: StepRecord) -> StepAnswer:
    step, job = record.step, record.step.job
    return StepAnswer(
        name=step.name,
        status=step.status,
        started_at=step.started_at,
        ended_at=step.ended_at,
        failure=without_account_number(step.failure) if step.failure else None,
        has_log=job is not None,
        instance_type=job.instance_type if job else None,
        instance_count=job.instance_count if job else None,
        is_spot=job.spot if job else False,
        seconds=record.seconds,
        usd=None if record.cost_usd is None else f"{record.cost_usd:f}",
        saved_usd=f"{record.saved_usd:f}",
        remarks=[without_account_number(flag) for flag in record.flags],
        metrics=[
            MetricAnswer(name=name[:100], value=value if isfinite(value) else None)
            for name, value in (job.metrics if job else ())[:METRICS_MAX]
        ],
    )
