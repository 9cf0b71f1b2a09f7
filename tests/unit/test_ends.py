"""An end is determined by SageMaker alone: whatever else is odd, absent or denied, the slot is released.

Only an end, or the proof that there will be none, releases a slot.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from testing import memory_ports as memory
from testing.service import Service, policies_in_force, scheduler_over
from tests.build import NOW, after, policy, step, submission, tenant, tier
from tests.tables import create_tables
from tests.unit.test_use_cases import TRIES, Harness
from trainyard.adapters.aws import tenant_objects
from trainyard.adapters.aws.storage import S3Results
from trainyard.adapters.aws.store import DynamoStore, deserialized
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling import reconcile
from trainyard.application.scheduling.record import Recorded, StatusEvent, StatusResult
from trainyard.domain.errors import Conflict, ExecutionGone, OutcomeUnknown, Throttled
from trainyard.domain.failures import FailureCause
from trainyard.domain.names import display_name
from trainyard.domain.parameters import Locations
from trainyard.domain.policy import Policy
from trainyard.domain.requests import HOLDING, TERMINAL, Outcome, Request, State
from trainyard.persistence.items import outcome_values
from trainyard.persistence.run_history import past_key
from trainyard.persistence.store import Put

BUCKET = "trainyard-t-acme"
TWO = policy(tier(quota=2, running_max_per_tenant=2), running_max=2)
EVALUATION = '{"quality": {"metric": "auc", "value": 0.9}}'
PROFILE = '{"sha256": "ab", "files": [{"md5": "cd"}]}'


def ended_with(s3: Any, evaluation: bytes | None, profile: bytes | None) -> tuple[Harness, Request, Recorded]:
    """Let a run end that left these reports; return the world, the request, and what the first telling did."""
    harness = Harness()
    request_id = harness.run_one()
    where = Locations.of(tenant(), harness.request(request_id))
    for uri, body in ((where.evaluation, evaluation), (where.profile, profile)):
        key = uri.removeprefix(f"s3://{BUCKET}/")
        s3.delete_object(Bucket=BUCKET, Key=key)
        if body is not None:
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    record = replace(harness.record, results=S3Results())
    event = StatusEvent(display_name=f"{request_id}-1", status="Succeeded", execution_arn="arn")
    (settled,) = record.settle([event], after(60))
    assert isinstance(settled, StatusResult), repr(settled)
    return harness, harness.request(request_id), settled.recorded


# --- results ------------------------------------------------------------------------------------------------


def test_what_a_run_left_is_read_by_its_schema(s3: Any) -> None:
    _, request, _ = ended_with(s3, EVALUATION.encode(), PROFILE.encode())
    assert request.outcome is not None
    assert (request.outcome.quality, request.outcome.quality_metric) == (0.9, "auc")
    assert (request.outcome.trained_sha256, request.outcome.trained_files, request.outcome.unread) == (
        "ab",
        1,
        None,
    )


ODD = [
    "",
    "null",
    "[]",
    "[1]",
    "1",
    '"x"',
    "{",
    '{"quality": null}',
    '{"quality": {"met',
    '{"quality": {"metric": "auc", "value": "0.9"}}',
    '{"quality": {"metric": "auc", "value": 1e200}}',
    '{"quality": {"metric": "auc", "value": -1e200}}',
    '{"quality": {"metric": "\\u001b[2J", "value": 0.5}}',
    '{"quality": {"metric": 5, "value": 0.5}}',
    '{"files": null}',
    '{"sha256": "ab", "files": [{"name": "x"}]}',
    '{"sha256": "ab", "files": []}',
    '{"sha256": ["ab"], "files": [{"md5": "cd"}]}',
    "[" * 100_000,
    "\x00\xff",
]


@pytest.mark.parametrize("body", ODD)
def test_an_odd_report_ends_its_run_all_the_same_and_why_it_was_not_read_is_told(s3: Any, body: str) -> None:
    for evaluation, profile in ((body, PROFILE), (EVALUATION, body)):
        harness, request, recorded = ended_with(s3, evaluation.encode("latin-1"), profile.encode("latin-1"))
        assert (recorded, request.state) == (Recorded.FINISHED, State.SUCCEEDED)
        assert harness.scheduler.tables.ledger.read().used == 0
        assert request.outcome is not None
        assert "was not read" in str(request.outcome.unread)
        result: Any = harness.receipts.written[request.request_id]["result"]
        assert "was not read" in result["unread"]


def test_any_bytes_at_a_results_place_leave_no_slot_taken(s3: Any) -> None:
    """Of good reports, bytes are changed, cut off, doubled and replaced by values of other types, at random."""
    for seed in range(150):
        random = Random(seed)
        bodies = [mangled(text, random) for text in (EVALUATION, PROFILE)]
        harness, request, recorded = ended_with(s3, *bodies)
        assert (recorded, harness.scheduler.tables.ledger.read().used, request.state) == (
            Recorded.FINISHED,
            0,
            State.SUCCEEDED,
        ), bodies


def mangled(text: str, random: Random) -> bytes | None:
    values: list[Any] = [
        None,
        True,
        -1,
        10**40,
        1e308,
        float("nan"),
        "x" * 999,
        [],
        {},
        [[]],
        {"a": {"b": [None]}},
    ]
    kind = random.randrange(6)
    if kind == 0:
        return None
    if kind == 1:
        return bytes(random.randrange(256) for _ in range(random.randrange(400)))
    if kind == 2:
        return text[: random.randrange(len(text))].encode()
    if kind == 3:
        body = bytearray(text.encode())
        for _ in range(random.randrange(1, 5)):
            body[random.randrange(len(body))] = random.randrange(256)
        return bytes(body)
    document = json.loads(text)
    node = document
    while True:
        name = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
        if not isinstance(node[name], dict | list) or random.random() < 0.4:
            node[name] = random.choice(values)
            return json.dumps(document).encode()
        node = node[name]


def test_of_a_report_of_any_size_no_more_than_a_megabyte_is_read(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = tenant_objects.client  # type: ignore[attr-defined]

    class Stream:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def read(self, size: int) -> bytes:
            read.append(size)
            return bytes(self.stream.read(size))

        def close(self) -> None:
            self.stream.close()

    class Client:
        def __getattr__(self, name: str) -> Any:
            return getattr(real("s3"), name)

        def get_object(self, **named: Any) -> Any:
            answer = real("s3").get_object(**named)
            return {**answer, "Body": Stream(answer["Body"])}

    monkeypatch.setattr(tenant_objects, "client", lambda *_, **__: Client())
    _, request, _ = ended_with(s3, EVALUATION.encode(), b"[" + b" " * 3_000_000 + b"]")
    assert request.outcome is not None
    assert request.outcome.unread == "profile.json was not read: it has more than 1,048,576 bytes"
    assert max(read) == tenant_objects.RESULT_BYTES_MAX + 1


@pytest.mark.parametrize(
    "code", ["AccessDenied", "InvalidObjectState", "KMS.DisabledException", "SlowDown", "InternalError"]
)
def test_a_report_that_s3_does_not_give_ends_its_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    status = 500 if code == "InternalError" else 403
    words = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}

    class Client:
        def get_object(self, **_: Any) -> Any:
            raise ClientError(words, "GetObject")

    monkeypatch.setattr(tenant_objects, "client", lambda *_, **__: Client())
    harness = Harness()
    request_id = harness.run_one()
    harness.record = replace(harness.record, results=S3Results())
    assert harness.end(request_id) is Recorded.FINISHED
    outcome = harness.request(request_id).outcome
    assert outcome is not None
    assert "evaluation.json was not read" in str(outcome.unread)


def test_a_reader_of_results_that_breaks_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    request_id = harness.run_one()

    def breaks(*_: Any) -> Outcome:
        raise MemoryError

    monkeypatch.setattr(harness.results, "read", breaks)
    assert harness.end(request_id) is Recorded.FINISHED
    assert harness.record.step_reached(request_id=request_id, attempt=1, model_package_arn="arn") in (True, False)


@pytest.mark.parametrize("value", [1e-200, -1e-200, 1e200, -1e200, 1e40, 1e30, 0.1, 5e-324])
def test_any_number_can_be_kept_and_read_back(value: float) -> None:
    """DynamoDB answers numbers without an exponent, of which boto3 reads 38 digits."""
    (kept,) = outcome_values(Outcome(quality=value)).values()
    back = deserialized({"quality": {"N": f"{kept:f}"}})["quality"]
    assert back == kept
    if 1e-100 < abs(value) < 1e30:
        assert float(back) == value


@pytest.mark.parametrize("value", [1e-200, 1e200, 1e40])
def test_one_metric_that_dynamodb_refuses_holds_up_no_other_end_of_its_batch(value: float, s3: Any) -> None:
    create_tables(boto3.client("dynamodb"))
    store = DynamoStore(**{f"{n}_table": n for n in ("scheduler", "requests", "record", "tenants")})
    limits = policy(tier(quota=3), running_max=3)
    scheduler, owners = scheduler_over(store), memory.MemoryTenants(*map(tenant, "abc"))

    class Results:
        def read(self, owner: Any, request: Request) -> Outcome:
            return Outcome(quality=value if request.tenant_id == "b" else 0.9, trained_sha256="s")

    in_force = policies_in_force(store, limits)
    record = Service(store=store, policies=in_force, tenants=owners, results=Results()).record
    requests = [
        scheduler.enlister.enlist(submission(number, tenant_id=name), limits, NOW).request
        for number, name in enumerate("abc", 1)
    ]
    admit_all(scheduler, limits, NOW)
    events = [
        StatusEvent(display_name=f"{r.request_id}-1", status="Succeeded", execution_arn="arn") for r in requests
    ]
    told = record.settle(events, after(60))
    assert [one.recorded for one in told if isinstance(one, StatusResult)] == [Recorded.FINISHED] * 3
    assert scheduler.tables.ledger.read().used == 0


def admit_all(scheduler: Any, limits: Policy, now: datetime) -> None:
    from trainyard.domain.admission import decide

    read_set = scheduler.admitter.read(limits, now)
    scheduler.admitter.commit(decide(read_set.snapshot, limits, now), read_set, limits, now)


# --- what SageMaker says of the execution ---------------------------------------------------------------------


def test_an_end_whose_execution_sagemaker_lost_counts_and_its_cost_is_owed() -> None:
    harness = Harness()
    request_id = harness.run_one()
    harness.reports.read = gone  # type: ignore[method-assign]
    assert harness.end(request_id, "Failed") is Recorded.FINISHED
    kept = harness.request(request_id)
    assert (kept.state, kept.reason) == (State.FAILED, "SageMaker no longer has any record of the execution")
    assert kept.outcome is not None
    assert kept.outcome.cost_unknown == 1, "unknown is not nothing"


def gone(execution_arn: str) -> Any:
    raise ExecutionGone(f"Pipeline execution {execution_arn} does not exist")


def test_words_on_an_execution_are_waited_for_but_not_for_ever() -> None:
    harness = Harness()
    request_id = harness.run_one()

    def throttled(_: str) -> ExecutionReport:
        raise Throttled("ListPipelineExecutionSteps")

    harness.reports.read = throttled  # type: ignore[assignment, method-assign]
    event = StatusEvent(display_name=f"{request_id}-1", status="Failed", execution_arn="arn")
    (first,) = harness.record.settle([event], after(60))
    assert isinstance(first, Throttled)
    ends_by = harness.request(request_id).ends_by
    assert ends_by is not None
    (last,) = harness.record.settle([event], ends_by + reconcile.GIVEN_UP)
    assert isinstance(last, StatusResult)
    assert harness.scheduler.tables.ledger.read().used == 0


@pytest.mark.parametrize("status", ["Executing", "Stopping", "SomethingNew"])
def test_a_message_that_sagemaker_contradicts_frees_no_slot_and_is_kept(status: str) -> None:
    """A forged end would let one more run than may. It comes again, and ends among the dead letters."""
    harness = Harness()
    request_id = harness.run_one()
    harness.reports.report = ExecutionReport(status=status)
    event = StatusEvent(display_name=f"{request_id}-1", status="Succeeded", execution_arn="arn:of-another")
    (settled,) = harness.record.settle([event], after(60))
    assert isinstance(settled, OutcomeUnknown)
    assert (harness.request(request_id).state, harness.scheduler.tables.ledger.read().used) == (State.RUNNING, 1)
    harness.reports.report = ExecutionReport(status="Succeeded")
    assert harness.end(request_id) is Recorded.FINISHED


def test_the_execution_that_is_asked_about_is_the_requests_own_not_the_messages() -> None:
    harness = Harness()
    request_id = harness.run_one()
    asked: list[str] = []
    harness.reports.read = lambda arn: asked.append(arn) or ExecutionReport()  # type: ignore[assignment, func-returns-value, method-assign]
    harness.end(request_id)
    assert asked == [harness.request(request_id).execution_arn]


def test_an_execution_that_sagemaker_lost_gives_its_slot_back_once_its_lag_cannot_be_why() -> None:
    harness = Harness()
    request_id = harness.run_one()
    harness.executions.status = gone  # type: ignore[method-assign]
    harness.executions.statuses = {str(harness.request(request_id).execution_arn): "gone"}
    repairs = harness.reconcile.run(after(1200))
    assert list(repairs.failed) == [request_id]
    assert harness.scheduler.tables.ledger.read().used == 1
    (released,) = harness.reconcile.run(after(2000)).released
    kept = harness.request(request_id)
    assert (released.request_id, kept.state, kept.reason) == (request_id, State.FAILED, reconcile.GONE)
    assert harness.scheduler.tables.ledger.read().used == 0
    assert harness.receipts.written[request_id]["state"] == "FAILED"


@pytest.mark.parametrize("status", ["Executing", "Stopping"])
def test_an_execution_that_never_ends_is_stopped_and_in_the_end_its_slot_is_released(status: str) -> None:
    harness = Harness(limits=TWO)
    request_id = harness.run_one()
    arn = str(harness.request(request_id).execution_arn)
    harness.executions.statuses[arn] = status
    late = harness.request(request_id).ends_by
    assert late is not None
    assert harness.reconcile.run(late).overdue == []
    assert [r.request_id for r in harness.reconcile.run(late + 2 * reconcile.OVERDUE).overdue] == [request_id]
    assert harness.executions.stopped == [arn]
    assert harness.scheduler.tables.ledger.read().used == 1
    repairs = harness.reconcile.run(late + reconcile.GIVEN_UP + reconcile.OVERDUE)
    assert [r.request_id for r in repairs.released] == [request_id]
    ledger = harness.scheduler.tables.ledger.read()
    assert (ledger.used, ledger.unmanaged) == (0, 1), "what still runs takes from the account's slots"
    harness.executions.statuses[arn] = "Stopped"
    harness.reconcile.run(late + 2 * reconcile.GIVEN_UP)
    assert harness.scheduler.tables.ledger.read().unmanaged == 0


def test_an_execution_that_can_never_be_asked_about_gives_its_slot_back_after_its_latest_end() -> None:
    harness = Harness()
    request_id = harness.run_one()

    def denied(_: str) -> str:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribePipelineExecution")

    harness.executions.status = denied  # type: ignore[assignment, method-assign]
    for minute in range(10, 600, 30):
        harness.reconcile.run(after(60 * minute))
    assert harness.scheduler.tables.ledger.read().used == 0
    assert "its status cannot be read" in str(harness.request(request_id).reason)


# --- lost ends, many of them ----------------------------------------------------------------------------------


def many(count: int) -> Harness:
    limits = policy(tier(quota=count, running_max_per_tenant=count), running_max=count)
    harness = Harness(limits=limits)
    harness.enlist.enlist_batch([submission(number) for number in range(1, count + 1)], NOW)
    harness.dispatch.run_pass(NOW)
    assert harness.scheduler.tables.ledger.read().used == count
    return harness


def test_two_thousand_lost_ends_are_found_in_one_run_when_they_are_recent() -> None:
    harness = many(400)
    for request in harness.scheduler.tables.held():
        harness.executions.statuses[str(request.execution_arn)] = "Succeeded"
    assert len(harness.reconcile.run(after(600)).ended) == 400
    assert harness.scheduler.tables.ledger.read().used == 0


def test_lost_ends_of_long_runs_are_found_at_a_rate_that_follows_the_slots() -> None:
    harness = many(400)
    for request in harness.scheduler.tables.held():
        harness.executions.statuses[str(request.execution_arn)] = "Succeeded"
    ended = [len(harness.reconcile.find_ends(after(7200 + 60 * minute)).ended) for minute in range(9)]
    assert ended == [50] * 8 + [0]


def with_history(harness: Harness, *seconds: int) -> None:
    """Record runs of the data set of the first submission."""
    profile = harness.request(submission(1).request_id).profile
    runs = [[each, each, Decimal("0.01"), 1, profile] for each in seconds]
    key = past_key("acme", submission(1).data_set)
    harness.store.transact([Put(key, {"runs": runs, "revision": 1})])


def test_an_end_that_nobody_told_is_looked_for_from_the_median_of_its_data_sets_runs_on() -> None:
    harness = Harness()
    request_id = harness.run_one()
    with_history(harness, 500, 600, 900)
    asked = [second for second in range(60, 3000, 60) if harness.reconcile.find_ends(after(second)).asked]
    # From the median on, each time that it has run for 15 % longer, and at least every five minutes.
    assert asked[:7] == [600, 720, 840, 1020, 1200, 1380, 1620]
    assert {later - earlier for earlier, later in pairwise(asked[9:])} == {300}
    harness.executions.statuses[str(harness.request(request_id).execution_arn)] = "Succeeded"
    assert [r.request_id for r in harness.reconcile.find_ends(after(3300)).ended] == [request_id]


@pytest.mark.parametrize("seconds", [(), (100, 100)], ids=["none", "too few"])
def test_an_execution_without_history_is_left_to_the_list_of_executions(seconds: tuple[int, ...]) -> None:
    harness = Harness()
    harness.run_one()
    if seconds:
        with_history(harness, *seconds)
    listed = timedelta(hours=1) - reconcile.UNHEARD_OF
    assert harness.reconcile.find_ends(NOW + listed - timedelta(seconds=1)).asked == 0
    assert harness.reconcile.find_ends(NOW + listed).asked == 1


def test_the_most_overdue_executions_are_checked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "CHECKED_MIN", 1)
    harness = many(4)
    with_history(harness, 500, 600, 900)
    asked: list[str] = []

    def status(arn: str) -> str:
        asked.append(arn)
        return "Executing"

    monkeypatch.setattr(harness.executions, "status", status)
    for minute in range(4):
        harness.reconcile.find_ends(after(7200 + minute))
    others = [r.execution_arn for r in harness.scheduler.tables.held() if r.request_id != submission(1).request_id]
    assert asked[0] == harness.request(submission(1).request_id).execution_arn, "it is the most overdue"
    assert sorted(asked[1:]) == sorted(map(str, others))


def test_executions_that_cannot_be_asked_about_are_put_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the same ones would be asked about in each run, and the ends of all others never be found."""
    monkeypatch.setattr(reconcile, "CHECKED_MIN", 2)
    harness = many(4)
    held = harness.scheduler.tables.held()
    broken = {str(request.execution_arn) for request in held[:2]}

    def ask(arn: str) -> str:
        if arn in broken:
            raise RuntimeError("broken")
        return "Succeeded"

    harness.executions.status = ask  # type: ignore[assignment, method-assign]
    first = harness.reconcile.run(after(7200))
    assert (len(first.failed), first.ended) == (2, [])
    assert len(harness.reconcile.run(after(7500)).ended) == 2


