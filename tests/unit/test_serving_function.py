"""The serving function: steps of the state machine as the use case carries them out."""

from collections.abc import Callable
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW
from tests.unit.test_functions import Context, Standing, load, values
from tests.unit.test_model_deployment import Harness
from trainyard.application.serving.model_deployment import Judgement, Started, Switched, VersionId
from trainyard.application.serving.removal import ServedModels
from trainyard.contracts.serving import parse_serving_step
from trainyard.domain.aliases import Alias, Begun
from trainyard.domain.errors import InProgress, Malformed, Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.entrypoints import bootstrap
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions

ID = VersionId("acme", "churn", 3)
VERSION = {"tenant_id": "acme", "data_set": "churn", "version": 3}
ARN = "arn:aws:sagemaker:us-east-1:123456789012:model-package/trainyard--acme/3"
Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    def carried_out(step: str, answers: dict[str, Any], **more: Any) -> dict[str, Any]:
        monkeypatch.setattr(bootstrap, "model_deployment", lambda: Standing(**answers))
        answer: dict[str, Any] = load("serving").handler({"step": step, "run": "run-1", **more}, Context())
        return answer

    return carried_out


@pytest.mark.parametrize(
    ("started", "answer"),
    [
        (Started(id=ID, begun=Begun.DEPLOY), {"deploys": True, "version": VERSION, "reason": Begun.DEPLOY.value}),
        (Started(id=ID, begun=Begun.WAIT), {"deploys": False, "version": VERSION, "reason": Begun.WAIT.value}),
        (
            Started(id=ID, begun=Begun.SERVED, is_judged=True),
            {"deploys": False, "is_judged": True, "version": VERSION, "reason": Begun.SERVED.value},
        ),
        (
            Started(id=ID, begun=Begun.SERVED, is_missing=True),
            {"deploys": False, "is_missing": True, "version": VERSION, "reason": Begun.SERVED.value},
        ),
        (Started(id=None, begun=None, reason="none"), {"deploys": False, "version": None, "reason": "none"}),
        (
            Started(id=ID, begun=None, reason="none", following=VersionId("acme", "churn", 4)),
            {"deploys": False, "version": VERSION, "reason": "none", "package_arn": "arn:4"},
        ),
    ],
)
def test_an_approval_is_begun_or_the_reason_is_given(call: Call, started: Started, answer: dict[str, Any]) -> None:
    began = call("Begin", {"begin": started, "package_of": "arn:4"}, package_arn=ARN)
    assert began == {"package_arn": "", "is_judged": False, "is_missing": False} | answer


@pytest.mark.parametrize("step", ["BringUp", "Restore"])
def test_an_endpoint_that_is_not_ready_is_asked_for_again(call: Call, step: str) -> None:
    assert call(step, {"bring_up": True}, version=VERSION) == {}
    with pytest.raises(InProgress):
        call(step, {"bring_up": False}, version=VERSION)


def test_what_is_deployed_or_given_up_is_counted_and_the_next_one_named(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("Place", {"place": None}, version=VERSION) == {}
    assert call("Test", {"test": 12}, version=VERSION) == {"latency_ms": 12}
    waits = Switched(is_judged=False, serves=False, following=None)
    assert call("Switch", {"switch": waits}, version=VERSION) == {"is_judged": False, "package_arn": ""}
    assert "ModelsDeployed" not in capsys.readouterr().out
    switched = Switched(is_judged=True, serves=True, following=None)
    assert call("Switch", {"switch": switched}, version=VERSION) == {"is_judged": True, "package_arn": ""}
    assert values(capsys.readouterr().out)["ModelsDeployed"] == 1
    given: list[Any] = []
    error = {"Error": "Refused", "Cause": '{"errorMessage": "smoke test: wrong", "errorType": "Refused"}'}

    def fail(*arguments: Any) -> VersionId:
        given.extend(arguments[:3])
        return ID

    answers = {"fail": fail, "package_of": "arn:next"}
    assert call("Fail", answers, version=VERSION, error=error) == {"package_arn": "arn:next"}
    assert given == [ID, "run-1", "smoke test: wrong"]
    assert values(capsys.readouterr().out)["ModelsNotDeployed"] == 1


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ({"Error": "States.Timeout"}, "States.Timeout"),
        ({"Error": "x", "Cause": "plain"}, "plain"),
        ({"Error": "x", "Cause": "[]"}, "[]"),
        (None, "no reason was given"),
    ],
)
def test_a_failure_is_what_the_task_said(error: Any, failure: str) -> None:
    assert parse_serving_step({"step": "Fail", "run": "r", "version": VERSION, "error": error}).failure == failure


def test_a_version_is_judged_until_its_test_and_its_baking_have_ended(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    for judgement in Judgement:
        answer = call("Judge", {"judge": (judgement, ID), "package_of": "arn:next"}, version=VERSION)
        goes_on = judgement in (Judgement.TESTING, Judgement.BAKING)
        assert answer == {"goes_on": goes_on, "judgement": str(judgement), "package_arn": "arn:next"}
        rolled_back = "ModelsRolledBack" in capsys.readouterr().out
        assert rolled_back is (judgement is Judgement.ROLLED_BACK)


def test_a_step_that_there_is_not_or_that_lacks_its_version_is_refused(call: Call) -> None:
    with pytest.raises(Malformed):
        call("Dance", {})
    for arn in ("arn:any", ARN.replace("model-package", "model"), f"{ARN} {ARN}", ARN + "x" * 300):
        with pytest.raises(Malformed):
            call("Begin", {}, package_arn=arn)
    with pytest.raises(Malformed):
        call("Begin", {}, surprise=1)
    with pytest.raises(Malformed):
        call("Place", {}, version=VERSION | {"surprise": 1})
    with pytest.raises(Refused, match="step Place needs a version"):
        call("Place", {"place": None})


def test_what_is_served_of_a_tenant_is_removed_whole_and_of_no_other() -> None:
    harness = Harness()
    for number in (1, 2):
        harness.deploy(number)
    removed: list[ModelVersion] = []
    served = ServedModels(
        aliases=harness.deployment.aliases, versions=harness.deployment.versions, remove=removed.append
    )
    assert served.forget("acm") == 0
    assert served.forget("acme") == 2
    assert [version.version for version in removed] == [1, 2]
    assert harness.alias == Alias(tenant_id="acme", data_set="churn")
    assert list(harness.deployment.versions.of_tenant("acme")) == []
    assert served.forget("acme") == 0
    assert list(Aliases(MemoryStore(), lambda _: None).of_tenant("acme")) == []
    assert ModelVersions(MemoryStore()).get("acme", "churn", 1) is None
    assert harness.deployment.begin(harness.approve(3), "run-9", NOW).begun is Begun.DEPLOY
