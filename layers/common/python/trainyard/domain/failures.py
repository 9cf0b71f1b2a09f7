"""Why a run failed: through its own fault, or for a transient cause; derived from SageMaker's messages.

SageMaker describes a failed step in prose. If the job could not be created, the text contains the service's own
message, followed by a trailer that names the exception type; both were recorded on real accounts:

    ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: The account-level service limit
    'ml.m5.large for training job usage' is 0 Instances, … Retry not appropriate on execution of step with
    PipelineExecutionArn <arn> and StepId <name>. No retry policy configured for the exception type
    SAGEMAKER_RESOURCE_LIMIT.
"""

import re
from collections.abc import Sequence
from enum import StrEnum


class FailureCause(StrEnum):
    """Whose fault a failure is. Exception types: SageMaker developer guide, "Retry Policy for Pipeline Steps"."""

    RUN = "run"
    """The run's own: its data, its script, its settings. Trying again would fail again."""
    RESOURCE_LIMIT = "resource limit"
    """A quota of the account is used up."""
    CAPACITY = "capacity"
    """SageMaker has no such instance now."""
    INTERNAL = "internal error"
    """SageMaker's own fault."""
    THROTTLING = "throttling"
    """SageMaker was asked too often."""
    INTERRUPTION = "interruption"
    """It was to train on spot capacity, which was taken away or missing (see STOPPED_EARLY)."""

    @property
    def passes(self) -> bool:
        """Whether a later attempt may succeed unchanged."""
        return self is not FailureCause.RUN


_PHRASES = {
    FailureCause.RESOURCE_LIMIT: r"SAGEMAKER_RESOURCE_LIMIT|ResourceLimitExceeded|account-level service limit",
    FailureCause.CAPACITY: (
        r"SAGEMAKER_CAPACITY_ERROR|CapacityError|InsufficientCapacity|"
        r"Unable to provision requested ML compute capacity"
    ),
    FailureCause.INTERNAL: (
        r"SAGEMAKER_JOB_INTERNAL_ERROR|Step\.SERVICE_FAULT|InternalServerE|InternalFailure|ServiceUnavailable|"
        r"We encountered an internal error"
    ),
    FailureCause.THROTTLING: r"Step\.THROTTLING|ThrottlingException|TooManyRequests|Rate exceeded",
}
_CAUSES = {cause: re.compile(phrases, re.IGNORECASE) for cause, phrases in _PHRASES.items()}
STOPPED_EARLY = {
    "MaxWaitTimeExceeded": (
        FailureCause.INTERRUPTION,
        "spot capacity was missing, or was taken away, for longer than the run may wait (MaxWaitTimeExceeded)",
    ),
    "Interrupted": (FailureCause.INTERRUPTION, "its spot capacity was taken away (Interrupted)"),
    "MaxRuntimeExceeded": (FailureCause.RUN, "it did not end within its maximum runtime (MaxRuntimeExceeded)"),
}
"""Secondary status of a training job that SageMaker has stopped by itself → cause, and what it means (API
reference, DescribeTrainingJob). Such a job is Stopped, as one that somebody has stopped, and gives no reason."""

TRIALS_TOO_SHORT = (
    "each trial was stopped at its maximum runtime before it had measured a model: ask for fewer trials, or for "
    "more time"
)

_SCRIPTS_OWN = re.compile(r"AlgorithmError\b")
"""After this class comes the message of the job's own script, which may contain anything."""
_TRAILER = re.compile(
    r"\s*Retry not appropriate on execution of step with PipelineExecutionArn \S+ and StepId \S+"
    r"(?:\s*No retry policy configured for the exception type \S+)?"
)


OUT_OF_MEMORY = "out of memory"
_KILLED = re.compile(r"exit ?code:? *\(?(137|-9)\b|Signals\.SIGKILL|instance type with more memory", re.I)
"""What SageMaker and its training toolkit say of a container that the kernel has killed for its memory: 137 is 128
and SIGKILL."""

_NO_MEMORY = re.compile(r"(?:^|: )unexpected MemoryError in ")
"""What our scripts say when Python could allocate no more."""


def is_out_of_memory(words: str, said: str = "") -> bool:
    """Tell whether a job lacked memory, from SageMaker's words and from what its script said, if it did."""
    return (_NO_MEMORY if said else _KILLED).search(said or words) is not None or _NO_MEMORY.search(
        words
    ) is not None


_NOTHING = re.compile(
    r"(?:(?:AlgorithmError|ClientError|ExecuteUserScriptError|ExitCode|exit code)\b|[\W\d_])*"
    r"(?:(?:Please )?(?:See|Check|refer to) (?:the )?(?:job )?logs?\b.*)?",
    re.IGNORECASE | re.DOTALL,
)
"""A failure reason that names no reason: SageMaker's class of the error and an exit code."""

_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Interrupt|Exit)(?::.*)?")
"""The last line of a Python traceback."""

_TOOLKITS_OWN = re.compile(
    r"\d{4}-\d\d-\d\d \S+ sagemaker|ExecuteUserScriptError|ExitCode \d+|Command \"|Traceback \("
)
_OF_SAGEMAKER = re.compile(r"\S+:\[sagemaker logs\]: (?:[^/\s]+/)?")
"""What begins each line of a transform job's data log; the name of the object follows."""
LINE_MAX = 300
"""Characters of a reason that is taken from a log."""


def says_nothing(reason: str) -> bool:
    """Tell whether SageMaker's words about a failed job are no more than an exit code."""
    return _NOTHING.fullmatch(reason) is not None


def error_line(printed: Sequence[str]) -> str | None:
    """Return the line that says why a script failed: the last exception in its log, else its last line as such.

    `printed` is the end of its log, oldest first; None when there is no such line.
    """
    lines = [
        re.sub(r'^ErrorMessage "', "", line.strip()).rstrip('"') for text in printed for line in text.split("\n")
    ]
    data_log = [_OF_SAGEMAKER.sub("", line, count=1) for line in lines if _OF_SAGEMAKER.match(line)]
    if data_log:
        # The model server has put the words of the script into JSON, which may be cut.
        return data_log[-1].replace(': {"error": "', ": ", 1).removesuffix('"}')[:LINE_MAX]
    own = [line for line in lines if line and not _TOOLKITS_OWN.match(line)]
    exceptions = [line for line in own if _EXCEPTION.fullmatch(line)]
    if exceptions:
        return exceptions[-1][:LINE_MAX]
    return f"the last line that it printed: {own[-1][:LINE_MAX]}" if own else None


def cause_of(words: str) -> FailureCause:
    """Return the cause of a failure, from SageMaker's message anywhere in the text.

    A script's message, which follows "AlgorithmError", is ignored.
    """
    service = _SCRIPTS_OWN.split(words, maxsplit=1)[0]
    return next((cause for cause, phrases in _CAUSES.items() if phrases.search(service)), FailureCause.RUN)


_VARYING = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|\b[0-9a-f]{8,}\b|\b\d+(?:[.,]\d+)*\b")


def kind_of_reason(reason: str) -> str:
    """Return a reason without what varies among those who share it: quoted names, ids and numbers."""
    return _VARYING.sub("…", reason)


def without_trailer(words: str) -> str:
    """Return a failure reason without the trailer about retries, which names the account's pipeline."""
    return _TRAILER.sub("", words).strip()
