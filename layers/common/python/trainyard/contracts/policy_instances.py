"""The instances of a policy file: which a run gets, and how many of each may run at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field

from trainyard.contracts.policy_parts import Misplaced, Slots, Strict
from trainyard.domain.algorithms import TRANSFORM_INSTANCE_TYPE
from trainyard.domain.resources import INSTANCE_USAGES

TYPES_MAX = 5
"""Training instance types of one choice: as many as a training job may name (SageMaker API reference,
ResourceConfig, InstancePreferences)."""

_InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]

_FAMILIES = "m4|m5|m6i|m7i|c4|c5|c6i|c7i|r6i|r7i|p2|p3|g4dn|g5|g6|g6e|trn1|inf2"
"""Instance families of batch transforms (SageMaker API reference, TransformResources)."""
_TransformType = Annotated[str, Field(pattern=rf"^ml\.({_FAMILIES})\.[a-z0-9]+$")]

InstanceQuotas = dict[str, Slots]
"""Instance pool ("training/ml.m5.large") → instances."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class InstanceEntry(Strict):
    data_mb_max: int = Field(ge=1, le=5_000_000)
    processing: _InstanceType
    training: Annotated[list[_InstanceType], BeforeValidator(_as_list), Field(min_length=1, max_length=TYPES_MAX)]
    """One type, or several in order of preference."""
    count: int = Field(default=1, ge=1, le=20, strict=True)
    volume_gb: int = Field(default=30, ge=1, le=16384)
    transform: _TransformType = TRANSFORM_INSTANCE_TYPE
    """Of a batch transform of so much data."""


def check_quota_names(path: tuple[str | int, ...], quotas: Iterable[str]) -> None:
    """Raise Misplaced for a quota of what is no instance pool."""
    for resource in quotas:
        usage, slash, kind = resource.partition("/")
        if usage not in INSTANCE_USAGES or not slash or not kind.startswith("ml."):
            raise Misplaced(
                (*path, "instance_quotas", resource),
                "must be training/ml.…, spot/ml.… (training on spot capacity), processing/ml.… or "
                "transform/ml.…, as in SageMaker's quotas",
            )


def check_instances(
    path: tuple[str | int, ...],
    instances: Sequence[InstanceEntry],
    quotas: Mapping[str, int],
) -> None:
    """Raise Misplaced for choices that are out of order, or whose types cannot stand for one another."""
    sizes = [entry.data_mb_max for entry in instances]
    if sizes != sorted(set(sizes)):
        raise Misplaced((*path, "instances"), f"must be in ascending order of data_mb_max, got {sizes}")
    for number, entry in enumerate(instances):
        if len(entry.training) > 1:
            _check_types((*path, "instances", number, "training"), entry, quotas)


class TierSpot(Protocol):
    """What a tier says of spot capacity."""

    spot: bool
    instances: list[InstanceEntry]

    @property
    def model_fields_set(self) -> set[str]: ...


class AlgorithmSpot(Protocol):
    """What an algorithm says of spot capacity."""

    spot: bool | None
    instances: list[InstanceEntry]


def check_spot(
    tiers: Mapping[str, TierSpot], algorithms: Mapping[str, AlgorithmSpot], quotas: Mapping[str, int]
) -> None:
    """Raise Misplaced for runs on spot capacity that SageMaker refuses, or that could not go on without it."""
    for name, tier in tiers.items():
        if tier.spot:
            _check_spot_instances(("tiers", name), tier.instances, quotas)
        used = tier.spot or any(algorithm.spot for algorithm in algorithms.values())
        if "spot_wait_minutes" in tier.model_fields_set and not used:
            raise Misplaced(("tiers", name, "spot_wait_minutes"), "has no effect without spot: true")
    for name, algorithm in algorithms.items():
        if algorithm.spot or (algorithm.spot is None and any(tier.spot for tier in tiers.values())):
            _check_spot_instances(("algorithms", name), algorithm.instances, quotas)
        if algorithm.spot and not algorithm.instances:
            for of_tier, tier in tiers.items():
                _check_spot_instances(("tiers", of_tier), tier.instances, quotas)


def _check_spot_instances(
    path: tuple[str | int, ...], instances: Sequence[InstanceEntry], quotas: Mapping[str, int]
) -> None:
    for number, entry in enumerate(instances):
        if len(entry.training) > 1:
            raise Misplaced(
                (*path, "instances", number, "training"),
                f"names {len(entry.training)} types: SageMaker combines no list with spot capacity; name one, "
                "or set spot: false",
            )
        for usage, words in (("spot", "on spot capacity"), ("training", "on demand once it was interrupted")):
            pool = f"{usage}/{entry.training[0]}"
            if quotas.get(pool, entry.count) < entry.count:
                raise Misplaced(
                    (*path, "instances", number, "training"),
                    f"a run needs {entry.count} {entry.training[0]} {words}, and the quota {pool} is "
                    f"{quotas[pool]}: raise the quota, or set spot: false",
                )


def _check_types(path: tuple[str | int, ...], entry: InstanceEntry, quotas: Mapping[str, int]) -> None:
    repeated = sorted({name for name in entry.training if entry.training.count(name) > 1})
    if repeated:
        raise Misplaced(path, f"names {', '.join(repeated)} more than once")
    # SageMaker checks the quota of each, and refuses the job when one is too small for it.
    limited = [name for name in entry.training if f"training/{name}" in quotas]
    unlimited = [name for name in entry.training if name not in limited]
    if limited and unlimited:
        raise Misplaced(
            path,
            f"instance_quotas has training/{limited[0]}, and no training/{unlimited[0]}: SageMaker refuses a job "
            "when the quota of any type that it names is too small, so give the quota of each",
        )
    for name in limited:
        quota = quotas[f"training/{name}"]
        if quota < entry.count:
            raise Misplaced(
                path,
                f"a run needs {entry.count} {name}, and the quota training/{name} is {quota}: SageMaker would "
                "refuse the job whichever type had capacity; raise the quota, or leave the type out",
            )
