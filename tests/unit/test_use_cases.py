"""The use cases over the memory adapters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from testing import memory_ports as memory
from testing.memory_store import MemoryStore
from testing.service import ACCOUNT, DEFAULTS, Service, policies_in_force
from tests.build import NOW, after, choice, content, hard, policy, step, submission, tenant, tier
from trainyard.application.ports import ExecutionReport, InputData
from trainyard.application.scheduling import reconcile
from trainyard.application.scheduling.dispatch import PassRecord
from trainyard.application.scheduling.enlistment import Enlisted, Enlistment
from trainyard.application.scheduling.intake import Arrival, Judgement, Verdict
from trainyard.application.scheduling.record import Recorded, StatusEvent, StatusResult
from trainyard.application.scheduling.starts import REPEATS_MAX, Started
from trainyard.contracts.decisions import decode_pass, encode_pass
from trainyard.domain.admission import decide
from trainyard.domain.arrivals import RetrainingAsked, UploadArrived
from trainyard.domain.errors import (
    Conflict,
    Malformed,
    OutcomeUnknown,
    QuotaReached,
    Refused,
    StartDelayed,
    StartInvalid,
    Throttled,
)
from trainyard.domain.failures import OUT_OF_MEMORY
from trainyard.domain.names import display_name
from trainyard.domain.policy import Policy, TenantPolicy
from trainyard.domain.requests import Cause, Outcome, Request, State
from trainyard.domain.scheduling import Reason
from trainyard.domain.tenants import RoleState, Tenant, TenantState, TrainingSettings, TrainOn
from trainyard.persistence.arrival_limits import ArrivalLimits
from trainyard.persistence.bell import BELL, Hint, bell_ring_from
from trainyard.persistence.ledger import BY_END, LEDGER
from trainyard.persistence.policies import Policies
from trainyard.persistence.store import Write

TRIES = 1 + REPEATS_MAX
"""How often a pass sends a start that is not answered."""


@dataclass
class Harness:
    """The whole service over one store in memory."""

    limits: Policy = field(default_factory=policy)
    tenants: tuple[Tenant, ...] = (tenant(),)

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.queues, self.bell = memory.MemoryTierQueues(), memory.MemoryBell()
        self.roles = memory.MemoryRoles()
        self.data_sets, self.executions = memory.MemoryDataSets(), memory.MemoryExecutions()
        self.receipts, self.announcements = memory.MemoryReceipts(), memory.MemoryAnnouncements()
        self.reports, self.results = memory.MemoryReports(), memory.MemoryResults()
        self.models, self.annotations = memory.MemoryModels(), memory.MemoryAnnotations()
        self.refused_uploads, self.retrainings = memory.MemoryRefusedUploads(), memory.MemoryRetrainings()
        self.retrainings.arrive = lambda asked: self.intake.receive([asked], NOW)
        service = Service(
            store=self.store,
            policies=policies_in_force(self.store, self.limits),
            tenants=memory.MemoryTenants(*self.tenants, store=self.store),
            receipts=self.receipts,
            announcements=self.announcements,
            bell=self.bell,
            roles=self.roles,
            data_sets=self.data_sets,
            executions=self.executions,
            reports=self.reports,
            results=self.results,
            models=self.models,
            annotations=self.annotations,
            tier_queues=self.queues,
            retrainings=self.retrainings,
            refused_uploads=self.refused_uploads,
        )
        self.scheduler = service.scheduler
        self.intake, self.enlist, self.dispatch = service.intake, service.enlist, service.dispatch
        self.record, self.reconcile, self.stop = service.record, service.reconcile, service.stop
        self.deadline_watch, self.outbox = service.deadline_watch, service.outbox
        self.expedite = service.expedite

    def start_from(self, data_sets: Any) -> None:
        """Let starts read the tenants' data from another port."""
        self.dispatch = replace(self.dispatch, starts=replace(self.dispatch.starts, data_sets=data_sets))

    def upload(self, **changes: Any) -> list[Verdict]:
        arrival = UploadArrived(account_id=ACCOUNT, content=content(**changes))
        return [judgement.verdict for judgement in self.receive(arrival)]

    def receive(self, arrival: Arrival) -> list[Judgement]:
        """Let one arrival come alone; raises what it must be delivered again for."""
        (result,) = self.intake.receive([arrival], NOW)
        if isinstance(result, Exception):
            raise result
        return result

    def run_one(self, number: int = 1) -> str:
        """Enlist and start one request; return its id."""
        self.enlist.enlist(submission(number), NOW)
        self.dispatch.run_pass(NOW)
        return submission(number).request_id

    def request(self, request_id: str) -> Request:
        found = self.scheduler.tables.requests.get(request_id)
        assert found is not None
        return found

    def requests(self) -> list[Request]:
        return [self.request(key.values[0][1]) for key in self.store.items if key.table == "requests"]

    def end(self, request_id: str, status: str = "Succeeded", attempt: int = 1, seconds: float = 60) -> Recorded:
        event = StatusEvent(display_name=display_name(request_id, attempt), status=status, execution_arn="arn")
        (settled,) = self.record.settle([event], after(seconds))
        assert isinstance(settled, StatusResult), settled
        return settled.recorded


# --- intake -------------------------------------------------------------------------------------------------


def test_an_upload_goes_to_the_queue_of_its_tenants_tier() -> None:
    harness = Harness()
    assert harness.upload() == [Verdict.SUBMITTED]
    (sent,) = harness.queues.sent
    assert (sent.tenant_id, sent.tier, sent.data_set, sent.cause) == ("acme", "basic", "churn", Cause.UPLOAD)


def test_the_same_event_five_times_names_the_same_request() -> None:
    harness = Harness()
    for _ in range(5):
        harness.upload()
    assert len({sent.request_id for sent in harness.queues.sent}) == 1


def test_a_refused_upload_is_recorded_announced_once_and_receipted() -> None:
    harness = Harness()
    assert harness.upload(size_bytes=0) == harness.upload(size_bytes=0) == [Verdict.REJECTED]
    (kept,) = harness.requests()
    assert (kept.state, kept.data_set) == (State.REJECTED, "churn")
    assert "empty" in str(harness.receipts.written[kept.request_id]["message"])
    assert "removed after 7 days" in str(kept.reason)
    assert len(harness.announcements.announced) == 1
    assert harness.queues.sent == []
    assert {(one.key, one.version_id) for one in harness.refused_uploads.expiring} == {
        ("incoming/churn/data.csv", "v1")
    }


def test_a_refused_upload_of_a_data_set_that_is_trained_on_as_a_whole_does_not_expire() -> None:
    harness = Harness(
        tenants=(tenant(settings=TrainingSettings(algorithm="linear", target="y", train_on=TrainOn.WHOLE_PREFIX)),)
    )
    assert harness.upload(size_bytes=10**12) == [Verdict.REJECTED]
    (kept,) = harness.requests()
    assert harness.refused_uploads.expiring == []
    assert "removed" not in str(kept.reason)


