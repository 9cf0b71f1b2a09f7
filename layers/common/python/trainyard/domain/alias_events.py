"""Alias events: what a change of an alias means for those who wait for a version, or call one."""

from dataclasses import dataclass
from enum import StrEnum

from trainyard.domain.aliases import Alias


class AliasChange(StrEnum):
    """What became of a version."""

    IN_TEST = "model in test"
    """It answers calls in the test environment."""
    CANARY_STARTED = "model canary started"
    """It answers a share of the calls."""
    DEPLOYED = "model deployed"
    """It answers all calls."""
    ROLLED_BACK = "model rolled back"
    """It answered calls, and does not any more."""
    NOT_DEPLOYED = "model not deployed"
    """It could not be deployed, or failed its smoke test; what answered before still does."""
    STOPPED = "model stopped"
    """It answered calls, and no version does any more."""


@dataclass(frozen=True, slots=True)
class AliasEvent:
    change: AliasChange
    version: int
    """Its number in the model registry."""


def events_between(before: Alias, after: Alias) -> list[AliasEvent]:
    """Return what a change of an alias did to versions, in the order in which they are to be told of it."""
    events = []
    withdrawn = {version for version, at in after.withdrawn.items() if before.withdrawn.get(version) != at}
    if after.live is None and before.live is not None:
        return [AliasEvent(AliasChange.STOPPED, before.live)]
    is_stopped = after.withdrawn_up_to >= max(withdrawn, default=after.withdrawn_up_to + 1)
    for version in sorted(withdrawn):
        if version in (before.live, before.canary, before.testing):
            events.append(AliasEvent(AliasChange.ROLLED_BACK, version))
        elif version == before.deploying and not is_stopped:
            events.append(AliasEvent(AliasChange.NOT_DEPLOYED, version))
    if after.testing not in (None, before.testing):
        events.append(AliasEvent(AliasChange.IN_TEST, after.testing))
    if after.canary not in (None, before.canary):
        events.append(AliasEvent(AliasChange.CANARY_STARTED, after.canary))
    if after.live not in (None, before.live) and before.live not in withdrawn:
        events.append(AliasEvent(AliasChange.DEPLOYED, after.live))
    return events
