"""Alias events: what a change of an alias means for those who wait for a version, or call one."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from trainyard.domain.aliases import Alias, in_use

REPLACED = "another deployment took its place"


class AliasChange(StrEnum):
    """What became of a version. In the outbox, these come last: they hold up neither money nor ends."""

    IN_TEST = "version in test"
    """It answers calls in the test environment, and the one that did so before does not any more."""
    CANARY_STARTED = "version canary started"
    """It answers a share of the calls."""
    DEPLOYED = "version deployed"
    """It answers all calls."""
    ROLLED_BACK = "version rolled back"
    """It answered calls, and does not any more."""
    NOT_DEPLOYED = "version not deployed"
    """It could not be deployed, or failed its smoke test; what answered before still does."""
    STOPPED = "version stopped"
    """It answered calls, and no version of its data set does any more."""


@dataclass(frozen=True, slots=True)
class AliasEvent:
    change: AliasChange
    version: int
    """Its number in the model registry."""
    reason: str = ""
    """Why, where the change itself says so."""


def events_between(before: Alias, after: Alias) -> list[AliasEvent]:
    """Return what a change of an alias did to versions, in the order in which they are to be told of it."""
    if _is_stop(before, after):
        answered = [v for v in (before.live, before.canary, before.testing) if v is not None]
        begun = [] if before.deploying is None else [AliasEvent(AliasChange.NOT_DEPLOYED, before.deploying)]
        return [*(AliasEvent(AliasChange.STOPPED, version) for version in answered), *begun]
    return [*_given_up(before, after), *_taken_up(before, after)]


def _given_up(before: Alias, after: Alias) -> Iterator[AliasEvent]:
    answering = {after.live, after.canary, after.testing}
    if before.live is not None and after.live is not None and after.live < before.live:
        yield AliasEvent(AliasChange.ROLLED_BACK, before.live)
    if before.canary is not None and before.canary not in answering:
        yield AliasEvent(AliasChange.ROLLED_BACK, before.canary)
    # One in test is also given up for a newer one, whose event says so.
    newer = [v for v in answering if v is not None and v > (before.testing or 0)]
    if before.testing is not None and before.testing not in answering and not newer:
        yield AliasEvent(AliasChange.ROLLED_BACK, before.testing)
    gone = before.deploying is not None and before.deploying not in {*answering, after.deploying, after.waiting}
    if gone and before.deploying is not None:
        has_failed = after.withdrawn.get(before.deploying) != before.withdrawn.get(before.deploying)
        yield AliasEvent(AliasChange.NOT_DEPLOYED, before.deploying, "" if has_failed else REPLACED)


def _taken_up(before: Alias, after: Alias) -> Iterator[AliasEvent]:
    if after.testing not in (None, before.testing):
        yield AliasEvent(AliasChange.IN_TEST, after.testing)
    if after.canary not in (None, before.canary):
        yield AliasEvent(AliasChange.CANARY_STARTED, after.canary)
    if after.live is not None and after.live > (before.live or 0):
        yield AliasEvent(AliasChange.DEPLOYED, after.live)


def _is_stop(before: Alias, after: Alias) -> bool:
    """Tell whether all versions were taken out of service, and not the last one rolled back."""
    withdrawn_at_once = after.withdrawn_until is not None and after.withdrawn_until != before.withdrawn_until
    return withdrawn_at_once and not in_use(after) and after.withdrawn_up_to >= max(in_use(before), default=0)