def test_data_for_which_a_retraining_is_refused_does_not_expire() -> None:
    harness = Harness()
    harness.data_sets.objects["acme", "churn"] = [content(size_bytes=10**12)]
    (judgement,) = harness.receive(
        RetrainingAsked(account_id=ACCOUNT, event_id="e", tenant_id="acme", data_set="churn")
    )
    assert (judgement.verdict, judgement.kind) == (Verdict.REJECTED, "too large")
    assert harness.refused_uploads.expiring == []


def test_uploads_above_a_tenants_limit_wait_and_cost_nobody_else_anything() -> None:
    limits = policy(uploads_per_hour=2, tenants={"big": TenantPolicy(uploads_per_hour=3)})
    harness = Harness(limits=limits, tenants=(tenant("acme"), tenant("calm"), tenant("big")))

    def judged(name: str, number: int, now: datetime = NOW, *, key: str = "") -> Verdict:
        key = key or f"incoming/set-{number}/d.csv"
        arrival = UploadArrived(account_id=ACCOUNT, content=content(key, bucket=f"trainyard-t-{name}"))
        (result,) = harness.intake.receive([arrival], now)
        assert not isinstance(result, Exception)
        return result[0].verdict

    assert [judged("acme", n) for n in range(4)] == [Verdict.SUBMITTED] * 2 + [Verdict.DEFERRED] * 2
    assert [judged("calm", n) for n in range(2)] == [Verdict.SUBMITTED] * 2
    assert [judged("big", n) for n in range(4)] == [Verdict.SUBMITTED] * 3 + [Verdict.DEFERRED]
    assert judged("acme", 0, key="models/x") is Verdict.IGNORED
    assert harness.receipts.written == {}, "nothing is written for each"
    assert harness.announcements.announced == []
    assert judged("acme", 5, after(3600)) is Verdict.SUBMITTED
    (young,) = harness.store.query("scheduler", "young", limit=10).items[:1]
    assert young["sk"] == "acme"


def test_a_limit_is_counted_once_a_batch_and_where_it_cannot_be_the_uploads_come_again() -> None:
    harness = Harness(limits=policy(uploads_per_hour=5))
    batch = [UploadArrived(account_id=ACCOUNT, content=content(f"incoming/s-{n}/d.csv")) for n in range(3)]
    first, second = harness.intake.receive(batch, NOW), harness.intake.receive(batch, NOW)
    assert [r[0].verdict for r in first if isinstance(r, list)] == [Verdict.SUBMITTED] * 3
    assert [r[0].verdict for r in second if isinstance(r, list)] == [Verdict.DEFERRED] * 3
    limits = ArrivalLimits(_Throttling(), lambda _: None)
    failed = replace(harness.intake, arrival_limits=limits).receive(batch, NOW)
    assert [type(result) for result in failed] == [Throttled] * 3, "to be delivered again"


class _Throttling(MemoryStore):
    def transact(self, writes: Sequence[Write]) -> None:
        raise Throttled("slow down")


def test_while_others_count_a_tenants_uploads_they_are_admitted() -> None:
    class Contended(MemoryStore):
        def transact(self, writes: Sequence[Write]) -> None:
            raise Conflict("others were writing")

    assert ArrivalLimits(Contended(), lambda _: None).admit("acme", 1, limit=1, now=NOW)


def test_an_upload_of_a_suspended_tenant_is_refused() -> None:
    harness = Harness(tenants=(tenant(state=TenantState.SUSPENDED),))
    assert harness.upload() == [Verdict.REJECTED]
    assert harness.refused_uploads.expiring == [], "the tenant may be resumed"


@pytest.mark.parametrize("key", ["receipts/churn/x.json", "models/churn/x/model.tar.gz", "stray.csv", "reports/x"])
def test_an_object_outside_incoming_starts_nothing_and_leaves_nothing(key: str) -> None:
    harness = Harness()
    assert harness.upload(key=key) == [Verdict.IGNORED]
    assert (harness.queues.sent, harness.requests(), harness.receipts.written) == ([], [], {})


def test_a_bucket_of_no_tenant_and_an_event_of_another_account_make_no_sense() -> None:
    harness = Harness()
    with pytest.raises(Malformed, match="belongs to no tenant"):
        harness.upload(bucket="somebody-elses")
    with pytest.raises(Malformed, match="account 999999999999"):
        harness.receive(UploadArrived(account_id="999999999999", content=content()))


def test_each_arrival_of_a_batch_stands_alone_and_one_that_came_twice_is_sent_once() -> None:
    harness = Harness()
    good, unmanaged, odd = (
        UploadArrived(account_id=account, content=content(**changes))
        for account, changes in (
            (ACCOUNT, {}),
            ("999999999999", {}),
            (ACCOUNT, {"key": "models/x.csv"}),
        )
    )
    again = UploadArrived(account_id=ACCOUNT, content=content())
    results = harness.intake.receive([good, unmanaged, retraining(tenant_id="nobody"), odd, again], NOW)
    told = [type(one).__name__ if isinstance(one, Exception) else [j.verdict for j in one] for one in results]
    assert told == [[Verdict.SUBMITTED], "Malformed", "Malformed", [Verdict.IGNORED], [Verdict.SUBMITTED]]
    assert len(harness.queues.sent) == 1


def test_an_upload_whose_tenant_cannot_be_read_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    whose: Callable[[Any], Any] = harness.intake.tenants.owners_of

    def owners_of(objects: Any) -> Any:
        if any("unreadable" in key for _, key in objects):
            raise ValueError("a state that this code does not know")
        return whose(objects)

    monkeypatch.setattr(harness.intake.tenants, "owners_of", owners_of)
    keys = ("incoming/churn/data.csv", "incoming/unreadable/data.csv")
    arrivals = [UploadArrived(account_id=ACCOUNT, content=content(key)) for key in keys]
    good, bad = harness.intake.receive(arrivals, NOW)
    assert isinstance(bad, ValueError)
    assert not isinstance(good, Exception)
    assert [judgement.verdict for judgement in good] == [Verdict.SUBMITTED]


def test_uploads_are_sent_before_a_retraining_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    sent: list[int] = []

    def names(_: Tenant) -> list[str]:
        sent.append(len(harness.queues.sent))
        return []

    monkeypatch.setattr(harness.data_sets, "names", names)
    harness.intake.receive([retraining(), UploadArrived(account_id=ACCOUNT, content=content())], NOW)
    assert sent == [1]


def test_what_a_full_tier_queue_did_not_take_is_delivered_again() -> None:
    harness = Harness()
    harness.upload()
    harness.queues.full = {harness.queues.sent[0].request_id}
    assert harness.upload() == [Verdict.UNSENT]


