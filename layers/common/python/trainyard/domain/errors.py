"""Errors, split by what the caller must do about them.

TrainyardError
├── Refused        tell the sender; trying again cannot help
├── Malformed      has no tenant or is invalid: dead-letter it
├── Throttled      try again later, nothing has happened
├── OutcomeUnknown something may have happened: keep the slot or the reservation
├── StartDelayed   SageMaker cannot start it now: back to the queue
│   ├── DataUnavailable  its data cannot be read now: counted, and in the end the request fails
│   └── QuotaReached   the account's limit of running executions is reached
├── ExecutionGone  the execution does not exist (any more)
├── InProgress     another change of the tenant is in progress: wait for it
├── StartInvalid   SageMaker will never start it: the request has failed
└── Conflict       somebody else was faster: read again and decide again
"""


class TrainyardError(Exception):
    """Something the service knows how to handle went wrong."""


class Refused(TrainyardError):
    """The request cannot be accepted; the message is the reason that the sender reads.

    `kind` is the category of the reason in a word or two, so that refusals can be counted.
    """

    def __init__(self, message: str, *, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class Malformed(TrainyardError):
    """The message is malformed or belongs to no tenant, so nobody can be notified."""


class Throttled(TrainyardError):
    """The platform asked us to slow down; the call had no effect."""


class OutcomeUnknown(TrainyardError):
    """The call may or may not have had an effect."""


class StartDelayed(TrainyardError):
    """SageMaker refused a start because of a quota, or during a deployment."""


class DataUnavailable(StartDelayed):
    """The storage did not answer in time, or denied access to the data; nothing was started."""


class QuotaReached(StartDelayed):
    """SageMaker refused a start because the account's limit of running executions is reached."""


class ExecutionGone(TrainyardError):
    """An execution does not exist: it was deleted with its pipeline, or never existed."""


class InProgress(TrainyardError):
    """Another change of the same tenant is under way."""


class StartInvalid(TrainyardError):
    """SageMaker refused a start permanently; the message is SageMaker's."""


class PipelineMissing(StartInvalid):
    """The deployment has no pipeline that takes the run's parameters; nothing was started."""


class Conflict(TrainyardError):
    """A condition of a write no longer holds, or others were writing; nothing was written.

    `failed` holds the positions of the writes whose conditions did not hold; none when others were writing.
    """

    def __init__(self, message: str, *, failed: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.failed = failed
