"""Limits by the hour, in words: what changes next."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from trainyard.domain.policy import Policy, TierPolicy

CHANGES_MAX = 50
"""Openings and closings of windows among which the next change of a limit is looked for."""

_OF_ACCOUNT = ("running_max", "starts_per_second")
_OF_TIER = (
    "quota",
    "borrowing_limit",
    "lending_limit",
    "running_max_per_tenant",
    "running_ceiling_per_tenant",
    "closed",
)


def next_change(policy: Policy) -> tuple[datetime, list[str]] | None:
    """Return when a limit changes next, and how; None when none is known to."""
    later = policy
    for _ in range(CHANGES_MAX):
        at = later.changes_at
        if at is None:
            return None
        later = later.at(at)
        differences = list(_differences(policy, later))
        if differences:
            return at, differences
    return None


def _differences(before: Policy, after: Policy) -> Iterator[str]:
    yield from _changed("", before, after, _OF_ACCOUNT)
    pools = sorted({*before.instance_quotas, *after.instance_quotas})
    for pool in pools:
        old, new = before.instance_quotas.get(pool), after.instance_quotas.get(pool)
        if old != new:
            yield f"{pool} {_value(old)} → {_value(new)}"
    for old_tier, new_tier in zip(before.tiers, after.tiers, strict=True):
        yield from _changed(f"{new_tier.name} ", old_tier, new_tier, _OF_TIER)


def _changed(
    whose: str, before: Policy | TierPolicy, after: Policy | TierPolicy, names: tuple[str, ...]
) -> Iterator[str]:
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if name == "closed" and old != new:
            yield f"{whose}{'closes' if new else 'opens'}"
        elif old != new:
            yield f"{whose}{name} {_value(old)} → {_value(new)}"


def _value(value: Any) -> str:
    return "no limit" if value is None else f"{value:g}"
