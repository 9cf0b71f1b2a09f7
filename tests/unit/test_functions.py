"""The handlers: parse, call one use case, report; one bad record fails alone, and nothing is lost."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from tests.build import NOW, after, execution, policy, request, s3_event, submission
from trainyard.application.billing.outbox import Relayed
from trainyard.application.scheduling.deadline_watch import DeadlineAlarm
from trainyard.application.scheduling.dispatch import PassReport
from trainyard.application.scheduling.enlistment import Enlisted, Enlistment
from trainyard.application.scheduling.intake import Judgement, Verdict
from trainyard.application.scheduling.reconcile import Repairs
from trainyard.application.scheduling.record import Recorded, StatusResult
from trainyard.application.scheduling.starts import Start, Started
from trainyard.application.scheduling.waiting_receipts import WaitingReceiptsRun
from trainyard.contracts.messages import training_request_body
from trainyard.domain.errors import Conflict, Malformed, Refused
from trainyard.domain.requests import State
from trainyard.domain.scheduling import Ledger, Plan, Snapshot
from trainyard.entrypoints import bootstrap
from trainyard.persistence.bell import Hint
from trainyard.persistence.outbox import OutboxEntry
from trainyard.persistence.tenant_queues import Backlog

ROOT = Path(__file__).parents[2]


def load(function: str) -> ModuleType:
    """Import a function's handler module afresh."""
    path = ROOT / "functions" / function / "app.py"
    specification = importlib.util.spec_from_file_location(f"{function}_app", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@dataclass
class Context:
    function_name: str = "f"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:f"
    aws_request_id: str = "r"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def batch(*bodies: Any) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": str(number),
                "receiptHandle": f"h{number}",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"ApproximateReceiveCount": "1"},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:q",
                "awsRegion": "us-east-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


def failures(response: dict[str, Any]) -> list[str]:
    return [item["itemIdentifier"] for item in response["batchItemFailures"]]


