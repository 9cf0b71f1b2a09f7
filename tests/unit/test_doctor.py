"""The doctor: what it finds has a remedy, and what AWS does not tell does not hide the rest."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from cli import doctor
from cli.deployment import Deployment, Unreachable
from cli.quotas import needed_instances
from cli.show import lines_of
from local.sagemaker import quotas
from testing.memory_store import MemoryStore
from tests.build import choice, policy, tier
from trainyard.adapters.aws.alarms import OF_A_STACK
from trainyard.domain.findings import BAD, GOOD, UNKNOWN, WARNING, Finding
from trainyard.persistence.container_sets import ContainerSets
from trainyard.persistence.young_buckets import note_looked, note_young, young_buckets

DENIED = ClientError({"Error": {"Code": "AccessDenied", "Message": "not yours"}}, "GetAccountSummary")


class Quotas:
    """A client of Service Quotas that gives the local cloud's pages, with some values changed."""

    def __init__(self, **values: float) -> None:
        self.values = values

    def get_paginator(self, operation: str) -> Any:
        listed = getattr(quotas, operation)

        def pages(ServiceCode: str) -> Iterator[dict[str, Any]]:
            token: dict[str, str] = {}
            while True:
                page = listed({"ServiceCode": ServiceCode, **token})
                changed = [q | {"Value": self.values.get(q["QuotaName"], q["Value"])} for q in page["Quotas"]]
                yield {"Quotas": changed}
                if "NextToken" not in page:
                    return
                token = {"NextToken": page["NextToken"]}

        return SimpleNamespace(paginate=pages)


def findings(monkeypatch: pytest.MonkeyPatch, limits: Any, **values: float) -> list[Finding]:
    monkeypatch.setattr(doctor, "_policy", lambda _: limits)
    deployment = cast(Deployment, SimpleNamespace(client=lambda _: Quotas(**values)))
    return list(doctor._quotas(deployment))


def test_quotas_that_the_policy_may_exceed_are_named_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = policy(tier(quota=4, instances=(choice(training="ml.m5.large"),)))
    assert [each.result for each in findings(monkeypatch, limits)] == [GOOD]
    short = findings(monkeypatch, limits, **{"ml.m5.large for training job usage": 3.0})
    assert [(each.result, each.text) for each in short[:1]] == [
        (WARNING, "ml.m5.large for training job usage: 3, the policy may use 4")
    ]
    none = findings(monkeypatch, limits, **{"ml.t3.medium for processing job usage": 0.0})
    assert (none[0].result, none[0].text) == (BAD, "ml.t3.medium for processing job usage: 0")
    few = findings(monkeypatch, limits, **{"Maximum number of concurrent pipeline executions": 1.0})
    assert few[0].result == BAD
    assert "concurrent pipeline executions: 1" in few[0].text


def test_each_tier_needs_instances_for_as_many_runs_as_it_may_have_at_once() -> None:
    limits = policy(
        tier(quota=2, borrowing_limit=1, instances=(choice(training="ml.m5.large,ml.m5.xlarge"),)), running_max=9
    )
    needed = needed_instances(limits)
    assert {name: count for name, count in needed.items() if "training job" in name} == {
        "ml.m5.large for training job usage": 3,
        "ml.m5.xlarge for training job usage": 3,
    }


def test_what_a_template_repeats_counts_as_often() -> None:
    scaling = {"ScalingConfig": {"MaximumConcurrency": 2}}
    template = {"A": scaling, "Fn::ForEach::Tiers": ["Tier", ["a", "b", "c"], {"${Tier}Queue": scaling}]}
    assert sum(doctor._concurrency(template)) == 8
    assert sum(doctor._concurrency(doctor._template())) == 20 + 2 + 4 + 3 * 2


@pytest.mark.parametrize(
    ("name", "ours"), [("NoPassesAlarm-1ABC", True), ("NoPassesAlarm", True), ("2-NoPassesAlarm-1ABC", False)]
)
def test_alarms_of_a_stack_whose_name_begins_alike_are_not_its_own(name: str, ours: bool) -> None:
    assert bool(OF_A_STACK.fullmatch(name)) is ours


def test_a_check_that_aws_denies_is_unknown_and_the_others_go_on() -> None:
    def denied(_: Any) -> Iterator[Finding]:
        raise DENIED
        yield

    def well(_: Any) -> Iterator[Finding]:
        yield Finding("b", GOOD, "all well")

    found = list(doctor._examined(cast(Deployment, None), [("a", denied), ("b", well)]))
    assert [(each.check, each.result) for each in found] == [("a", UNKNOWN), ("b", GOOD)]
    assert "not yours" in found[0].text


def test_before_the_first_deployment_only_the_account_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OF_THE_ACCOUNT", ())

    class Nowhere:
        @property
        def outputs(self) -> dict[str, str]:
            raise Unreachable("there is no stack 's'")

    answer = doctor.doctor(cast(Deployment, Nowhere()), SimpleNamespace())  # type: ignore[arg-type]
    assert answer.code == 0
    assert [row[:2] for row in answer.rows] == [("warning", "deployment")]
    assert any("make deploy STAGE=dev" in line.text for line in lines_of(answer, 80))


def test_new_buckets_that_are_not_scanned_are_told() -> None:
    now, store = datetime.now(UTC), MemoryStore()
    deployment = cast(Deployment, SimpleNamespace(store=store))
    note_young(store, "acme", now)
    (fresh,) = doctor._young(deployment)
    assert (fresh.result, fresh.text[:12]) == (GOOD, "1 new bucket")
    for minutes, result in ((5, GOOD), (25, WARNING)):
        (bucket,) = young_buckets(store, now)
        note_looked(store, bucket, None, now - timedelta(minutes=minutes))
        (told,) = doctor._young(deployment)
        assert told.result == result
    assert "1 bucket not scanned for 20 minutes: acme" in told.text


