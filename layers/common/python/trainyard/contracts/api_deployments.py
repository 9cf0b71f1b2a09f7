"""What the HTTP API takes and answers about deployed models."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainyard.application.serving.deployed_models import CALLS_OF, DeployedModel
from trainyard.domain.aliases import percent_of
from trainyard.domain.hourly_spend import hour_of
from trainyard.domain.inference import begins
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.receipts import without_account
from trainyard.domain.serving import Mode


class VersionBody(BaseModel):
    """A version of a data set's model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=1, le=99_999_999, strict=True)]


class PromotionBody(VersionBody):
    """A version that is to answer calls, and what it is now."""

    role: Annotated[
        Literal["testing", "canary"] | None,
        Field(description="What it is, as a deployment shows it: a repeated call then promotes it no further"),
    ] = None


class StopBody(BaseModel):
    """Whether all versions of a data set are really to be taken out of service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dry_run: Annotated[
        bool, Field(strict=True, description="Only say which versions would be taken out of service")
    ] = False


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class DeployedVersion(_Answer):
    """A version that answers calls, or will."""

    version: int
    state: VersionState
    since: datetime
    mode: Mode
    percent: Annotated[int, Field(description="Of the calls in production that it answers")]
    calls: Annotated[int, Field(description="That it was asked to answer since `calls_since`")]
    failed: Annotated[int, Field(description="Those of them that it did not answer")]
    latency_ms: Annotated[int | None, Field(description="Of the call with which it was tested")]
    reason: str | None


class DeploymentAnswer(_Answer):
    """What answers calls for a data set."""

    tenant_id: str
    data_set: str
    live: int | None
    previous: Annotated[int | None, Field(description="The version to which a roll-back of the live one goes")]
    canary: int | None
    canary_percent: int
    testing: Annotated[int | None, Field(description="Answers calls in the environment `test`")]
    test_ends_at: Annotated[datetime | None, Field(description="When it is promoted, if that happens by itself")]
    deploying: int | None
    waiting: Annotated[int | None, Field(description="Deployed next")]
    calls_since: datetime
    versions: list[DeployedVersion]


class DeploymentList(_Answer):
    """What answers calls for data sets."""

    items: list[DeploymentAnswer]
    next: Annotated[str | None, Field(description="The cursor of the next page; null at the end")]


class StoppedAnswer(_Answer):
    """What was taken out of service, or would be."""

    versions: list[int]
    dry_run: bool


def deployment_of(model: DeployedModel, now: datetime) -> DeploymentAnswer:
    alias = model.alias
    return DeploymentAnswer(
        tenant_id=alias.tenant_id,
        data_set=alias.data_set,
        live=alias.live,
        previous=alias.previous,
        canary=alias.canary,
        canary_percent=alias.canary_percent,
        testing=alias.testing,
        test_ends_at=alias.test_ends_at,
        deploying=alias.deploying,
        waiting=alias.waiting,
        calls_since=begins(hour_of(now - CALLS_OF)),
        versions=[_version_of(version, model) for version in model.versions],
    )


def _version_of(version: ModelVersion, model: DeployedModel) -> DeployedVersion:
    calls = model.calls[version.version]
    return DeployedVersion(
        version=version.version,
        state=version.state,
        since=version.since,
        mode=version.serving.mode,
        percent=percent_of(model.alias, version.version),
        calls=calls.total,
        failed=calls.failed,
        latency_ms=version.latency_ms,
        reason=without_account(version.reason),
    )
