"""Runs that may get one of several instance types: each pool is counted until SageMaker has selected one."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import botocore.session
import pytest
from botocore.validate import ParamValidator

from local.sagemaker.definition import Context, parameter_values
from local.sagemaker.jobs import JobFailed, instance_types
from pipeline.publish import TYPES_MAX, preferring
from testing.memory_store import MemoryStore
from testing.service import DEFAULTS, PRICES, policies_in_force
from tests.build import after, choice, policy, request, submission, tenant, tier
from tests.unit.test_pipeline_definition import TEXT
from tests.unit.test_use_cases import Harness
from trainyard.adapters.aws import sagemaker
from trainyard.application.scheduling.completion import End
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.budgets import cost_max_usd, shortening
from trainyard.domain.errors import Refused, StartInvalid
from trainyard.domain.executions import StepFacts, priced
from trainyard.domain.parameters import pipeline_parameters
from trainyard.domain.pipelines import TRAINING_TYPES
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Request, State
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.windows import Once, Window
from trainyard.persistence.ledger import correct_usage

LARGE, XLARGE = "training/ml.m5.large", "training/ml.m5.xlarge"
EITHER = choice(training="ml.m5.large,ml.m5.xlarge")


def limits(large: int = 2, xlarge: int = 2, **changes: Any) -> Policy:
    tiers = (tier(quota=4, running_max_per_tenant=4, running_ceiling_per_tenant=4, instances=(EITHER,)),)
    return policy(*tiers, instance_quotas={LARGE: large, XLARGE: xlarge}, **changes)


def running(harness: Harness, waiting: int) -> list[Request]:
    """Return requests that run, after a pass over so many that wait."""
    for number in range(1, waiting + 1):
        harness.enlist.enlist(submission(number), after(0))
    harness.dispatch.run_pass(after(1))
    return harness.scheduler.tables.held()


def usage(harness: Harness) -> dict[str, int]:
    counts = harness.scheduler.tables.ledger.read().usage
    return {name: counts.get(name, 0) for name in (LARGE, XLARGE)}


def test_each_listed_pool_is_counted_until_the_type_is_known() -> None:
    harness = Harness(limits=limits())
    first, _ = running(harness, 3)
    assert usage(harness) == {LARGE: 2, XLARGE: 2}
    # The third one waits: SageMaker refuses a job when the quota of any type that it names is too small.
    assert harness.dispatch.run_pass(after(2)).admissions == []
    assert harness.scheduler.operations.note_selected(first, "ml.m5.xlarge", after(60))
    assert usage(harness) == {LARGE: 1, XLARGE: 2}
    assert harness.dispatch.run_pass(after(61)).admissions == []


def test_what_was_given_back_lets_the_next_one_start() -> None:
    harness = Harness(limits=limits(large=2, xlarge=3))
    first, _ = running(harness, 3)
    assert harness.scheduler.operations.note_selected(first, "ml.m5.xlarge", after(60))
    assert len(harness.dispatch.run_pass(after(61)).admissions) == 1
    assert usage(harness) == {LARGE: 2, XLARGE: 3}


def test_what_is_selected_is_noted_once() -> None:
    harness = Harness(limits=limits())
    first, _ = running(harness, 2)
    operations = harness.scheduler.operations
    assert not operations.note_selected(first, "ml.p5.48xlarge", after(60))
    assert operations.note_selected(first, "ml.m5.large", after(60))
    # Another reader of the same request comes later, with an older copy of it.
    assert not operations.note_selected(first, "ml.m5.large", after(61))
    assert usage(harness) == {LARGE: 2, XLARGE: 1}


def test_a_selection_that_is_reported_after_the_end_gives_nothing_back() -> None:
    harness = Harness(limits=limits())
    first, _ = running(harness, 2)
    harness.scheduler.completer.finish([End(request=first, state=State.FAILED)], harness.limits, after(50))
    assert not harness.scheduler.operations.note_selected(first, "ml.m5.large", after(60))
    assert usage(harness) == {LARGE: 1, XLARGE: 1}


def test_a_selection_of_an_earlier_attempt_gives_nothing_back() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness, 1)
    harness.scheduler.completer.requeue(first, harness.limits, after(50), due_at=after(50), reason="capacity")
    harness.dispatch.run_pass(after(51))
    assert not harness.scheduler.operations.note_selected(first, "ml.m5.large", after(60))
    assert usage(harness) == {LARGE: 1, XLARGE: 1}


def test_a_count_that_is_too_low_is_not_made_negative() -> None:
    """The recount corrects it; a negative count would hide that instances are taken."""
    harness = Harness(limits=limits())
    (first,) = running(harness, 1)
    tables = harness.scheduler.tables
    tables.store.transact([correct_usage({XLARGE: 0}, tables.ledger.read())])
    assert not harness.scheduler.operations.note_selected(first, "ml.m5.large", after(60))
    assert usage(harness) == {LARGE: 1, XLARGE: 0}


def test_an_end_gives_back_what_is_still_held() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness, 1)
    harness.scheduler.operations.note_selected(first, "ml.m5.large", after(60))
    harness.scheduler.completer.finish([End(request=first, state=State.FAILED)], harness.limits, after(90))
    assert usage(harness) == {LARGE: 0, XLARGE: 0}


def test_an_end_that_read_the_request_before_the_selection_is_decided_again() -> None:
    """Without its condition, the end would give back the unselected pool a second time."""
    harness = Harness(limits=limits())
    first, second = running(harness, 2)
    tables = harness.scheduler.tables
    transact, selections = tables.store.transact, [second]

    def selected_meanwhile(writes: Any) -> None:
        if selections:
            harness.scheduler.operations.note_selected(selections.pop(), "ml.m5.large", after(60))
        transact(writes)

    with patch.object(tables.store, "transact", selected_meanwhile):
        harness.scheduler.completer.finish([End(request=second, state=State.FAILED)], harness.limits, after(90))
    assert usage(harness) == {LARGE: 1, XLARGE: 1}
    assert first.selected is None


def test_a_recount_counts_what_is_held() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness, 1)
    harness.scheduler.operations.note_selected(first, "ml.m5.large", after(60))
    assert harness.scheduler.operations.recount(after(120)) == {}


def test_a_request_that_waits_again_may_get_any_of_its_types_again() -> None:
    harness = Harness(limits=limits())
    (first,) = running(harness, 1)
    harness.scheduler.operations.note_selected(first, "ml.m5.large", after(60))
    (again,) = harness.scheduler.completer.requeue(
        first, harness.limits, after(90), due_at=after(90), reason="CapacityError"
    )
    assert again.selected is None
    assert usage(harness) == {LARGE: 0, XLARGE: 0}
    assert len(harness.dispatch.run_pass(after(91)).admissions) == 1
    assert usage(harness) == {LARGE: 1, XLARGE: 1}


def test_units_that_were_counted_for_a_change_are_given_back_too() -> None:
    lower = Window(
        name="night",
        when=Once(after(600), after(7200)),
        instance_quotas={LARGE: 1, XLARGE: 1},
    )
    harness = Harness(limits=limits(windows=(lower,)))
    (first,) = running(harness, 1)
    assert {name.split("/", 2)[2] for name in first.ahead} == {LARGE, XLARGE}
    harness.scheduler.operations.note_selected(first, "ml.m5.large", after(60))
    counts = harness.scheduler.tables.ledger.read().usage
    assert {name.split("/", 2)[2] for name, n in counts.items() if name.startswith("after/") and n} == {LARGE}


def test_runs_of_one_type_do_not_pass_for_ever_one_that_names_several() -> None:
    """It takes a unit of each pool at once, which a run that needs one of them could always take before it."""
    single = [choice(training=name) for name in ("ml.m5.large", "ml.m5.xlarge")]
    algorithms = {f"only-{n}": Algorithm(name=f"only-{n}", instances=(each,)) for n, each in enumerate(single)}
    tenants = tuple(tenant(f"t{number}") for number in range(3))
    harness = Harness(limits=limits(large=1, xlarge=1, algorithms=algorithms), tenants=tenants)

    def enlist(number: int, algorithm: str, seconds: int) -> None:
        of = submission(number, tenant_id=f"t{number % 3}", algorithm=algorithm)
        harness.enlist.enlist(of, after(seconds))

    enlist(1, "only-0", 0)
    enlist(2, "only-1", 0)
    harness.dispatch.run_pass(after(1))
    enlist(3, "linear", 2)
    for number in range(4, 24):
        now = 2000 + 600 * number
        enlist(number, f"only-{number % 2}", now)
        first = min(harness.scheduler.tables.held(), key=lambda request: request.admitted_at or after(0))
        harness.scheduler.completer.finish([End(request=first, state=State.FAILED)], harness.limits, after(now))
        admitted = harness.dispatch.run_pass(after(now + 1)).admissions
        if submission(3).request_id in {decision.entry.request_id for decision in admitted}:
            return
        if not harness.scheduler.tables.held():
            break
    raise AssertionError("it was passed by every later run of one type")


# --- the reconciler ---------------------------------------------------------------------------------------------


def test_the_reconciler_asks_what_was_selected() -> None:
    harness = Harness(limits=limits())
    first, second = running(harness, 2)
    harness.reports.selections = {str(first.execution_arn): "ml.m5.xlarge"}
    repairs = harness.reconcile.find_ends(after(60))
    assert repairs.selected == {first.request_id: "ml.m5.xlarge"}
    assert usage(harness) == {LARGE: 1, XLARGE: 2}
    harness.reports.selections |= {str(second.execution_arn): "ml.m5.large"}
    assert harness.reconcile.find_ends(after(120)).selected == {second.request_id: "ml.m5.large"}


def test_runs_that_wait_for_capacity_do_not_keep_the_others_from_being_asked_about() -> None:
    tiers = (tier(quota=30, running_max_per_tenant=30, running_ceiling_per_tenant=30, instances=(EITHER,)),)
    harness = Harness(limits=policy(*tiers, running_max=30))
    held = running(harness, 30)
    last = max(held, key=lambda request: request.request_id)
    harness.reports.selections = {str(last.execution_arn): "ml.m5.large"}
    answers = [harness.reconcile.find_ends(after(60 * minute)).selected for minute in range(1, 5)]
    assert {last.request_id: "ml.m5.large"} in answers


# --- money ------------------------------------------------------------------------------------------------------


def test_the_dearest_type_is_reserved() -> None:
    profile = ResourceProfile.of(EITHER)
    (dear,) = (profile.on("ml.m5.xlarge"),)
    hour = timedelta(hours=1)
    assert cost_max_usd(profile, hour, PRICES) == cost_max_usd(dear, hour, PRICES)
    assert profile.dearest(PRICES) == "ml.m5.xlarge"
    assert dear.dearest(PRICES) is None


def test_the_reason_says_that_the_dearest_type_shortens_a_run() -> None:
    profile = ResourceProfile.of(EITHER)
    words = shortening(profile, timedelta(minutes=12), tier(), PRICES)
    assert words == (
        "what is left of its budget allows each job 12 of 60 minutes, "
        "at the price of ml.m5.xlarge, the dearest of its types"
    )
    assert shortening(profile, timedelta(hours=1), tier(), PRICES) == ""


def test_the_book_charges_what_was_selected() -> None:
    facts = _described({"SelectedInstanceType": "ml.m5.xlarge", "SelectedInstanceCount": 1})
    assert facts is not None
    assert (facts.instance_type, facts.instance_count) == ("ml.m5.xlarge", 1)


def test_a_job_that_never_got_one_of_its_types_costs_nothing() -> None:
    facts = _described({}, TrainingJobStatus="Failed")
    assert facts is not None
    assert facts.instance_type is None
    step = StepFacts(name="Train", kind="Training", status="Failed", job=facts)
    record = priced(step, PRICES)
    assert (record.cost_usd, record.flags) == (Decimal(0), ())


def test_a_job_that_ran_on_nobody_knows_what_has_an_unknown_cost() -> None:
    facts = _described({}, TrainingJobStatus="Completed")
    assert facts is not None
    step = StepFacts(name="Train", kind="Training", status="Succeeded", job=replace(facts, billable_seconds=60))
    record = priced(step, PRICES)
    assert record.cost_usd is None
    assert record.flags == ("SageMaker does not say on which instances it ran",)


def _described(selected: dict[str, Any], **changes: Any) -> Any:
    """Return what is read of a described training job that named two types."""
    preferences = [{"InstanceType": "ml.m5.large"}, {"InstanceType": "ml.m5.xlarge"}]
    resources = {"InstancePreferences": preferences, "InstanceCount": 1, "VolumeSizeInGB": 30}
    told = {"TrainingJobArn": "arn:job", "TrainingJobStatus": "Completed", "ResourceConfig": resources | selected}
    return sagemaker._job_facts(told | changes)


# --- the pipelines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("types", range(1, TYPES_MAX + 1))
def test_there_is_a_pipeline_for_each_number_of_types(types: int) -> None:
    definition = json.loads(preferring(TEXT, types))
    names = [f"ml.m5.{size}xlarge" for size in ("", 2, 4, 12, 24)][:types]
    profile = ResourceProfile.of(choice(training=",".join(names)))
    parameters = pipeline_parameters(
        request(1, attempt=1, profile=str(profile)),
        tenant(),
        tier(),
        policy().algorithm("linear"),
        defaults=DEFAULTS,
    )
    # Every parameter that the dispatcher gives, and no other.
    values = parameter_values(definition, parameters)
    (train,) = (step for step in definition["Steps"] if step["Type"] == "Training")
    resources = Context(values, {}, json.loads).resolve(train["Arguments"]["ResourceConfig"])
    assert instance_types(resources) == names
    assert ("InstanceType" in resources) == (types == 1)
    model = botocore.session.get_session().get_service_model("sagemaker")
    assert not ParamValidator().validate(resources, model.shape_for("ResourceConfig")).has_errors()
    assert len(TRAINING_TYPES) == TYPES_MAX


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"InstanceType": "ml.m5.large"}, "mutually exclusive"),
        ({"InstancePreferences": []}, "1 to 5"),
        ({"InstancePreferences": [{"InstanceType": "ml.m5.large"}] * 2}, "only once"),
        ({"InstancePreferences": [{"InstanceType": "ml.m5.large", "InstanceCount": 1}]}, "InstanceCount"),
    ],
)
def test_the_local_sagemaker_refuses_lists_as_sagemaker_does(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(JobFailed, match=reason):
        instance_types({"InstancePreferences": [{"InstanceType": "ml.m5.large"}], "InstanceCount": 1} | wrong)


def test_a_start_that_no_pipeline_is_for_is_refused_with_the_way_out() -> None:
    parameters = dict.fromkeys(TRAINING_TYPES[:2], "ml.m5.large")
    with pytest.raises(StartInvalid, match="InstancePreferences=true"):
        sagemaker.SageMakerExecutions(pipeline_names={"": "p"}).start(
            name="n", token="t" * 32, description="d", parameters=parameters
        )


def test_a_profile_is_read_back_as_it_was_written() -> None:
    profile = ResourceProfile.of(EITHER)
    assert ResourceProfile.parse(str(profile)) == profile
    assert ResourceProfile.held_by(request(profile=str(profile))) == profile


# --- bad input --------------------------------------------------------------------------------------------------


POLICY = """
running_max: 4
quiet_period_seconds: 0
delay_max_seconds: 60
instance_quotas: {QUOTAS}
tiers:
  basic:
    quota: 2
    running_max_per_tenant: 1
    runtime_max_minutes: 5
    instances:
      - {data_mb_max: 5, processing: ml.t3.medium, training: TRAINING, count: 2}