def retraining(**changes: Any) -> RetrainingAsked:
    defaults: dict[str, Any] = {"account_id": ACCOUNT, "event_id": "e1", "tenant_id": "acme", "data_set": None}
    return RetrainingAsked(**defaults | changes)


def test_retraining_takes_the_newest_data_of_every_data_set() -> None:
    harness = Harness()
    harness.data_sets.objects = {
        ("acme", "churn"): [content(), content("incoming/churn/newer.csv")],
        ("acme", "sales"): [content("incoming/sales/a.csv")],
    }
    harness.receive(retraining())
    assert [(s.data_set, s.content.key, s.cause) for s in harness.queues.sent] == [
        ("churn", "incoming/churn/newer.csv", Cause.RETRAINING),
        ("sales", "incoming/sales/a.csv", Cause.RETRAINING),
    ]


def test_retraining_asked_for_twice_by_two_events_is_two_requests_and_redelivered_is_one() -> None:
    harness = Harness()
    harness.data_sets.objects = {("acme", "churn"): [content()]}
    for event_id in ("e1", "e1", "e2"):
        harness.receive(retraining(event_id=event_id))
    assert len({sent.request_id for sent in harness.queues.sent}) == 2


def test_retraining_without_data_is_refused_and_of_nobody_makes_no_sense() -> None:
    harness = Harness()
    (judgement,) = harness.receive(retraining(data_set="churn"))
    assert (judgement.verdict, judgement.kind) == (Verdict.REJECTED, "no data")
    assert "no data" in str(judgement.reason)
    with pytest.raises(Malformed, match="no tenant 'nobody'"):
        harness.receive(retraining(tenant_id="nobody"))


# --- enlist -------------------------------------------------------------------------------------------------


def test_a_batch_rings_the_bell_once_now_and_once_when_the_last_quiet_period_ends() -> None:
    quiet = policy(quiet_period=policy().delay_max / 10)
    harness = Harness(limits=quiet)
    harness.enlist.enlist_batch([submission(number) for number in (1, 2, 3)], after(3))
    assert harness.bell.rings == [after(33)]
    assert harness.bell.hints == [tuple(Hint("basic", "acme", submission(n).request_id) for n in (1, 2, 3))]
    due_now = Harness()
    due_now.enlist.enlist_batch([submission(n) for n in (1, 2)], NOW)
    assert due_now.bell.rings == []
    ring = bell_ring_from(due_now.store.items[BELL])  # in the transaction that enlisted them
    assert ring.number == 1
    assert ring.hints == tuple(Hint("basic", "acme", submission(n).request_id) for n in (1, 2))


def test_a_duplicate_tells_again_what_may_have_been_cut_off() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(), NOW)
    harness.receipts.written.clear()
    harness.receipts._progress.clear()
    again = harness.enlist.enlist(submission(), NOW)
    assert (again.kind, harness.bell.rings) == (Enlistment.DUPLICATE, [])
    assert list(harness.receipts.written) == [submission().request_id]
    assert [request.state for request in harness.announcements.announced] == [State.QUEUED] * 2


# --- dispatch -----------------------------------------------------------------------------------------------


def test_a_pass_fills_the_free_slots_and_leaves_the_rest_waiting() -> None:
    harness = Harness(limits=policy(tier(quota=2, running_max_per_tenant=2)))
    for number in range(1, 5):
        harness.enlist.enlist(submission(number), after(number))
    report = harness.dispatch.run_pass(after(10))
    assert [start.result for start in report.starts] == [Started.RUNNING] * 2
    assert harness.scheduler.tables.ledger.read().used == 2
    assert len(harness.executions.by_token) == 2
    assert [wait.reason for wait in report.plan.waits] == [Reason.TENANT_CAP]
    assert harness.dispatch.run_pass(after(11)).plan.waits == ()  # a full tier is not even read


def test_every_parameter_of_a_start_derives_from_the_tenants_record_and_the_policy() -> None:
    owner = tenant()
    harness = Harness(tenants=(owner, tenant("other")))
    harness.run_one()
    ((name, parameters),) = harness.executions.by_token.values()
    root = f"s3://{owner.bucket}/"
    request_id = submission().request_id
    assert name == f"{request_id}-1"
    assert parameters == {
        "RequestId": request_id,
        "Attempt": "1",
        "TenantId": "acme",
        "TierName": "basic",
        "DataSet": "set-1",
        "InputDataUri": f"{root}reports/set-1/{request_id}/input.manifest",
        "InputBytes": "1000",
        "StatisticsUri": "s3://code/code/1/steps/no_statistics.json",
        "ChampionUri": "s3://code/code/1/steps/no_champion.json",
        "Challenge": "none:",
        "WarmStart": "no",
        "DriftRules": "refuse:train:30:",
        "ModelOutputUri": f"{root}models/set-1/{request_id}",
        "ReportOutputUri": f"{root}reports/set-1/{request_id}",
        "ProcessingInstanceType": "ml.t3.medium",
        "TrainingInstanceType": "ml.m5.large",
        "TrainingInstanceCount": "1",
        "TrainingVolumeSizeGB": "30",
        "MaxRuntimeSeconds": "3600",
        "JobRoleArn": owner.role_arn,
        "ModelPackageGroupName": owner.model_group,
        "TrainingImageUri": DEFAULTS.training_image_uri,
        "ProcessingImageUri": DEFAULTS.processing_image_uri,
        "CodeUri": DEFAULTS.code_uri,
        "OutputKmsKeyId": DEFAULTS.key_arn,
        "Algorithm": "linear",
        "QualityMetric": "auto",
        "NetworkIsolation": "False",
        "TrafficEncryption": "False",
        "TargetColumn": "y",
        "ProblemType": "auto",
        "Split": "auto",
        "MinimumQuality": "0.5",
        "Hyperparameters": '{"regularization":1.0,"max_iter":1000}',
    }
    assert not [value for value in parameters.values() if "other" in value or value == ""]


def test_a_start_refused_for_quota_goes_back_to_the_queue_and_frees_its_slot() -> None:
    harness = Harness()
    harness.executions.faults = [(StartDelayed("ResourceLimitExceeded: 20 executions"), False)]
    request_id = harness.run_one()
    kept = harness.request(request_id)
    assert (kept.state, kept.due_at, harness.scheduler.tables.ledger.read().used) == (State.QUEUED, after(60), 0)
    assert "ResourceLimitExceeded" in str(kept.reason)
    harness.dispatch.run_pass(after(59))
    assert harness.executions.by_token == {}
    harness.dispatch.run_pass(after(60))
    assert [name for name, _ in harness.executions.by_token.values()] == [f"{request_id}-2"]