# --- stop, pause, retry by hand -----------------------------------------------------------------------------


def test_a_run_that_was_asked_to_stop_is_not_tried_again() -> None:
    harness = Harness()
    request_id = harness.run_one()
    harness.stop.stop(request_id, after(10))
    harness.reports.report = ExecutionReport(steps=(step(),), failed_step="Train", failure="CapacityError: none")
    assert harness.end(request_id, "Failed") is Recorded.FINISHED
    kept = harness.request(request_id)
    assert (kept.state, kept.attempt, harness.scheduler.tables.ledger.read().used) == (State.STOPPED, 1, 0)


def test_a_stop_between_reading_an_end_and_putting_it_back_counts() -> None:
    harness = Harness()
    request_id = harness.run_one()
    seen = harness.request(request_id)
    assert harness.scheduler.tables.requests.ask_to_stop(seen, after(5))
    (stopped,) = harness.scheduler.completer.requeue(
        seen, harness.limits, after(9), due_at=after(99), reason="capacity", failed=True
    )
    assert (stopped.state, harness.request(request_id).state) == (State.STOPPED, State.STOPPED)
    assert harness.scheduler.tables.ledger.read().used == 0


def test_what_is_to_be_stopped_is_asked_again_until_it_ends() -> None:
    harness = Harness()
    request_id = harness.run_one()
    stop = harness.executions.stop

    def broken(_: str) -> None:
        raise OutcomeUnknown("no answer")

    harness.executions.stop = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(OutcomeUnknown):
        harness.stop.stop(request_id, after(1))
    harness.executions.stop = stop  # type: ignore[method-assign]
    harness.reconcile.run(after(300))
    assert harness.executions.stopped == [harness.request(request_id).execution_arn]


