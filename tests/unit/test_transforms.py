"""Batch transforms: which rows are predicted with which model, and that they wait, run and pay as trainings do."""

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from local.cloud import REPOSITORY
from local.sagemaker.definition import Context, parameter_values
from testing import memory_ports as memory
from testing.memory_store import MemoryStore
from testing.service import ACCOUNT, DEFAULTS, PRICES, Service, policies_in_force
from tests.build import NOW, after, content, policy, submission, tenant, tier
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.intake import Judgement, Verdict
from trainyard.application.scheduling.record import Recorded, StatusEvent, StatusResult, is_overdue
from trainyard.contracts.arrivals import parse_arrival
from trainyard.contracts.jobs import parse_job_status
from trainyard.contracts.messages import parse_training_request, training_request_body
from trainyard.contracts.results import parse_plan
from trainyard.contracts.tenants import parse_step_command
from trainyard.domain.arrivals import TransformAsked
from trainyard.domain.budgets import cost_max_usd
from trainyard.domain.errors import DataUnavailable, Malformed, OutcomeUnknown, PipelineMissing, Refused
from trainyard.domain.executions import JobFacts, StepFacts
from trainyard.domain.failures import error_line
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.names import display_name
from trainyard.domain.policy import Budget, BudgetMode, Policy, TenantPolicy
from trainyard.domain.prices import JobKind
from trainyard.domain.receipts import is_latest
from trainyard.domain.requests import Outcome, Request, RequestKind, State
from trainyard.domain.resources import TRANSFORM_GRACE, ResourceProfile
from trainyard.domain.serving import ALLOWED, Mode, ServingSettings
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.domain.transforms import StoredObject, StoredRows, transform_parameters
from trainyard.persistence.run_history import ratios_from, ratios_key

DEFINITION = json.loads((REPOSITORY / "pipeline/transform.json").read_text(encoding="utf-8"))
MB = 1024 * 1024
ROOT = "transform/churn/"


def stored(*objects: tuple[str, int]) -> StoredRows:
    """Return rows of objects: name, size in bytes."""
    newest = content(key=f"{ROOT}{objects[-1][0]}", version_id=None, size_bytes=objects[-1][1])
    return StoredRows(
        newest=newest,
        objects=tuple(StoredObject(f"{ROOT}{name}", f"etag of {size}", size) for name, size in objects),
    )


def live(mode: Mode = Mode.BATCH_TRANSFORM, number: int = 1) -> ModelVersion:
    return ModelVersion(
        tenant_id="acme",
        data_set="churn",
        version=number,
        package_arn=f"arn:package/{number}",
        request_id="1" * 32,
        model_uri="s3://model",
        state=VersionState.READY,
        since=NOW,
        approved_at=NOW,
        endpoint=f"yard-own-acme-churn-{number}",
        serving=ServingSettings(mode=mode, isolation=ALLOWED[mode][0]),
    )


@dataclass
class Yard:
    """The whole service over one store in memory, with a live model and rows."""

    limits: Policy
    owner: Tenant

    def __post_init__(self) -> None:
        store = MemoryStore()
        self.queues, self.executions = memory.MemoryTierQueues(), memory.MemoryExecutions()
        self.rows, self.models = memory.MemoryRows(), memory.MemoryModels()
        self.reports, self.results = memory.MemoryReports(), memory.MemoryResults()
        self.receipts = memory.MemoryReceipts()
        self.tenants = memory.MemoryTenants(self.owner, store=store)
        self.rows.stored["acme", "churn"] = stored(("a.csv", 100), ("b.csv", 200))
        self.models.put(live())
        self.service = Service(
            store=store,
            policies=policies_in_force(store, self.limits),
            tenants=self.tenants,
            tier_queues=self.queues,
            executions=self.executions,
            rows=self.rows,
            models=self.models,
            reports=self.reports,
            results=self.results,
            receipts=self.receipts,
        )

    def ask(self, event_id: str = "e", *, force: bool = False) -> Judgement:
        asked = TransformAsked(
            account_id=ACCOUNT, event_id=event_id, tenant_id="acme", data_set="churn", is_forced=force
        )
        (result,) = self.service.intake.receive([asked], NOW)
        if isinstance(result, Exception):
            raise result
        (judgement,) = result
        return judgement

    def started(self) -> Request:
        """Ask for a transform, and let a pass start it."""
        judgement = self.ask()
        assert judgement.verdict is Verdict.SUBMITTED, judgement.reason
        self.service.enlist.enlist(self.queues.sent[-1], NOW)
        self.service.dispatch.run_pass(NOW)
        return self.request(str(judgement.request_id))

    def request(self, request_id: str) -> Request:
        request = self.service.scheduler.tables.requests.get(request_id)
        assert request is not None
        return request

    def end(self, request: Request, status: str, at: float = 600) -> Recorded:
        name = display_name(request.request_id, request.attempt)
        (settled,) = self.service.record.settle(
            [StatusEvent(display_name=name, status=status, execution_arn="arn")], after(at)
        )
        assert isinstance(settled, StatusResult), settled
        return settled.recorded


