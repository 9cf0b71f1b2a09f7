"""Overrides: what a single training has instead of the settings of its data set."""

import json
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from pydantic import ValidationError

from testing.service import DEFAULTS
from tests.build import NOW, after, request, step, submission
from tests.http_api import LIMITS, Api
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling.intake import Verdict
from trainyard.application.scheduling.record import executed
from trainyard.contracts.arrivals import parse_arrival, retraining_body
from trainyard.contracts.messages import parse_training_request, training_request_body
from trainyard.contracts.overrides import OverridesValues
from trainyard.domain.algorithms import Algorithm, Hyperparameter, Kind
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.errors import Malformed
from trainyard.domain.parameters import pipeline_parameters
from trainyard.domain.requests import Overrides, State

REQUESTS = "/v1/tenants/acme/requests"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


WORDY = Algorithm(
    name="linear",
    hyperparameters={
        "max_iter": Hyperparameter(kind=Kind.INTEGER, default=100, minimum=1),
        "rate": Hyperparameter(kind=Kind.NUMBER, default=0.5),
        "text": Hyperparameter(kind=Kind.TEXT, default="t" * 300),
        **{name: Hyperparameter(kind=Kind.TEXT, default="") for name in ("kept", "two", "three")},
    },
)
SCRIPTED = Algorithm(name="scripted", code_uri="s3://code/x")
OWN = Algorithm(name="own", training_image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1")
ALGORITHMS = {"own": OWN, "scripted": SCRIPTED, "linear": WORDY}


def test_a_training_may_have_another_algorithm_and_hyperparameters(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(monkeypatch)
    overrides = {"algorithm": "linear", "hyperparameters": {"regularization": 0.5}}
    status, _ = api.post(REQUESTS, {"data_set": "churn", "overrides": overrides})
    (asked,) = api.retrainings.asked
    assert (status, asked.overrides) == (
        202,
        Overrides(algorithm="linear", hyperparameters=(("regularization", 0.5),)),
    )
    body = retraining_body(asked, NOW)
    assert parse_arrival(body) == asked, "it is delivered as it was asked for"
    content = request(1).content
    api.service.data_sets.objects = {("acme", "churn"): [content]}  # type: ignore[attr-defined]
    ((judgement,),) = api.service.intake.receive([asked], after(0))  # type: ignore[misc]
    assert judgement.verdict is Verdict.SUBMITTED
    (submission,) = api.service.tier_queues.sent  # type: ignore[attr-defined]
    assert parse_training_request(training_request_body(submission)) == submission
    assert (submission.alone, submission.algorithm, submission.overrides) == (True, "linear", asked.overrides)
    enlisted = api.service.scheduler.enlister.enlist(submission, LIMITS, NOW).request
    assert enlisted.overrides == asked.overrides
    tenant = api.tenants.get("acme")
    assert tenant is not None
    settings = tenant.settings_for("churn", enlisted.overrides)
    algorithm = LIMITS.algorithm(settings.algorithm)
    parameters = pipeline_parameters(enlisted, tenant, LIMITS.tiers[0], algorithm, defaults=DEFAULTS)
    assert parameters["Algorithm"] == "linear"
    assert json.loads(parameters["Hyperparameters"]) == {"regularization": 0.5, "max_iter": 1000}
    shown = api.get(f"{REQUESTS}/{enlisted.request_id}")[1]
    assert (shown["algorithm"], shown["overrides"]) == ("linear", overrides | {"tuning": None})
    # What ended is tried again as it was.
    api.store.transact([api.requests.put(replace(enlisted, state=State.FAILED))])
    assert api.post(f"{REQUESTS}/{enlisted.request_id}/retry")[0] == 202
    assert api.retrainings.asked[-1].overrides == asked.overrides


@pytest.mark.parametrize(
    ("overrides", "status", "words"),
    [
        ({"algorithm": "nope"}, 409, "nope"),
        ({"algorithm": "own"}, 409, "runs code of its own"),
        ({"algorithm": "scripted"}, 409, "runs code of its own"),
        ({"hyperparameters": {"kept": "y" * 250, "two": "z" * 250, "three": "x" * 250}}, 409, "more than 1024"),
        ({"hyperparameters": {"nope": 1}}, 409, "has no hyperparameter 'nope'; it has "),
        ({"hyperparameters": {"max_iter": 0}}, 409, "hyperparameter max_iter"),
        ({"hyperparameters": {"max_iter": "many"}}, 409, "hyperparameter max_iter"),
        ({"hyperparameters": {"max_iter": None}}, 400, "max_iter"),
        ({"hyperparameters": {"max_iter": [1]}}, 400, "max_iter"),
        ({"hyperparameters": {"a b": 1}}, 400, "a b"),
        ({"hyperparameters": {str(number): 1 for number in range(51)}}, 400, "hyperparameters"),
        ({"hyperparameters": {str(number): "x" * 250 for number in range(5)}}, 400, "more than 1024"),
        ({"hyperparameters": {"a": "\u0007"}}, 400, "hyperparameters"),
        ({"algorithm": "../x"}, 400, "algorithm"),
        ({"target": "x"}, 400, "target"),
    ],
)
def test_overrides_that_are_not_possible_are_refused(
    monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any], status: int, words: str
) -> None:
    api = Api(
        monkeypatch,
        limits=replace(LIMITS, algorithms=ALGORITHMS),
    )
    answer, problem = api.post(REQUESTS, {"data_set": "churn", "overrides": overrides})
    assert (answer, words in problem["detail"]) == (status, True), problem
    assert not api.retrainings.asked
    if status == 409:
        # So they are where they are asked for by an event.
        wrong = Overrides(
            algorithm=overrides.get("algorithm"),
            hyperparameters=tuple(overrides.get("hyperparameters", {}).items()),
        )
        asked = RetrainingAsked(
            account_id="123456789012", event_id="e", tenant_id="acme", data_set="churn", overrides=wrong
        )
        api.service.data_sets.objects = {("acme", "churn"): [request(1).content]}  # type: ignore[attr-defined]
        ((judgement,),) = api.service.intake.receive([asked], after(0))  # type: ignore[misc]
        assert judgement.verdict is Verdict.REJECTED
        assert words in (judgement.reason or "")


def test_empty_overrides_are_none(api: Api) -> None:
    assert api.post(REQUESTS, {"data_set": "churn", "overrides": {}})[0] == 202
    assert api.retrainings.asked[0].overrides is None


def test_hyperparameters_of_another_algorithm_do_not_apply(api: Api) -> None:
    tenant = api.tenants.get("acme")
    assert tenant is not None
    own = replace(tenant.settings, algorithm="linear@2", hyperparameters=(("max_iter", 7), ("x", 1)))
    owner = replace(tenant, data_sets={"churn": own})
    assert owner.settings_for("churn") is own
    same = owner.settings_for("churn", Overrides(algorithm="linear@3", hyperparameters=(("x", 2),)))
    assert (same.algorithm, same.hyperparameters) == ("linear@3", (("max_iter", 7), ("x", 2)))
    other = owner.settings_for("churn", Overrides(algorithm="gradient-boosting"))
    assert (other.algorithm, other.hyperparameters) == ("gradient-boosting", ())
    assert owner.settings_for("other", Overrides(hyperparameters=(("max_iter", 9),))).hyperparameters == (
        ("max_iter", 9),
    )


def test_numbers_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(monkeypatch, limits=replace(LIMITS, algorithms={"linear": WORDY}))
    body = '{"data_set": "churn", "overrides": {"hyperparameters": {"rate": %s}}}'
    for number in ("1e400", "-1e400", "NaN", "Infinity"):
        assert api.post(REQUESTS, body % number)[0] == 400, number
    for value in (inf, -inf, nan):
        assert WORDY.hyperparameters["rate"].objection(value) is not None
        with pytest.raises(ValidationError):
            OverridesValues.model_validate({"hyperparameters": {"rate": value}})
    assert api.post(REQUESTS, body % "0.25")[0] == 202


def test_one_of_its_own_algorithms_may_bring_code(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(monkeypatch, limits=replace(LIMITS, algorithms={"scripted": SCRIPTED}))
    tenant = api.tenants.get("acme")
    assert tenant is not None
    own = replace(tenant.settings, algorithm="scripted")
    api.tenants.put(replace(tenant, data_sets={"other": own}))
    assert api.post(REQUESTS, {"data_set": "churn", "overrides": {"algorithm": "scripted"}})[0] == 202


def test_a_training_that_was_refused_is_tried_again_as_it_was_asked_for(api: Api) -> None:
    own = Overrides(algorithm="linear", hyperparameters=(("max_iter", 0),))
    asked = RetrainingAsked(
        account_id="123456789012", event_id="e", tenant_id="acme", data_set="churn", overrides=own
    )
    api.service.data_sets.objects = {("acme", "churn"): [request(1).content]}  # type: ignore[attr-defined]
    ((judgement,),) = api.service.intake.receive([asked], after(0))  # type: ignore[misc]
    path = f"{REQUESTS}/{judgement.request_id}"
    shown = api.get(path)[1]
    assert (shown["state"], shown["overrides"]["algorithm"]) == ("REJECTED", "linear")
    assert api.post(f"{path}/retry")[0] == 409, "it would be refused again, and is not trained otherwise"
    # Enlist refuses too, for example what is not where the tenant's data is any more.
    foreign = replace(submission(7).content, bucket="elsewhere")
    refused = submission(7, content=foreign, alone=True, overrides=own, algorithm="linear")
    (enlisted,) = api.service.enlist.enlist_batch([refused], after(0))
    stored = api.requests.get(refused.request_id)
    assert stored is not None, enlisted
    assert (stored.state, stored.overrides, stored.algorithm) == (State.REJECTED, own, "linear")


def test_what_runs_with_overrides_says_nothing_about_other_runs(api: Api) -> None:
    for number, own in enumerate((None, Overrides(algorithm="linear")), start=1):
        added = api.put(number, state=State.SUCCEEDED, attempt=1, overrides=own, admitted_at=NOW, data_set="churn")
        report = ExecutionReport(steps=(step(),))
        record = executed(added, report, LIMITS.prices, after(60), State.SUCCEEDED)
        assert record.has_overrides is (own is not None)
        api.record(added, has_overrides=record.has_overrides)
        assert len(api.book.past("acme", added.data_set)) == 1
    stored = api.book.executions(added.request_id)
    assert [each.has_overrides for each in stored] == [True]


def test_an_event_has_overrides_of_one_data_set_alone() -> None:
    body = json.loads(
        retraining_body(
            RetrainingAsked(
                account_id="123456789012",
                event_id="e",
                tenant_id="acme",
                data_set=None,
                overrides=Overrides(algorithm="linear"),
            ),
            NOW,
        )
    )
    with pytest.raises(Malformed, match="name its data_set"):
        parse_arrival(json.dumps(body))
