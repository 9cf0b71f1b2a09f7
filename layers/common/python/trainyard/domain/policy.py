"""The policy: how much may run at once, on what, and for how long."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChoice:
    """What a run gets when its data is no larger than `data_mb_max`."""

    data_mb_max: int
    processing_instance_type: str
    training_instance_type: str
    training_instance_count: int
    training_volume_gb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPolicy:
    """The limits of one tier."""

    name: str
    quota: int
    """Slots: executions of this tier that may run at once."""
    running_max_per_tenant: int
    runtime_max: timedelta
    """Of each job of a run."""
    quality_min: float
    """Between 0 and 1: models below it are not registered."""
    instances: tuple[InstanceChoice, ...]
    """In ascending order of data size; the last one's size is the largest upload the tier takes."""

    @property
    def data_bytes_max(self) -> int:
        return self.instances[-1].data_mb_max * 1024 * 1024

    def instance_for(self, size_bytes: int) -> InstanceChoice:
        """Return the smallest choice that holds `size_bytes`; the largest when none does."""
        for choice in self.instances:
            if size_bytes <= choice.data_mb_max * 1024 * 1024:
                return choice
        return self.instances[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All limits together; `version` 0 is the file that was deployed."""

    version: int
    running_max: int
    """Slots of the whole account."""
    quiet_period: timedelta
    """A data set is trained on once no upload has come for this long …"""
    delay_max: timedelta
    """… or at the latest this long after the first one."""
    start_retry_delay: timedelta
    """How long a request waits after SageMaker refused its start for lack of quota."""
    tiers: tuple[TierPolicy, ...]

    def tier(self, name: str) -> TierPolicy | None:
        """Return the tier of that name, or None."""
        return next((tier for tier in self.tiers if tier.name == name), None)