def yard(**changes: Any) -> Yard:
    return Yard(policy(**changes), tenant())


def step(status: str = "Completed", failure: str | None = None) -> StepFacts:
    job = JobFacts(
        kind=JobKind.TRANSFORM,
        arn="arn:transform-job/pipelines-x",
        status=status,
        instance_type="ml.m5.large",
        instance_count=1,
        started_at=NOW,
        ended_at=after(360),
    )
    ended = "Succeeded" if status == "Completed" else "Failed"
    return StepFacts(name="Transform", kind="Transform", status=ended, job=job, failure=failure)


# --- which rows, and which model ------------------------------------------------------------------------------


def test_the_same_rows_and_version_are_one_request_and_others_or_a_forced_one_are_not() -> None:
    service = yard()
    first = service.ask("e1").request_id
    assert service.ask("e2").request_id == first
    others = [service.ask("e3", force=True).request_id, service.ask("e4", force=True).request_id]
    service.rows.stored["acme", "churn"] = stored(("a.csv", 100), ("b.csv", 201))
    others.append(service.ask("e5").request_id)
    service.models.put(live(number=2))
    others.append(service.ask("e6").request_id)
    assert len({first, *others}) == 5
    (sent, *_) = service.queues.sent
    assert (sent.kind, sent.alone, sent.content.size_bytes, sent.content.key) == (
        RequestKind.TRANSFORM,
        True,
        300,
        "transform/churn/b.csv",
    )
    assert parse_training_request(training_request_body(sent)) == sent


