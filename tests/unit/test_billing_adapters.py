"""The billing adapters, with each call checked against the service's model."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from tests.build import NOW
from tests.tables import without_cloud
from trainyard.adapters.aws import billing
from trainyard.application.billing.cost_tags import COST_TAGS, TagsRefused
from trainyard.application.billing.metering import Answer, MeterRecord
from trainyard.domain.errors import Refused
from trainyard.domain.prices import JobKind


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from without_cloud(monkeypatch)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Stubber]:
    """Return what puts a stub in the place of a service's client; it checks requests by the service's model."""

    def stub(service: str) -> Stubber:
        client = boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        monkeypatch.setattr(billing, "client", lambda name, region=None: client)
        stubber = Stubber(client)
        stubber.activate()
        return stubber

    return stub


# --- Cost Explorer --------------------------------------------------------------------------------------------


def bill(*groups: tuple[str, str], unit: str = "USD", token: str | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "ResultsByTime": [
            {
                "Groups": [
                    {"Keys": [key], "Metrics": {"UnblendedCost": {"Amount": amount, "Unit": unit}}}
                    for key, amount in groups
                ]
            }
        ]
    }
    return answer | ({"NextPageToken": token} if token else {})


def test_the_bill_is_read_by_tenant_over_all_its_pages(stubbed: Callable[[str], Stubber]) -> None:
    stub = stubbed("ce")
    asked = {
        "TimePeriod": {"Start": "2026-12-01", "End": "2027-01-01"},
        "Granularity": "MONTHLY",
        "Metrics": ["UnblendedCost"],
        "Filter": {
            "And": [
                {"Dimensions": {"Key": "SERVICE", "Values": ["Amazon SageMaker"]}},
                {"Tags": {"Key": "trainyard:stage", "Values": ["prod"]}},
            ]
        },
        "GroupBy": [{"Type": "TAG", "Key": "trainyard:tenant"}],
    }
    stub.add_response("get_cost_and_usage", bill(("trainyard:tenant$acme", "1.5"), token="t"), asked)
    later = bill(("trainyard:tenant$acme", "0.25"), ("trainyard:tenant$", "2"))
    stub.add_response("get_cost_and_usage", later, asked | {"NextPageToken": "t"})
    assert billing.billed_by_tenant("2026-12", "prod") == {"acme": Decimal("1.75"), "": Decimal(2)}
    stub.assert_no_pending_responses()


def test_a_bill_in_another_currency_or_none_at_all_is_refused(stubbed: Callable[[str], Stubber]) -> None:
    stub = stubbed("ce")
    stub.add_response("get_cost_and_usage", bill(("trainyard:tenant$acme", "1"), unit="EUR"))
    with pytest.raises(Refused, match="costs in EUR"):
        billing.billed_by_tenant("2026-11", "dev")
    stub.add_client_error("get_cost_and_usage", "DataUnavailableException", "come back tomorrow")
    with pytest.raises(Refused, match="DataUnavailableException"):
        billing.billed_by_tenant("2026-11", "dev")


def test_cost_tags_are_read_and_activated(stubbed: Callable[[str], Stubber]) -> None:
    stub = stubbed("ce")
    known = [
        {"TagKey": "trainyard:tenant", "Type": "UserDefined", "Status": "Active"},
        {"TagKey": "trainyard:tier", "Type": "UserDefined", "Status": "Inactive"},
    ]
    asked = {"TagKeys": list(COST_TAGS), "Type": "UserDefined"}
    stub.add_response("list_cost_allocation_tags", {"CostAllocationTags": known[:1], "NextToken": "n"}, asked)
    stub.add_response("list_cost_allocation_tags", {"CostAllocationTags": known[1:]}, asked | {"NextToken": "n"})
    tags = billing.CostExplorerTags()
    assert tags.states(COST_TAGS) == {"trainyard:tenant": True, "trainyard:tier": False}
    error = {"TagKey": "trainyard:tier", "Code": "TagKeysNotFoundException", "Message": "not found"}
    stub.add_response(
        "update_cost_allocation_tags_status",
        {"Errors": [error]},
        {"CostAllocationTagsStatus": [{"TagKey": "trainyard:tier", "Status": "Active"}]},
    )
    assert tags.activate(["trainyard:tier"]) == {"trainyard:tier": "not found"}


def test_a_member_account_is_told_apart_from_other_errors(stubbed: Callable[[str], Stubber]) -> None:
    stub = stubbed("ce")
    stub.add_client_error(
        "list_cost_allocation_tags",
        "ValidationException",
        "Linked account doesn't have access to cost allocation tags",
    )
    with pytest.raises(TagsRefused, match="Linked account"):
        billing.CostExplorerTags().states(COST_TAGS)
    stub.add_client_error("list_cost_allocation_tags", "LimitExceededException", "slow down")
    with pytest.raises(Exception, match="slow down"):
        billing.CostExplorerTags().states(COST_TAGS)


# --- the Price List -------------------------------------------------------------------------------------------


def product(name: str, price: str, **attributes: str) -> str:
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}}
    return json.dumps(
        {
            "product": {"attributes": {"instanceName": name} | attributes},
            "terms": {"OnDemand": {"x": {"priceDimensions": {"y": dimension}}}},
        }
    )


def test_list_prices_are_read_by_component_over_all_pages(stubbed: Callable[[str], Stubber]) -> None:
    stub = stubbed("pricing")

    def asked(component: str, **more: str) -> dict[str, Any]:
        filters = {"productFamily": "ML Instance", "regionCode": "eu-west-1"}
        filters |= {"component": component} if component else {}
        listed = [{"Type": "TERM_MATCH", "Field": n, "Value": v} for n, v in filters.items()]
        return {"ServiceCode": "AmazonSageMaker", "Filters": listed, **more}

    first = {"PriceList": [product("ml.m5.large", "0.128"), product("ml.free", "0.0")], "NextToken": "t"}
    older = product("", "0.2", instanceType="ml.c5.xlarge-Training")
    stub.add_response("get_products", first, asked("Training"))
    stub.add_response("get_products", {"PriceList": [older]}, asked("Training", NextToken="t"))
    stub.add_response("get_products", {"PriceList": [product("ml.t3.medium", "0.055")]}, asked("Processing"))
    transforms = [
        product("ml.m5.large", "0.128", usagetype="EU-Tsform:ml.m5.large"),
        product("ml.m5.large", "9", usagetype="EU-Host:ml.m5.large"),
    ]
    stub.add_response("get_products", {"PriceList": transforms}, asked(""))
    stub.add_response("get_products", {"PriceList": [product("ml.m5.large", "0.13")]}, asked("Hosting"))
    assert billing.list_prices("eu-west-1") == {
        "hosting": {"ml.m5.large": Decimal("0.13")},
        JobKind.TRAINING: {"ml.m5.large": Decimal("0.128"), "ml.c5.xlarge": Decimal("0.2")},
        JobKind.PROCESSING: {"ml.t3.medium": Decimal("0.055")},
        JobKind.TRANSFORM: {"ml.m5.large": Decimal("0.128")},
    }


def test_two_prices_of_one_instance_or_none_at_all_are_refused(stubbed: Callable[[str], Stubber]) -> None:
    stub = stubbed("pricing")
    stub.add_response("get_products", {"PriceList": [product("ml.a", "1"), product("ml.a", "2")]})
    with pytest.raises(Refused, match=r"two prices of ml\.a"):
        billing.list_prices("us-east-1")
    stub.add_response("get_products", {"PriceList": []})
    with pytest.raises(Refused, match="no training instances in region 'mars-north-1'"):
        billing.list_prices("mars-north-1")


# --- AWS Marketplace ------------------------------------------------------------------------------------------


def record(number: int) -> MeterRecord:
    return MeterRecord("2" * 12, f"arn:aws:license-manager::1:license:l-{number}", NOW, number)


def usage(number: int) -> dict[str, Any]:
    return {
        "Timestamp": NOW,
        "CustomerAWSAccountId": "2" * 12,
        "LicenseArn": f"arn:aws:license-manager::1:license:l-{number}",
        "Dimension": "cents",
        "Quantity": number,
    }


def test_records_are_sent_25_at_a_time_and_what_is_not_answered_is_sent_again(
    stubbed: Callable[[str], Stubber],
) -> None:
    stub = stubbed("meteringmarketplace")
    statuses = {0: "Success", 1: "CustomerNotSubscribed", 2: "DuplicateRecord"}
    results = [{"UsageRecord": usage(n), "Status": status} for n, status in statuses.items()]
    answer = {"Results": results, "UnprocessedRecords": [usage(3)]}
    stub.add_response("batch_meter_usage", answer, {"UsageRecords": [usage(n) for n in range(25)]})
    stub.add_response(
        "batch_meter_usage",
        {"Results": [{"UsageRecord": usage(25), "Status": "Success"}], "UnprocessedRecords": []},
        {"UsageRecords": [usage(25)]},
    )
    found = billing.AwsMarketplace(dimension="cents").send([record(n) for n in range(26)])
    assert [found[record(n).license_arn] for n in (0, 1, 2, 3, 24, 25)] == [
        Answer.SUCCESS,
        Answer.NOT_SUBSCRIBED,
        Answer.DUPLICATE,
        Answer.UNPROCESSED,
        Answer.UNPROCESSED,
        Answer.SUCCESS,
    ]


def test_an_sdk_that_is_older_than_licences_is_told_before_anything_is_noted(
    stubbed: Callable[[str], Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda's runtime brings an SDK of its own, some months old."""
    model = stubbed("meteringmarketplace").client.meta.service_model
    monkeypatch.delitem(model._service_description["shapes"]["UsageRecord"]["members"], "LicenseArn")
    with pytest.raises(Refused, match=r"lacks LicenseArn.*add a newer boto3"):
        billing.AwsMarketplace(dimension="cents")


def test_one_record_that_is_refused_holds_up_no_other(stubbed: Callable[[str], Stubber]) -> None:
    stub = stubbed("meteringmarketplace")
    stub.add_client_error("batch_meter_usage", "TimestampOutOfBoundsException", "too old")
    stub.add_client_error("batch_meter_usage", "TimestampOutOfBoundsException", "too old")
    done = {"Results": [{"UsageRecord": usage(1), "Status": "Success"}], "UnprocessedRecords": []}
    stub.add_response("batch_meter_usage", done, {"UsageRecords": [usage(1)]})
    stub.add_client_error("batch_meter_usage", "ThrottlingException", "slow down")
    found = billing.AwsMarketplace(dimension="cents").send([record(n) for n in range(3)])
    assert list(found.values()) == [Answer.REFUSED, Answer.SUCCESS, Answer.UNPROCESSED]
