"""Call limits: how many calls of the HTTP API a caller may make within some seconds.

    pk                 sk         what
    calls#<caller>     <window>   how many calls have been answered in that window; expires by itself

A call is counted by one write and no read. API Gateway cannot tell callers apart, so without this a tenant that
calls as fast as it can would use up what all tenants may call.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from trainyard.domain.errors import Conflict, OutcomeUnknown, Throttled
from trainyard.persistence.store import AtMost, Key, Update

WINDOW_SECONDS = 10
KEPT_FOR = timedelta(minutes=10)
REMEMBERED_MAX = 1000
"""Callers that are known to have used up their window; more are forgotten, and cost a write each."""


def window_key(caller: str, window: int) -> Key:
    return Key("record", (("pk", f"calls#{caller}"), ("sk", f"{window:012d}")))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    update: Callable[[Update], None]
    """Makes one change by itself; raises Conflict where its condition does not hold, and Throttled and
    OutcomeUnknown."""
    refused: dict[str, int] = field(default_factory=dict)
    """Caller → the window that it has used up."""

    def admit(self, caller: str, *, limit: int, now: datetime) -> int:
        """Count a call; return 0, or after how many seconds a caller that called too often may call again.

        `limit` is how many calls a window of WINDOW_SECONDS has. A call that cannot be counted is admitted: the
        limit bounds a flood, and need not be exact.
        """
        window = int(now.timestamp()) // WINDOW_SECONDS
        following = datetime.fromtimestamp((window + 1) * WINDOW_SECONDS, UTC)
        wait = max(1, -int((now - following).total_seconds() // 1))
        if self.refused.get(caller) == window:
            return wait
        counted = Update(
            window_key(caller, window),
            add={"calls": 1},
            set={"expires_at": int((now + KEPT_FOR).timestamp())},
            when=(AtMost("calls", limit - 1),),
        )
        try:
            self.update(counted)
        except Conflict as conflict:
            if not conflict.failed:
                return 0
            if len(self.refused) >= REMEMBERED_MAX:
                self.refused.clear()
            self.refused[caller] = window
            return wait
        except (Throttled, OutcomeUnknown):
            return 0
        return 0