def test_a_start_refused_for_good_fails_the_request_with_sagemakers_words() -> None:
    harness = Harness()
    harness.executions.faults = [(StartInvalid("ValidationException: no parameter X"), False)]
    kept = harness.request(harness.run_one())
    assert (kept.state, kept.reason) == (State.FAILED, "ValidationException: no parameter X")
    assert harness.scheduler.tables.ledger.read().used == 0
    assert harness.receipts.written[kept.request_id]["state"] == "FAILED"


@pytest.mark.parametrize(
    ("fault", "took_effect"), [(Throttled("slow down"), False), (OutcomeUnknown("timed out"), True)]
)
def test_after_a_throttled_or_unanswered_start_the_slot_stays_taken_and_it_is_settled_later(
    fault: Exception, took_effect: bool
) -> None:
    harness = Harness()
    harness.executions.faults = [(fault, took_effect)] * TRIES
    kept = harness.request(harness.run_one())
    assert (kept.state, harness.scheduler.tables.ledger.read().used) == (State.ADMITTED, 1)
    harness.dispatch.run_pass(after(29))
    assert harness.executions.calls == TRIES  # not yet overdue
    harness.executions.faults = [] if not took_effect else [(StartInvalid("other parameters"), False)]
    harness.dispatch.run_pass(after(31))
    assert len(harness.executions.by_token) == 1
    assert harness.request(kept.request_id).state is State.RUNNING


@pytest.mark.parametrize("tries", range(1, TRIES))
def test_a_start_that_is_not_answered_is_repeated_by_its_pass_with_the_same_token(tries: int) -> None:
    harness = Harness()
    harness.executions.faults = [(OutcomeUnknown("timed out"), tries == 1)] * tries
    request_id = harness.run_one()
    assert harness.request(request_id).state is State.RUNNING
    assert (harness.executions.calls, len(harness.executions.by_token)) == (tries + 1, 1)


@pytest.mark.parametrize("refusal", [QuotaReached("ResourceLimitExceeded: 20"), StartInvalid("no parameter X")])
def test_a_refusal_after_a_start_that_was_not_answered_is_not_final(refusal: Exception) -> None:
    """The first start may have taken the last of the quota, or still arrive: its slot stays taken."""
    harness = Harness()
    harness.executions.faults = [(OutcomeUnknown("timed out"), True), (refusal, False)]
    request_id = harness.run_one()
    assert (harness.request(request_id).state, harness.executions.calls) == (State.ADMITTED, 2)
    assert harness.scheduler.tables.ledger.read().throttled_until is None
    harness.dispatch.run_pass(after(60))
    assert harness.request(request_id).state is State.RUNNING


def test_what_the_sweeper_claimed_before_its_pass_read_it_is_left_to_the_sweeper() -> None:
    """A pass that stalls for long after its commit would otherwise be refused, and free the slot of what runs."""
    harness = Harness()
    harness.enlist.enlist(submission(1), NOW)
    read_set = harness.scheduler.admitter.read(harness.limits, NOW)
    plan = decide(read_set.snapshot, harness.limits, NOW)
    committed = harness.scheduler.admitter.commit(plan, read_set, harness.limits, NOW)
    request = harness.request(submission(1).request_id)
    assert harness.scheduler.tables.requests.claim(request, after(40))
    harness.executions.faults = [(QuotaReached("ResourceLimitExceeded: 20"), False)]
    begun = harness.dispatch.starts.start_all(replace(committed, requests={}), {}, harness.limits, NOW)
    assert (begun, harness.executions.calls) == ([], 0)
    assert harness.request(request.request_id).state is State.ADMITTED


def test_a_pass_without_time_repeats_no_start() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(1), NOW)
    harness.executions.faults = [(Throttled("slow down"), False)]
    asked = iter([False])
    harness.dispatch.run_pass(NOW, out_of_time=lambda: next(asked, True))
    assert harness.executions.calls == 1


@pytest.mark.parametrize("lists_late", [False, True])
def test_an_unanswered_start_runs_once_even_while_sagemaker_does_not_list_it_yet(lists_late: bool) -> None:
    harness = Harness()
    harness.executions.faults = [(OutcomeUnknown("timed out"), True)] * TRIES
    harness.executions.lists_late = lists_late
    request_id = harness.run_one()
    harness.dispatch.run_pass(after(121))
    assert [name for name, _ in harness.executions.by_token.values()] == [f"{request_id}-1"]
    assert harness.executions.calls == (TRIES + 1 if lists_late else TRIES)
    assert harness.request(request_id).state is State.RUNNING


def test_one_request_that_fails_in_an_unforeseen_way_holds_up_no_other() -> None:
    harness = Harness(limits=policy(tier(quota=3, running_max_per_tenant=3)))
    for number in (1, 2, 3):
        harness.enlist.enlist(submission(number), after(number))
    harness.executions.faults = [(RuntimeError("no such bucket"), False)]
    report = harness.dispatch.run_pass(after(10))
    assert [start.result for start in report.starts] == [Started.UNKNOWN, Started.RUNNING, Started.RUNNING]
    assert "no such bucket" in str(report.starts[0].detail)
    harness.dispatch.run_pass(after(200))
    assert harness.request(submission(1).request_id).state is State.RUNNING


def test_a_data_set_larger_than_its_tier_takes_fails_before_it_costs_anything() -> None:
    whole = replace(tenant().settings, train_on=TrainOn.WHOLE_PREFIX)
    harness = Harness(tenants=(tenant(settings=whole),))
    harness.data_sets.objects = {("acme", "set-1"): [content(size_bytes=60 * 1024 * 1024)] * 2}
    kept = harness.request(harness.run_one())
    assert (kept.state, harness.executions.calls) == (State.FAILED, 0)
    assert "allows at most" in str(kept.reason)


def test_a_data_set_whose_objects_are_gone_fails_with_a_reason() -> None:
    whole = replace(tenant().settings, train_on=TrainOn.WHOLE_PREFIX)
    harness = Harness(tenants=(tenant(settings=whole),))
    kept = harness.request(harness.run_one())
    assert (kept.state, kept.reason) == (State.FAILED, "there is no data left under incoming/set-1/")


# --- record -------------------------------------------------------------------------------------------------


def test_the_end_of_an_execution_releases_its_slot_rings_the_bell_and_books_the_cost() -> None:
    harness = Harness()
    harness.reports.report = ExecutionReport(steps=(step(),))
    harness.results.outcome = Outcome(quality=0.9, trained_sha256="s")
    request_id = harness.run_one()
    assert harness.record.step_reached(request_id=request_id, attempt=1, model_package_arn="package/1")
    assert harness.end(request_id) is Recorded.FINISHED
    kept = harness.request(request_id)
    # An hour at 0.115 USD, and 30 GB at 0.14 USD per 730 hours.
    assert kept.outcome == Outcome(
        quality=0.9, trained_sha256="s", model_package_arn="package/1", cost_usd="0.120753"
    )
    assert (kept.state, harness.scheduler.tables.ledger.read().used) == (State.SUCCEEDED, 0)
    assert harness.store.items[LEDGER]["by"] == BY_END  # which the stream tells the dispatcher
    assert harness.receipts.written[request_id]["state"] == "SUCCEEDED"


