"""How a tenant's models are served: what is asked for, refused, stored and named."""

from dataclasses import replace
from typing import Any

import pytest

from cli.tenants import _serving
from tests.build import NOW, tenant
from trainyard.adapters.aws.own_endpoints import SageMakerOwnEndpoints, predictions_folder
from trainyard.adapters.aws.serving import NAME_MAX, Network
from trainyard.application.serving.ports import EndpointState
from trainyard.contracts.tenants import parse_step_command, tenant_view
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.serving import Approval, Isolation, Mode, Promotion, ServingSettings
from trainyard.persistence.tenants import tenant_from, tenant_item


def settings_of(serving: dict[str, Any]) -> ServingSettings:
    """Return what a request for a tenant asks for."""
    command = parse_step_command({"step": "Record", "tenant": {"name": "acme", "serving": serving}})
    settings: ServingSettings = command.tenant.to_spec().settings["serving"]
    return settings


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("multi-model", ServingSettings()),
        (
            "serverless:memory_mb=4096:concurrency=10",
            ServingSettings(mode=Mode.SERVERLESS, isolation=Isolation.SILO, memory_mb=4096, concurrency=10),
        ),
        (
            "inference-component:memory_mb=3000:cpu_percent=125",
            ServingSettings(
                mode=Mode.INFERENCE_COMPONENT, isolation=Isolation.BRIDGE, memory_mb=3000, cpu_percent=125
            ),
        ),
        (
            "real-time:approval=automatic:canary_percent=5:bake_minutes=60:instance_type=ml.c5.large:instances=2",
            ServingSettings(
                mode=Mode.REAL_TIME,
                isolation=Isolation.SILO,
                approval=Approval.AUTOMATIC,
                canary_percent=5,
                bake_minutes=60,
                instance_type="ml.c5.large",
                instances=2,
            ),
        ),
        (
            "asynchronous:instances=0:instances_max=3:scale_at=9:promotion=manual:test_minutes=5",
            ServingSettings(
                mode=Mode.ASYNCHRONOUS,
                isolation=Isolation.SILO,
                promotion=Promotion.MANUAL,
                test_minutes=5,
                instances=0,
                instances_max=3,
                scale_at=9,
            ),
        ),
        ("asynchronous:isolation=silo", ServingSettings(mode=Mode.ASYNCHRONOUS, isolation=Isolation.SILO)),
    ],
)
def test_what_is_asked_for_is_stored_and_shown(text: str, settings: ServingSettings) -> None:
    assert settings_of(_serving(text)) == settings
    owner = replace(tenant(), settings=replace(tenant().settings, serving=settings))
    assert tenant_from(tenant_item(owner)) == owner
    assert settings_of(tenant_view(owner)["settings"]["serving"]) == settings


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cloudy", "must be real-time, serverless, asynchronous"),
        ("real-time:isolation=pool", "real-time does not allow pool: it allows silo"),
        ("batch-transform:isolation=bridge", "is not supported yet: choose real-time with silo"),
        ("multi-model:isolation=pool", "is not supported yet"),
        ("serverless:memory_mb=5000", "5000 MB of memory: serverless endpoints have 1024, 2048"),
        ("serverless:concurrency=201", "allows 1 to 200"),
        ("inference-component:memory_mb=127", "127 MB of memory: 128 to 262,144 can be reserved"),
        (
            "inference-component:cpu_percent=24",
            "cpu_percent=24: 25 to 6,400 percent of a virtual CPU",
        ),
        ("inference-component:isolation=silo", "is not supported yet"),
        (
            "inference-component:instance_type=ml.m5.4xlarge",
            "instance_type has no effect with inference-component",
        ),
        ("serverless:cpu_percent=75", "it is for inference-component; leave it out"),
        ("multi-model:memory_mb=4096", "it is for serverless and inference-component; leave it out"),
        ("real-time:concurrency=3", "concurrency has no effect with real-time"),
        ("real-time:canary_percent=51", "0 to 50 are allowed"),
        ("asynchronous:canary_percent=5", "leave canary_percent at 0"),
        ("batch-transform:canary_percent=5", "leave canary_percent at 0"),
        ("real-time:bake_minutes=0", "1 to 720 are allowed"),
        ("real-time:instances=11", "1 to 10 are allowed"),
        ("asynchronous:instances=0", "and 0 where instances_max is given"),
        ("real-time:instances=0", "1 to 10 are allowed$"),
        ("real-time:instances_max=2:instance_type=ml.t2.medium", "cannot scale: choose one that is not burstable"),
        ("serverless:instances_max=2", "only real-time or asynchronous can scale"),
        ("real-time:instances=0:instances_max=2", "asynchronous alone can do without"),
        ("real-time:instances=3:instances_max=2", "instances_max=2: 3 to 10 are allowed with instances=3"),
        ("real-time:instances_max=11", "instances_max=11: 1 to 10 are allowed"),
        ("asynchronous:instances=-1:instances_max=1", "-1 instances"),
        ("real-time:instances_max=-1", "instances_max=-1: 1 to 10"),
        ("real-time:scale_at=5", "scale_at=5 without instances_max"),
        ("real-time:instances_max=2:scale_at=100001", "1 to 100,000 are allowed"),
        ("real-time:instances_max=2:scale_at=-1", "1 to 100,000 are allowed"),
        ("real-time:promotion=maybe", "must be direct, manual or automatic"),
        ("real-time:test_minutes=721", "721 minutes of test: 1 to 720"),
        ("real-time:instance_type=t3.large", "instance_type"),
        ("real-time:approval=maybe", "must be manual, automatic or if-better"),
    ],
)
def test_what_cannot_be_served_so_is_refused_with_what_can(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        settings_of(_serving(text))


@pytest.mark.parametrize(
    "text", ["canary_percent=10", "serverless:memory=1", "serverless:memory_mb", "serverless:memory_mb="]
)
def test_an_option_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Refused, match="for example serverless:memory_mb=4096"):
        _serving(text)


