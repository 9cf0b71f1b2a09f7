"""Capacity holds: instances are held for a large request, so that small ones cannot overtake it forever.

EASY backfill (Lifka 1995): the large request gets the time at which it will fit (`shadow_time`), and what will be
free beside it then (`extra`). A later request may pass it if it ends before that time, or takes no more than is
extra."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from trainyard.domain.fair_share import Candidate
from trainyard.domain.policy import Policy
from trainyard.domain.queues import QueueEntry
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.scheduling import Holder


class CapacityHold:
    """A large request for which instances are held: no admission may delay the time at which it will fit."""

    def __init__(self, candidate: Candidate, entry: QueueEntry, capacity: Mapping[str, int]) -> None:
        self.candidate, self.entry = candidate, entry
        needed = ResourceProfile.parse(entry.profile).demand(candidate.tier.name)
        self.demand = {name: units for name, units in needed.items() if name in capacity}
        self.capacity = capacity
        self.shadow_time: datetime | None = None
        self.extra: dict[str, int] = {}

    def plan(self, used: Mapping[str, int], holders: Iterable[Holder], policy: Policy, now: datetime) -> None:
        """Compute when it will fit, if the holders of its resources end at their latest times.

        An overdue holder is assumed to take as long again; so are units taken by unknown holders.
        """
        free = {name: self.capacity[name] - used.get(name, 0) for name in self.demand}
        self.shadow_time, self.extra = now, dict(free)
        for ends_at, frees in _ends(holders, policy, now, used, self.demand):
            if all(self.extra[name] >= need for name, need in self.demand.items()):
                return
            for name, units in frees.items():
                if name in self.extra:
                    self.extra[name] += units
            self.shadow_time = ends_at

    def allows(self, demand: Mapping[str, int], ends_by: datetime) -> bool:
        """Tell whether an admission now leaves enough resources at the time at which it will fit."""
        if self.shadow_time is None or ends_by <= self.shadow_time:
            return True
        return all(
            self.extra[name] - demand.get(name, 0) >= need for name, need in self.demand.items() if name in demand
        )

    def note(self, demand: Mapping[str, int], ends_by: datetime) -> None:
        """Count an admission that will still run when it is to fit."""
        if self.shadow_time is not None and ends_by > self.shadow_time:
            for name in self.extra:
                self.extra[name] -= demand.get(name, 0)


def first_large(
    large: Sequence[tuple[Candidate, QueueEntry]], held_before: str | None
) -> tuple[Candidate, QueueEntry]:
    """Return for which of some large requests instances are held: the one for which they were before, else the
    first of a tier; of several tiers, the oldest.
    """
    for pair in large:
        if pair[1].request_id == held_before:
            return pair
    first: dict[str, tuple[Candidate, QueueEntry]] = {}
    for pair in sorted(large, key=lambda pair: (pair[0].band, pair[0].start_tag, pair[1].arrived_at)):
        first.setdefault(pair[0].tier.name, pair)
    return min(first.values(), key=lambda pair: (pair[1].arrived_at, pair[1].request_id))


def _ends(
    holders: Iterable[Holder],
    policy: Policy,
    now: datetime,
    used: Mapping[str, int],
    wanted: Iterable[str],
) -> Iterator[tuple[datetime, dict[str, int]]]:
    """Yield when what is taken will be free, and how much of what, in order of time."""
    longest = max(tier.run_time_max for tier in policy.tiers)
    unknown = {name: used.get(name, 0) for name in wanted}
    ends: list[tuple[datetime, dict[str, int]]] = []
    for holder in holders:
        tier = policy.tier(holder.tier)
        frees = ResourceProfile.parse(holder.profile).demand(holder.tier)
        for name in unknown:
            unknown[name] -= frees.get(name, 0)
        ends_at = holder.ends_by if holder.ends_by > now else now + (tier.run_time_max if tier else longest)
        ends.append((ends_at, frees))
    ends.append((now + longest, {name: units for name, units in unknown.items() if units > 0}))
    yield from sorted(ends, key=lambda end: end[0])
