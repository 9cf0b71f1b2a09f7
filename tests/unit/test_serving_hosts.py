"""What the adapters of serving make of SageMaker's and S3's refusals, the same in every mode."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.build import NOW, tenant
from trainyard.adapters.aws import components, container_endpoint, endpoint_scaling, own_endpoints, serving
from trainyard.adapters.aws.components import SageMakerComponents
from trainyard.adapters.aws.container_endpoint import SageMakerContainerEndpoint
from trainyard.adapters.aws.own_endpoints import SageMakerOwnEndpoints
from trainyard.adapters.aws.serving import Network, SageMakerSharedModels
from trainyard.application.serving.ports import EndpointState
from trainyard.domain.container_sets import Member
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.serving import Isolation, Mode, ServingSettings
from trainyard.domain.tenants import RoleState

LIMIT = "The account-level service limit 'ml.m5.large for endpoint usage' is 1 Instances"
SHARED: dict[str, Any] = {"stack": "s", "stage": "dev", "instance_type": "ml.m5.large", "network": Network()}
OF_BUCKET = SHARED | {"bucket": "serving", "role_arn": "arn:aws:iam::123456789012:role/serving"}
HOSTS: dict[Mode, Any] = {
    Mode.MULTI_MODEL: SageMakerSharedModels(image_uri="registry/image:1", **OF_BUCKET),
    Mode.INFERENCE_COMPONENT: SageMakerComponents(instances_max=4, **OF_BUCKET),
    Mode.MULTI_CONTAINER: SageMakerContainerEndpoint(**OF_BUCKET),
} | {
    mode: SageMakerOwnEndpoints(data_key_arn="arn:key", make_role=lambda tenant_id: None, **SHARED)
    for mode in (Mode.REAL_TIME, Mode.SERVERLESS, Mode.ASYNCHRONOUS, Mode.BATCH_TRANSFORM)
}
OWNER = replace(tenant(), role=RoleState.MADE)


def refusal(code: str, message: str, operation: str = "x") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class Platform:
    """Answers calls of any client as told: an exception is raised, and the rest returned."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append(operation)
            answer = self.answers.get(operation, {})
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    told = Platform()
    for module in (serving, own_endpoints, components, container_endpoint, endpoint_scaling):
        monkeypatch.setattr(module, "client", lambda service: told)
    return told


def version(mode: Mode) -> ModelVersion:
    is_own = HOSTS[mode].__class__ is SageMakerOwnEndpoints
    isolation = Isolation.SILO if is_own else Isolation.BRIDGE
    bare = ModelVersion(
        tenant_id="acme",
        data_set="churn",
        version=3,
        package_arn="arn:3",
        request_id="0" * 32,
        model_uri="s3://bucket/models/churn/model.tar.gz",
        state=VersionState.DEPLOYING,
        since=NOW,
        approved_at=NOW,
        algorithm="linear",
        image_uri="registry/image:1",
        serving=ServingSettings(mode=mode, isolation=isolation),
    )
    if mode is Mode.MULTI_CONTAINER:
        return replace(bare, endpoint=HOSTS[mode].name, target="acme--3-0123")
    located: ModelVersion = HOSTS[mode].located(bare)
    return located


@pytest.mark.parametrize("mode", Mode)
def test_a_package_whose_archive_is_gone_is_refused_by_its_name(mode: Mode, platform: Platform) -> None:
    platform.answers["head_object"] = refusal("404", "Not Found")
    with pytest.raises(Refused, match=re.escape("no model at s3://bucket/models/churn/model.tar.gz any more")):
        HOSTS[mode].put(version(mode))
    assert platform.calls == ["head_object"], "nothing is copied"
    platform.answers["head_object"] = refusal("403", "Forbidden")
    with pytest.raises(ClientError):
        HOSTS[mode].put(version(mode))


ABSENT = refusal("ValidationException", "Could not find endpoint.")