def test_a_terminal_event_twice_changes_nothing_the_second_time() -> None:
    harness = Harness()
    request_id = harness.run_one()
    assert [harness.end(request_id), harness.end(request_id, "Failed")] == [Recorded.FINISHED, Recorded.STALE]
    assert (harness.request(request_id).state, harness.scheduler.tables.ledger.read().used) == (State.SUCCEEDED, 0)


def test_a_terminal_event_may_arrive_before_the_start_was_recorded() -> None:
    harness = Harness()
    harness.executions.faults = [(OutcomeUnknown("timed out"), True)]
    request_id = harness.run_one()
    assert harness.end(request_id) is Recorded.FINISHED
    assert (harness.request(request_id).state, harness.scheduler.tables.ledger.read().used) == (State.SUCCEEDED, 0)


def test_a_failure_keeps_the_step_and_its_own_last_line() -> None:
    harness = Harness()
    harness.reports.report = ExecutionReport(failed_step="Preprocess", failure="no column 'y'")
    request_id = harness.run_one()
    harness.end(request_id, "Failed")
    kept = harness.request(request_id)
    assert (kept.state, kept.reason) == (State.FAILED, "Preprocess: no column 'y'")


def test_a_run_without_memory_enough_says_how_large_its_data_and_its_instances_were() -> None:
    harness = Harness()
    harness.reports.report = ExecutionReport(failed_step="Preprocess", failure=OUT_OF_MEMORY)
    request_id = harness.run_one()
    harness.end(request_id, "Failed")
    reason = harness.request(request_id).reason or ""
    types = {name for name in harness.request(request_id).profile.split() if name.startswith("ml.")}
    assert reason.startswith("Preprocess: out of memory: the data needs more memory than ")
    assert all(name in reason for name in types)
    assert "train on less, or ask for larger instances" in reason


@pytest.mark.parametrize(
    ("code_uri", "state"),
    [(None, State.FAILED), ("s3://own/scripts", State.RUNNING)],
    ids=["shipped", "own scripts"],
)
def test_a_file_that_is_no_table_is_refused_before_its_run_starts_unless_other_scripts_read_it(
    code_uri: str | None, state: State
) -> None:
    limits = policy(tier())
    name = tenant().settings.algorithm
    own = replace(limits.algorithm(name), code_uri=code_uri)
    harness = Harness(limits=replace(limits, algorithms={name: own}))

    class DataSets:
        def write_manifest(self, _: Tenant, one: Request) -> InputData:
            return InputData(one.data_bytes, b"%PDF-1.7 and more")

    harness.start_from(DataSets())
    harness.enlist.enlist(submission(1), NOW)
    harness.dispatch.run_pass(NOW)
    stored = harness.request(submission(1).request_id)
    assert stored.state is state
    if state is State.FAILED:
        assert "is a PDF document: export the table as CSV" in (stored.reason or "")


def test_a_run_whose_last_step_could_not_tell_of_it_has_succeeded() -> None:
    harness = Harness()
    harness.reports.report = ExecutionReport(failed_step="Record", failure="killed", model_package_arn="arn:model")
    request_id = harness.run_one()
    harness.end(request_id, "Failed")
    kept = harness.request(request_id)
    assert (kept.state, kept.reason) == (State.SUCCEEDED, None)
    assert kept.outcome is not None
    assert (kept.outcome.model_package_arn, kept.outcome.failed_step) == ("arn:model", None)


@pytest.mark.parametrize(
    ("failed_step", "arn", "state"),
    [
        (None, "arn:model", State.SUCCEEDED),  # the failure of the last step is not listed yet
        ("Record", None, State.FAILED),  # nothing says that a model was registered
        (None, None, State.FAILED),
        ("Train", "arn:model", State.FAILED),
    ],
)
def test_a_failed_run_has_succeeded_only_if_its_model_is_registered(
    failed_step: str | None, arn: str | None, state: State
) -> None:
    harness = Harness()
    harness.reports.report = ExecutionReport(failed_step=failed_step, model_package_arn=arn)
    request_id = harness.run_one()
    harness.end(request_id, "Failed")
    assert harness.request(request_id).state is state


@pytest.mark.parametrize(
    ("status", "state"),
    [("CompletedWithFailures", State.FAILED), ("Stopped", State.STOPPED), ("Succeeded", State.SUCCEEDED)],
)
def test_each_terminal_status_ends_the_request(status: str, state: State) -> None:
    harness = Harness()
    request_id = harness.run_one()
    assert harness.end(request_id, status) is Recorded.FINISHED
    assert harness.request(request_id).state is state


def test_an_unknown_status_frees_nothing() -> None:
    harness = Harness()
    request_id = harness.run_one()
    assert harness.end(request_id, "Hibernating") is Recorded.UNKNOWN_STATUS
    assert harness.scheduler.tables.ledger.read().used == 1


def test_events_of_other_executions_and_attempts_change_nothing() -> None:
    harness = Harness()
    request_id = harness.run_one()
    assert harness.end("f" * 32) is Recorded.NOT_OURS
    assert harness.end(request_id, attempt=2) is Recorded.STALE
    (settled,) = harness.record.settle(
        [StatusEvent(display_name="started-by-hand", status="Succeeded", execution_arn="arn")], NOW
    )
    assert isinstance(settled, StatusResult)
    assert settled.recorded is Recorded.NOT_OURS
    assert not harness.record.step_reached(request_id="f" * 32, attempt=1, model_package_arn="p")
    assert harness.scheduler.tables.ledger.read().used == 1


def test_a_freed_slot_is_used_by_the_next_pass() -> None:
    harness = Harness(limits=policy(tier(quota=1)))
    first = harness.run_one(1)
    harness.enlist.enlist(submission(2), NOW)
    harness.dispatch.run_pass(NOW)
    assert len(harness.executions.by_token) == 1
    harness.end(first)
    harness.dispatch.run_pass(after(61))
    assert len(harness.executions.by_token) == 2


# --- stop ---------------------------------------------------------------------------------------------------


def test_a_waiting_request_is_taken_back_and_its_tenant_told() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(), NOW)
    assert harness.stop.stop(submission().request_id, after(1)).state is State.CANCELLED
    assert harness.receipts.written[submission().request_id]["state"] == "CANCELLED"
    assert harness.announcements.announced[-1].state is State.CANCELLED