def metrics(output: str) -> list[dict[str, Any]]:
    """Return the metrics a handler printed, in CloudWatch's embedded format."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" in line]


class Letters:
    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []

    def keep(self, body: str, reason: str) -> None:
        self.kept.append((body, reason))


Replace = Callable[[str, Any], None]


@pytest.fixture
def replace_part(monkeypatch: pytest.MonkeyPatch) -> Replace:
    return lambda name, part: monkeypatch.setattr(bootstrap, name, lambda: part)


@pytest.fixture(autouse=True)
def come_soon(replace_part: Replace) -> list[str]:
    """The messages that were made to come again before their visibility ends."""
    found: list[str] = []

    class Redelivery:
        def soon(self, records: list[dict[str, Any]]) -> None:
            found.extend(record["messageId"] for record in records)

    replace_part("redelivery", Redelivery())
    return found


class IntakeStub:
    """Answers by the key of the upload."""

    def receive(self, arrivals: list[Any], now: Any) -> list[list[Judgement] | Exception]:
        return [self._judged(arrival.content.key) for arrival in arrivals]

    def _judged(self, key: str) -> list[Judgement] | Exception:
        if "nobody" in key:
            return Malformed("bucket belongs to no tenant")
        if "broken" in key:
            return RuntimeError("no connection")
        if "empty" in key:
            refused = Judgement(verdict=Verdict.REJECTED, tenant_id="acme", tier="basic", reason="r", kind="empty")
            return [refused]
        verdict = Verdict.UNSENT if "full" in key else Verdict.SUBMITTED
        return [Judgement(verdict=verdict, tenant_id="acme", tier="basic", request_id="1" * 32)]


def test_intake_fails_only_what_must_come_again_and_keeps_what_makes_no_sense(
    replace_part: Replace, come_soon: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    letters = Letters()
    replace_part("intake", IntakeStub())
    replace_part("dead_letters", letters)
    keys = ["incoming/good/x", "incoming/nobody/x", "incoming/full/x", "incoming/broken/x", "incoming/empty/x"]
    response = load("intake").handler(batch(*(s3_event(object_key=key) for key in keys), "{"), Context())
    assert failures(response) == come_soon == ["2", "3"]
    assert "bucket belongs to no tenant" in [reason for _, reason in letters.kept]
    assert len(letters.kept) == 2
    names = {m["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"] for m in metrics(capsys.readouterr().out)}
    assert names == {"Arrivals", "ArrivalsMalformed", "RecordsFailed", "Rejected"}


def test_a_batch_is_answered_for_even_if_what_failed_cannot_be_made_to_come_soon(
    replace_part: Replace, caplog: pytest.LogCaptureFixture
) -> None:
    replace_part("intake", IntakeStub())
    replace_part("redelivery", Standing(soon=RuntimeError("no credentials")))
    keys = ["incoming/good/x", "incoming/full/x"]
    response = load("intake").handler(batch(*(s3_event(object_key=key) for key in keys)), Context())
    assert failures(response) == ["1"]
    assert "only redelivered after the visibility timeout" in caplog.text


def test_intake_delivers_a_batch_again_of_which_nothing_is_known(replace_part: Replace) -> None:
    class Broken:
        def receive(self, arrivals: list[Any], now: Any) -> list[Any]:
            raise Conflict("no connection")

    letters = Letters()
    replace_part("intake", Broken())
    replace_part("dead_letters", letters)
    keys = ["incoming/a/x", "incoming/b/x"]
    response = load("intake").handler(batch(*(s3_event(object_key=key) for key in keys), "{"), Context())
    assert failures(response) == ["0", "1"]
    assert len(letters.kept) == 1, "what is malformed is kept all the same"


class EnlistStub:
    def enlist_batch(self, submissions: list[Any], now: Any) -> list[Any]:
        done = Enlisted(kind=Enlistment.QUEUED, request=request(1))
        return [Conflict("overtaken") if one.data_set == "set-2" else done for one in submissions]


class BellStub:
    rung: ClassVar[list[list[Hint]]] = []

    def ring(self, hints: list[Hint]) -> None:
        BellStub.rung.append(hints)


def test_enlist_takes_a_batch_together_and_passes_a_delayed_ring_on(
    replace_part: Replace, come_soon: list[str]
) -> None:
    replace_part("enlist", EnlistStub())
    replace_part("bell", BellStub())
    bodies = [training_request_body(submission(number)) for number in (1, 2, 3)]
    rings = ["ring", f"ring\nbasic acme {'1' * 32}", "ring\nbasic acme 1", "ring" + "\nbasic a " * 21]
    response = load("enlist").handler(batch(*bodies, *rings, "nonsense"), Context())
    assert sorted(failures(response)) == come_soon == ["1", "5", "6", "7"]
    assert BellStub.rung == [[], [Hint("basic", "acme", "1" * 32)]]


def test_the_dispatcher_reads_the_rings_among_the_records_of_the_stream() -> None:
    hint = f"basic acme {'1' * 32}"
    images = [
        {"rings": {"N": "7"}, "hints": {"L": [{"S": hint}]}},
        {"rings": {"N": "8"}},
        {"by": {"S": "end"}},
    ]
    event = {"Records": [{"dynamodb": {"NewImage": image}} for image in images]}
    named, bare = load("dispatcher").rings_in(event)
    assert (named.number, named.hints) == (7, (Hint("basic", "acme", "1" * 32),))
    assert (bare.number, bare.hints) == (8, None)


class DispatchStub:
    def __init__(self, *starts: Start, used: int = 0) -> None:
        ledger = Ledger(admission_version=1, usage={"slots": used, "tier/basic": used})
        snapshot = Snapshot(ledger=ledger, queues=())
        plan = Plan(admissions=(), waits=(), virtual_time_by_tier={}, capacity_holds={}, starts_from=None)
        self.report = PassReport(policy=policy(), snapshot=snapshot, plan=plan, starts=list(starts), complete=True)

    def run_pass(self, now: Any, *, rings: Any, sweep: bool, out_of_time: Any) -> PassReport:
        assert not out_of_time()
        return self.report

    def measure(self, report: PassReport) -> tuple[Ledger, dict[str, Backlog]]:
        return report.snapshot.ledger, {"basic": Backlog(waiting=3, oldest_arrived_at=NOW)}


def values(output: str) -> dict[str, float]:
    found = {}
    for metric in metrics(output):
        name = metric["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"]
        found[name] = metric[name][0]
        assert all("tenant" not in dimension.lower() for dimension in metric)
    return found


def test_the_dispatcher_tells_starts_waits_and_once_a_minute_the_backlog(
    replace_part: Replace, capsys: pytest.CaptureFixture[str]
) -> None:
    running = request(1, state=State.RUNNING, started_at=after(12), execution_arn="arn")
    replace_part("dispatch", DispatchStub(Start(request=running, result=Started.RUNNING), used=1))
    app = load("dispatcher")
    assert app.handler({"Records": []}, Context()) == {"started": 1}
    rung = values(capsys.readouterr().out)
    assert (rung["Starts"], rung["WaitSeconds"], rung["Passes"]) == (1, 12, 1)
    assert "Waiting" not in rung
    app.handler({"source": "timer"}, Context())
    timed = values(capsys.readouterr().out)
    assert (timed["Waiting"], timed["SlotsUsed"], timed["SlotsLimit"], timed["IdleThoughWaiting"]) == (3, 1, 4, 0)


def test_a_start_without_an_answer_counts_as_idle_though_waiting(
    replace_part: Replace, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_part("dispatch", DispatchStub(Start(request=request(1), result=Started.UNKNOWN)))
    load("dispatcher").handler({"source": "timer"}, Context())
    assert values(capsys.readouterr().out)["IdleThoughWaiting"] == 1


class RecordStub:
    """Cannot settle an event whose status is "Stopped"."""

    def settle(self, events: Any, now: Any) -> list[StatusResult | Exception]:
        ended = request(1, state=State.SUCCEEDED, started_at=NOW, finished_at=after(30))
        done = StatusResult(recorded=Recorded.FINISHED, request=ended)
        return [Conflict("others were writing") if one.status == "Stopped" else done for one in events]

    def step_reached(self, **given: Any) -> bool:
        return bool(given["attempt"] == 1)


def test_the_recorder_settles_events_answers_the_pipeline_and_keeps_nonsense(
    replace_part: Replace, come_soon: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    letters = Letters()
    replace_part("record", RecordStub())
    replace_part("dead_letters", letters)
    app = load("recorder")
    succeeded = (ROOT / "events/execution-status-succeeded.json").read_text(encoding="utf-8")
    stopped = succeeded.replace('"Succeeded"', '"Stopped"')
    assert failures(app.handler(batch(stopped, succeeded, "{}"), Context())) == come_soon == ["0"]
    assert len(letters.kept) == 1
    told = values(capsys.readouterr().out)
    assert (told["RunSeconds"], "RecordStepsFailed" in told) == (30, False)
    assert failures(app.handler(batch(succeeded.replace('"Succeeded"', '"Failed"')), Context())) == []
    assert values(capsys.readouterr().out)["RecordStepsFailed"] == 1, "it has succeeded all the same"
    step = json.loads((ROOT / "events/record-step.json").read_text(encoding="utf-8"))
    assert app.handler(step, Context()) == {"recorded": True}
    with pytest.raises(Malformed, match="RequestId"):
        app.handler(step | {"RequestId": "short"}, Context())


class OnboardingStub:
    def __getattr__(self, step: str) -> Any:
        return lambda asked: {"name": asked.spec.tenant_id}


def test_the_tenants_function_takes_a_step_or_raises_the_reason(replace_part: Replace) -> None:
    replace_part("onboarding", OnboardingStub())
    handler = load("tenants").handler
    asked = json.loads((ROOT / "events/tenant-step.json").read_text(encoding="utf-8"))
    assert handler(asked, Context()) == {"name": "acme"}
    with pytest.raises(Refused, match="create has no step 'Dance'; its steps are Record"):
        handler(asked | {"step": "Dance"}, Context())
    with pytest.raises(Refused, match=r"tenant\.surprise"):
        handler(asked | {"tenant": {"name": "acme", "surprise": 1}}, Context())


def test_what_the_reconciler_pays_is_told_and_counted(
    replace_part: Replace, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = OutboxEntry(name="budget#acme", what="budget", values={"percent": 80})
    unusual = OutboxEntry(name="pace#acme", what="pace", values={"usd": "9"})
    record = execution(request(1))
    relayed = Relayed(
        published=[entry, unusual], corrected=[record], given_up=[record], failed={"settle#1#1": "away"}
    )
    replace_part("reconcile", Standing(run=Repairs()))
    replace_part("outbox_relay", Standing(relay=relayed))
    replace_part("waiting_receipts", Standing(write=WaitingReceiptsRun(written=2, failed={"1": "denied"})))
    load("reconciler").handler({}, Context())
    found = values(capsys.readouterr().out)
    names = ("BudgetThresholdsCrossed", "CostAnomalies", "OutboxFailed", "WaitingReceiptsFailed")
    assert {name: found[name] for name in names} == {
        "WaitingReceiptsFailed": 1,
        "BudgetThresholdsCrossed": 1,
        "CostAnomalies": 1,
        "OutboxFailed": 1,
    }
    assert (found["RecordsCorrected"], found["RecordsGivenUp"]) == (1, 1)


def test_the_reconciler_asks_while_it_has_time_and_pays_even_if_it_cannot_look(replace_part: Replace) -> None:
    out_of_time: list[bool] = []

    def run(_now: Any, **named: Any) -> Repairs:
        out_of_time.append(named["out_of_time"]())
        raise Conflict("SageMaker is away")

    outbox, receipts = Standing(relay=Relayed()), Standing(write=Conflict("the table is away"))
    replace_part("reconcile", Standing(run=run))
    replace_part("outbox_relay", outbox)
    replace_part("waiting_receipts", receipts)
    with pytest.raises(Conflict, match="away"):
        load("reconciler").handler({}, Context())  # with half a minute left
    assert (out_of_time, outbox.asked, receipts.asked) == ([True], ["relay"], ["write"])


def test_each_minute_the_reconciler_watches_deadlines_and_looks_for_ends(
    replace_part: Replace, capsys: pytest.CaptureFixture[str]
) -> None:
    alarm = DeadlineAlarm(what="deadline at risk", request=request(1), reason="why")
    ends, outbox = Standing(find_ends=Repairs(ended=[request(2)])), Standing(relay=Relayed())
    replace_part("reconcile", ends)
    replace_part("outbox_relay", outbox)
    replace_part("deadline_watch", Standing(watch=[alarm]))
    assert load("reconciler").handler({"work": "find ends"}, Context())["ended"] == 1
    found = values(capsys.readouterr().out)
    assert (found["DeadlinesAtRisk"], found["EndsMissed"], outbox.asked) == (1, 1, ["relay"])
    assert "UnmanagedExecutions" not in found, "nobody looked"


def test_deadlines_that_cannot_be_checked_keep_no_end_from_being_found(
    replace_part: Replace, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = Standing(find_ends=Repairs())
    replace_part("reconcile", ends)
    replace_part("deadline_watch", Standing(watch=Conflict("the table is away")))
    load("reconciler").handler({"work": "find ends"}, Context())
    assert values(capsys.readouterr().out)["DeadlineChecksFailed"] == 1
    assert ends.asked == ["find_ends"]


def test_of_what_is_due_hourly_one_failure_holds_up_no_other_and_is_counted(
    replace_part: Replace, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_part("metering", None)
    replace_part("inference_booking", Standing(book_due=[]))
    replace_part("usage", Standing(export_until=ConnectionError("S3 is away")))
    replace_part("tag_activation", Standing(run_daily={}))
    monthly = Standing(write_due=3)
    replace_part("monthly_statements", monthly)
    with pytest.raises(RuntimeError, match="billing tasks failed: exports"):
        load("billing").handler({}, Context())
    assert monthly.asked == ["write_due"], "the task after the failed one"
    assert values(capsys.readouterr().out)["BillingTasksFailed"] == 1


def test_trainings_are_exported_although_hours_cannot_be_booked(replace_part: Replace) -> None:
    replace_part("metering", None)
    replace_part("inference_booking", Standing(book_due=TimeoutError("hours booked: 3")))
    usage = Standing(export_until=[])
    replace_part("usage", usage)
    replace_part("tag_activation", Standing(run_daily={}))
    replace_part("monthly_statements", Standing(write_due=0))
    with pytest.raises(RuntimeError, match="billing tasks failed: inference;"):
        load("billing").handler({}, Context())
    assert usage.asked == ["export_until"]


@pytest.mark.parametrize(("day", "asked"), [(4, []), (10, []), (11, ["write_due"])])
def test_statements_wait_until_inference_is_booked_but_not_for_ever(
    replace_part: Replace, day: int, asked: list[str]
) -> None:
    replace_part("metering", None)
    replace_part("inference_booking", Standing(book_due=RuntimeError("an endpoint cannot be read")))
    replace_part("usage", Standing(export_until=[]))
    replace_part("tag_activation", Standing(run_daily={}))
    monthly = Standing(write_due=0)
    replace_part("monthly_statements", monthly)
    with pytest.raises(RuntimeError, match="billing tasks failed: inference;"):
        load("billing").hourly(datetime(2026, 12, day, tzinfo=UTC), lambda: 900_000)
    assert monthly.asked == asked


def test_the_billing_function_writes_what_it_is_asked_for_and_refuses_what_makes_no_sense(
    replace_part: Replace,
) -> None:
    replace_part("usage", Standing(export_again=lambda day, now: f"s3://billing/{day}"))
    replace_part("tenants", Standing(get=None))
    handler = load("billing").handler
    assert handler({"export": "2026-11-20"}, Context()) == {"export": "s3://billing/2026-11-20"}
    with pytest.raises(Refused, match="there is no tenant 'nobody'"):
        handler({"statement": {"tenant": "nobody", "month": "2026-11"}}, Context())
    for wrong in ({"export": "soon"}, {"statement": {"tenant": "acme", "month": "2026-13"}}):
        with pytest.raises(Refused, match=r"export|statement\.month"):
            handler(wrong, Context())


class Standing:
    """Stands for a use case: each method answers as it is told to, or raises it."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        answer = self._answers[name]
        self.asked.append(name)

        def method(*given: Any, **named: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer(*given, **named) if callable(answer) else answer

        return method
