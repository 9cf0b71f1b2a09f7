"""Builders with defaults: a test only states what it is about."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from testing.service import ACCOUNT, PRICES
from trainyard.domain.algorithms import InstanceChoice
from trainyard.domain.executions import ExecutionRecord, JobFacts, StepFacts, StepRecord
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.newest import uploads_of
from trainyard.domain.policy import Budget, BudgetMode, Policy, TierPolicy
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import Cause, Content, Request, State, Submission
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings

SMALL = "ml.t3.medium ml.m5.large 1 30"
"""The lane of small data in `tier`."""

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def hard(limit: str) -> Budget:
    return Budget(Decimal(limit), BudgetMode.HARD)


def soft(limit: str) -> Budget:
    return Budget(Decimal(limit), BudgetMode.SOFT)


def job(**changes: Any) -> JobFacts:
    """Return a training job that ran for an hour on one ml.m5.large."""
    defaults: dict[str, Any] = {
        "kind": JobKind.TRAINING,
        "arn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/pipelines-x-Train",
        "status": "Completed",
        "instance_type": "ml.m5.large",
        "instance_count": 1,
        "volume_gb": 30,
        "started_at": NOW,
        "ended_at": NOW + timedelta(hours=1),
        "billable_seconds": 3600,
    }
    return JobFacts(**defaults | changes)


def step(name: str = "Train", **changes: Any) -> StepFacts:
    return StepFacts(**{"name": name, "kind": "Training", "status": "Succeeded", "job": job(), **changes})


def execution(of: Request, cost: str = "0.05", **changes: Any) -> ExecutionRecord:
    """Return the record of a request's attempt: one training job at that cost."""
    usd = Decimal(cost)
    defaults: dict[str, Any] = {
        "request_id": of.request_id,
        "attempt": of.attempt,
        "tenant_id": of.tenant_id,
        "tier": of.tier,
        "data_set": of.data_set,
        "algorithm": of.algorithm or "linear",
        "profile": of.profile,
        "month": of.month or "2026-11",
        "execution_arn": "arn:execution/1",
        "state": State.SUCCEEDED,
        "admitted_at": of.admitted_at or NOW,
        "started_at": NOW,
        "ended_at": NOW + timedelta(minutes=10),
        "recorded_at": NOW + timedelta(minutes=10),
        "steps": (StepRecord(step=step(), seconds=3600, cost_usd=usd),),
        "cost_usd": usd,
        "unknown": 0,
        "price_version": PRICES.version,
        "is_final": True,
        "reserved_usd": of.reserved_usd,
        "data_bytes": of.data_bytes,
    }
    return ExecutionRecord(**defaults | changes)


def tier(name: str = "basic", **changes: Any) -> TierPolicy:
    defaults: dict[str, Any] = {
        "quota": 2,
        "running_max_per_tenant": 1,
        "running_ceiling_per_tenant": 1,
        "runtime_max": timedelta(hours=1),
        "quality_min": 0.5,
        "instances": (choice(),),
    }
    return TierPolicy(name=name, **defaults | changes)


def policy(*tiers: TierPolicy, **changes: Any) -> Policy:
    defaults: dict[str, Any] = {
        "version": 0,
        "running_max": 4,
        "quiet_period": timedelta(0),
        "delay_max": timedelta(minutes=5),
        "start_retry_delay": timedelta(seconds=60),
        "prices": PRICES,
    }
    return Policy(tiers=tiers or (tier(),), **defaults | changes)


def choice(data_mb_max: int = 100, *, instances: int = 1, training: str = "ml.m5.large") -> InstanceChoice:
    return InstanceChoice(
        data_mb_max=data_mb_max,
        processing_instance_type="ml.t3.medium",
        training_instance_types=tuple(training.split(",")),
        training_instance_count=instances,
        training_volume_gb=30,
    )


def tenant(tenant_id: str = "acme", **changes: Any) -> Tenant:
    defaults: dict[str, Any] = {
        "state": TenantState.ACTIVE,
        "tier": "basic",
        "bucket": f"trainyard-t-{tenant_id}",
        "root": "",
        "role_arn": f"arn:aws:iam::{ACCOUNT}:role/trainyard/tenants/{tenant_id}",
        "model_group": f"trainyard-{tenant_id}",
        "settings": TrainingSettings(algorithm="linear", target="y"),
    }
    return Tenant(tenant_id=tenant_id, **defaults | changes)


def content(key: str = "incoming/churn/data.csv", **changes: Any) -> Content:
    defaults: dict[str, Any] = {
        "bucket": "trainyard-t-acme",
        "version_id": "v1",
        "etag": "0" * 32,
        "sequencer": "",
        "size_bytes": 1000,
        "event_time": NOW,
    }
    return Content(key=key, **defaults | changes)


def submission(number: int = 1, tenant_id: str = "acme", **changes: Any) -> Submission:
    defaults: dict[str, Any] = {
        "request_id": f"{number:032x}",
        "tier": "basic",
        "data_set": f"set-{number}",
        "content": content(bucket=f"trainyard-t-{tenant_id}"),
        "cause": Cause.UPLOAD,
    }
    return Submission(tenant_id=tenant_id, **defaults | changes)


def request(number: int = 1, **changes: Any) -> Request:
    defaults: dict[str, Any] = {
        "request_id": f"{number:032x}",
        "tenant_id": "acme",
        "tier": "basic",
        "data_set": f"set-{number}",
        "content": content(),
        "uploads": uploads_of(content()),
        "data_bytes": 1000,
        "profile": SMALL,
        "cause": Cause.UPLOAD,
        "state": State.QUEUED,
        "arrived_at": NOW,
        "due_at": NOW,
    }
    return Request(**defaults | changes)


def s3_event(**changes: Any) -> dict[str, Any]:
    """Return an Object Created event as EventBridge delivers it; `object_…` changes the object's fields."""
    body: dict[str, Any] = {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": ACCOUNT,
        "time": "2026-11-21T12:00:00Z",
        "region": "us-east-1",
        "resources": ["arn:aws:s3:::trainyard-t-acme"],
        "detail": {
            "version": "0",
            "bucket": {"name": "trainyard-t-acme"},
            "object": {
                "key": "incoming/churn/data.csv",
                "size": 1000,
                "etag": "0" * 32,
                "version-id": "v1",
                "sequencer": "617F08299329D189",
            },
            "reason": "PutObject",
        },
    }
    for name, value in changes.items():
        if name.startswith("object_"):
            body["detail"]["object"][name.removeprefix("object_").replace("_id", "-id")] = value
        else:
            body[name.replace("_", "-")] = value
    return body


def model_version(request_id: str, number: int = 1, **changes: Any) -> ModelVersion:
    """Return a version of acme's model of "churn" that a request has trained."""
    defaults: dict[str, Any] = {
        "package_arn": f"arn:aws:sagemaker:us-east-1:123456789012:model-package/trainyard--acme/{number}",
        "model_uri": f"s3://trainyard-t-acme/models/churn/{request_id}/model.tar.gz",
        "state": VersionState.READY,
        "since": NOW,
        "approved_at": NOW,
        "endpoint": "trainyard-shared-linear",
    }
    defaults |= {"tenant_id": "acme", "data_set": "churn", "version": number, "request_id": request_id}
    return ModelVersion(**defaults | changes)