"""


@pytest.mark.parametrize(
    ("training", "quotas", "reason"),
    [
        ("[ml.m5.large, ml.m5.large]", "", "names ml.m5.large more than once"),
        ("[]", "", "at least 1 entr"),
        (
            "[ml.m5.large, ml.m5.xlarge, ml.m5.2xlarge, ml.m5.4xlarge, ml.c5.large, ml.c5.xlarge]",
            "",
            "at most 5 entries",
        ),
        (
            "[ml.m5.large, ml.m5.xlarge, ml.m5.2xlarge, ml.m5.4xlarge, ml.c5.xlarge]",
            "training/ml.m5.large: 4, training/ml.m5.xlarge: 4",
            "no training/ml.m5.2xlarge",
        ),
        (
            "[ml.m5.large, ml.m5.xlarge]",
            "training/ml.m5.large: 4, training/ml.m5.xlarge: 1",
            "needs 2 ml.m5.xlarge, and the quota training/ml.m5.xlarge is 1",
        ),
        ("[ml.m5.large, 5]", "", "training.1"),
    ],
)
def test_lists_of_types_that_sagemaker_would_refuse_are_refused(training: str, quotas: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        parse_policy(POLICY.replace("TRAINING", training).replace("QUOTAS", quotas), 1)
    assert "line 1" in str(refused.value)


def test_one_type_is_a_list_of_one() -> None:
    (basic,) = parse_policy(POLICY.replace("TRAINING", "ml.m5.large").replace("QUOTAS", ""), 1).tiers
    assert basic.instances[0].training_instance_types == ("ml.m5.large",)


def test_a_type_without_a_price_is_refused_when_the_policy_is_applied() -> None:
    text = POLICY.replace("TRAINING", "[ml.m5.large, ml.m9.large]").replace("QUOTAS", "")
    policies = replace(
        policies_in_force(MemoryStore(), limits()),
        deployed=POLICY.replace("TRAINING", "ml.m5.large").replace("QUOTAS", ""),
        parse=lambda text, version: parse_policy(text, version, "us-east-1"),
    )
    with pytest.raises(Refused, match=r"tiers\.basic\.instances\.0\.training: no price of ml\.m9\.large"):
        policies.check(text)
