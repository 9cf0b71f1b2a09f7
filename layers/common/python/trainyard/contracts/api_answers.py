"""What the HTTP API answers about trainings, uploads and models."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from trainyard.application.api.models import Model
from trainyard.application.api.quotes import Quote
from trainyard.application.api.uploads import Upload
from trainyard.application.scheduling.explain import BudgetAccount, Explanation
from trainyard.contracts.api import Receipt
from trainyard.contracts.overrides import OverridesValues, overrides_values
from trainyard.domain.model_versions import VersionState
from trainyard.domain.receipts import receipt_of, waiting_of, without_account
from trainyard.domain.requests import Estimate, Overrides, Request, State
from trainyard.domain.tenants import Tenant

OUT_OF_SERVICE = "OUT_OF_SERVICE"


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Change(_Answer):
    at: datetime
    state: State


class RequestAnswer(_Answer):
    """A request for a training or a batch transform, and its life so far."""

    request_id: str
    tenant_id: str
    tier: str
    data_set: str
    state: State
    algorithm: str
    overrides: Annotated[
        OverridesValues | None,
        Field(description="What it was asked for with, in place of the settings of its data set"),
    ]
    arrived_at: datetime
    admitted_at: Annotated[datetime | None, Field(description="When its last attempt got a slot")]
    started_at: datetime | None
    finished_at: datetime | None
    expected: "Expected | None"
    history: Annotated[list[Change], Field(description="Oldest first; of a long one the middle is left out")]
    receipt: Receipt


class RequestList(_Answer):
    """Some of the requests."""

    items: list[RequestAnswer]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end")]


class Asked(_Answer):
    """A training that was asked for."""

    request_id: Annotated[str, Field(description="Its request, which is there within seconds")]


class ExpectedStart(_Answer):
    earliest: datetime | None
    latest: Annotated[datetime | None, Field(description="Null where nothing that is expected lets it start")]


class Waiting(_Answer):
    """What a waiting request can expect; times are rounded to ten minutes."""

    reason: Annotated[str, Field(description="Why it waits")]
    position: Annotated[int | None, Field(description="In its tier: 1 starts next")]
    expected_start: ExpectedStart
    expected_end: Annotated[datetime | None, Field(description="By when nine of ten such runs have ended")]


class Expected(_Answer):
    """What a run is expected to take and to cost; amounts are decimal numbers, in USD, at list prices."""

    seconds: int
    seconds_p90: Annotated[int, Field(description="Nine of ten such runs take no longer")]
    usd: Annotated[str | None, Field(description="Null where a price is not known")]
    usd_p90: str | None
    basis: Annotated[str, Field(description="`history`: past runs of the data set; or `size and tier`")]
    runs: Annotated[int, Field(description="How many past runs it is based on")]


class BudgetLeft(_Answer):
    """The budget of the tenant's month."""

    month: str
    limit_usd: str
    spent_usd: str
    reserved_usd: Annotated[str, Field(description="What trainings that run may cost")]


class BudgetAnswer(_Answer):
    """What a tenant may spend in the current month, and how much of that is spent."""

    budget: Annotated[BudgetLeft | None, Field(description="Null where the tenant has none")]


class StatementAnswer(_Answer):
    """What a tenant's month cost."""

    month: str
    page: Annotated[str, Field(description="HTML, complete in itself, without scripts")]


class Why(_Answer):
    """Why a request waits, and what it can expect."""

    waiting: Waiting
    expected: Expected | None
    budget: Annotated[BudgetLeft | None, Field(description="Null where the tenant has none")]


class QuoteAnswer(_Answer):
    """What is to be expected of an upload. Nothing is reserved: others may come first."""

    tier: str
    algorithm: str
    expected: Expected | None
    waiting: Waiting
    replaces: Annotated[str | None, Field(description="The waiting request that it would supersede")]


class PartAnswer(_Answer):
    number: int
    size_bytes: int
    url: str


class UploadAnswer(_Answer):
    """Where to PUT a file: at `url`, or, where that is null, in parts of the sizes given."""

    key: str
    expires_at: datetime
    url: str | None
    upload_id: Annotated[str | None, Field(description="Of an upload in parts")]
    parts: list[PartAnswer]


class ModelAnswer(_Answer):
    """A version of a data set's model."""

    version: int
    data_set: str
    request_id: str
    created_at: datetime
    status: Annotated[str, Field(description="`pending`, `approved` or `rejected`")]
    comment: Annotated[str | None, Field(description="By whom it was approved or rejected, and why")]
    algorithm: str | None
    quality: float | None
    quality_metric: str | None
    baseline: Annotated[float | None, Field(description="The same metric of knowing nothing of a row")]
    gain: Annotated[
        float | None,
        Field(description="By how much it is better than the model before, on the same rows; below 0, worse"),
    ]
    segment_gain: Annotated[float | None, Field(description="The same of the segment that lost most")]
    not_compared: Annotated[str | None, Field(description="Why it was not judged beside the model before")]
    rows: int | None
    role: Annotated[
        str | None, Field(description="What answers calls: `live`, `canary`, `testing`; `previous` can come back")
    ]
    percent: Annotated[int, Field(description="Of the calls in production that it answers")]
    deployment: Annotated[
        str | None,
        Field(
            description="What became of it after its approval; OUT_OF_SERVICE once it answers no calls any more"
        ),
    ]
    deployment_reason: str | None