def test_an_attempt_that_is_over_cannot_be_asked_to_stop() -> None:
    harness = Harness()
    request_id = harness.run_one()
    seen = harness.request(request_id)
    harness.end(request_id)
    assert not harness.scheduler.tables.requests.ask_to_stop(seen, after(99))
    assert harness.request(request_id).stop_asked_at is None


PAUSES: dict[str, Callable[[Harness], None]] = {
    "all": lambda harness: harness.scheduler.tables.ledger.set_paused(True),
    "tier": lambda harness: harness.scheduler.tables.ledger.set_paused(True, "basic"),
    "tenant": lambda harness: harness.scheduler.operations.set_tenant_paused("basic", "acme", True, after(5)),
}


@pytest.mark.parametrize("what", PAUSES)
def test_what_had_not_started_when_it_was_paused_waits_and_starts_afterwards(what: str) -> None:
    harness = Harness()
    harness.executions.faults = [(Throttled("Rate exceeded"), False)] * TRIES
    request_id = harness.run_one()
    PAUSES[what](harness)
    for second in (130, 200, 300):
        harness.dispatch.run_pass(after(second))
    assert harness.executions.by_token == {}, "it started while paused"
    harness.dispatch.run_pass(after(1000))
    kept = harness.request(request_id)
    assert (kept.state, kept.failures) == (State.QUEUED, 0), "that it was held back is no failure"
    harness.scheduler.tables.ledger.set_paused(False)
    harness.scheduler.tables.ledger.set_paused(False, "basic")
    harness.scheduler.operations.set_tenant_paused("basic", "acme", False, after(1100))
    harness.dispatch.run_pass(after(1300))
    assert harness.request(request_id).state is State.RUNNING