@pytest.mark.parametrize(
    ("rows", "model", "reason"),
    [
        (stored(("a.csv", 1)), None, "no model of 'churn' is live"),
        (
            stored(("a.csv", 1)),
            live(Mode.MULTI_MODEL),
            "--serving batch-transform, real-time or asynchronous",
        ),
        (stored(("a.csv", 1)), live(Mode.SERVERLESS), "made for instances"),
        (None, live(), "there are no rows under transform/churn/"),
        (stored(("a.csv", 1), ("b.jsonl", 1)), live(), "objects of different types, such as a.csv and b.jsonl"),
        (stored(("a.parquet", 1)), live(), "a.parquet cannot be read by a batch transform"),
        (stored(("README", 1)), live(), "README cannot be read by a batch transform"),
        (stored(("a.csv", 100 * MB + 1)), live(), "a.csv has 104,857,601 bytes"),
        (stored(*((f"{n}.csv", 60 * MB) for n in range(2))), live(), r"the rows have 125,829,120 bytes in all"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_the_way_out_and_holds_nothing_up(
    rows: StoredRows | None, model: ModelVersion | None, reason: str
) -> None:
    service = yard()
    rightful_rows, rightful_model = (
        service.rows.stored.pop(("acme", "churn")),
        service.models.alias.pop(("acme", "churn")),
    )
    if rows is not None:
        service.rows.stored["acme", "churn"] = rows
    if model is not None:
        service.models.put(model)
    judgement = service.ask()
    assert (judgement.verdict, reason in str(judgement.reason)) == (Verdict.REJECTED, True), judgement.reason
    kept = service.request(str(judgement.request_id))
    assert (kept.kind, kept.state, kept.data_set) == (RequestKind.TRANSFORM, State.REJECTED, "churn")
    assert "the reason names something" in str(service.receipts.written[kept.request_id]["what_to_do"])
    service.rows.stored["acme", "churn"] = rightful_rows
    service.models.put(rightful_model)
    assert service.ask("later").verdict is Verdict.SUBMITTED


def test_the_request_of_an_inactive_tenant_is_refused_and_accepted_once_it_is_active() -> None:
    service = Yard(policy(), tenant(state=TenantState.SUSPENDED))
    refused = service.ask("e1")
    assert (refused.verdict, refused.kind) == (Verdict.REJECTED, "tenant not active")
    active = Yard(policy(), tenant())
    assert active.ask("e2").request_id != refused.request_id


def test_an_event_of_an_unknown_tenant_or_a_name_that_is_none_is_malformed() -> None:
    service = yard()
    for tenant_id, data_set in (("nobody", "churn"), ("acme", "../x"), ("acme", "transform")):
        asked = TransformAsked(account_id=ACCOUNT, event_id="e", tenant_id=tenant_id, data_set=data_set)
        (result,) = service.service.intake.receive([asked], NOW)
        assert isinstance(result, Malformed), result


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"content": content(key="incoming/churn/a.csv")}, "under transform/churn/"),
        ({"content": content(key="transform/other/a.csv")}, "under transform/churn/"),
        ({"content": content(key="transform/churn/../x.csv")}, "under transform/churn/"),
        ({"alone": False}, "never merged"),
        ({"content": content(key="transform/churn/a.csv", etag="../other")}, "not named by a request"),
    ],
)
def test_a_message_that_intake_cannot_have_sent_is_malformed(changes: dict[str, Any], reason: str) -> None:
    service = yard()
    service.ask()
    with pytest.raises(Malformed, match=reason):
        service.service.enlist.enlist(replace(service.queues.sent[0], **changes), NOW)


def test_an_event_asks_for_one_data_set_and_is_read_by_a_schema() -> None:
    event = json.loads((REPOSITORY / "events/batch-transform-requested.json").read_text(encoding="utf-8"))
    asked = parse_arrival(json.dumps(event))
    assert isinstance(asked, TransformAsked)
    assert (asked.tenant_id, asked.data_set, asked.is_forced) == ("acme", "churn", False)
    for wrong in ({"data_set": None}, {"data_set": ""}, {"priority": 10}, {"force": "perhaps"}):
        with pytest.raises(Malformed):
            parse_arrival(json.dumps(event | {"detail": event["detail"] | wrong}))


# --- waiting and running --------------------------------------------------------------------------------------


def test_a_transform_takes_a_slot_and_instances_of_its_own_and_runs_in_its_own_pipeline() -> None:
    service = yard(instance_quotas={"transform/ml.m5.large": 1, "training/ml.m5.large": 0})
    request = service.started()
    assert (request.state, request.charge) == (State.RUNNING, 1)
    profile = ResourceProfile.parse(request.profile)
    assert profile.demand("basic") == {"slots": 1, "tier/basic": 1, "transform/ml.m5.large": 1}
    assert ResourceProfile.parse(str(profile)) == profile
    ((name, parameters),) = service.executions.by_token.values()
    assert name == display_name(request.request_id, 1)
    assert (parameters["ModelName"], parameters["ContentType"]) == ("yard-own-acme-churn-1", "text/csv")
    ((folder, plan),) = service.rows.plans.items()
    assert folder == f"reports/churn/{request.request_id}"
    assert (plan.version, plan.files, plan.size_bytes) == (1, 2, 300)
    service.ask("another", force=True)
    service.service.enlist.enlist(service.queues.sent[-1], NOW)
    service.service.dispatch.run_pass(NOW)
    assert service.request(service.queues.sent[-1].request_id).state is State.QUEUED, "its type has one instance"