class ModelFilesAnswer(_Answer):
    """Where a model and its card can be fetched from S3, by a GET without a token."""

    model: str
    card: str
    expires_at: datetime


class ModelList(_Answer):
    """Some of a tenant's models."""

    items: list[ModelAnswer]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end")]


class Predictions(_Answer):
    """What a model answers to rows, in their order."""

    version: int
    milliseconds: int | None = None
    predictions: list[Any] | None = None
    classes: list[Any] | None = None
    probabilities: list[list[float]] | None = None
    output: Annotated[str | None, Field(description="Where an asynchronous endpoint will write its answer")] = None
    failure: Annotated[str | None, Field(description="Where it will write why there is none")] = None


class DataSetAnswer(_Answer):
    """A data set."""

    name: str
    has_own_settings: Annotated[bool, Field(description="Whether it has other settings than the tenant's")]


class DataSetList(_Answer):
    """The data sets of a tenant: those with data, and those with settings of their own."""

    items: list[DataSetAnswer]


def request_of(request: Request) -> RequestAnswer:
    """Return a request as its tenant may see it."""
    return RequestAnswer(
        request_id=request.request_id,
        tenant_id=request.tenant_id,
        tier=request.tier,
        data_set=request.data_set,
        state=request.state,
        algorithm=request.algorithm,
        overrides=_overrides(request.overrides),
        arrived_at=request.arrived_at,
        admitted_at=request.admitted_at,
        started_at=request.started_at,
        finished_at=request.finished_at,
        expected=_expected(request.expected),
        history=[Change(at=change.at, state=change.state) for change in request.history],
        receipt=receipt_of(request),
    )


def why_of(explanation: Explanation, waiting: dict[str, object]) -> Why:
    """Return why a request waits, as its tenant may know it: other tenants' budgets are not in it."""
    request = explanation.request
    return Why(
        waiting=Waiting.model_validate(waiting),
        expected=_expected(request.expected),
        budget=budget_of(explanation.accounts, request.tenant_id).budget,
    )


def budget_of(accounts: Iterable[BudgetAccount], tenant_id: str) -> BudgetAnswer:
    """Return the tenant's own budget of those that apply to it: the tier's is the provider's business."""
    own = (account for account in accounts if account.whose == f"tenant {tenant_id}")
    return BudgetAnswer(budget=next((_budget(account) for account in own), None))


def quote_of(quote: Quote) -> QuoteAnswer:
    request = quote.request
    return QuoteAnswer(
        tier=request.tier,
        algorithm=request.algorithm,
        expected=_expected(request.expected),
        waiting=Waiting.model_validate(waiting_of(quote.prospect)),
        replaces=quote.replaces,
    )


def data_sets_of(tenant: Tenant, names: Iterable[str]) -> DataSetList:
    return DataSetList(
        items=[DataSetAnswer(name=name, has_own_settings=name in tenant.data_sets) for name in names]
    )


def upload_of(upload: Upload) -> UploadAnswer:
    return UploadAnswer(
        key=upload.key,
        expires_at=upload.expires_at,
        url=upload.url,
        upload_id=upload.upload_id,
        parts=[PartAnswer(number=p.number, size_bytes=p.size_bytes, url=p.url) for p in upload.parts],
    )


def model_of(model: Model) -> ModelAnswer:
    package, request, deployed = model.package, model.request, model.deployed
    outcome = request.outcome if request else None
    return ModelAnswer(
        version=package.version,
        data_set=package.data_set,
        request_id=package.request_id,
        created_at=package.created_at,
        status="pending" if package.is_pending else "approved" if package.is_approved else "rejected",
        comment=package.comment or None,
        algorithm=request.algorithm if request else None,
        quality=outcome.quality if outcome else None,
        quality_metric=outcome.quality_metric if outcome else None,
        baseline=outcome.baseline if outcome else None,
        gain=outcome.gain if outcome else None,
        segment_gain=outcome.segment_gain if outcome else None,
        not_compared=outcome.not_compared if outcome else None,
        rows=outcome.rows if outcome else None,
        role=model.role,
        percent=model.percent,
        deployment=_deployment_of(model),
        deployment_reason=without_account(deployed.reason) if deployed else None,
    )


def _deployment_of(model: Model) -> str | None:
    if model.deployed is None:
        return None
    is_out = model.deployed.state is VersionState.READY and model.role is None
    return OUT_OF_SERVICE if is_out else model.deployed.state.value


def _overrides(overrides: Overrides | None) -> OverridesValues | None:
    values = overrides_values(overrides)
    return None if values is None else OverridesValues.model_validate(values)


def _expected(expected: Estimate | None) -> Expected | None:
    if expected is None:
        return None
    return Expected(
        seconds=expected.seconds,
        seconds_p90=expected.seconds_p90,
        usd=None if expected.usd is None else f"{expected.usd:f}",
        usd_p90=None if expected.usd_p90 is None else f"{expected.usd_p90:f}",
        basis=expected.basis.value,
        runs=expected.runs,
    )


def _budget(account: BudgetAccount) -> BudgetLeft:
    return BudgetLeft(
        month=account.month,
        limit_usd=f"{account.budget.limit_usd:f}",
        spent_usd=f"{account.spent_usd:f}",
        reserved_usd=f"{account.reserved_usd:f}",
    )