def test_a_running_request_is_asked_to_stop_and_one_that_ended_is_left() -> None:
    harness = Harness()
    request_id = harness.run_one()
    assert harness.stop.stop(request_id, after(1)).state is State.RUNNING
    assert len(harness.executions.stopped) == 1
    harness.end(request_id, "Stopped")
    for identity, reason in ((request_id, "STOPPED already"), ("f" * 32, "there is no request")):
        with pytest.raises(Refused, match=reason):
            harness.stop.stop(identity, after(2))


def test_a_request_that_is_just_being_started_is_stopped_once_its_execution_is_found() -> None:
    harness = Harness()
    harness.executions.faults = [(OutcomeUnknown("timed out"), True)] * TRIES
    request_id = harness.run_one()
    assert harness.stop.stop(request_id, after(1)).state is State.ADMITTED
    assert harness.executions.stopped == []
    harness.dispatch.run_pass(after(150))
    assert harness.request(request_id).state is State.RUNNING
    assert harness.executions.stopped == [harness.request(request_id).execution_arn]
    assert harness.executions.calls == TRIES, "it was not started once more"
    harness.end(request_id, "Stopped", seconds=160)
    assert harness.request(request_id).state is State.STOPPED


def test_a_start_that_is_recorded_after_somebody_wanted_it_stopped_is_left_to_the_sweeper() -> None:
    harness = Harness()
    start = harness.executions.start

    def stopped_meanwhile(**named: Any) -> str:
        arn = start(**named)
        harness.stop.stop(submission(1).request_id, NOW)
        return arn

    harness.executions.start = stopped_meanwhile  # type: ignore[method-assign]
    request_id = harness.run_one()
    assert harness.request(request_id).state is State.ADMITTED
    harness.dispatch.run_pass(after(150))
    assert harness.executions.stopped == [harness.request(request_id).execution_arn]


def test_what_is_to_be_stopped_and_never_ran_ends_as_stopped() -> None:
    harness = Harness()
    harness.executions.faults = [(Throttled("slow down"), False)] * 9
    request_id = harness.run_one()
    harness.stop.stop(request_id, after(1))
    harness.dispatch.run_pass(after(1000))
    kept = harness.request(request_id)
    assert (kept.state, kept.reason, harness.scheduler.tables.ledger.read().used) == (
        State.STOPPED,
        "a stop was requested",
        0,
    )
    assert harness.receipts.written[request_id]["state"] == "STOPPED"
    assert harness.executions.by_token == {}


# --- retries and repair -------------------------------------------------------------------------------------


def fails(harness: Harness, words: str) -> None:
    harness.reports.report = ExecutionReport(steps=(step(),), failed_step="train", failure=words)


def test_a_run_that_lacked_capacity_waits_longer_each_time_and_in_the_end_fails() -> None:
    harness = Harness()
    request_id = harness.run_one()
    fails(harness, "CapacityError: Unable to provision requested ML compute capacity")
    assert harness.end(request_id, "Failed", seconds=60) is Recorded.REQUEUED
    kept = harness.request(request_id)
    assert (kept.state, kept.due_at, harness.scheduler.tables.ledger.read().used) == (
        State.QUEUED,
        after(60 + 120),
        0,
    )
    harness.dispatch.run_pass(after(200))
    assert harness.end(request_id, "Failed", attempt=2, seconds=300) is Recorded.REQUEUED
    assert harness.request(request_id).due_at == after(300 + 240)
    harness.dispatch.run_pass(after(600))
    assert harness.end(request_id, "Failed", attempt=3, seconds=700) is Recorded.FINISHED
    assert "CapacityError" in str(harness.request(request_id).reason)


def test_a_run_that_failed_by_its_own_fault_is_not_tried_again() -> None:
    harness = Harness()
    request_id = harness.run_one()
    fails(harness, "AlgorithmError: the column 'y' is missing; not a CapacityError")
    assert harness.end(request_id, "Failed") is Recorded.FINISHED


def test_an_end_that_no_event_told_is_found_and_one_still_running_is_left() -> None:
    harness = Harness(limits=policy(tier(quota=2, running_max_per_tenant=2)))
    for number in (1, 2):
        harness.run_one(number)
    ended = str(harness.request(submission(1).request_id).execution_arn)
    harness.executions.statuses[ended] = "Succeeded"
    harness.executions.unmanaged = ["somebody-elses"]
    assert harness.reconcile.run(after(60)).asked == 0, "heard of a minute ago"
    repairs = harness.reconcile.run(after(600))
    assert [request.request_id for request in repairs.ended] == [submission(1).request_id]
    assert (repairs.asked, repairs.unmanaged, harness.scheduler.tables.ledger.read().unmanaged) == (1, 1, 1)
    assert harness.request(submission(2).request_id).state is State.RUNNING


def test_a_reconciler_without_time_asks_no_more_and_counts_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(limits=policy(tier(quota=2, running_max_per_tenant=2)))
    for number in (1, 2):
        harness.run_one(number)
    harness.executions.unmanaged = ["somebody-elses"]
    assert harness.reconcile.run(after(60)).unmanaged == 1

    def time_for_one() -> Callable[[], bool]:
        asked = iter([False, False])
        return lambda: next(asked, True)

    arns = [str(harness.request(submission(number).request_id).execution_arn) for number in (1, 2)]
    monkeypatch.setattr(reconcile, "ASKED_TOGETHER", 1)
    repairs = harness.reconcile.run(after(4000), out_of_time=time_for_one())
    assert (repairs.asked, repairs.ended, repairs.unmanaged) == (1, [], 1)
    harness.executions.statuses |= dict.fromkeys(arns, "Succeeded")
    (ended,) = harness.reconcile.run(after(4001), out_of_time=time_for_one()).ended
    assert ended.request_id == submission(2).request_id, "it was the one not asked about"
    harness.executions.unmanaged = ["another", "and-another"]
    harness.executions.statuses["arn/somebody-elses"] = "Succeeded"
    assert harness.reconcile.run(after(4002), out_of_time=lambda: True).unmanaged == 1
    assert harness.reconcile.run(after(4003)).unmanaged == 2


def test_after_a_refusal_for_quota_the_account_is_taken_for_full_for_a_while() -> None:
    harness = Harness()
    harness.executions.faults = [(QuotaReached("ResourceLimitExceeded: 20"), False)]
    harness.run_one()
    ledger = harness.scheduler.tables.ledger.read()
    assert (ledger.throttled_to, ledger.throttled_until) == (1, after(60))