@pytest.mark.parametrize(
    ("state", "result", "words"),
    [
        (None, GOOD, "off"),
        ("Enabled", GOOD, "at https://a"),
        ("Disabled", BAD, "is Disabled: no link can be made"),
        ("PendingDeletion", BAD, "cancel-key-deletion --key-id k, then aws kms enable-key --key-id k"),
    ],
)
def test_approval_links_need_their_key(state: str | None, result: str, words: str) -> None:
    kms = SimpleNamespace(describe_key=lambda KeyId: {"KeyMetadata": {"KeyState": state}})
    outputs = {"ApprovalKeyArn": "k" if state else "", "ApprovalsAddress": "https://a"}
    deployment = cast(Deployment, SimpleNamespace(outputs=outputs, client={"kms": kms}.__getitem__))
    (finding,) = doctor._approval_links(deployment)
    assert finding.result == result
    assert words in f"{finding.text} {finding.remedy}"


def test_an_update_of_the_containers_that_fails_is_told() -> None:
    clients = {"sagemaker": SageMaker(), "service-quotas": Quotas(**{"ml.m5.large for endpoint usage": 2.0})}
    outputs = {"SharedServing": "true", "ServingInstanceType": "ml.m5.large", "ComponentInstancesMax": "4"}
    store = MemoryStore()
    deployment = cast(
        Deployment,
        SimpleNamespace(client=clients.__getitem__, store=store, stack="s", region="us-east-1", outputs=outputs),
    )
    sets = ContainerSets(store, lambda _: None)
    sets.change("s-shared--containers", lambda containers: replace(containers, failure="no capacity"))
    first, *_ = doctor._endpoints(deployment)
    assert (first.result, first.text) == (WARNING, "s-shared--containers could not be updated: no capacity")


class SageMaker:
    """A client that describes one shared endpoint."""

    def __init__(self, **changes: Any) -> None:
        self.endpoint: dict[str, Any] = {
            "EndpointStatus": "InService",
            "EndpointConfigName": "s-shared-linear",
            "CreationTime": datetime(2026, 11, 21, tzinfo=UTC),
        } | changes
        self.variant = {"InstanceType": changes.pop("InstanceType", "ml.m5.large"), "InitialInstanceCount": 1}
        self.tags = [{"Key": "trainyard:stack", "Value": changes.pop("stack", "s")}]

    def get_paginator(self, operation: str) -> Any:
        summary = {"EndpointName": "s-shared-linear", "EndpointArn": "arn:e", "EndpointStatus": "InService"}
        return SimpleNamespace(paginate=lambda NameContains: [{"Endpoints": [summary]}])

    def list_tags(self, ResourceArn: str) -> Any:
        return {"Tags": self.tags}

    def describe_endpoint(self, EndpointName: str) -> Any:
        if isinstance(self.endpoint["EndpointStatus"], Exception):
            raise self.endpoint["EndpointStatus"]
        return self.endpoint

    def describe_endpoint_config(self, EndpointConfigName: str) -> Any:
        return {"ProductionVariants": [{"ModelName": "m", **self.variant}]}


@pytest.mark.parametrize(
    ("changes", "is_on", "quota", "expected"),
    [
        ({}, True, 2.0, [(GOOD, "1 x ml.m5.large, 0.115 USD an hour")]),
        ({}, True, 1.0, [(WARNING, "1, all in use"), (GOOD, "InService")]),
        ({}, False, 0.0, [(WARNING, "though SharedServing is off")]),
        (
            {"EndpointStatus": "Failed", "FailureReason": "no capacity"},
            True,
            2.0,
            [(WARNING, "is Failed: no capacity")],
        ),
        ({"EndpointStatus": KeyError("EndpointStatus")}, True, 2.0, [(WARNING, "cannot be read")]),
        ({"EndpointConfigName": "mine"}, True, 2.0, [(WARNING, "changed by hand")]),
        ({"InstanceType": "ml.c5.large"}, True, 2.0, [(WARNING, "the deployment says ml.m5.large")]),
        (
            {"InstanceType": "ml.inf1.xlarge"},
            True,
            2.0,
            [(WARNING, "the deployment says"), (WARNING, "no price of ml.inf1.xlarge")],
        ),
        (
            {"stack": "another"},
            True,
            0.0,
            [(BAD, "ml.m5.large for endpoint usage: 0"), (GOOD, "no")],
        ),
    ],
)
def test_what_is_wrong_with_a_shared_endpoint_is_named_with_a_remedy(
    changes: dict[str, Any], is_on: bool, quota: float, expected: list[tuple[str, str]]
) -> None:
    clients = {
        "sagemaker": SageMaker(**changes),
        "service-quotas": Quotas(**{"ml.m5.large for endpoint usage": quota}),
    }
    deployment = SimpleNamespace(
        client=clients.__getitem__,
        store=MemoryStore(),
        stack="s",
        region="us-east-1",
        outputs={
            "SharedServing": str(is_on).lower(),
            "ServingInstanceType": "ml.m5.large",
            "ComponentInstancesMax": "4",
        },
    )
    found = list(doctor._endpoints(cast(Deployment, deployment)))
    assert [each.result for each in found] == [result for result, _ in expected]
    for finding, (_, text) in zip(found, expected, strict=True):
        assert text in finding.text
        assert finding.result == GOOD or finding.remedy
