"""Overrides: what a single training has instead of the settings of its data set."""

import json
from dataclasses import replace
from typing import Any

import pytest

from testing.service import DEFAULTS
from tests.build import NOW, after, request
from tests.http_api import LIMITS, Api
from trainyard.application.scheduling.intake import Verdict
from trainyard.contracts.arrivals import parse_arrival, retraining_body
from trainyard.contracts.messages import parse_training_request, training_request_body
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.arrivals import RetrainingAsked
from trainyard.domain.parameters import algorithm_of, pipeline_parameters
from trainyard.domain.requests import Overrides, State

REQUESTS = "/v1/tenants/acme/requests"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


OWN = Algorithm(name="own", training_image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1")


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
    algorithm = algorithm_of(enlisted, settings, LIMITS)
    parameters = pipeline_parameters(enlisted, tenant, LIMITS.tiers[0], algorithm, defaults=DEFAULTS)
    assert parameters["Algorithm"] == "linear"
    assert json.loads(parameters["Hyperparameters"]) == {"regularization": 0.5, "max_iter": 1000}
    shown = api.get(f"{REQUESTS}/{enlisted.request_id}")[1]
    assert (shown["algorithm"], shown["overrides"]) == ("linear", overrides)
    # What ended is tried again as it was.
    api.store.transact([api.requests.put(replace(enlisted, state=State.FAILED))])
    assert api.post(f"{REQUESTS}/{enlisted.request_id}/retry")[0] == 202
    assert api.retrainings.asked[-1].overrides == asked.overrides


@pytest.mark.parametrize(
    ("overrides", "status", "words"),
    [
        ({"algorithm": "nope"}, 409, "nope"),
        ({"algorithm": "own"}, 409, "has an image of its own"),
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
    api = Api(monkeypatch, limits=replace(LIMITS, algorithms={"own": OWN}))
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
