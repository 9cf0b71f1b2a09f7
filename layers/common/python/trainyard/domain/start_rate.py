"""The rate of starts: a token bucket, so that SageMaker does not throttle."""

from datetime import datetime, timedelta

from trainyard.domain.policy import Policy
from trainyard.domain.scheduling import Ledger


class StartAllowance:
    """The starts that are allowed now; without a limit in the policy, any number."""

    def __init__(self, ledger: Ledger, policy: Policy, now: datetime) -> None:
        self.since: datetime | None = None
        """From when on starts are counted; None without a limit."""
        self.rate, self.now = policy.starts_per_second, now
        if self.rate is not None:
            full = now - timedelta(seconds=policy.starts_burst / self.rate)
            self.since = full if ledger.starts_from is None else max(ledger.starts_from, full)

    @property
    def used_up(self) -> bool:
        if self.rate is None or self.since is None:
            return False
        return (self.now - self.since).total_seconds() * self.rate + 1e-6 < 1

    @property
    def again_at(self) -> datetime:
        """When the next start is allowed at the latest."""
        return self.now + timedelta(seconds=1 / self.rate) if self.rate else self.now

    def take(self) -> None:
        """Count a start."""
        if self.rate is not None and self.since is not None:
            self.since += timedelta(seconds=1 / self.rate)