def test_transforms_and_trainings_of_other_tenants_take_turns_in_a_tier() -> None:
    service = yard(running_max=1)
    service.tenants.put(tenant("globex"))
    for number in range(6):  # first all transforms of one tenant, then all trainings of another
        service.ask(f"e{number}", force=True)
        service.service.enlist.enlist(service.queues.sent[-1], NOW)
    for number in range(6):
        training = submission(100 + number, tenant_id="globex", data_set=f"set-{number}", tier="basic")
        service.service.enlist.enlist(training, NOW)
    order = []
    for turn in range(1, 13):
        service.service.dispatch.run_pass(after(600 * turn))
        (running,) = service.service.scheduler.tables.requests.active(State.RUNNING)
        order.append(running.tenant_id)
        service.end(running, "Failed", 600 * turn + 300)
    assert [order[:n].count("acme") for n in (2, 4, 6, 8, 10, 12)] == [1, 2, 3, 4, 5, 6]


def test_the_pipeline_takes_the_parameters_that_a_transform_has_and_no_others() -> None:
    profile = str(ResourceProfile.of_transform(tier().instances[0]))
    request = replace(yard().started(), profile=profile)
    parameters = transform_parameters(request, tenant(), live(), "text/csv", defaults=DEFAULTS)
    assert {p["Name"] for p in DEFINITION["Parameters"]} == set(parameters)
    assert all(parameters.values())
    values = parameter_values(DEFINITION, parameters)
    job = Context(parameters=values, execution={}, read_json=json.loads).resolve(
        DEFINITION["Steps"][0]["Arguments"]
    )
    assert job["TransformOutput"]["S3OutputPath"].endswith(f"reports/churn/{request.request_id}/predictions")
    assert job["MaxPayloadInMB"] * job["MaxConcurrentTransforms"] <= 100, "as SageMaker requires"
    assert {tag["Key"]: tag["Value"] for tag in job["Tags"]}["trainyard:tenant"] == "acme"


def test_what_was_accepted_is_predicted_by_the_version_of_then_whatever_has_changed_since() -> None:
    service = yard()
    accepted = service.ask()
    service.service.enlist.enlist(service.queues.sent[0], NOW)
    service.models.put(live(number=2))
    service.rows.stored["acme", "churn"] = stored(("later.jsonl", 10**6))
    service.executions.faults.append((OutcomeUnknown("no answer"), True))
    service.service.dispatch.run_pass(NOW)
    ((_, parameters),) = service.executions.by_token.values()
    assert (parameters["ModelName"], parameters["ContentType"]) == ("yard-own-acme-churn-1", "text/csv")
    assert service.executions.calls == 2, "the start was repeated, with the same parameters"
    service.rows.stored["acme", "churn"] = stored(("a.csv", 100), ("b.csv", 200))
    assert service.ask("by version 2").request_id != accepted.request_id
    service.models.put(live(number=1))
    assert service.ask("after a roll-back").request_id == accepted.request_id


@pytest.mark.parametrize("what", ["the plan", "the version"])
def test_without_its_plan_or_its_version_a_request_fails_with_the_way_out(what: str) -> None:
    service = yard()
    service.ask()
    service.service.enlist.enlist(service.queues.sent[0], NOW)
    if what == "the plan":
        service.rows.plans.clear()
    else:
        service.models.versions["acme", "churn", 1] = replace(live(), state=VersionState.REMOVED)
    service.service.dispatch.run_pass(NOW)
    ended = service.request(service.queues.sent[0].request_id)
    assert ended.state is State.FAILED
    assert "ask for the batch transform again" in str(ended.reason)


def test_a_storage_that_denies_holds_no_slot() -> None:
    service = yard()
    service.rows.fault = DataUnavailable("the rows cannot be read: KMS.DisabledException")
    request = service.started()
    assert (request.state, request.failures) == (State.QUEUED, 1)
    assert service.service.scheduler.tables.ledger.read().used == 0


