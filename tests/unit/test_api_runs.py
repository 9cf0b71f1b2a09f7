"""The HTTP API: what a request ran, and what its steps printed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

import pytest

from tests.build import job, step
from tests.http_api import Api
from trainyard.application.ports import ExecutionReport
from trainyard.domain.errors import ExecutionGone
from trainyard.domain.executions import StepRecord
from trainyard.domain.requests import Request, State
from trainyard.entrypoints.api.runs import READS_MAX

ARN = "arn:aws:sagemaker:us-east-1:123456789012:training-job/pipelines-x-Train"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def path_of(added: Request, what: str) -> str:
    return f"/v1/tenants/acme/requests/{added.request_id}/{what}"


def test_the_attempts_of_a_request_are_those_recorded_and_the_one_that_runs(api: Api) -> None:
    added = api.put(1, state=State.RUNNING, attempt=2, execution_arn="arn:execution/2")
    failed = step(status="Failed", failure=f"no access to {ARN}", job=job(status="Failed", metrics=(("a", inf),)))
    record = StepRecord(step=failed, seconds=60, cost_usd=None, flags=("its end time is missing",))
    api.record(replace(added, attempt=1), state=State.FAILED, steps=(record,), unknown=1)
    api.reports.report = ExecutionReport(steps=(step(status="Executing", job=job(status="InProgress")),))
    status, shown = api.get(path_of(added, "attempts"))
    assert status == 200
    first, second = shown["items"]
    assert (first["attempt"], first["state"], first["usd"], first["unknown_steps"]) == (1, "FAILED", "0.05", 1)
    (ran,) = first["steps"]
    assert (ran["seconds"], ran["usd"], ran["remarks"]) == (60, None, ["its end time is missing"])
    assert "123456789012" not in ran["failure"]
    assert ran["metrics"] == [{"name": "a", "value": None}]
    assert (second["attempt"], second["state"], second["ended_at"], second["usd"]) == (2, "RUNNING", None, None)
    assert [(each["status"], each["has_log"], each["seconds"]) for each in second["steps"]] == [
        ("Executing", True, None)
    ]


def test_an_execution_that_sagemaker_has_forgotten_has_no_attempt(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = api.put(1, state=State.RUNNING, attempt=1, execution_arn="arn:execution/1")

    def gone(_: str) -> ExecutionReport:
        raise ExecutionGone("it is gone")

    monkeypatch.setattr(api.reports, "read", gone)
    assert api.get(path_of(added, "attempts")) == (200, {"items": []})


def test_a_log_is_read_page_by_page_and_goes_on_while_the_request_runs(api: Api) -> None:
    added = api.put(1, state=State.RUNNING, attempt=1, execution_arn="arn:execution/1")
    api.reports.report = ExecutionReport(steps=(step(), step("Check", kind="Condition", job=None)))
    path = path_of(added, "logs?step=Train&limit=2")
    assert api.get(path)[1]["items"] == []
    api.logs.lines[ARN] = [f"line {number} of {ARN}" for number in range(3)] + ["x" * 5000]
    lines, cursor = [], ""
    for _ in range(3):
        status, page = api.get(path + cursor)
        assert status == 200
        lines += [line["text"] for line in page["items"]]
        cursor = f"&cursor={page['next']}"
    assert lines[:3] == ["line 0 of arn:…", "line 1 of arn:…", "line 2 of arn:…"]
    assert len(lines) == 4
    assert len(lines[3]) == 2000
    api.logs.lines[ARN].append("later")
    assert [line["text"] for line in api.get(path + cursor)[1]["items"]] == ["later"]


@pytest.mark.parametrize("minutes", [1, 3])
def test_a_log_ends_some_time_after_its_attempt(api: Api, minutes: int) -> None:
    """CloudWatch shows the last lines some time after the end."""
    ended_at = datetime.now(UTC) - timedelta(minutes=minutes)
    added = api.put(1, state=State.SUCCEEDED, attempt=1, execution_arn="arn:execution/1")
    api.record(added, ended_at=ended_at)
    api.logs.lines[ARN] = ["one", "two"]
    page = api.get(path_of(added, "logs?step=Train"))[1]
    assert (len(page["items"]), page["next"] is None) == (2, minutes == 3)
    page = api.get(path_of(added, "logs?step=Train&limit=2"))[1]
    assert page["next"] is not None, "there may be more"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("step=Nope", "no step 'Nope' with a log; there are Train"),
        ("step=Train&attempt=7", "there is no attempt 7; the request has 1"),
    ],
)
def test_a_log_that_there_is_not_is_refused_with_what_there_is(api: Api, query: str, words: str) -> None:
    added = api.put(1, state=State.RUNNING, attempt=1, execution_arn="arn:execution/1")
    api.reports.report = ExecutionReport(steps=(step(), step("Check", kind="Condition", job=None)))
    status, problem = api.get(path_of(added, f"logs?{query}"))
    assert status == 409
    assert words in problem["detail"]


def test_nothing_is_printed_by_what_has_not_run(api: Api) -> None:
    added = api.put(1)
    status, problem = api.get(path_of(added, "logs?step=Train"))
    assert (status, problem["detail"]) == (409, "the request has no attempts yet")


@pytest.mark.parametrize(
    "query", ["", "step=", "step=Train&limit=1001", "step=Train&attempt=0", "step=Train&cursor=x"]
)
def test_a_wrong_question_about_a_log_is_refused(api: Api, query: str) -> None:
    added = api.put(1, state=State.RUNNING, attempt=1, execution_arn="arn:execution/1")
    assert api.get(path_of(added, f"logs?{query}"))[0] == 400


def test_cursors_of_other_lists_are_none_of_a_log(api: Api) -> None:
    from trainyard.contracts.api import cursor_text

    added = api.put(1, state=State.RUNNING, attempt=1, execution_arn="arn:execution/1")
    api.reports.report = ExecutionReport(steps=(step(),))
    good = {"at": "1", "skipped": "1", "step": "Train", "attempt": "1"}
    assert api.get(path_of(added, f"logs?step=Train&cursor={cursor_text(good)}"))[0] == 200
    for wrong in (
        {"pk": "tenant#acme"},
        {"at": "1", "skipped": "1", "attempt": "1"},
        good | {"skipped": "-1"},
        good | {"at": "1" * 15},
        good | {"skipped": "²"},
        good | {"step": "Evaluate"},
        good | {"attempt": "x"},
    ):
        assert api.get(path_of(added, f"logs?step=Train&cursor={cursor_text(wrong)}"))[0] == 400, wrong
    other = api.get(path_of(added, f"logs?step=Train&attempt=2&cursor={cursor_text(good)}"))
    assert (other[0], other[1]["detail"]) == (400, "cursor: it belongs to attempt 1")


def test_whoever_reads_too_often_is_told_to_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    added = api.put(1)
    asked: list[tuple[str, int]] = []

    def admit(caller: str, *, limit: int, now: datetime) -> int:
        asked.append((caller, limit))
        return 7 if caller.startswith("runs#") else 0

    monkeypatch.setattr(type(api.limits), "admit", lambda _, caller, **given: admit(caller, **given))
    for what in ("attempts", "logs?step=Train"):
        assert api.get(path_of(added, what))[0] == 429
        assert asked[-1] == ("runs#tenant#acme", READS_MAX)
