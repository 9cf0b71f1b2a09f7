"""Inference components: what they are created from, and who pays for what they reserve."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from cli.deployment import Deployment
from cli.endpoints import Endpoint, summary_of, troubles
from local.sagemaker.components import SYSTEM_MB, Component, Components
from local.sagemaker.hosting_rules import objection_to
from testing.memory_store import MemoryStore
from testing.service import PRICES
from tests.build import NOW, tenant
from tests.unit.test_inference import Existing, use
from tests.unit.test_serving_settings import version
from trainyard.adapters.aws.components import SageMakerComponents
from trainyard.adapters.aws.own_names import NAME_MAX
from trainyard.adapters.aws.serving import Network, archive_key, refusals, remove_model
from trainyard.application.billing.inference import BilledEndpoint, InferenceBooking
from trainyard.application.serving.ports import EndpointState
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.inference import EndpointHour, Reservation, capacity_of, reserved_usd
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import Isolation, Mode, ServingSettings
from trainyard.persistence.inference import InferenceBook

BEGIN = NOW.replace(minute=0, second=0, microsecond=0)
HOURLY = PRICES.hosting["ml.m5.large"]
SETTINGS = ServingSettings(mode=Mode.INFERENCE_COMPONENT, isolation=Isolation.BRIDGE, memory_mb=1024)


def host() -> SageMakerComponents:
    return SageMakerComponents(
        stack="trainyard",
        stage="dev",
        bucket="serving",
        role_arn="arn:role",
        instance_type="ml.m5.large",
        instances_max=2,
        network=Network(),
    )


def component(number: int = 1, **changes: Any) -> ModelVersion:
    return component_of(version("acme", "churn", number), **changes)


def component_of(version: ModelVersion, **changes: Any) -> ModelVersion:
    return host().located(replace(version, serving=replace(SETTINGS, **changes)))


# --- names --------------------------------------------------------------------------------------------------


def test_a_version_with_other_reservations_gets_another_component_on_the_same_endpoint() -> None:
    versions = [component(), component(2), component(memory_mb=2048), component(cpu_percent=25)]
    versions.append(host().located(replace(version("a" * 30, "d" * 63, 12345), serving=SETTINGS)))
    assert len({each.target for each in versions}) == len(versions)
    assert {each.endpoint for each in versions} == {"trainyard-shared--components"}
    assert all(len(each.target) <= NAME_MAX for each in versions)
    assert all(each.target.startswith(f"trainyard-own-{each.tenant_id}-") for each in versions)
    assert component(canary_percent=5).target == component().target, "it can stay where it is"
    again = replace(version("acme", "churn", 1), approved_at=NOW + timedelta(hours=1))
    assert component_of(again).target != component().target, "the former one may be on its way out"
    key = f"models/trainyard-shared--components/acme/churn/{component().target}/model.tar.gz"
    assert archive_key(component()) == key


def test_what_is_a_versions_own_depends_on_the_mode() -> None:
    assert component().own_resource == component().target
    assert replace(component(), serving=ServingSettings()).own_resource == ""
    container = ServingSettings(mode=Mode.MULTI_CONTAINER, isolation=Isolation.BRIDGE)
    assert replace(component(), serving=container).own_resource == component().target
    own = ServingSettings(mode=Mode.REAL_TIME, isolation=Isolation.SILO)
    assert replace(component(), serving=own).own_resource == component().endpoint


@pytest.mark.parametrize(("memory_mb", "cpu_percent"), [(8192, 50), (1024, 201)])
def test_what_no_instance_can_hold_is_refused_before_anything_is_created(memory_mb: int, cpu_percent: int) -> None:
    state, reason = host().ensure(component(memory_mb=memory_mb, cpu_percent=cpu_percent), tenant())
    assert state is EndpointState.FAILED
    assert "do not fit on ml.m5.large, which has 200 percent and 8192 MB" in reason


class S3:
    def __init__(self) -> None:
        self.deleted: list[str] = []

    def delete_object(self, Bucket: str, Key: str) -> None:
        self.deleted.append(f"{Bucket}/{Key}")


@pytest.mark.parametrize(
    ("mode", "isolation", "is_deleted"),
    [
        (Mode.MULTI_MODEL, Isolation.BRIDGE, True),
        (Mode.INFERENCE_COMPONENT, Isolation.BRIDGE, True),
        (Mode.MULTI_CONTAINER, Isolation.BRIDGE, False),
    ],
)
def test_the_archive_of_a_container_is_left_until_its_endpoint_has_been_updated(
    monkeypatch: pytest.MonkeyPatch, mode: Mode, isolation: Isolation, is_deleted: bool
) -> None:
    s3 = S3()
    monkeypatch.setattr("trainyard.adapters.aws.serving.client", lambda _: s3)
    served = replace(component(), serving=ServingSettings(mode=mode, isolation=isolation))
    remove_model("serving", served)
    assert s3.deleted == ([f"serving/{archive_key(served)}"] if is_deleted else [])


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        ("ValidationError", "Inference Component has no capacity to process this request.", Throttled),
        ("ValidationError", "TargetModel is missing", Refused),
        ("ModelNotReadyException", "it loads", Throttled),
    ],
)
def test_a_component_whose_instance_is_replaced_is_asked_again(code: str, words: str, expected: type) -> None:
    with pytest.raises(expected), refusals():
        raise ClientError({"Error": {"Code": code, "Message": words}}, "InvokeEndpoint")


# --- money --------------------------------------------------------------------------------------------------


def reservation(name: str = "c1", tenant_id: str = "acme", **changes: Any) -> Reservation:
    values: dict[str, Any] = {"cpu_percent": 50, "memory_mb": 2048, "created_at": BEGIN} | changes
    return Reservation(
        name=name, tenant_id=tenant_id, data_set="churn", tier="basic", algorithm="linear", **values
    )


def endpoint(*reservations: Reservation, **changes: Any) -> BilledEndpoint:
    values: dict[str, Any] = {"instance_type": "ml.m5.large", "instance_count": 1, "created_at": BEGIN} | changes
    return BilledEndpoint(name="e", arn="arn:e", reservations=reservations, **values)


class Books:
    """An endpoint of components whose hours are booked, at minutes after the first hour began."""

    def __init__(self, *reservations: Reservation, **changes: Any) -> None:
        self.book = InferenceBook(store=MemoryStore(), retention=timedelta(days=60))
        self.existing = Existing([endpoint(*reservations, **changes)])
        self._booking = InferenceBooking(
            book=self.book, endpoints=self.existing, prices=PRICES, tier_of=lambda _: None
        )

    def booked(self, minutes: int) -> list[EndpointHour]:
        return self._booking.book_due(BEGIN + timedelta(minutes=minutes), lambda: False)

    def paid(self, hour: EndpointHour) -> dict[str, Decimal]:
        return {each.tenant_id: each.usd or Decimal(0) for each in self.book.uses("e", hour.hour)}


def test_a_quarter_of_an_instance_costs_a_quarter_of_it_whether_it_is_called_or_not() -> None:
    books = Books(reservation(), reservation("c2", "globex", memory_mb=1024, cpu_percent=25))
    books.book.count("e", use("acme", data_set="churn", milliseconds=9_000, model_bytes=7), BEGIN)
    (hour,) = books.booked(80)
    quarter, eighth = (HOURLY / share for share in (4, 8))
    assert books.paid(hour) == {"acme": quarter, "globex": eighth}
    assert [each.model_bytes for each in books.book.uses("e", hour.hour)] == [7, 0]
    assert (hour.usd, hour.idle_usd) == (HOURLY, HOURLY - quarter - eighth)


def test_a_component_costs_from_its_creation_until_it_was_seen_last() -> None:
    books = Books(reservation(created_at=BEGIN + timedelta(minutes=30)))
    (first,) = books.booked(80)
    assert books.paid(first) == {"acme": HOURLY / 8}
    books.booked(150)
    books.existing.endpoints = [endpoint()]
    (third,) = books.booked(200)
    assert books.paid(third) == {"acme": HOURLY / 8}, "it was seen last at half past"
    (fourth,) = books.booked(260)
    assert (books.paid(fourth), fourth.idle_usd) == ({}, HOURLY)


def test_versions_beside_each_other_are_paid_both_and_those_that_ended_are_forgotten() -> None:
    books = Books(reservation(), reservation("c2"))
    (hour,) = books.booked(80)
    assert books.paid(hour) == {"acme": HOURLY / 2}
    books.existing.endpoints = [endpoint(reservation("c2"))]
    for minutes in (140, 200, 260):
        (hour,) = books.booked(minutes)
    assert books.paid(hour) == {"acme": HOURLY / 4}
    (item,) = books.book.remembered(BEGIN).values()
    assert [each["name"] for each in item["reservations"]] == ["c2"]


def test_an_endpoint_that_is_deleted_ends_its_components_and_another_one_has_none_of_them() -> None:
    books = Books(reservation())
    books.booked(80)
    books.existing.endpoints = []
    (hour,) = books.booked(200)
    assert (hour.seconds, books.paid(hour)) == (1200, {"acme": (HOURLY / 12).quantize(Decimal("0.000001"))})
    created = BEGIN + timedelta(minutes=240)
    books.existing.endpoints = [endpoint(created_at=created)]
    (hour,) = books.booked(320)
    assert books.paid(hour) == {}


def test_instances_are_counted_from_the_run_on_that_sees_them() -> None:
    books = Books(count_now=1)
    assert [hour.usd for hour in books.booked(80)] == [HOURLY]
    books.existing.endpoints = [endpoint(instance_count=3, count_now=3)]
    assert [hour.usd for hour in books.booked(150)] == [HOURLY], "they came after that hour"
    assert [hour.usd for hour in books.booked(210)] == [HOURLY * 2], "three from half past on"
    books.existing.endpoints = [endpoint(instance_count=1, count_now=1)]
    assert [hour.usd for hour in books.booked(270)] == [HOURLY * 3]
    assert [hour.usd for hour in books.booked(390)] == [HOURLY * 2, HOURLY], "one from half past on"


def test_the_instances_before_the_first_booking_are_counted_too() -> None:
    books = Books(count_now=1)
    books.booked(20)
    books.existing.endpoints = [endpoint(instance_count=3, count_now=3)]
    books.booked(40)
    (hour,) = books.booked(80)
    assert hour.usd == (HOURLY * 5 / 3).quantize(Decimal("0.000001")), "one for 40 minutes, three for 20"


def test_an_endpoint_that_is_made_again_within_the_hour_has_none_of_the_former_components() -> None:
    books = Books(reservation())
    books.booked(80)
    books.existing.endpoints = [endpoint(created_at=BEGIN + timedelta(minutes=90))]
    (hour,) = books.booked(140)
    assert books.paid(hour) == {}


def test_a_component_that_is_made_again_costs_for_both_times() -> None:
    books = Books(reservation())
    books.booked(20)
    books.existing.endpoints = [endpoint(reservation(created_at=BEGIN + timedelta(minutes=40)))]
    (hour,) = books.booked(80)
    assert books.paid(hour) == {"acme": Decimal("0.019166")}, "of 0.028750 for 20 of 60 minutes, and 20 more"


def test_more_than_the_known_instances_is_paid_and_what_cannot_be_divided_is_the_providers() -> None:
    books = Books(*(reservation(f"c{number}", f"t{number}") for number in range(5)))
    (hour,) = books.booked(80)
    assert (hour.usd, hour.idle_usd) == (HOURLY / 4 * 5, Decimal(0)), "another instance ran a while ago"
    books = Books(reservation(), instance_type="ml.g4dn.xlarge")
    (hour,) = books.booked(80)
    assert books.paid(hour) in ({}, {"acme": 0})


def test_a_reservation_ends_with_its_endpoint() -> None:
    capacity = capacity_of("ml.m5.large")
    assert capacity is not None
    ended, hour = reservation(ended_at=BEGIN + timedelta(minutes=20)), BEGIN.strftime("%Y-%m-%dT%H")
    for until, minutes in ((None, 20), (BEGIN + timedelta(minutes=10), 10), (BEGIN + timedelta(minutes=40), 20)):
        usd = reserved_usd(Decimal("2.4"), ended, hour, capacity, until)
        assert usd == Decimal("0.01") * minutes, "a quarter of 4 cents a minute"


# --- the local cloud ----------------------------------------------------------------------------------------


class Variant:
    role = "arn:role"

    def __init__(self) -> None:
        self.request: dict[str, Any] = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}


@pytest.mark.parametrize(
    ("sizes", "instances"),
    [
        ([], 0),
        ([(0.5, 1024)] * 4, 1),
        ([(0.5, 1024)] * 5, 2),
        ([(0.25, 8 * 1024 - SYSTEM_MB)] * 2, 2),
        ([(0.25, 8 * 1024 - SYSTEM_MB + 1)], None),
        ([(2.25, 128)], None),
    ],
)
def test_components_are_put_on_as_few_instances_as_hold_them(
    sizes: list[tuple[float, int]], instances: int | None
) -> None:
    components = Components(None, str, None, None)  # type: ignore[arg-type]
    for number, (cpus, memory) in enumerate(sizes):
        required = {"NumberOfCpuCoresRequired": cpus, "MinMemoryRequiredInMb": memory}
        request = {
            "EndpointName": "e",
            "VariantName": "all",
            "Specification": {"ComputeResourceRequirements": required},
        }
        components._components[str(number)] = Component(str(number), str(number), request)
    assert components._instances_for(("e", "all"), Variant()) == instances


@pytest.mark.parametrize(
    ("changes", "config", "objection"),
    [
        ({}, {}, None),
        ({}, {"ExecutionRoleArn": None}, "ExecutionRoleArn is required"),
        ({"ManagedInstanceScaling": {"MinInstanceCount": 0, "MaxInstanceCount": 2}}, {}, "greater than 0"),
        (
            {"ManagedInstanceScaling": {"MinInstanceCount": 2, "MaxInstanceCount": 2}},
            {},
            "InitialInstanceCount must",
        ),
        ({"InitialInstanceCount": 0}, {}, "1 at least"),
        ({}, {"AsyncInferenceConfig": {}}, "neither serverless nor asynchronous"),
    ],
)
def test_what_an_endpoint_of_components_cannot_be(
    changes: dict[str, Any], config: dict[str, Any], objection: str | None
) -> None:
    variant = {"VariantName": "all", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1} | changes
    whole = {"ProductionVariants": [variant], "ExecutionRoleArn": "arn:role"} | config
    refused = objection_to({name: value for name, value in whole.items() if value is not None}, {})
    assert refused is None if objection is None else objection in str(refused)


# --- what an operator sees ----------------------------------------------------------------------------------


CONTAINERS = {"name": "s-shared--containers", "instances_max": 0}


def shown(**changes: Any) -> Endpoint:
    values: dict[str, Any] = {
        "name": "s-shared--components",
        "status": "InService",
        "instance_type": "ml.m5.large",
        "instance_count": 1,
        "configuration": "s-shared--components",
        "usd_per_hour": HOURLY,
        "failure": None,
        "instances_max": 4,
        "reserved": (reservation(), reservation("c2", "globex")),
    }
    return Endpoint(**(values | changes))


def test_what_the_components_reserve_is_shown_beside_what_there_can_be() -> None:
    assert summary_of(shown()).endswith(
        "0.115 USD an hour, 2 inference components reserving 100 percent and 4,096 MB of 800 percent of a CPU and "
        "32,768 MB on 4 instances"
    )


@pytest.mark.parametrize(
    ("changes", "is_on", "words", "remedy"),
    [
        ({}, True, "", ""),
        ({"instances_max": 2}, True, "2 instances at most, and the deployment says 4", "docs/serving.md"),
        (
            {"status": "Failed"},
            True,
            "is Failed",
            "aws sagemaker delete-inference-component --inference-component-name c1; aws sagemaker "
            "delete-inference-component --inference-component-name c2; aws sagemaker delete-endpoint",
        ),
        ({}, False, "though SharedServing is off", "delete-inference-component"),
        ({"configuration": "mine"}, True, "changed by hand", "update-endpoint"),
        ({"stuck": ("c9",)}, True, "c9 has been Creating for more than an hour", "ask AWS support"),
        (
            {"name": "s-shared--containers", "configuration": "s-shared--containers-01", "instances_max": 0},
            True,
            "",
            "",
        ),
        (
            {"name": "s-shared--containers", "configuration": "mine", "instances_max": 0},
            True,
            "changed by hand",
            "",
        ),
        ({"name": "s-shared-trees", "configuration": "s-shared--containers-01"}, True, "changed by hand", ""),
    ],
)
def test_what_is_wrong_with_such_an_endpoint_has_a_remedy_that_works(
    changes: dict[str, Any], is_on: bool, words: str, remedy: str
) -> None:
    outputs = {
        "ServingInstanceType": "ml.m5.large",
        "ComponentInstancesMax": "4",
        "SharedServing": str(is_on).lower(),
    }
    deployment = cast(Deployment, SimpleNamespace(stack="s", region="us-east-1", outputs=outputs))
    wrong = list(troubles(deployment, [shown(**changes)]))
    assert len(wrong) == (1 if words else 0), wrong
    for text, way_out in wrong:
        assert words in text
        assert remedy in way_out
