"""Challengers: what follows from the comparison of a new model with the one before."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cli.models import _table
from testing.memory_serving import MemoryComparisons
from tests.build import NOW, content, model_version, request, submission, tenant, tier
from tests.unit.test_model_deployment import RUN, Harness
from tests.unit.test_retraining import Service, upload
from trainyard.adapters.aws import sagemaker, serving
from trainyard.contracts.results import parse_evaluation
from trainyard.contracts.tenants import ServingEntry
from trainyard.domain.algorithms import BUILT_IN
from trainyard.domain.aliases import Begun
from trainyard.domain.challenge import Challenge, objection_to_challenger, summary
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.parameters import Defaults, Locations, pipeline_parameters
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import Outcome, Overrides, State, Tuning
from trainyard.domain.serving import Approval, Mode, ServingSettings
from trainyard.persistence.serving_settings import serving_from, serving_item

RULE = ServingSettings(approval=Approval.IF_BETTER, margin=0.01, segment_loss_max=0.05)
BETTER = Challenge(
    champion="before", metric="roc_auc", champion_quality=0.8, quality=0.83, gain=0.03, segment_gain=-0.02
)


# --- what follows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"gain": 0.01}, None),
        ({"gain": 0.0099}, "roc_auc +0.0099 beside the model before, on the same rows: +0.01 is asked for"),
        ({"gain": -0.2}, "roc_auc -0.2 beside the model before"),
        ({"segment_gain": None}, None),
        ({"segment_gain": -0.05}, None),
        ({"segment_gain": -0.051}, "-0.051 in the segment that loses most: it may lose 0.05"),
        (
            {"not_compared": "its archive is gone"},
            "it was not compared with the model before: its archive is gone",
        ),
    ],
)
def test_a_challenger_is_promoted_by_margin_and_by_its_worst_segment(
    changes: dict[str, Any], why: str | None
) -> None:
    objection = objection_to_challenger(replace(BETTER, **changes), RULE)
    assert objection is None if why is None else why in str(objection)


def test_the_first_model_needs_no_comparison_unless_another_is_live_by_now() -> None:
    assert objection_to_challenger(None, RULE) is None
    assert objection_to_challenger(None, RULE, live="another") == "it was not compared with the newest model"
    assert objection_to_challenger(BETTER, RULE, live="before") is None
    why = objection_to_challenger(BETTER, RULE, live="another")
    assert why == "it was compared with the model of request before, which is not the newest any more"


def test_a_negative_margin_lets_a_model_be_somewhat_worse() -> None:
    lenient = replace(RULE, margin=-0.02)
    assert objection_to_challenger(replace(BETTER, gain=-0.02), lenient) is None
    assert objection_to_challenger(replace(BETTER, gain=-0.021), lenient) is not None


def test_a_comparison_is_told_in_a_few_words() -> None:
    assert summary(BETTER) == "roc_auc +0.03 beside the model before, worst segment -0.02"
    assert summary(replace(BETTER, segment_gain=None)) == "roc_auc +0.03 beside the model before"
    assert summary(replace(BETTER, not_compared="it is gone")) == "not compared: it is gone"


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"margin": 0.1}, "margin has no effect with approval=manual: it is for if-better"),
        ({"segment_loss_max": 0.2, "approval": "automatic"}, "segment_loss_max has no effect"),
        ({"approval": "if-better", "margin": 2e6}, "margin=2000000.0: -1,000,000 to 1,000,000 are allowed"),
        ({"approval": "if-better", "segment_loss_max": -0.1}, "segment_loss_max=-0.1: 0 to 1,000,000"),
        ({"approval": "if-better", "margin": float("nan")}, "finite"),
        ({"approval": "better"}, "'manual', 'automatic' or 'if-better'"),
        ({"compare_by": "x" * 101}, "at most 100 characters"),
    ],
)
def test_settings_that_compare_nothing_are_refused_by_name(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("+", r"\+")):
        ServingEntry.model_validate({"mode": "multi-model", **given})


def test_settings_are_stored_as_they_are() -> None:
    entry = ServingEntry.model_validate(
        {"mode": "multi-model", "approval": "if-better", "margin": "0.015", "compare_by": "region"}
    )
    settings = entry.to_settings()
    assert (settings.margin, settings.segment_loss_max, settings.compare_by) == (0.015, 0.1, "region")
    assert serving_from(serving_item(settings)) == settings
    before = {name: value for name, value in serving_item(settings).items() if name != "margin"}
    assert serving_from(before).margin == 0


# --- a run and its champion --------------------------------------------------------------------------------------


def test_a_run_is_told_its_champion_and_by_which_column_it_is_compared() -> None:
    owner = replace(
        tenant(), settings=replace(tenant().settings, serving=replace(RULE, compare_by="region: home"))
    )
    defaults = Defaults(training_image_uri="t", processing_image_uri="p", code_uri="s3://code/1", key_arn="k")

    def parameters(champion: str | None, *, is_there: bool = True) -> tuple[str, str]:
        values = pipeline_parameters(
            request(2),
            owner,
            tier(),
            BUILT_IN[0],
            defaults=defaults,
            champion=champion,
            champion_is_there=is_there,
        )
        return values["ChampionUri"], values["Challenge"]

    none = "s3://code/1/steps/no_champion.json"
    assert parameters(None, is_there=False) == (none, "none:region: home")
    at = Locations.of(owner, replace(request(2), request_id="before")).model
    assert parameters("before") == (at, "before:region: home")
    assert at.endswith("/before/model.tar.gz")
    assert parameters("before", is_there=False) == (none, "before:region: home")


def test_the_champion_is_the_live_version_or_else_the_last_that_was_trained() -> None:
    service = Service(tenant())
    first = service.train(upload())
    assert parameters_of(service, first)["Challenge"] == "none:"
    second = service.train(another(service, 2))
    assert parameters_of(service, second)["Challenge"] == f"{first}:"
    assert parameters_of(service, second)["ChampionUri"].endswith(f"/{first}/model.tar.gz")
    third = service.train(another(service, 3))
    assert parameters_of(service, third)["Challenge"] == f"{second}:", "none is live"
    service.models.put(model_version(first))
    fourth = service.train(another(service, 4))
    assert parameters_of(service, fourth)["Challenge"] == f"{first}:"


def test_a_run_goes_on_without_a_champion_whose_archive_is_gone() -> None:
    service = Service(tenant())
    first = service.train(upload())
    service.data_sets.models_gone.add(first)
    second = service.train(another(service, 2))
    assert parameters_of(service, second)["Challenge"] == f"{first}:", "the report says that it is gone"
    assert parameters_of(service, second)["ChampionUri"].endswith("/steps/no_champion.json")


def another(service: Service, number: int) -> Any:
    """Return the upload of another content, an hour later."""
    service.at(service.now + timedelta(hours=1))
    changes: dict[str, Any] = {"etag": f"{number:032x}", "version_id": f"v{number}", "event_time": service.now}
    service.put(content(**changes))
    return upload(**changes)


def parameters_of(service: Service, request_id: str) -> dict[str, str]:
    started = service.executions.by_token.values()
    return next(parameters for _, parameters in started if parameters["RequestId"] == request_id)


# --- what a report may say ---------------------------------------------------------------------------------------


def evaluated(**champion: Any) -> Challenge | None:
    report = {"quality": {"metric": "roc_auc", "value": 0.9}, "champion": {"request": "before", **champion}}
    evaluation = parse_evaluation(json.dumps(report).encode())
    assert evaluation.quality.value == 0.9
    return evaluation.champion.as_challenge() if evaluation.champion else None


NUMBERS = {"metric": "roc_auc", "champion": 0.8, "challenger": 0.83, "gain": 0.03}


def test_a_report_is_read_with_its_worst_segment() -> None:
    segments = [{"name": "a", "gain": 0.1}, {"name": "b", "gain": -0.02}, {"name": "c", "gain": None}]
    assert evaluated(**NUMBERS, segments=segments) == BETTER
    assert evaluated(**NUMBERS) == replace(BETTER, segment_gain=None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gain": None}, "one of both has no quality on these rows"),
        ({"metric": None}, "one of both has no quality"),
        ({"not_compared": "a\x1b[31mb"}, "a\N{REPLACEMENT CHARACTER}[31mb"),
        ({"not_compared": ""}, "no reason was given"),
    ],
)
def test_what_a_report_leaves_out_counts_as_not_compared(changes: dict[str, Any], why: str) -> None:
    challenge = evaluated(**NUMBERS | changes)
    assert challenge is not None
    assert challenge.not_compared.startswith(why)
    assert objection_to_challenger(challenge, RULE) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"gain": 1e31},
        {"gain": "much"},
        {"not_compared": "x" * 201},
        {"segments": [{"gain": 0}] * 1001},
        {"segments": [{"gain": "x"}]},
    ],
)
def test_a_comparison_that_cannot_be_read_was_not_made(changes: dict[str, Any]) -> None:
    challenge = evaluated(**NUMBERS | changes)
    assert challenge is not None
    assert challenge.not_compared == "the report on the comparison is malformed"


@pytest.mark.parametrize("request_id", ["../x", "x" * 65, 7, None])
def test_a_comparison_with_nobody_is_none(request_id: Any) -> None:
    assert evaluated(**NUMBERS | {"request": request_id}) is None


# --- approval by rule --------------------------------------------------------------------------------------------


def registered(harness: Harness, version: int, **changes: Any) -> str:
    package = harness.approve(version, approved=False)
    pending = replace(harness.packages.packages[package], is_pending=True, **changes)
    harness.packages.packages[package] = pending
    return package


def compared(harness: Harness, version: int, challenge: Challenge | None) -> None:
    harness.comparisons.of_request[submission(version).request_id] = challenge


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    harness.serve(approval=Approval.IF_BETTER, margin=0.01, segment_loss_max=0.05)
    package = registered(harness, 1)
    compared(harness, 1, None)
    assert harness.deployment.begin(package, RUN, NOW).begun is Begun.DEPLOY
    assert harness.packages.packages[package].comment == "approved by the data set's rule"
    harness.deploy(1)
    assert harness.alias.live == 1
    return harness


def test_a_better_challenger_is_approved_and_deployed(harness: Harness) -> None:
    package = registered(harness, 2)
    compared(harness, 2, replace(BETTER, champion=submission(1).request_id))
    assert harness.deployment.begin(package, "run-2", NOW).begun is Begun.DEPLOY
    approved = harness.packages.packages[package]
    assert approved.is_approved
    assert approved.comment == f"approved by the data set's rule: {summary(BETTER)}"


@pytest.mark.parametrize(
    ("challenge", "why"),
    [
        (replace(BETTER, gain=0.001, champion=submission(1).request_id), "+0.01 is asked for"),
        (replace(BETTER, champion="older"), "is not the newest any more"),
        (None, "it was not compared with the newest model"),
    ],
)
def test_another_one_is_left_to_somebody_with_the_reason_and_is_not_looked_at_again(
    harness: Harness, challenge: Challenge | None, why: str
) -> None:
    package = registered(harness, 2)
    compared(harness, 2, challenge)
    begun = harness.deployment.begin(package, "run-2", NOW)
    assert begun.begun is None
    assert why in begun.reason
    pending = harness.packages.packages[package]
    assert (pending.is_approved, pending.is_pending) == (False, True)
    assert pending.comment.startswith("not approved by the data set's rule: ")
    assert why in pending.comment
    compared(harness, 2, replace(BETTER, champion=submission(1).request_id))
    assert harness.deployment.begin(package, "run-3", NOW).begun is None, "it was decided, and is a person's now"
    harness.packages.approve(package, "looked at by ada")
    assert harness.deployment.begin(package, "run-4", NOW + timedelta(hours=1)).begun is Begun.DEPLOY


def test_a_challenger_whose_evaluation_cannot_be_read_is_left_to_somebody(harness: Harness) -> None:
    package = registered(harness, 2)
    assert harness.deployment.begin(package, "run-2", NOW).begun is None
    assert "it is not known how it stands" in harness.packages.packages[package].comment


@pytest.mark.parametrize("approval", [Approval.AUTOMATIC, Approval.IF_BETTER])
def test_what_is_said_of_a_version_asks_for_no_further_run(harness: Harness, approval: Approval) -> None:
    """An update of a package is an event of its own, which begins another run."""
    harness.serve(approval=approval)
    harness.owner = harness.tenants.put(
        replace(harness.owner, settings=replace(harness.owner.settings, algorithm="linear@2"))
    )
    package = registered(harness, 2)
    compared(harness, 2, replace(BETTER, champion=submission(1).request_id))
    assert "another version of the algorithm" in harness.deployment.begin(package, "run-2", NOW).reason
    said = harness.packages.packages[package]
    harness.packages.leave_pending = None  # type: ignore[assignment, method-assign]
    assert harness.deployment.begin(package, "run-3", NOW).begun is None
    assert harness.packages.packages[package] == said


@pytest.mark.parametrize(
    ("overrides", "is_left"),
    [(Overrides(tuning=Tuning()), True), (Overrides(hyperparameters=(("max_iter", 7),)), False)],
)
def test_a_tuning_of_a_version_that_a_wave_has_left_is_left_too(
    harness: Harness, overrides: Overrides, is_left: bool
) -> None:
    package = registered(harness, 2)
    compared(harness, 2, replace(BETTER, champion=submission(1).request_id))
    request = harness.scheduler.tables.requests.get(submission(2).request_id)
    assert request is not None
    tuned = replace(request, overrides=overrides, algorithm="linear@2")
    harness.store.transact([harness.scheduler.tables.requests.put(tuned)])
    reason = harness.deployment.begin(package, "run-2", NOW).reason
    assert ("another version of the algorithm" in str(reason)) == is_left


def test_a_version_is_compared_with_the_newest_one_that_is_on_its_way(harness: Harness) -> None:
    second, third = registered(harness, 2), registered(harness, 3)
    for number in (2, 3):
        compared(harness, number, replace(BETTER, champion=submission(1).request_id))
    assert harness.deployment.begin(second, "run-2", NOW).begun is Begun.DEPLOY
    assert "not the newest any more" in harness.deployment.begin(third, "run-3", NOW).reason


def test_of_two_first_models_at_once_one_waits_for_somebody() -> None:
    harness = Harness()
    harness.serve(approval=Approval.IF_BETTER)
    for number in (1, 2):
        compared(harness, number, None)
    assert harness.deployment.begin(registered(harness, 1), RUN, NOW).begun is Begun.DEPLOY
    assert "not compared with the newest" in harness.deployment.begin(registered(harness, 2), "2", NOW).reason


@pytest.mark.parametrize("is_approved", [True, False])
def test_a_person_who_decides_meanwhile_is_heard(harness: Harness, is_approved: bool) -> None:
    package = registered(harness, 2)

    class Slow(MemoryComparisons):
        def read(self, *_: Any) -> Challenge:
            (harness.packages.approve if is_approved else harness.packages.reject)(package, "by ada")
            return replace(BETTER, champion=submission(1).request_id)

    deployment = replace(harness.deployment, comparisons=Slow())
    assert deployment.begin(package, "run-2", NOW).begun is None
    decided = harness.packages.packages[package]
    assert (decided.is_approved, decided.comment) == (is_approved, "by ada")


def test_storage_that_is_slow_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def answering(code: str) -> Any:
        class S3:
            def get_object(self, **_: str) -> Any:
                raise ClientError({"Error": {"Code": code, "Message": ""}}, "GetObject")

        return lambda *_, **__: S3()

    for code, error in (("SlowDown", Throttled), ("NoSuchKey", Refused), ("AccessDenied", Refused)):
        monkeypatch.setattr(serving, "client", answering(code))
        with pytest.raises(error):
            serving.S3Comparisons().read(tenant(), "churn", "r")


def test_properties_have_only_what_the_registry_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, str]] = []

    class Registry:
        def update_model_package(self, **given: Any) -> None:
            sent.append(given["CustomerMetadataProperties"])
            if len(sent) < 3:
                raise ClientError({"Error": {"Code": "ConflictException", "Message": ""}}, "UpdateModelPackage")

    monkeypatch.setattr(sagemaker, "client", lambda *_, **__: Registry())
    monkeypatch.setattr(sagemaker, "ANNOTATION_PAUSE_SECONDS", 0)
    sagemaker.SageMakerAnnotations().annotate("arn", {"not_compared": "it's (odd), ünd … so" + "x" * 300})
    assert len(sent) == 3, "whoever deploys it was changing it"
    (value,) = sent[-1].values()
    assert (value[:20], len(value)) == ("it s  odd   ünd   so"[:20], 256)


def test_automatic_approval_asks_for_no_comparison() -> None:
    harness = Harness()
    harness.serve(approval=Approval.AUTOMATIC, mode=Mode.MULTI_MODEL)
    assert harness.deployment.begin(registered(harness, 1), RUN, NOW).begun is Begun.DEPLOY


# --- the registry and the table ----------------------------------------------------------------------------------


def test_a_change_on_the_same_rows_is_told_apart_from_one_on_others() -> None:
    def view(version: int, **changes: Any) -> dict[str, Any]:
        return {
            **dict.fromkeys(("comment", "metric", "algorithm", "request", "change", "gain", "quality")),
            **{"version": version, "data_set": "churn", "status": "PendingManualApproval", "created_at": NOW},
            **changes,
        }

    answer = _table([view(2, change=0.02, gain=0.02), view(3, change=0.01), view(4)], has_approved=True)
    assert [row[4] for row in answer.rows] == ["+0.020", "(+0.010)", None]
    assert "CHANGE is against the model before, on the same rows" in answer.lines[0]


COMPARED = Outcome(
    quality=0.9, trained_sha256="s", champion="before", champion_quality=0.8, gain=0.031, segment_gain=-0.02
)


@pytest.mark.parametrize(
    ("outcome", "properties"),
    [
        (Outcome(quality=0.9, trained_sha256="s"), None),
        (
            COMPARED,
            {
                "registered_as": "challenger",
                "champion": "before",
                "champion_quality": "0.8",
                "gain": "0.031",
                "segment_gain": "-0.02",
            },
        ),
        (
            Outcome(trained_sha256="s", champion="before", not_compared="it is gone"),
            {"registered_as": "challenger", "champion": "before", "not_compared": "it is gone"},
        ),
    ],
    ids=["the first", "compared", "not compared"],
)
def test_the_registry_says_how_a_challenger_stands(outcome: Outcome, properties: dict[str, str] | None) -> None:
    service = Service(tenant())
    service.results.outcome = outcome
    request_id = service.run_one()
    assert service.record.step_reached(request_id=request_id, attempt=1, model_package_arn="package/1")
    assert service.annotations.properties.get("package/1") == properties
    stored = service.request(request_id).outcome
    assert stored is not None
    assert (stored.gain, stored.model_package_arn) == (outcome.gain, "package/1")


def test_a_registry_that_takes_no_properties_fails_no_run() -> None:
    service = Service(tenant())
    service.results.outcome = COMPARED
    service.annotations.failure = Throttled("slow down")
    request_id = service.run_one()
    assert service.record.step_reached(request_id=request_id, attempt=1, model_package_arn="package/1")
    stored = service.request(request_id).outcome
    assert stored is not None
    assert stored.unread == "its registry entry lacks how it stands beside the model before: Throttled"


def test_the_receipt_says_how_a_challenger_stands() -> None:
    result = receipt_of(replace(request(1), state=State.SUCCEEDED, outcome=COMPARED))["result"]
    assert isinstance(result, dict)
    assert result["champion"] == {
        "request_id": "before",
        "quality": 0.8,
        "gain": 0.031,
        "segment_gain": -0.02,
        "not_compared": None,
    }