def test_a_plan_is_written_once_and_read_by_a_schema() -> None:
    service = yard()
    service.ask("e1", force=True)
    service.rows.stored["acme", "churn"] = stored(("a.csv", 1))
    service.ask("e1", force=True)
    (plan,) = service.rows.plans.values()
    assert (plan.files, len({sent.request_id for sent in service.queues.sent})) == (2, 1)
    good = {"version": 1, "content_type": "text/csv", "files": 1, "size_bytes": 1}
    assert parse_plan(json.dumps(good).encode()).version == 1
    for wrong in (
        {"version": 0},
        {"version": "1"},
        {"content_type": "text/html"},
        {"files": 0},
        {"size_bytes": -1},
    ):
        with pytest.raises(Malformed):
            parse_plan(json.dumps(good | wrong).encode())


def test_a_transform_does_not_wait_for_further_uploads() -> None:
    service = yard(quiet_period=timedelta(hours=1), delay_max=timedelta(hours=2))
    assert service.started().state is State.RUNNING


def test_a_transform_reserves_what_one_job_costs_until_it_is_stopped() -> None:
    hard = Budget(Decimal("100"), BudgetMode.HARD)
    service = yard(tenants={"acme": TenantPolicy(budget=hard)}, prices=PRICES)
    request = service.started()
    seconds = (tier().runtime_max + TRANSFORM_GRACE).total_seconds()
    profile = ResourceProfile.parse(request.profile)
    assert cost_max_usd(profile, tier().runtime_max, PRICES) == request.reserved_usd
    assert request.reserved_usd == pytest.approx(
        Decimal("0.115") * Decimal(seconds) / 3600, abs=Decimal("0.000001")
    )
    assert request.ends_by == NOW + tier().runtime_max + TRANSFORM_GRACE


def test_what_exceeds_its_maximum_runtime_is_stopped_since_sagemaker_does_not() -> None:
    service = yard()
    request = service.started()
    for minutes, stopped in ((0, False), (1, False), (3, True)):
        at = NOW + tier().runtime_max + timedelta(minutes=minutes)
        service.executions.stopped.clear()
        service.service.reconcile.run(at)
        assert (service.executions.stopped == [request.execution_arn]) is stopped, minutes


# --- its end --------------------------------------------------------------------------------------------------


def test_an_end_is_booked_and_teaches_estimates_of_transforms_alone() -> None:
    service = yard(prices=PRICES)
    service.results.outcome = Outcome(predictions_uri="s3://p", model_version=1, input_files=2)
    request = service.started()
    service.reports.report = ExecutionReport(steps=(step(),), status="Succeeded")
    assert service.end(request, "Succeeded") is Recorded.FINISHED
    ended = service.request(request.request_id)
    assert (ended.state, ended.outcome and ended.outcome.predictions_uri) == (State.SUCCEEDED, "s3://p")
    (execution,) = service.service.scheduler.tables.book.executions(request.request_id)
    assert (execution.kind, execution.cost_usd, execution.unknown) == (RequestKind.TRANSFORM, Decimal("0.0115"), 0)
    book = service.service.scheduler.tables.book
    assert book.past("acme", "churn") == ()
    (runs,) = book.pasts([("acme", "churn", RequestKind.TRANSFORM)]).values()
    assert len(runs) == 1
    (ratios,) = service.service.scheduler.tables.store.get(ratios_key("basic"))
    assert ratios_from(ratios) == [], "deadlines are those of trainings"
    assert service.service.scheduler.tables.ledger.read().used == 0
    receipt = service.receipts.written[request.request_id]
    assert (receipt["kind"], receipt["message"]) == ("transform", "done: all rows have predictions")
    assert not is_latest(ended), "the last training's receipt stays the data set's last one"


def test_only_a_transform_is_overdue_before_the_latest_end_of_its_jobs() -> None:
    running = replace(yard().started(), ends_by=NOW)
    assert is_overdue(running, NOW)
    assert not is_overdue(running, NOW - TRANSFORM_GRACE)
    assert not is_overdue(replace(running, kind=RequestKind.TRAINING), NOW)


