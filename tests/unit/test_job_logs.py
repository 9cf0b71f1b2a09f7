"""Job logs as CloudWatch gives them: in pages that may be empty, and from groups that may not exist."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from trainyard.adapters.aws import job_logs
from trainyard.application.api.runs import LogPosition
from trainyard.domain.errors import Throttled
from trainyard.domain.executions import JobFacts
from trainyard.domain.prices import JobKind

ARN = "arn:aws:sagemaker:us-east-1:123456789012:training-job/pipelines-abc-Train-1"
JOB = JobFacts(kind=JobKind.TRAINING, arn=ARN, status="Failed")
NO_GROUP = ClientError(
    {"Error": {"Code": "ResourceNotFoundException", "Message": "no such group"}}, "FilterLogEvents"
)
DENIED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "FilterLogEvents")


class Logs:
    """Answers with pages or errors, in order, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def _answer(self, **request: Any) -> Any:
        self.asked.append(dict(request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    filter_log_events = describe_log_streams = get_log_events = _answer


def event(number: int, text: str = "") -> dict[str, Any]:
    return {"eventId": str(number), "timestamp": 1_795_832_922_000 + number, "message": text or f"line {number}\n"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    def given(*pages: Any) -> Logs:
        logs = Logs(*pages)
        monkeypatch.setattr(job_logs, "client", lambda *_, **__: logs)
        return logs

    return given


def test_an_empty_page_is_not_the_end(answers: Any) -> None:
    logs = answers(
        {"events": [], "nextToken": "1"},
        {"events": [event(1)], "nextToken": "2"},
        {"events": [event(2)]},
    )
    assert [line.text for line in job_logs.printed(JOB)] == ["line 1", "line 2"]
    assert logs.asked[0]["logGroupName"] == "/aws/sagemaker/TrainingJobs"
    assert logs.asked[0]["logStreamNamePrefix"] == "pipelines-abc-Train-1/", "not of Train-10 too"
    assert [request.get("nextToken") for request in logs.asked] == [None, "1", "2"]


def test_only_lines_since_a_time_are_asked_for(answers: Any) -> None:
    logs = answers({"events": []})
    assert list(job_logs.printed(JOB, since=datetime(2026, 11, 28, tzinfo=UTC))) == []
    assert logs.asked[0]["startTime"] == 1_795_824_000_000


def test_a_group_that_does_not_exist_is_an_empty_log_and_other_errors_are_told(answers: Any) -> None:
    answers(NO_GROUP)
    assert list(job_logs.printed(JOB)) == []
    answers(DENIED)
    with pytest.raises(ClientError):
        list(job_logs.printed(JOB))


def test_the_end_of_a_run_does_not_wait_for_its_log(answers: Any) -> None:
    for error in (NO_GROUP, DENIED, ReadTimeoutError(endpoint_url="logs")):
        answers(error)
        assert job_logs.last_lines(JOB) == []
    answers({"logStreams": []})
    assert job_logs.last_lines(JOB) == []


def test_the_end_of_each_container_is_read_and_long_lines_are_cut(answers: Any) -> None:
    streams = [{"logStreamName": f"pipelines-abc-Train-1/algo-{n}-17"} for n in (1, 2)]
    logs = answers({"logStreams": streams}, {"events": [event(2, "x" * 5000)]}, {"events": [event(1)]})
    assert job_logs.last_lines(JOB) == ["line 1\n", "x" * 1000], "by their time"
    assert [request["logStreamName"][-9:] for request in logs.asked[1:]] == ["/algo-1-17"[1:], "/algo-2-17"[1:]]
    assert all(request["startFromHead"] is False for request in logs.asked[1:])


def test_an_empty_page_at_the_end_of_a_log_is_followed_back(answers: Any) -> None:
    streams = {"logStreams": [{"logStreamName": "pipelines-abc-Train-1/algo-1-17"}]}
    answers(
        streams, {"events": [], "nextBackwardToken": "b/1"}, {"events": [event(1)], "nextBackwardToken": "b/2"}
    )
    assert job_logs.last_lines(JOB) == ["line 1\n"]
    empty = {"events": [], "nextBackwardToken": "b/1"}
    answers(streams, empty, empty)
    assert job_logs.last_lines(JOB) == [], "the same token again is the beginning"


def page(*events: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    return {"events": list(events)} | ({"nextToken": token} if token else {})


def test_a_page_of_a_log_goes_on_where_the_last_one_ended(answers: Any) -> None:
    same = event(2) | {"eventId": "2b", "message": "again\n"}
    logs = answers(
        page(token="1"),
        page(event(1), token="2"),
        page(event(2), same),
        page(event(2), same, event(3)),
        page(event(3)),
    )
    reader, millisecond = job_logs.CloudWatchJobLogs(), event(2)["timestamp"]
    lines, following, is_end = reader.read(JOB, LogPosition(), 3)
    assert [line.text for line in lines] == ["line 1", "line 2", "again"]
    assert (following, is_end) == (LogPosition(millisecond, 2), False)
    lines, following, is_end = reader.read(JOB, following, 3)
    assert ([line.text for line in lines], is_end) == (["line 3"], True), "none is read twice"
    assert reader.read(JOB, following, 3) == ([], following, True)
    first, second, third, after, _ = logs.asked
    assert (first["limit"], third["limit"], "nextToken" in first) == (3, 2, False)
    assert (second["nextToken"], third["nextToken"]) == ("1", "2")
    assert (after["startTime"], after["limit"]) == (millisecond, 5)
    assert first["logStreamNamePrefix"] == "pipelines-abc-Train-1/"


def test_a_log_is_looked_for_from_the_start_of_its_job_on(answers: Any) -> None:
    logs, started_at = answers(page(), page()), datetime(2026, 11, 29, 12, tzinfo=UTC)
    job_logs.CloudWatchJobLogs().read(replace(JOB, started_at=started_at), LogPosition(), 3)
    job_logs.CloudWatchJobLogs().read(JOB, LogPosition(), 3)
    begin = (started_at - job_logs.BEFORE_START).timestamp() * 1000
    assert [asked["startTime"] for asked in logs.asked] == [begin, 0]


def test_many_lines_of_one_millisecond_do_not_stop_the_reading(
    answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_logs, "EVENTS_MAX", 4)
    reader, at = job_logs.CloudWatchJobLogs(), event(1)["timestamp"]
    logs = answers(*(page(*([event(1)] * 4), token="x") for _ in range(3)), page(event(2)))
    _, following, _ = reader.read(JOB, LogPosition(), 4)
    assert following == LogPosition(at, 4)
    _, following, is_end = reader.read(JOB, following, 3)
    assert (following, is_end) == (LogPosition(at + 1), False)
    logs.answers.pop(0)
    assert [line.text for line in reader.read(JOB, following, 3)[0]] == ["line 2"]


def test_a_page_of_a_job_without_a_log_has_no_lines_and_endless_empty_pages_are_no_end(answers: Any) -> None:
    reader = job_logs.CloudWatchJobLogs()
    answers(NO_GROUP)
    assert reader.read(JOB, LogPosition(5, 1), 3) == ([], LogPosition(5, 1), True)
    logs = answers(*(page(token="x") for _ in range(100)))
    assert reader.read(JOB, LogPosition(), 3) == ([], LogPosition(), False)
    assert len(logs.asked) == job_logs.FILTER_PAGES_MAX
    answers(DENIED)
    with pytest.raises(ClientError):
        reader.read(JOB, LogPosition(), 3)
    answers(ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow"}}, "FilterLogEvents"))
    with pytest.raises(Throttled):
        reader.read(JOB, LogPosition(), 3)