def test_a_start_never_answered_goes_back_to_the_queue_once_nobody_can_be_starting_it() -> None:
    harness = Harness()
    harness.executions.faults = [(Throttled("slow down"), False)] * (TRIES + 2)
    request_id = harness.run_one()
    harness.dispatch.run_pass(after(150))
    assert harness.request(request_id).claimed_at is not None
    harness.dispatch.run_pass(after(600))
    assert harness.request(request_id).state is State.ADMITTED, "the slot stays taken"
    harness.dispatch.run_pass(after(1400))
    assert harness.executions.calls == TRIES + 2, "its token may soon be forgotten"
    assert harness.request(request_id).state is State.ADMITTED, "15 minutes after the last start, not the first"
    harness.dispatch.run_pass(after(1550))
    kept = harness.request(request_id)
    assert (kept.state, kept.due_at, kept.failures) == (State.QUEUED, after(1550 + 120), 1)
    harness.dispatch.run_pass(after(1700))
    assert (harness.request(request_id).state, harness.request(request_id).attempt) == (State.RUNNING, 2)


def test_a_start_that_was_taken_up_and_failed_again_is_taken_up_once_more() -> None:
    harness = Harness()
    harness.executions.faults = [(Throttled("slow down"), False)] * (TRIES + 1)
    request_id = harness.run_one()
    harness.dispatch.run_pass(after(150))
    harness.dispatch.run_pass(after(175))
    assert harness.executions.calls == TRIES + 1, "who took it up may still be at it"
    harness.dispatch.run_pass(after(185))
    kept = harness.request(request_id)
    assert (kept.state, kept.attempt, len(harness.executions.by_token)) == (State.RUNNING, 1, 1)


def test_a_start_that_never_works_fails_in_the_end_and_frees_its_slot() -> None:
    harness = Harness()
    harness.executions.faults = [(RuntimeError("no such bucket"), False)] * 50
    request_id = harness.run_one()
    for minute in range(1, 120):
        harness.dispatch.run_pass(after(60 * minute))
    kept = harness.request(request_id)
    assert (kept.state, kept.failures, harness.scheduler.tables.ledger.read().used) == (State.FAILED, 2, 0)
    assert "did not confirm its start" in str(kept.reason)


def test_a_pass_that_is_out_of_time_leaves_the_rest_to_the_next() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(1), NOW)
    report = harness.dispatch.run_pass(NOW, out_of_time=lambda: True)
    assert (report.complete, report.starts) == (False, [])


def test_an_execution_that_cannot_be_asked_about_holds_up_no_other() -> None:
    harness = Harness(limits=policy(tier(quota=2, running_max_per_tenant=2)))
    for number in (1, 2):
        harness.run_one(number)
    gone, ended = (str(harness.request(submission(number).request_id).execution_arn) for number in (1, 2))
    harness.executions.statuses[ended] = "Succeeded"
    status = harness.executions.status

    def ask(execution_arn: str) -> str:
        if execution_arn == gone:
            raise RuntimeError("ResourceNotFound")
        return status(execution_arn)

    harness.executions.status = ask  # type: ignore[method-assign]
    repairs = harness.reconcile.run(after(3500))  # the older ones are asked about one by one
    assert list(repairs.failed) == [submission(1).request_id]
    assert [request.request_id for request in repairs.ended] == [submission(2).request_id]


def test_refused_starts_use_up_no_retries() -> None:
    harness = Harness()
    harness.executions.faults = [(StartDelayed("ConflictException"), False)] * 3
    request_id = harness.run_one()
    for minute in (2, 4, 6):
        harness.dispatch.run_pass(after(60 * minute))
    assert harness.request(request_id).attempt == 4
    fails(harness, "CapacityError: none left")
    assert harness.end(request_id, "Failed", attempt=4, seconds=600) is Recorded.REQUEUED
    assert harness.request(request_id).due_at == after(600 + 120)


def test_data_that_turns_out_larger_goes_back_for_the_instances_that_it_needs() -> None:
    sizes = (choice(1), choice(100, training="ml.m5.xlarge"))
    whole = tenant(settings=replace(tenant().settings, train_on=TrainOn.WHOLE_PREFIX))
    harness = Harness(limits=policy(tier(instances=sizes)), tenants=(whole,))
    megabytes = content(size_bytes=1_000_000)
    harness.data_sets.objects["acme", "set-1"] = [megabytes] * 5
    request_id = harness.run_one()
    kept = harness.request(request_id)
    assert (kept.state, kept.attempt, kept.data_bytes) == (State.RUNNING, 2, 5_000_000)
    assert "ml.m5.xlarge" in kept.profile
    assert harness.scheduler.tables.ledger.read().usage["training/ml.m5.large"] == 0


def test_every_upload_of_a_data_set_is_trained_on_where_that_is_asked_for() -> None:
    eager = tenant(settings=replace(tenant().settings, every_upload=True))
    harness = Harness(limits=policy(tier(quota=2, running_max_per_tenant=2)), tenants=(eager,))
    for version in ("v1", "v2"):
        harness.upload(version_id=version)
    for sent in harness.queues.sent:
        harness.enlist.enlist(sent, NOW)
    harness.dispatch.run_pass(NOW)
    assert [request.state for request in harness.requests()] == [State.RUNNING, State.RUNNING]


def test_a_request_for_instances_beyond_their_quota_is_refused_at_arrival() -> None:
    limits = policy(tier(instances=(choice(instances=4),)), instance_quotas={"training/ml.m5.large": 3})
    harness = Harness(limits=limits)
    assert harness.upload() == [Verdict.REJECTED]
    (kept,) = harness.requests()
    assert "4 instances of training/ml.m5.large, and the policy's quota is 3" in str(kept.reason)


def test_a_tier_in_which_something_waits_cannot_be_taken_out_of_the_policy() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(1), NOW)
    book = policies_in_force(harness.store, harness.limits)
    with pytest.raises(Refused, match=r"tiers\.basic is in use: 0 of its requests run.*acme"):
        _other(book).check("other")


def _other(book: Policies) -> Policies:
    """Return policies whose text "other" lacks the tier "basic"."""
    parse = book.parse
    return replace(
        book,
        parse=lambda text, version: (
            policy(tier("other"), version=version) if text == "other" else parse(text, version)
        ),
    )


# --- tenants that go, move, or have no role yet ------------------------------------------------------------------


def test_a_pooled_tenants_role_is_made_before_its_first_request_waits_and_time_is_left_for_it() -> None:
    owner = tenant(bucket="pool", root="acme/", role=RoleState.NONE)
    harness = Harness(tenants=(owner,))
    one = submission(content=content("acme/incoming/set-1/d.csv", bucket="pool"))
    enlisted = harness.enlist.enlist(one, NOW)
    assert (enlisted.kind, harness.roles.made) == (Enlistment.QUEUED, ["acme"])
    assert enlisted.request.due_at == after(15)


