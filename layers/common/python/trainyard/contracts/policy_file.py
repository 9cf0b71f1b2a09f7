"""The policy as a file: YAML, checked before anything is done with it."""

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainyard.domain.errors import Refused
from trainyard.domain.policy import InstanceChoice, Policy, TierPolicy

DEPLOYED = Path(__file__).parent.parent / "policy.yaml"
"""The policy that the code ships with; in force until an operator applies another one."""

_InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InstanceEntry(_Strict):
    data_mb_max: int = Field(ge=1, le=5_000_000)
    processing: _InstanceType
    training: _InstanceType
    count: int = Field(default=1, ge=1, le=20)
    volume_gb: int = Field(default=30, ge=1, le=16384)


class TierEntry(_Strict):
    quota: int = Field(ge=1, le=10_000)
    running_max_per_tenant: int = Field(ge=1, le=10_000)
    runtime_max_minutes: int = Field(ge=1, le=12_960)  # ProcessingMaxRuntimeInSeconds ≤ 777,600
    quality_min: float = Field(default=0.0, ge=0.0, le=1.0)
    instances: list[InstanceEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _sizes_ascend(self) -> "TierEntry":
        sizes = [entry.data_mb_max for entry in self.instances]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"instances must ascend in data_mb_max, got {sizes}")
        return self


class PolicyFile(_Strict):
    running_max: int = Field(ge=1, le=10_000)
    quiet_period_seconds: float = Field(ge=0, le=900)
    delay_max_seconds: float = Field(ge=0, le=86_400)
    start_retry_delay_seconds: float = Field(default=60, ge=1, le=900)
    tiers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}$")], TierEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _quotas_fit(self) -> "PolicyFile":
        for name, tier in self.tiers.items():
            if tier.quota > self.running_max:
                raise ValueError(f"tiers.{name}.quota is {tier.quota}, more than running_max {self.running_max}")
        return self

    def to_policy(self, version: int) -> Policy:
        return Policy(
            version=version,
            running_max=self.running_max,
            quiet_period=timedelta(seconds=self.quiet_period_seconds),
            delay_max=timedelta(seconds=self.delay_max_seconds),
            start_retry_delay=timedelta(seconds=self.start_retry_delay_seconds),
            tiers=tuple(_tier(name, entry) for name, entry in self.tiers.items()),
        )


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


def parse_policy(text: str, *, version: int) -> Policy:
    """Return the policy in a YAML text; raises Refused, naming the bad entry and the reason."""
    return validate_policy_file(text).to_policy(version)


def validate_policy_file(text: str) -> PolicyFile:
    """Return the checked file; raises Refused, naming each bad entry and the reason."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        return PolicyFile.model_validate(document)
    except yaml.YAMLError as error:
        raise Refused(f"the policy is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        findings = [
            f"{'.'.join(map(str, f['loc'])) or 'policy'}: {f['msg'].removeprefix('Value error, ')}"
            for f in error.errors(include_url=False)
        ]
        raise Refused("the policy does not hold: " + "; ".join(findings)) from error


@cache
def deployed_policy() -> Policy:
    """Return the policy that the code ships with, version 0."""
    return parse_policy(DEPLOYED.read_text(encoding="utf-8"), version=0)


def _tier(name: str, entry: TierEntry) -> TierPolicy:
    return TierPolicy(
        name=name,
        quota=entry.quota,
        running_max_per_tenant=entry.running_max_per_tenant,
        runtime_max=timedelta(minutes=entry.runtime_max_minutes),
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
