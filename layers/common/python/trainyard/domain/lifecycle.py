"""What SageMaker's execution statuses mean for a request."""

from trainyard.domain.requests import State

_STATES = {
    "Executing": State.RUNNING,
    "Stopping": State.RUNNING,
    "Succeeded": State.SUCCEEDED,
    "Failed": State.FAILED,
    "CompletedWithFailures": State.FAILED,
    "Stopped": State.STOPPED,
}


def state_for_status(status: str) -> State | None:
    """Return the state that an execution status means, or None for a status we do not know.

    An unknown status is not terminal: treating it as an end would release a slot that is still in use.
    Statuses: SageMaker API, PipelineExecutionStatus.
    """
    return _STATES.get(status)


TELLING_STEP = "Record"
"""A training's last step, which reports what can also be derived from the other steps."""
TRANSFORM_STEP = "Transform"
"""The only step of a batch transform."""


def end_of(status: str, failed_step: str | None, *, registered: bool) -> State | None:
    """Return what a status means of a run: whose step failed, as far as is known, and whether it has a model.

    A run that has registered its model and could only not tell of it has succeeded: training again would cost as
    much again, and SageMaker tries no Lambda step twice (developer guide, "Retry Policy for Pipeline Steps"). The
    failure of that step may not be listed yet; no other one comes after registering.
    """
    state = state_for_status(status)
    only_telling = registered and failed_step in (None, TELLING_STEP)
    return State.SUCCEEDED if state is State.FAILED and only_telling else state