@pytest.mark.parametrize(
    ("owner", "reason"),
    [
        (tenant("other"), "has been deleted since"),
        (tenant(state=TenantState.DELETING), "has been deleted since"),
        (tenant(state=TenantState.DELETED), "has been deleted since"),
        (tenant(bucket="elsewhere"), "has moved since"),
    ],
)
def test_a_request_whose_tenant_has_gone_or_moved_is_refused_and_nothing_waits(owner: Tenant, reason: str) -> None:
    harness = Harness(tenants=(owner,))
    for _ in range(2):
        enlisted = harness.enlist.enlist(submission(), NOW)
        assert enlisted.kind is Enlistment.REFUSED
    kept = harness.request(enlisted.request.request_id)
    assert kept.state is State.REJECTED
    assert reason in str(kept.reason)
    assert len(harness.announcements.announced) == 1
    assert harness.scheduler.tables.queues.get("basic", "acme").at_rest


def test_a_run_reads_nothing_outside_its_tenants_root_even_if_it_was_admitted() -> None:
    harness = Harness()
    stray = submission(content=content(bucket="another-tenants"))
    harness.scheduler.enlister.enlist(stray, harness.limits, NOW)
    harness.dispatch.run_pass(NOW)
    kept = harness.request(stray.request_id)
    assert (kept.state, harness.executions.by_token) == (State.FAILED, {})
    assert "has moved since the upload" in str(kept.reason)


def test_a_request_is_enlisted_in_the_tier_that_its_tenant_has_moved_to() -> None:
    limits = policy(tier("basic"), tier("premium"))
    harness = Harness(limits=limits, tenants=(tenant(tier="premium"),))
    assert harness.enlist.enlist(submission(tier="basic"), NOW).request.tier == "premium"


# --- budgets ------------------------------------------------------------------------------------------------


def test_a_run_on_a_budget_gets_the_maximum_runtime_that_it_has_reserved() -> None:
    harness = Harness(limits=policy(tenants={"acme": TenantPolicy(budget=hard("0.06"))}))
    kept = harness.request(harness.run_one())
    ((_, parameters),) = harness.executions.by_token.values()
    runtime = int(parameters["MaxRuntimeSeconds"])
    assert (runtime, kept.runtime_max_seconds) == (runtime, runtime)
    assert 60 < runtime < 3600, "less than the tier's hour"
    assert kept.reserved_usd <= Decimal("0.06")
    assert kept.ends_by == NOW + 3 * timedelta(seconds=runtime + 120)


def test_those_that_no_budget_allows_hold_up_nobody_however_many_they_are() -> None:
    """A pass reads a bounded number of queues; what cannot go is set aside until one that can is seen."""
    poor = {f"poor{number:03d}": TenantPolicy(budget=hard("0.000001")) for number in range(200)}
    limits = policy(tier(quota=4), tenants=poor)
    harness = Harness(limits=limits, tenants=tuple(tenant(name) for name in [*poor, "rich"]))
    for number, name in enumerate([*poor, "rich"]):
        harness.enlist.enlist(submission(number, tenant_id=name), after(number * 0.001))
    report = harness.dispatch.run_pass(after(1))
    assert [start.request.tenant_id for start in report.starts] == ["rich"]


def test_a_spent_budget_of_a_tier_hides_no_request_that_it_still_allows() -> None:
    small, large = choice(100), choice(200, instances=4)
    limits = policy(tier(quota=4, budget=hard("0.06"), instances=(small, large)))
    names = [f"t{number:03d}" for number in range(120)]
    harness = Harness(limits=limits, tenants=tuple(tenant(name) for name in [*names, "z"]))
    for number, name in enumerate(names):
        big = content(bucket=f"trainyard-t-{name}", size_bytes=150 * 1024 * 1024)
        harness.enlist.enlist(submission(number, tenant_id=name, content=big), after(number * 0.001))
    harness.enlist.enlist(submission(900, tenant_id="z"), after(1))
    report = harness.dispatch.run_pass(after(2))
    assert [start.request.tenant_id for start in report.starts] == ["z"]


def test_what_is_kept_of_a_pass_never_outgrows_an_item() -> None:
    wide = policy(tier(quota=4, running_max_per_tenant=4), running_max=4)
    harness = Harness(limits=wide, tenants=tuple(tenant(f"t{n}", bucket=f"bucket-{n}") for n in range(60)))
    encoded: list[bytes] = []

    def encode(kept: PassRecord) -> bytes:
        encoded.append(encode_pass(kept))
        return encoded[-1]

    for number in range(60):
        owner = f"t{number}"
        many = [
            submission(100 * number + n, tenant_id=owner, content=content(bucket=f"bucket-{number}"))
            for n in range(45)
        ]
        harness.enlist.enlist_batch(many, after(number))
    report = replace(harness.dispatch, encode=encode).run_pass(after(100))
    assert len(report.admissions) == 4
    assert max(map(len, encoded)) < 200_000
    kept = decode_pass(encoded[0])
    assert decide(kept.snapshot, kept.policy, kept.at, admissions_max=kept.admissions_max) == kept.plan


def test_a_pass_is_not_kept_rather_than_fail_for_its_record() -> None:
    harness = Harness()
    harness.enlist.enlist(submission(1), NOW)
    report = replace(harness.dispatch, encode=lambda _: b"x" * 350_000).run_pass(after(1))
    assert len(report.admissions) == 1


def test_one_end_that_cannot_be_looked_at_holds_up_no_other() -> None:
    harness = Harness(limits=policy(tier(quota=2, running_max_per_tenant=2)))
    ids = [harness.run_one(number) for number in (1, 2)]
    read = harness.reports.read

    def fails_for_the_first(execution_arn: str) -> ExecutionReport:
        if execution_arn == harness.request(ids[0]).execution_arn:
            raise Throttled("DescribeProcessingJob")
        return read(execution_arn)

    harness.reports.read = fails_for_the_first  # type: ignore[method-assign]
    events = [
        StatusEvent(display_name=display_name(one, 1), status="Succeeded", execution_arn=f"arn/{n}")
        for n, one in enumerate(ids, 1)
    ]
    first, second = harness.record.settle(events, after(60))
    assert isinstance(first, Throttled)
    assert isinstance(second, StatusResult)
    assert (second.recorded, harness.scheduler.tables.ledger.read().used) == (Recorded.FINISHED, 1)


def test_the_role_of_a_tenant_is_made_once_for_a_batch_and_a_failure_holds_up_no_other() -> None:
    poor = tenant("poor", role=RoleState.NONE, bucket="bucket-poor")
    harness = Harness(tenants=(tenant(), poor))
    asked: list[str] = []

    def make(tenant_id: str) -> None:
        asked.append(tenant_id)
        raise Throttled("IAM")

    harness.roles.make = make  # type: ignore[method-assign]
    batch = [submission(n, tenant_id="poor", content=content(bucket="bucket-poor")) for n in (1, 2)]
    results = harness.enlist.enlist_batch([*batch, submission(3)], NOW)
    assert asked == ["poor"]
    assert [type(one) for one in results] == [Throttled, Throttled, Enlisted]
