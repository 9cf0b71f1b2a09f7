"""Resources: what a run takes of each counted limit, and what it costs by the second."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from trainyard.domain.algorithms import InstanceChoice
from trainyard.domain.prices import JobKind, Prices
from trainyard.domain.requests import Request

STOP_GRACE = timedelta(seconds=120)
"""The time that SageMaker gives a job to finish after its maximum runtime (API reference, StoppingCondition)."""

JOBS_OF_PROCESSING = 2
JOBS_OF_TRAINING = 1
"""Jobs of a training, one after the other: preprocess and evaluate process, train trains (pipeline/author.py)."""
JOBS_OF_TRANSFORM = 1

TRIAL_STARTUP = timedelta(minutes=10)
"""The time that the instances of each trial of a tuning may take to start, in which they cost nothing."""

TRANSFORM_GRACE = timedelta(minutes=15)
"""The same for a batch transform, which has no maximum runtime at SageMaker: the reconciler stops it, and looks
every five minutes."""


def run_time(runtime_max: timedelta) -> timedelta:
    """Return the longest time of a training on demand whose jobs are each stopped at so much."""
    return (JOBS_OF_PROCESSING + JOBS_OF_TRAINING) * (runtime_max + STOP_GRACE)


SLOTS = "slots"
"""The resource of which every run takes one unit, whatever its tier and instances."""

INSTANCE_USAGES = ("training", "spot", "processing", "transform")
"""What instances are used for, each with quotas of its own at SageMaker; the first part of a pool's name. "spot"
is training on spot capacity."""


def tier_slots(tier: str) -> str:
    """Return the resource of which every run of a tier takes one unit."""
    return f"tier/{tier}"


def after(change: datetime, resource: str) -> str:
    """Return the resource of which a run takes as much as of another one, but after a change of the limits."""
    return f"after/{change:%Y-%m-%dT%H:%M:%SZ}/{resource}"


def is_ahead(resource: str) -> bool:
    """Tell whether a resource is counted for a change of the limits (`after`)."""
    return resource.startswith("after/")


def is_past(resource: str, now: datetime) -> bool:
    """Tell whether a resource is counted for a change of the limits that has come."""
    return is_ahead(resource) and resource.split("/")[1] <= f"{now:%Y-%m-%dT%H:%M:%SZ}"


class ResourceProfile(NamedTuple):
    """The instances that a run needs.

    Requests of a tenant with the same profile wait in one line, so that the first of them stands for all.
    """

    processing: str
    """Instance type; "-" for a batch transform, which processes nothing."""
    training: tuple[str, ...]
    """Instance types in order of preference; training runs on one of them. Of a batch transform, its one type."""
    instances: int
    """Training instances, or those of a batch transform."""
    volume_gb: int
    spot_wait_seconds: int = 0
    """By how much training on spot capacity, its waiting included, may take longer than its maximum runtime; 0 for
    a run on demand."""
    checkpoints: bool = False
    """Whether it saves its progress, and goes on from what an earlier attempt has saved."""
    is_transform: bool = False
    """Whether it is a batch transform."""
    trials: int = 0
    """Trainings of a tuning, one after the other; 0 for a run that trains once."""

    def __str__(self) -> str:
        spot = f" spot/{self.spot_wait_seconds}" if self.is_on_spot else ""
        checkpoints = " checkpoints" if self.checkpoints else ""
        transform = " transform" if self.is_transform else ""
        trials = f" trials/{self.trials}" if self.trials else ""
        instances = f"{self.processing} {','.join(self.training)} {self.instances} {self.volume_gb}"
        return f"{instances}{spot}{checkpoints}{transform}{trials}"

    @classmethod
    def parse(cls, text: str) -> "ResourceProfile":
        """Return the profile that `str` wrote."""
        processing, training, instances, volume_gb, *further = text.split(" ")
        wait = sum(int(part.removeprefix("spot/")) for part in further if part.startswith("spot/"))
        trials = sum(int(part.removeprefix("trials/")) for part in further if part.startswith("trials/"))
        types = tuple(training.split(","))
        return cls(
            processing,
            types,
            int(instances),
            int(volume_gb),
            wait,
            "checkpoints" in further,
            "transform" in further,
            trials,
        )

    @classmethod
    def of_transform(cls, choice: InstanceChoice) -> "ResourceProfile":
        return cls("-", (choice.transform_instance_type,), 1, 0, is_transform=True)

    @classmethod
    def of(
        cls, choice: InstanceChoice, *, spot_wait: timedelta = timedelta(0), checkpoints: bool = False
    ) -> "ResourceProfile":
        return cls(
            choice.processing_instance_type,
            choice.training_instance_types,
            choice.training_instance_count,
            choice.training_volume_gb,
            int(spot_wait.total_seconds()),
            checkpoints,
        )

    def tuning(self, trials: int) -> "ResourceProfile":
        """Return the profile of a tuning, which names one type and trains on demand: its trials are short."""
        return self._replace(training=self.training[:1], spot_wait_seconds=0, checkpoints=False, trials=trials)

    @property
    def jobs(self) -> int:
        """Return how many jobs run one after the other."""
        return JOBS_OF_TRANSFORM if self.is_transform else JOBS_OF_PROCESSING + JOBS_OF_TRAINING

    @property
    def grace(self) -> timedelta:
        """Return how long a job of it may still take after its maximum runtime."""
        return TRANSFORM_GRACE if self.is_transform else STOP_GRACE

    @property
    def is_on_spot(self) -> bool:
        return self.spot_wait_seconds > 0

    def on_demand(self) -> "ResourceProfile":
        """Return the profile of a run that no longer trains on spot capacity."""
        return self._replace(spot_wait_seconds=0)

    def run_time(self, runtime_max: timedelta) -> timedelta:
        """Return the longest time from admission to the end of a run whose jobs are stopped at their maximum."""
        waits = timedelta(seconds=self.spot_wait_seconds) + self.trials * TRIAL_STARTUP
        return self.jobs * (runtime_max + self.grace) + waits

    def on(self, selected: str | None) -> "ResourceProfile":
        """Return the profile of a run of which SageMaker has selected the training instances; None if not yet."""
        return self if selected is None else self._replace(training=(selected,))

    @classmethod
    def held_by(cls, request: Request) -> "ResourceProfile":
        """Return what a request that holds a slot takes."""
        return cls.parse(request.profile).on(request.selected)

    @property
    def training_pools(self) -> tuple[str, ...]:
        """Return the instance pools of its training instances; spot capacity has quotas of its own."""
        usage = "transform" if self.is_transform else "spot" if self.is_on_spot else "training"
        return tuple(f"{usage}/{instance_type}" for instance_type in self.training)

    @property
    def instances_by_type(self) -> dict[str, int]:
        """Return resource ("training/ml.m5.large") → instances that a run holds from its admission to its end.

        While SageMaker may still select among several types, the run takes as many of each: the quota of every
        type must cover the job, or SageMaker refuses it (developer guide, "Instance preference lists for training
        jobs").
        """
        processing = {} if self.is_transform else {f"processing/{self.processing}": 1}
        return dict.fromkeys(self.training_pools, self.instances) | processing

    def demand(self, tier: str, ahead: Iterable[str] = ()) -> dict[str, int]:
        """Return resource → units that a run of a tier takes of each counted limit, from its admission to its end;
        `ahead` are the resources that it takes after changes of the limits (`Policy.ahead_of`).

        A new counted limit is one more entry here, and one in `Policy.limits`.
        """
        now = {SLOTS: 1, tier_slots(tier): 1} | self.instances_by_type
        later = {resource: resource.split("/", 2)[2] for resource in ahead}
        # What it was to take of instances that SageMaker has not selected, it does not take later either.
        return now | {resource: now[name] for resource, name in later.items() if name in now}

    def rates(self, prices: Prices) -> tuple[Decimal, ...] | None:
        """Return USD per second of each job of a run, or None when a price is unknown.

        Of several training types it is the dearest: SageMaker may select any of them.
        """
        if self.is_transform:
            rate = prices.cost(JobKind.TRANSFORM, self.training[0], self.instances, self.volume_gb, seconds=1)
            return None if rate is None else (rate,) * JOBS_OF_TRANSFORM
        processing = prices.cost(JobKind.PROCESSING, self.processing, 1, self.volume_gb, seconds=1)
        rates = self._training_rates(prices)
        training = [rate for rate in rates if rate is not None]
        if processing is None or len(training) < len(rates):
            return None
        return (processing,) * JOBS_OF_PROCESSING + (max(training),) * JOBS_OF_TRAINING

    def dearest(self, prices: Prices) -> str | None:
        """Return the training type that costs most, if it costs more than the preferred one."""
        rates = self._training_rates(prices)
        priced = [rate for rate in rates if rate is not None]
        if len(priced) < len(rates) or max(priced) == priced[0]:
            return None
        return self.training[priced.index(max(priced))]

    def unpriced(self, prices: Prices) -> list[str]:
        """Return the training types whose prices are unknown."""
        rates = zip(self.training, self._training_rates(prices), strict=True)
        return [instance_type for instance_type, rate in rates if rate is None]

    def _training_rates(self, prices: Prices) -> list[Decimal | None]:
        """Return USD per second of each training type; None where its price is unknown."""
        return [
            prices.cost(JobKind.TRAINING, instance_type, self.instances, self.volume_gb, seconds=1)
            for instance_type in self.training
        ]