# --- own endpoints ------------------------------------------------------------------------------------------


def own(*subnets: str) -> SageMakerOwnEndpoints:
    def no_role(tenant_id: str) -> None:
        raise AssertionError(tenant_id)

    return SageMakerOwnEndpoints(
        stack="trainyard",
        stage="dev",
        instance_type="ml.m5.large",
        network=Network(subnets),
        data_key_arn="arn:key",
        make_role=no_role,
    )


def version(tenant_id: str, data_set: str, number: int, request_id: str = "0" * 32) -> ModelVersion:
    return ModelVersion(
        tenant_id=tenant_id,
        data_set=data_set,
        version=number,
        package_arn="arn:1",
        request_id=request_id,
        model_uri="s3://b/m.tar.gz",
        state=VersionState.DEPLOYING,
        since=NOW,
        approved_at=NOW,
        serving=ServingSettings(mode=Mode.SERVERLESS, isolation=Isolation.SILO),
    )


def test_a_version_that_scales_otherwise_has_another_endpoint() -> None:
    settings = [
        ServingSettings(mode=Mode.REAL_TIME, isolation=Isolation.SILO, instances_max=most, scale_at=at)
        for most, at in ((0, 0), (2, 0), (3, 0), (3, 9))
    ]
    versions = [replace(version("acme", "churn", 1), serving=each) for each in settings]
    assert len({own().located(each).endpoint for each in versions}) == 4


def test_a_burstable_default_cannot_scale() -> None:
    host = replace(own(), instance_type="ml.t2.medium")
    scaled = ServingSettings(mode=Mode.REAL_TIME, isolation=Isolation.SILO, instances_max=2)
    state, reason = host.ensure(replace(version("acme", "churn", 1), serving=scaled), tenant())
    assert (state, "ml.t2.medium, cannot scale" in reason) == (EndpointState.FAILED, True)


def test_no_two_versions_have_endpoints_of_one_name() -> None:
    versions = [
        version("a-b", "c", 1),
        version("a", "b-c", 1),
        version("a", "b.c", 1),
        version("a", "b_c", 1),
        version("a", "b-c-1", 1),
        version("a", "b-c", 1, "1" * 32),
        version("a" * 30, "d" * 63, 12345),
        version("a" * 30, "d" * 63, 12346),
    ]
    names = [own().located(each).endpoint for each in versions]
    assert len(set(names)) == len(names)
    for name, each in zip(names, versions, strict=True):
        assert len(name) <= NAME_MAX
        assert name.startswith(f"trainyard-own-{each.tenant_id}-"), "a deletion looks for the tenant's id in names"
        assert name.replace("-", "").isalnum()


def test_a_version_that_is_served_in_another_way_gets_another_endpoint() -> None:
    one = version("acme", "churn", 1)
    others = [
        replace(one, serving=replace(one.serving, memory_mb=4096)),
        replace(one, serving=replace(one.serving, mode=Mode.REAL_TIME)),
        replace(one, model_uri="s3://another/m.tar.gz"),
        replace(one, image_uri="registry/another:1"),
    ]
    names = {own().located(each).endpoint for each in (one, *others)}
    assert len(names) == len(others) + 1
    assert own().located(replace(one, state=VersionState.READY)).endpoint in names


def test_a_serverless_endpoint_is_refused_where_everything_is_in_a_vpc() -> None:
    state, reason = own("subnet-1").ensure(version("acme", "churn", 1), tenant())
    assert state is EndpointState.FAILED
    assert "choose real-time or asynchronous" in reason


def test_what_an_asynchronous_endpoint_writes_is_below_the_tenants_root() -> None:
    assert predictions_folder(tenant(), "churn") == f"{tenant().root}reports/churn/predictions/"
