"""The windows of the policy file: when they are open, and whether the limits agree in each combination of them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from trainyard.contracts.policy_parts import Misplaced, Slots, SomeSlots, StartRate, Strict, TierName
from trainyard.domain.errors import Refused
from trainyard.domain.windows import FORMS, Once, Period, Weekly, when_of

CHECKED_FROM, CHECKED_FOR = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=400)
"""In which time the combinations of windows are checked. It is fixed, so that a policy that was accepted stays
valid; clocks change alike in every year. Single windows are checked at their own time too."""

WINDOWS_MAX = 50


class TierWindowEntry(Strict):
    """What of a tier is other while a window is open."""

    quota: SomeSlots | None = None
    borrowing_limit: Slots | None = None
    lending_limit: Slots | None = None
    running_max_per_tenant: SomeSlots | None = None
    running_ceiling_per_tenant: SomeSlots | None = None
    closed: bool | None = Field(default=None, strict=True)


def _as_text(value: Any) -> str:
    """Return a time as text: YAML reads a date and time as such."""
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, str):
        raise ValueError(f"{value} is not {FORMS}" if value is not None else f"must be {FORMS}")
    return value


_Moment = Annotated[str, BeforeValidator(_as_text), Field(min_length=1, max_length=40)]


class WindowEntry(Strict):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9 -]{0,31}$")
    begins: _Moment = Field(alias="from")
    ends: _Moment = Field(alias="to")
    days: list[str] = Field(default_factory=list, max_length=7)
    """On which it begins; empty: on all."""
    zone: str = Field(default="UTC", max_length=64)
    running_max: SomeSlots | None = None
    starts_per_second: StartRate | None = None
    instance_quotas: dict[str, Slots] = Field(default_factory=dict)
    closed: bool | None = Field(default=None, strict=True)
    tiers: dict[TierName, TierWindowEntry] = Field(default_factory=dict)

    def settings(self, tiers: Sequence[str]) -> dict[tuple[str, str], Any]:
        """Return (tier or "", name) → what it sets."""
        account = {"running_max": self.running_max, "starts_per_second": self.starts_per_second}
        sets = {("", name): value for name, value in (*account.items(), *self.instance_quotas.items())}
        sets |= {(tier, "closed"): self.closed for tier in tiers}
        for tier, entry in self.tiers.items():
            sets |= {(tier, name): value for name, value in entry.model_dump().items() if value is not None}
        return {name: value for name, value in sets.items() if value is not None}


def check_windows(
    windows: Sequence[WindowEntry], tiers: Sequence[str], check: Callable[[dict[tuple[str, str], Any]], None]
) -> None:
    """Raise Misplaced where a window can never be in force, or where the limits do not agree while some are open.

    `check` gets what the open windows set, and raises Misplaced when that does not agree with the rest.
    """
    names = [window.name for window in windows]
    whens = []
    for number, window in enumerate(windows):
        if window.name in names[:number]:
            raise Misplaced(("windows", number, "name"), f"is {window.name}, like that of another window")
        unknown = sorted(set(window.tiers) - set(tiers))
        if unknown:
            raise Misplaced(("windows", number, "tiers"), f"contains {', '.join(unknown)}, which is not a tier")
        if not window.settings(tiers):
            raise Misplaced(("windows", number), f"{window.name} sets nothing")
        whens.append(_when(number, window))
    in_force: set[int] = set()
    open_tiers: set[str] = set() if windows else set(tiers)
    for at, numbers in _combinations(whens):
        sets: dict[tuple[str, str], Any] = {}
        winners: dict[tuple[str, str], int] = {}
        for number in numbers:
            own = windows[number].settings(tiers)
            sets |= own
            winners |= dict.fromkeys(own, number)
        in_force |= set(winners.values())
        open_tiers |= {tier for tier in tiers if not sets.get((tier, "closed"))}
        try:
            check(sets)
        except Misplaced as error:
            who = " and ".join(windows[number].name for number in numbers)
            where = error.path[-1] if error.path else ""
            tier = f" of tier {error.path[1]}" if error.path[:1] == ("tiers",) else ""
            message = f"while {who} is in force, from {at:%Y-%m-%d %H:%M} UTC: {where}{tier} {error}"
            raise Misplaced(("windows", numbers[-1] if numbers else 0), message) from error
    for number, window in enumerate(windows):
        if number not in in_force:
            raise Misplaced(
                ("windows", number),
                f"{window.name} is never in force: whenever it is open, others that are listed later set the same",
            )
    for tier in tiers:
        if tier not in open_tiers:
            raise Misplaced(("windows",), f"close tier {tier} at all times; pause it instead, or remove it")


def _when(number: int, window: WindowEntry) -> Once | Weekly:
    try:
        when = when_of(window.begins, window.ends, window.days, window.zone)
    except Refused as error:
        raise Misplaced(("windows", number), str(error)) from error
    if isinstance(when, Weekly) and not any(when.periods(CHECKED_FROM, CHECKED_FROM + CHECKED_FOR)):
        raise Misplaced(("windows", number), f"{window.name} never opens: the clock skips its time")
    return when


def _combinations(whens: Sequence[Once | Weekly]) -> Iterator[tuple[datetime, tuple[int, ...]]]:
    """Yield each combination of windows that are open together, with the first time at which they are."""
    spans = [Period(CHECKED_FROM, CHECKED_FROM + CHECKED_FOR)]
    for begins, ends in (_utc(when) for when in whens if isinstance(when, Once)):
        # Of a long one, the time around both ends: in between, all that can happen happens in so many days.
        spans += [Period(begins, min(ends, begins + CHECKED_FOR)), Period(max(begins, ends - CHECKED_FOR), ends)]
    seen: set[tuple[int, ...]] = set()
    for span in spans:
        periods = [
            (number, period)
            for number, when in enumerate(whens)
            for period in when.periods(span.begins, span.ends)
            if period.begins < span.ends and period.ends > span.begins
        ]
        changes: dict[datetime, list[tuple[int, int]]] = {span.begins: []}
        for number, period in periods:
            changes.setdefault(max(period.begins, span.begins), []).append((number, 1))
            changes.setdefault(period.ends, []).append((number, -1))
        count = dict.fromkeys(range(len(whens)), 0)
        for at in sorted(changes):
            for number, step in changes[at]:
                count[number] += step
            numbers = tuple(number for number in count if count[number] > 0)
            if at < span.ends and numbers not in seen:
                seen.add(numbers)
                yield at, numbers


def _utc(when: Once) -> tuple[datetime, datetime]:
    return when.begins.astimezone(UTC), when.ends.astimezone(UTC)
