"""Billing adapters: the billing bucket, statements, AWS Marketplace, Cost Explorer and the Price List."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import IO, Any

import botocore
from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.endpoint_scaling import CountHistory, count_history
from trainyard.adapters.aws.endpoints import DescribedEndpoint, UnreadableEndpoint, endpoints_of_stack
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.application.billing.cost_tags import TagsRefused
from trainyard.application.billing.inference import BilledEndpoint, Unreadable
from trainyard.application.billing.metering import Answer, MeterRecord
from trainyard.domain.errors import OutcomeUnknown, Refused, Throttled
from trainyard.domain.executions import month_begins, next_month
from trainyard.domain.prices import JobKind
from trainyard.domain.tenants import Tenant

READ_BACK = timedelta(days=7)
"""For so long, hours of an endpoint that could not be booked can still be; activities are read no further back."""

USAGE = "usage"
"""Prefix of the exports in the billing bucket; the table in template.yaml reads it."""

RECORDS_MAX = 25
"""Records of one BatchMeterUsage call (API reference)."""

_REFUSED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"})


class S3UsageFiles:
    """Implements UsageFiles; a day is a partition."""

    def __init__(self, *, bucket: str) -> None:
        self._bucket = bucket

    def put(self, day: str, rows: IO[bytes]) -> str:
        key = f"{USAGE}/day={day}/usage.csv.gz"
        with translated():
            client("s3").upload_fileobj(rows, self._bucket, key, ExtraArgs={"ContentType": "application/gzip"})
        return f"s3://{self._bucket}/{key}"


class SageMakerEndpoints:
    """Implements BilledEndpoints: those that have the stack's name and its tag."""

    def __init__(self, *, stack: str) -> None:
        self._stack = stack

    def existing(self) -> list[BilledEndpoint | Unreadable]:
        endpoints: list[BilledEndpoint | Unreadable] = []
        with translated():
            for endpoint in endpoints_of_stack(client("sagemaker"), self._stack):
                if isinstance(endpoint, UnreadableEndpoint):
                    endpoints.append(Unreadable(endpoint.name, endpoint.error))
                elif endpoint.status not in _NOT_BILLED:
                    endpoints.append(_billed(endpoint, datetime.now(UTC)))
        return endpoints


def _billed(endpoint: DescribedEndpoint, now: datetime) -> BilledEndpoint | Unreadable:
    try:
        history = count_history(endpoint.name, now - READ_BACK) if endpoint.scales else CountHistory()
    except (KeyError, ClientError, Throttled, OutcomeUnknown) as error:  # it must not affect the others
        return Unreadable(endpoint.name, f"{type(error).__name__}: {error}")
    return BilledEndpoint(
        name=endpoint.name,
        arn=endpoint.arn,
        created_at=endpoint.created_at,
        instance_type=endpoint.instance_type,
        instance_count=endpoint.first_count if endpoint.scales else endpoint.instance_count,
        scales=endpoint.scales,
        changes=tuple(history.changes),
        unsettled_from=history.unsettled_from,
        memory_mb=endpoint.memory_mb,
        owner=endpoint.owner,
        reservations=endpoint.reservations,
        count_now=endpoint.instance_count if endpoint.reservations is not None else None,
    )


_NOT_BILLED = frozenset({"Creating", "Failed", "Deleting"})
"""Statuses of endpoints without instances in service (API reference, DescribeEndpoint)."""


class S3StatementFiles:
    """Implements StatementFiles."""

    def put(self, tenant: Tenant, key: str, page: str) -> str:
        with translated():
            client("s3").put_object(
                Bucket=tenant.bucket, Key=key, Body=page.encode(), ContentType="text/html; charset=utf-8"
            )
        return f"s3://{tenant.bucket}/{key}"


