"""Virtual time: actions in order of time, in one thread."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

BEGIN = datetime(2026, 1, 31, 23, 20, tzinfo=UTC)
"""Shortly before the end of a month, so that every scenario has a change of budgets."""

Action = Callable[[], None]


@dataclass
class Agenda:
    """Actions in order of time; those at the same time in the order in which they were planned."""

    now: datetime = BEGIN
    _entries: list[tuple[datetime, int, Action]] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def at(self, when: datetime, action: Action) -> None:
        heapq.heappush(self._entries, (max(when, self.now), next(self._numbers), action))

    def after(self, seconds: float, action: Action) -> None:
        self.at(self.now + timedelta(seconds=seconds), action)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def next_at(self) -> datetime | None:
        return self._entries[0][0] if self._entries else None

    def step(self) -> bool:
        """Run the next action at its time, or now if that has passed; False if there is none."""
        if not self._entries:
            return False
        when, _, action = heapq.heappop(self._entries)
        self.now = max(self.now, when)
        action()
        return True
