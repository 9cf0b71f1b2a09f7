"""The policy as a file: YAML, checked before anything is done with it; what is wrong is told by its line."""

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainyard.domain.errors import Refused
from trainyard.domain.names import is_tenant_id
from trainyard.domain.policy import (
    InstanceChoice,
    Policy,
    Repeats,
    Retries,
    TenantPolicy,
    TierPolicy,
    Window,
)

DEPLOYED = Path(__file__).parent.parent / "policy.yaml"
"""The policy that the code ships with; in force until an operator applies another one."""

LENDING_SHARE_MAX = 0.8
"""Of a quota: who lends everything waits for the longest borrowed run."""

_InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
_TierName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}$")]
_Slots = Annotated[int, Field(ge=0, le=10_000, strict=True)]
_SomeSlots = Annotated[int, Field(ge=1, le=10_000, strict=True)]
_PERIOD_HOURS = {Repeats.NEVER: 7 * 24, Repeats.DAILY: 24, Repeats.WEEKLY: 7 * 24}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Misplaced(ValueError):
    """A value that contradicts another one; `path` says where it stands."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


class InstanceEntry(_Strict):
    data_mb_max: int = Field(ge=1, le=5_000_000)
    processing: _InstanceType
    training: _InstanceType
    count: int = Field(default=1, ge=1, le=20, strict=True)
    volume_gb: int = Field(default=30, ge=1, le=16384)


class TierEntry(_Strict):
    quota: _SomeSlots
    borrowing_limit: _Slots = 0
    lending_limit: _Slots = 0
    running_max_per_tenant: _SomeSlots
    runtime_max_minutes: int = Field(ge=1, le=12_960)  # ProcessingMaxRuntimeInSeconds ≤ 777,600
    hold_age_minutes: float = Field(default=15, ge=0, le=1440)
    quality_min: float = Field(default=0.0, ge=0.0, le=1.0)
    instances: list[InstanceEntry] = Field(min_length=1)


class TenantEntry(_Strict):
    weight: int = Field(default=1, ge=1, le=1000, strict=True)
    running_max: _SomeSlots | None = None
    budget_usd: Decimal | None = Field(default=None, gt=0, le=Decimal("100000000"))


class WindowEntry(_Strict):
    begins: AwareDatetime
    hours: float = Field(gt=0)
    repeats: Repeats = Repeats.NEVER
    tiers: list[_TierName] = Field(default_factory=list)


class RetriesEntry(_Strict):
    attempts_max: int = Field(default=3, ge=1, le=10)
    delay_seconds: float = Field(default=120, ge=1, le=3600)


class PolicyFile(_Strict):
    running_max: _SomeSlots
    quiet_period_seconds: float = Field(ge=0, le=900)
    delay_max_seconds: float = Field(ge=0, le=86_400)
    start_retry_delay_seconds: float = Field(default=60, ge=1, le=900)
    starts_per_second: float | None = Field(default=None, gt=0, le=100)
    starts_burst: int = Field(default=5, ge=1, le=1000)
    retries: RetriesEntry = RetriesEntry()
    tiers: dict[_TierName, TierEntry] = Field(min_length=1)
    instance_quotas: dict[str, _Slots] = Field(default_factory=dict)
    tenants: dict[str, TenantEntry] = Field(default_factory=dict)
    maintenance: list[WindowEntry] = Field(default_factory=list)

    @model_validator(mode="after")
    def _agrees(self) -> "PolicyFile":
        for name, tier in self.tiers.items():
            _check_tier(name, tier, self.running_max)
        for pool in self.instance_quotas:
            usage, slash, kind = pool.partition("/")
            if usage not in ("training", "processing") or not slash or not kind.startswith("ml."):
                raise _Misplaced(
                    ("instance_quotas", pool),
                    "must read training/ml.… or processing/ml.…, as SageMaker's quotas do",
                )
        for tenant_id in self.tenants:
            if not is_tenant_id(tenant_id):
                raise _Misplaced(("tenants", tenant_id), "cannot name a tenant")
        for number, window in enumerate(self.maintenance):
            _check_window(number, window, self.tiers)
        return self

    def to_policy(self, version: int) -> Policy:
        return Policy(
            version=version,
            running_max=self.running_max,
            quiet_period=timedelta(seconds=self.quiet_period_seconds),
            delay_max=timedelta(seconds=self.delay_max_seconds),
            start_retry_delay=timedelta(seconds=self.start_retry_delay_seconds),
            starts_per_second=self.starts_per_second,
            starts_burst=self.starts_burst,
            instance_quotas=dict(self.instance_quotas),
            tenants={
                tenant_id: TenantPolicy(
                    weight=entry.weight, running_max=entry.running_max, budget_usd=entry.budget_usd
                )
                for tenant_id, entry in self.tenants.items()
            },
            maintenance=tuple(
                Window(
                    begins=entry.begins,
                    length=timedelta(hours=entry.hours),
                    repeats=entry.repeats,
                    tiers=tuple(entry.tiers),
                )
                for entry in self.maintenance
            ),
            retries=Retries(
                attempts_max=self.retries.attempts_max, delay=timedelta(seconds=self.retries.delay_seconds)
            ),
            tiers=tuple(_tier(name, entry) for name, entry in self.tiers.items()),
        )


def _check_tier(name: str, tier: TierEntry, running_max: int) -> None:
    path = ("tiers", name)
    if tier.quota > running_max:
        raise _Misplaced((*path, "quota"), f"is {tier.quota}, more than running_max {running_max}")
    if tier.quota + tier.borrowing_limit > running_max:
        raise _Misplaced(
            (*path, "borrowing_limit"),
            f"is {tier.borrowing_limit}: with the quota {tier.quota} more than running_max {running_max}",
        )
    if tier.lending_limit > LENDING_SHARE_MAX * tier.quota:
        raise _Misplaced(
            (*path, "lending_limit"),
            f"is {tier.lending_limit}, at most {int(LENDING_SHARE_MAX * tier.quota)} "
            f"({LENDING_SHARE_MAX:.0%} of the quota) may be lent",
        )
    sizes = [entry.data_mb_max for entry in tier.instances]
    if sizes != sorted(set(sizes)):
        raise _Misplaced((*path, "instances"), f"must ascend in data_mb_max, got {sizes}")


def _check_window(number: int, window: WindowEntry, tiers: Iterable[str]) -> None:
    path = ("maintenance", number)
    period = _PERIOD_HOURS[window.repeats]
    if window.hours > period or (window.repeats is not Repeats.NEVER and window.hours >= period):
        raise _Misplaced(
            (*path, "hours"), f"is {window.hours:g}: a window that repeats {window.repeats} must end within "
            f"{period} hours, or it never does"
        )  # fmt: skip
    unknown = sorted(set(window.tiers) - set(tiers))
    if unknown:
        raise _Misplaced((*path, "tiers"), f"names {', '.join(unknown)}, which is no tier of this policy")


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, of which plain YAML silently keeps the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise Refused(f"line {key_node.start_mark.line + 1}: {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@lru_cache(maxsize=8)
def parse_policy(text: str, version: int) -> Policy:
    """Return the policy in a YAML text; raises Refused, naming line, entry and reason."""
    return validate_policy_file(text).to_policy(version)


def validate_policy_file(text: str) -> PolicyFile:
    """Return the checked file; raises Refused, naming each bad entry with its line and the reason."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        return PolicyFile.model_validate(document)
    except yaml.YAMLError as error:
        raise Refused(f"the policy is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        findings = [_finding(root, dict(found)) for found in error.errors(include_url=False)]
        raise Refused("the policy does not hold:\n  " + "\n  ".join(findings)) from error


def _finding(root: yaml.Node | None, found: dict[str, Any]) -> str:
    """Return "line N: entry: reason" of one thing that is wrong."""
    cause = found.get("ctx", {}).get("error")
    path = cause.path if isinstance(cause, _Misplaced) else tuple(found["loc"])
    path = tuple(part for part in path if part != "[key]")
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        message = "is unknown: is it misspelt?"
    elif "input" in found and isinstance(found["input"], str | int | float) and not isinstance(cause, _Misplaced):
        message += f", got {found['input']!r}"
    return f"line {_line(root, path)}: {'.'.join(map(str, path)) or 'policy'}: {message}"


def _line(node: yaml.Node | None, path: tuple[str | int, ...]) -> int:
    """Return the line of an entry, or of the nearest one around it that is there."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in path:
        child: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    child, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
            line = child.start_mark.line + 1
        if child is None:
            break
        node = child
    return line


def _tier(name: str, entry: TierEntry) -> TierPolicy:
    return TierPolicy(
        name=name,
        quota=entry.quota,
        borrowing_limit=entry.borrowing_limit,
        lending_limit=entry.lending_limit,
        running_max_per_tenant=entry.running_max_per_tenant,
        runtime_max=timedelta(minutes=entry.runtime_max_minutes),
        hold_age=timedelta(minutes=entry.hold_age_minutes),
        quality_min=entry.quality_min,
        instances=tuple(
            InstanceChoice(
                data_mb_max=choice.data_mb_max,
                processing_instance_type=choice.processing,
                training_instance_type=choice.training,
                training_instance_count=choice.count,
                training_volume_gb=choice.volume_gb,
            )
            for choice in entry.instances
        ),
    )