def ensured(mode: Mode) -> tuple[EndpointState, str]:
    if mode is not Mode.MULTI_CONTAINER:
        answer: tuple[EndpointState, str] = HOSTS[mode].ensure(version(mode), OWNER)
        return answer
    member = Member(
        host="acme--3-0123", tenant_id="acme", data_set="churn", version=3, image_uri="i", archive="models/a"
    )
    try:
        HOSTS[mode].give("s-shared--containers-1", [member], is_new=True)
    except Refused as refused:
        return EndpointState.FAILED, str(refused)
    return EndpointState.COMING, ""


def quotas(mode: Mode) -> list[str]:
    """Return the calls that a quota can refuse."""
    if mode is Mode.BATCH_TRANSFORM:
        return ["create_model"]
    if mode is Mode.INFERENCE_COMPONENT:
        return ["create_endpoint_config", "create_endpoint", "create_inference_component"]
    return ["create_model", "create_endpoint_config", "create_endpoint"]


@pytest.mark.parametrize(("mode", "call"), [(mode, call) for mode in Mode for call in quotas(mode)])
def test_a_quota_that_is_reached_fails_the_version_with_its_words(
    mode: Mode, call: str, platform: Platform
) -> None:
    platform.answers |= {"describe_endpoint": ABSENT, call: refusal("ResourceLimitExceeded", LIMIT)}
    if call == "create_inference_component":
        platform.answers |= {"describe_endpoint": {"EndpointStatus": "InService"}}
        platform.answers |= {"describe_inference_component": ABSENT}
    state, reason = ensured(mode)
    assert state is EndpointState.FAILED
    assert LIMIT in reason
    assert platform.calls[-1] == call


@pytest.mark.parametrize(("mode", "call"), [(mode, call) for mode in Mode for call in quotas(mode)])
def test_a_throttled_call_is_made_again_and_fails_nothing(mode: Mode, call: str, platform: Platform) -> None:
    platform.answers |= {"describe_endpoint": ABSENT, call: refusal("ThrottlingException", "Rate exceeded")}
    if call == "create_inference_component":
        platform.answers |= {"describe_endpoint": {"EndpointStatus": "InService"}}
        platform.answers |= {"describe_inference_component": ABSENT}
    with pytest.raises(Throttled):
        ensured(mode)


@pytest.mark.parametrize(
    ("mode", "answers", "is_missing"),
    [
        (Mode.MULTI_MODEL, {"describe_endpoint": ABSENT}, True),
        (Mode.MULTI_MODEL, {"describe_endpoint": {"EndpointStatus": "Failed"}}, False),
        (Mode.REAL_TIME, {"describe_endpoint": ABSENT}, True),
        (Mode.SERVERLESS, {"describe_endpoint": {"EndpointStatus": "Creating"}}, False),
        (Mode.BATCH_TRANSFORM, {"describe_endpoint": ABSENT}, False),
        (Mode.BATCH_TRANSFORM, {"describe_model": ABSENT}, True),
        (Mode.INFERENCE_COMPONENT, {"describe_inference_component": ABSENT}, True),
        (Mode.INFERENCE_COMPONENT, {"describe_endpoint": ABSENT}, False),
    ],
)
def test_an_endpoint_is_missing_where_sagemaker_does_not_find_it(
    mode: Mode, answers: dict[str, Any], is_missing: bool, platform: Platform
) -> None:
    platform.answers |= answers
    assert HOSTS[mode].is_missing(version(mode)) is is_missing


@pytest.mark.parametrize("mode", [Mode.MULTI_MODEL, Mode.ASYNCHRONOUS, Mode.INFERENCE_COMPONENT])
def test_an_error_does_not_mean_that_an_endpoint_is_missing(mode: Mode, platform: Platform) -> None:
    denied = refusal("AccessDeniedException", "not authorized")
    platform.answers |= {"describe_endpoint": denied, "describe_inference_component": denied}
    with pytest.raises(ClientError):
        HOSTS[mode].is_missing(version(mode))