class AwsMarketplace:
    """Implements Marketplace: a usage dimension of products that use concurrent agreements.

    Since June 2026 records name the buyer's account and licence (API reference, BatchMeterUsage). Raises Refused
    when the SDK does not support that, before any record is noted as sent.
    """

    def __init__(self, *, dimension: str) -> None:
        self._dimension = dimension
        model = client("meteringmarketplace").meta.service_model.shape_for("UsageRecord")
        if "LicenseArn" not in model.members:
            raise Refused(
                f"the AWS SDK of this runtime (botocore {botocore.__version__}) lacks LicenseArn, which "
                "metering needs: add a newer boto3 to layers/common/python/requirements.in, run make lock, "
                "and deploy"
            )

    def send(self, records: Sequence[MeterRecord]) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        for begin in range(0, len(records), RECORDS_MAX):
            part = records[begin : begin + RECORDS_MAX]
            try:
                answers |= self._send(part)
            except ClientError:  # one invalid record fails the whole call
                for record in part:
                    answers |= self._send_alone(record)
        return answers

    def _send_alone(self, record: MeterRecord) -> dict[str, Answer]:
        try:
            return self._send([record])
        except ClientError as error:
            refused = code_of(error) in _INVALID_RECORD
            return {record.license_arn: Answer.REFUSED if refused else Answer.UNPROCESSED}

    def _send(self, part: Sequence[MeterRecord]) -> dict[str, Answer]:
        answers = {record.license_arn: Answer.UNPROCESSED for record in part}
        answer = client("meteringmarketplace").batch_meter_usage(
            UsageRecords=[
                {
                    "Timestamp": record.hour,
                    "CustomerAWSAccountId": record.account_id,
                    "LicenseArn": record.license_arn,
                    "Dimension": self._dimension,
                    "Quantity": record.units,
                }
                for record in part
            ]
        )
        return answers | {r["UsageRecord"]["LicenseArn"]: Answer(r["Status"]) for r in answer["Results"]}


_INVALID_RECORD = frozenset(
    {
        "InvalidCustomerIdentifierException",
        "InvalidLicenseException",
        "InvalidUsageDimensionException",
        "InvalidUsageAllocationsException",
        "TimestampOutOfBoundsException",
    }
)
"""Errors of a single record; others may be transient (API reference, BatchMeterUsage)."""


class CostExplorerTags:
    """Implements CostTags."""

    def states(self, names: Sequence[str]) -> Mapping[str, bool]:
        active: dict[str, bool] = {}
        token: dict[str, str] = {}
        while True:
            answer = _refused_or(
                lambda token=token: client("ce").list_cost_allocation_tags(
                    TagKeys=list(names), Type="UserDefined", **token
                )
            )
            active |= {tag["TagKey"]: tag["Status"] == "Active" for tag in answer["CostAllocationTags"]}
            if not answer.get("NextToken"):
                return active
            token = {"NextToken": answer["NextToken"]}

    def activate(self, names: Sequence[str]) -> Mapping[str, str]:
        wanted = [{"TagKey": name, "Status": "Active"} for name in names]
        answer = _refused_or(
            lambda: client("ce").update_cost_allocation_tags_status(CostAllocationTagsStatus=wanted)
        )
        return {error["TagKey"]: error["Message"] for error in answer.get("Errors", [])}


def billed_by_tenant(month: str, stage: str) -> dict[str, Decimal]:
    """Return tenant → what Cost Explorer says its SageMaker jobs of a month cost, in USD.

    Unblended, of the jobs that carry our tags. Raises Refused with AWS's message when it cannot be
    queried, or when it answers in another currency.
    """
    billed: dict[str, Decimal] = {}
    token: dict[str, str] = {}
    while True:
        try:
            answer = client("ce").get_cost_and_usage(
                TimePeriod={
                    "Start": month_begins(month).strftime("%Y-%m-%d"),
                    "End": month_begins(next_month(month)).strftime("%Y-%m-%d"),
                },
                Granularity="MONTHLY",
                Metrics=["UnblendedCost"],
                Filter={
                    "And": [
                        {"Dimensions": {"Key": "SERVICE", "Values": ["Amazon SageMaker"]}},
                        {"Tags": {"Key": "trainyard:stage", "Values": [stage]}},
                    ]
                },
                GroupBy=[{"Type": "TAG", "Key": "trainyard:tenant"}],
                **token,
            )
        except ClientError as error:
            raise Refused(_unanswered("Cost Explorer", "ce:GetCostAndUsage", error)) from error
        for period in answer["ResultsByTime"]:
            for group in period["Groups"]:
                tenant_id = group["Keys"][0].partition("$")[2]
                cost = group["Metrics"]["UnblendedCost"]
                if cost["Unit"] != "USD":
                    raise Refused(f"Cost Explorer returned costs in {cost['Unit']}, not in USD")
                billed[tenant_id] = billed.get(tenant_id, Decimal(0)) + Decimal(cost["Amount"])
        if not answer.get("NextPageToken"):
            return billed
        token = {"NextPageToken": answer["NextPageToken"]}


