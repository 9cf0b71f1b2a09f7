"""What jobs printed: CloudWatch Logs, where SageMaker has a group for each kind of job, and a stream for each
container whose name begins with the job's (developer guide, "CloudWatch Logs for Amazon SageMaker AI").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.application.api.runs import LogLine, LogPosition
from trainyard.domain.executions import JobFacts
from trainyard.domain.prices import JobKind

GROUPS = {
    JobKind.TRAINING: "/aws/sagemaker/TrainingJobs",
    JobKind.PROCESSING: "/aws/sagemaker/ProcessingJobs",
    JobKind.TRANSFORM: "/aws/sagemaker/TransformJobs",
}
TAIL_EVENTS, STREAMS_MAX, PAGES_MAX = 40, 5, 3
LINE_CHARACTERS_MAX = 1_000
"""Of a line whose error is to be told."""


@dataclass(frozen=True, slots=True)
class Printed:
    """A line that a job printed."""

    event_id: str
    at: datetime
    text: str


def printed(job: JobFacts, *, since: datetime | None = None) -> Iterator[Printed]:
    """Yield what a job printed, oldest first, all of it or since a time; nothing for a job without a log.

    A page may be empty and not the last one (API reference, FilterLogEvents).
    """
    request: dict[str, Any] = {"logGroupName": GROUPS[job.kind], "logStreamNamePrefix": _streams(job)}
    if since is not None:
        request["startTime"] = int(since.timestamp() * 1000)
    while True:
        try:
            page = client("logs").filter_log_events(**request)
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return
            raise
        for event in page["events"]:
            yield Printed(event["eventId"], _when(event), event["message"].rstrip("\r\n"))
        if "nextToken" not in page:
            return
        request["nextToken"] = page["nextToken"]


FILTER_PAGES_MAX = 20
"""Of one call: a page may be empty and not the last one."""
EVENTS_MAX = 10_000
"""Of a page (API reference, FilterLogEvents)."""
BEFORE_START = timedelta(minutes=10)
"""How long before a job's start, as SageMaker tells it, its log is looked for: clocks differ."""


class CloudWatchJobLogs:
    """Implements JobLogs. It goes on from a time, and not by CloudWatch's token, which is valid for a day."""

    def read(self, job: JobFacts, position: LogPosition, limit: int) -> tuple[list[LogLine], LogPosition, bool]:
        wanted = min(position.skipped + limit, EVENTS_MAX)
        events, is_end = self._events(job, position.milliseconds or _begin(job), wanted)
        lines = events[position.skipped :]
        if not lines:
            # So many lines of one millisecond cannot be told apart by their time: the rest of them is left out.
            at_limit = not is_end and position.skipped >= EVENTS_MAX
            return [], LogPosition(position.milliseconds + 1) if at_limit else position, is_end
        latest = int(lines[-1]["timestamp"])
        following = LogPosition(latest, sum(int(event["timestamp"]) == latest for event in events))
        return [LogLine(_when(event), event["message"].rstrip("\r\n")) for event in lines], following, is_end

    def _events(self, job: JobFacts, begin: int, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Return events from a time on, oldest first, and whether these are all; [] for a job without a log."""
        events: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        for _ in range(FILTER_PAGES_MAX):
            try:
                with translated():
                    page = client("logs").filter_log_events(
                        logGroupName=GROUPS[job.kind],
                        logStreamNamePrefix=_streams(job),
                        startTime=begin,
                        limit=limit - len(events),
                        **token,
                    )
            except ClientError as error:
                if code_of(error) == "ResourceNotFoundException":
                    return [], True
                raise
            events += page["events"]
            if "nextToken" not in page:
                return events, len(events) < limit
            if len(events) >= limit:
                break
            token = {"nextToken": page["nextToken"]}
        return events, False


def _begin(job: JobFacts) -> int:
    """Return from when on a job may have printed something: its group has the logs of all jobs of the account."""
    return int((job.started_at - BEFORE_START).timestamp() * 1000) if job.started_at else 0


def _when(event: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(event["timestamp"] / 1000, UTC)


def last_lines(job: JobFacts) -> list[str]:
    """Return the last lines of each container of a job, oldest first and each cut to a bounded length; [] if
    unknown.

    A few short calls that are not repeated: the end of a run does not wait for its log.
    """
    logs, group = client("logs", hurried=True), GROUPS[job.kind]
    try:
        streams = logs.describe_log_streams(
            logGroupName=group, logStreamNamePrefix=_streams(job), limit=STREAMS_MAX
        )["logStreams"]
        events = [event for stream in streams for event in _last_events(logs, group, stream["logStreamName"])]
    except (ClientError, BotoCoreError):
        return []
    events.sort(key=lambda event: int(event["timestamp"]))
    return [str(event["message"])[:LINE_CHARACTERS_MAX] for event in events]


def _last_events(logs: Any, group: str, stream: str) -> list[dict[str, Any]]:
    """Return the last events of a stream; an empty page need not be the last (API reference, GetLogEvents)."""
    token: dict[str, str] = {}
    for _ in range(PAGES_MAX):
        page = logs.get_log_events(
            logGroupName=group, logStreamName=stream, limit=TAIL_EVENTS, startFromHead=False, **token
        )
        if page["events"] or page.get("nextBackwardToken") in (None, token.get("nextToken")):
            return list(page["events"])
        token = {"nextToken": page["nextBackwardToken"]}
    return []


def _streams(job: JobFacts) -> str:
    """Return what the names of a job's log streams begin with; of a tuning, those of all its trials."""
    return job.arn.rpartition("/")[2] + ("-" if job.trials else "/")