@pytest.mark.parametrize("what", PAUSES)
def test_an_execution_that_had_started_before_a_pause_is_adopted(what: str) -> None:
    harness = Harness()
    harness.executions.faults = [(OutcomeUnknown("no answer"), True)] * TRIES
    request_id = harness.run_one()
    PAUSES[what](harness)
    harness.dispatch.run_pass(after(130))
    assert harness.request(request_id).state is State.RUNNING


def retried_by_hand() -> tuple[Harness, str]:
    harness = Harness(limits=TWO)
    request_id = harness.run_one()
    harness.reports.report = ExecutionReport(
        failed_step="Train", failure="AlgorithmError: x", cause=FailureCause.RUN
    )
    arn = str(harness.request(request_id).execution_arn)
    harness.executions.statuses[arn] = "Failed"
    harness.end(request_id, "Failed")
    harness.executions.statuses[arn] = "Executing"
    return harness, arn


def fits(harness: Harness) -> int:
    """Return how many more may start."""
    for number in (2, 3):
        harness.enlist.enlist(submission(number), after(401))
    harness.dispatch.run_pass(after(402))
    return sum(request.state in HOLDING for request in harness.requests())


def test_an_execution_that_somebody_retries_takes_a_slot_as_soon_as_it_is_told() -> None:
    harness, arn = retried_by_hand()
    event = StatusEvent(
        display_name=display_name(submission(1).request_id, 1),
        status="Executing",
        execution_arn=arn,
        previous="Failed",
    )
    for _ in range(2):
        (settled,) = harness.record.settle([event], after(100))
        assert isinstance(settled, StatusResult)
        assert settled.recorded is Recorded.UNMANAGED
    assert harness.scheduler.tables.ledger.read().unmanaged == 1
    assert fits(harness) == 1