@pytest.mark.parametrize("stopped_by", ["the reconciler", "an operator"])
def test_what_was_stopped_because_its_time_was_up_has_failed_and_says_so(stopped_by: str) -> None:
    service = Yard(policy(tier(runtime_max=timedelta(minutes=5))), tenant())
    request = service.started()
    if stopped_by == "an operator":
        service.service.stop.stop(request.request_id, NOW)
    service.reports.report = ExecutionReport(steps=(replace(step("Stopped"), status="Stopped"),), status="Stopped")
    assert service.end(request, "Stopped") is Recorded.FINISHED
    ended = service.request(request.request_id)
    if stopped_by == "an operator":
        assert ended.state is State.STOPPED
    else:
        assert (ended.state, ended.reason) == (
            State.FAILED,
            "Transform: it did not end within its maximum runtime",
        )


def test_a_failure_keeps_its_reason_and_a_package_of_an_earlier_training_makes_it_no_success() -> None:
    service = yard()
    request = service.started()
    service.reports.report = ExecutionReport(
        steps=(step("Failed", "a.csv: no column 'age'"),),
        failed_step="Transform",
        failure="a.csv: no column 'age'",
        status="Failed",
    )
    assert service.end(request, "Failed") is Recorded.FINISHED
    ended = service.request(request.request_id)
    assert (ended.state, ended.reason) == (State.FAILED, "Transform: a.csv: no column 'age'")
    assert ended.outcome is not None
    assert ended.outcome.model_package_arn is None


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            [
                "2026-11-28T10:00:00.000:[sagemaker logs]: yard-t-acme/transform/churn/a b.csv: ClientError: 400",
                "2026-11-28T10:00:00.000:[sagemaker logs]: yard-t-acme/transform/churn/a b.csv: Message:",
                '2026-11-28T10:00:00.000:[sagemaker logs]: yard-t-acme/transform/churn/a b.csv: {"error": "no x"}',
            ],
            "transform/churn/a b.csv: no x",
        ),
        (
            ["2026-11-28T10:00:00.000:[sagemaker logs]: yard/a.csv: Bad HTTP status received from algorithm: 500"],
            "a.csv: Bad HTTP status received from algorithm: 500",
        ),
        (["ValueError: not of a transform"], "ValueError: not of a transform"),
    ],
)
def test_the_reason_of_a_transform_is_in_its_data_log(lines: list[str], reason: str) -> None:
    assert error_line(lines) == reason


def test_the_guard_is_told_of_transform_jobs_without_their_role() -> None:
    event = json.loads((REPOSITORY / "events/transform-job-in-progress.json").read_text(encoding="utf-8"))
    started = parse_job_status(event)
    assert (started.kind, started.role_arn) == (JobKind.TRANSFORM, None)
    assert started.name == event["detail"]["TransformJobName"]
    forged = {"detail": event["detail"] | {"RoleArn": "arn:aws:iam::1:role/mine"}}
    assert parse_job_status(event | forged).role_arn is None, "the role is looked up at its model"


def test_a_policy_says_on_what_transforms_run() -> None:
    from trainyard.contracts.policy_file import parse_policy

    text = (REPOSITORY / "layers/common/python/trainyard/policy.yaml").read_text(encoding="utf-8")
    changed = text.replace("training: ml.m5.large}", "training: ml.m5.large, transform: ml.c5.xlarge}", 1)
    of_tier = parse_policy(changed, 1, "us-east-1").tiers[0]
    assert [choice.transform_instance_type for choice in of_tier.instances] == ["ml.c5.xlarge", "ml.m5.large"]
    with pytest.raises(Refused, match="transform"):
        parse_policy(changed.replace("ml.c5.xlarge", "ml.t3.medium"), 1, "us-east-1")


def test_a_transform_without_a_pipeline_fails_and_does_not_wait_for_ever() -> None:
    service = yard()
    service.executions.faults.append((PipelineMissing("no pipeline for batch transforms"), False))
    request = service.started()
    assert (request.state, request.reason) == (State.FAILED, "no pipeline for batch transforms")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"transform": "rate(1 day)"}, "belongs to a data set"),
        ({"data_sets": {"churn": {"transform": "daily"}}}, "'daily' is not a schedule"),
    ],
)
def test_a_schedule_belongs_to_a_data_set_and_is_one_that_scheduler_takes(
    entry: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        parse_step_command({"step": "Record", "tenant": {"name": "acme"} | entry})
