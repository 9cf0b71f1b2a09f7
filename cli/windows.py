"""Which windows of the policy are open, and what changes next."""

from datetime import UTC, datetime, timedelta
from typing import Any

from trainyard.domain.errors import Refused
from trainyard.domain.limit_changes import next_change
from trainyard.domain.policy import Policy
from trainyard.domain.windows import Weekly, zone_of


def parse_time(text: str) -> datetime:
    """Return a time such as 2026-11-28T23:00, 2026-11-28T23:00+01:00 or "2026-11-28T23:00 Europe/Zurich"; in UTC
    where it says nothing else. Raises Refused.
    """
    clock, _, zone = text.strip().partition(" ") if "T" in text else (text.strip(), "", "")
    try:
        when = datetime.fromisoformat(clock)
    except ValueError:
        raise Refused(
            f"{text!r} is not a time such as 2026-11-28T23:00, or 2026-11-28T23:00 Europe/Zurich"
        ) from None
    if when.tzinfo is not None and zone:
        raise Refused(f"{text!r} has an offset and a zone: give one of them")
    return when if when.tzinfo is not None else when.replace(tzinfo=zone_of(zone or "UTC"))


def lines_about(policy: Policy, now: datetime) -> list[str]:
    """Return which windows are open under the limits that are in force at a time, and what changes next."""
    if policy.base is None:
        return []
    lines = [f"windows open: {', '.join(policy.open) or 'none'}"]
    upcoming = next_change(policy)
    if upcoming is None:
        return [*lines, "next change of limits: none"]
    at, changes = upcoming
    return [*lines, f"next change of limits: {_shown(at, policy)}, in {_in(at - now)}: {'; '.join(changes)}"]


def as_data(policy: Policy) -> dict[str, Any]:
    upcoming = next_change(policy)
    return {
        "windows_open": list(policy.open),
        "next_change": None if upcoming is None else {"at": upcoming[0], "changes": upcoming[1]},
    }


def _shown(at: datetime, policy: Policy) -> str:
    """Return a time in UTC, and in the zone of the windows where they have one in common."""
    zones = {window.when.zone for window in policy.windows if isinstance(window.when, Weekly)} - {"UTC"}
    local = "".join(f" ({at.astimezone(zone_of(zone)):%H:%M} {zone})" for zone in zones) if len(zones) == 1 else ""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC{local}"


def _in(delay: timedelta) -> str:
    minutes = max(round(delay / timedelta(minutes=1)), 0)
    days, rest = divmod(minutes, 24 * 60)
    hours = f"{rest // 60} h {rest % 60} min" if rest >= 60 else f"{rest} min"
    return f"{days} d {rest // 60} h" if days else hours