def test_an_execution_that_somebody_retries_is_found_without_an_event() -> None:
    harness, _ = retried_by_hand()
    assert harness.reconcile.run(after(400)).unmanaged == 1
    assert fits(harness) == 1


def test_an_execution_that_starts_is_nobody_elses() -> None:
    harness = Harness(limits=TWO)
    harness.executions.faults = [(OutcomeUnknown("no answer"), True)]
    harness.run_one()
    assert harness.reconcile.run(after(30)).unmanaged == 0


# --- told again -----------------------------------------------------------------------------------------------


def test_an_end_whose_telling_was_cut_off_is_told_by_the_next_delivery() -> None:
    harness = Harness()
    request_id = harness.run_one()
    write = harness.receipts.write

    def broken(*_: Any) -> None:
        raise Conflict("receipt keeps changing")

    harness.receipts.write = broken  # type: ignore[assignment, method-assign]
    event = StatusEvent(display_name=f"{request_id}-1", status="Succeeded", execution_arn="arn")
    (first,) = harness.record.settle([event], after(60))
    assert isinstance(first, Conflict), "the message comes again"
    assert harness.request(request_id).state in TERMINAL
    harness.receipts.write = write  # type: ignore[method-assign]
    assert harness.end(request_id) is Recorded.STALE
    assert harness.receipts.written[request_id]["state"] == "SUCCEEDED"