def list_prices(region: str) -> dict[str, dict[str, Decimal]]:
    """Return kind of job, or "hosting" → instance type → USD per hour, on demand, as the Price List API has them.

    Raises Refused when one type has two prices, or none is found at all.
    """
    return {kind: _prices_of(kind, region) for kind in (*JobKind, "hosting")}


def _prices_of(kind: str, region: str) -> dict[str, Decimal]:
    prices: dict[str, Decimal] = {}
    for product in _products(region, kind):
        attributes = product["product"]["attributes"]
        name = attributes.get("instanceName") or attributes.get("instanceType", "").rpartition("-")[0]
        price = _hourly(product)
        if not name.startswith("ml.") or price is None or price <= 0:
            continue
        if prices.setdefault(name, price) != price:
            raise Refused(f"the Price List has two prices of {name} for {kind}: {prices[name]} and {price}")
    if not prices:
        raise Refused(f"the Price List has no {kind} instances in region {region!r}")
    return prices


TRANSFORM_USAGE = "Tsform:"
"""In the usage types of batch transforms, "USE1-Tsform:ml.m5.large", by which bills name them."""


def _products(region: str, kind: str) -> Iterator[dict[str, Any]]:
    """Yield SageMaker's products for a kind of job, or for "hosting".

    The API answers in us-east-1 and two other regions (Billing user guide, "Price List Query API").
    """
    filters = {"productFamily": "ML Instance", "regionCode": region}
    if kind != JobKind.TRANSFORM:
        filters["component"] = kind.capitalize()
    token: dict[str, str] = {}
    while True:
        try:
            page = client("pricing", "us-east-1").get_products(
                ServiceCode="AmazonSageMaker",
                Filters=[{"Type": "TERM_MATCH", "Field": n, "Value": v} for n, v in filters.items()],
                **token,
            )
        except ClientError as error:
            raise Refused(_unanswered("The Price List", "pricing:GetProducts", error)) from error
        for product in map(json.loads, page["PriceList"]):
            usage_type = product["product"]["attributes"].get("usagetype", "")
            if kind != JobKind.TRANSFORM or TRANSFORM_USAGE in usage_type:
                yield product
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def _hourly(product: dict[str, Any]) -> Decimal | None:
    """Return USD per hour on demand; None for what is priced in another way."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            if dimension["unit"] in ("Hrs", "hours", "Hours") and "USD" in dimension["pricePerUnit"]:
                return Decimal(dimension["pricePerUnit"]["USD"])
    return None


def _unanswered(service: str, right: str, error: ClientError) -> str:
    words = error.response.get("Error", {}).get("Message") or "no reason was given"
    message = f"{service} could not be queried ({code_of(error)}: {words})"
    return f"{message}. It needs the permission {right} and a real AWS account: the local cloud lacks it"


def _refused_or(call: Any) -> dict[str, Any]:
    """Make a call; raises TagsRefused when this account is not allowed to."""
    try:
        answer: dict[str, Any] = call()
        return answer
    except ClientError as error:
        message = str(error.response.get("Error", {}).get("Message", ""))
        if code_of(error) in _REFUSED or "linked account" in message.lower():
            raise TagsRefused(message) from error
        raise
