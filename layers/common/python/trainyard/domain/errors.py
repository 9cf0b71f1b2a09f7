"""Errors, split by what the caller must do about them.

TrainyardError
├── Refused        tell the sender; trying again cannot help
├── Malformed      has no tenant or no sense: dead-letter it
├── Throttled      try again later, nothing has happened
├── OutcomeUnknown something may have happened: keep what was promised
├── StartDelayed   SageMaker cannot start it now: back to the queue
│   ├── DataUnavailable  its data cannot be looked at now: counted, and in the end the request fails
│   └── QuotaReached   it runs as many executions as it will
├── ExecutionGone  SageMaker does not know the execution (any more)
├── InProgress     another change of the tenant is under way: wait for it
├── StartInvalid   SageMaker will never start it: the request has failed
└── Conflict       somebody else was faster: read again and decide again
"""


class TrainyardError(Exception):
    """Something the service knows how to handle went wrong."""


class Refused(TrainyardError):
    """The request cannot be accepted; the message is the reason that the sender reads.

    `kind` says the same in a word or two, the same for every sender, so that refusals can be counted.
    """

    def __init__(self, message: str, *, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class Malformed(TrainyardError):
    """The message is malformed or belongs to no tenant, so nobody can be told."""


class Throttled(TrainyardError):
    """The platform asked us to slow down; the call had no effect."""


class OutcomeUnknown(TrainyardError):
    """The call may or may not have had an effect."""


class StartDelayed(TrainyardError):
    """SageMaker refused a start for want of quota, or while a deployment is under way."""


class DataUnavailable(StartDelayed):
    """The storage of the data did not answer in time, or did not let it be looked at; nothing was started."""


class QuotaReached(StartDelayed):
    """SageMaker refused a start since the account runs as many executions as it may."""


class ExecutionGone(TrainyardError):
    """SageMaker does not know an execution: it was deleted with its pipeline, or never was."""


class InProgress(TrainyardError):
    """Another change of the same tenant is under way."""


class StartInvalid(TrainyardError):
    """SageMaker refused a start for good; the message carries its words."""


class Conflict(TrainyardError):
    """A condition of a write no longer holds, or others were writing; nothing was written.

    `failed` holds the positions of the writes whose conditions did not hold; none when others were writing.
    """

    def __init__(self, message: str, *, failed: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.failed = failed
