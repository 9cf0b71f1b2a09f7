"""Tuning: a search for the hyperparameters with which a data set's models are best.

A tuning trains several times, one trial after the other, each with other values; the best trial's model is the
one that is judged and registered. It takes no more instances at once, and no more money, than a training may.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from trainyard.domain.algorithms import Algorithm, Kind, Value, family_of
from trainyard.domain.errors import Refused
from trainyard.domain.policy import TierPolicy
from trainyard.domain.prices import JobKind, Prices
from trainyard.domain.requests import Tuning
from trainyard.domain.resources import STOP_GRACE, TRIAL_STARTUP, ResourceProfile
from trainyard.domain.tenants import TrainingSettings

RANGES_MAX = 4
"""Hyperparameters that are tuned at once: a pipeline's definition names each of them (pipeline/publish.py)."""

TRIALS_MIN = 2
"""The first trial has the hyperparameters of before, so that the best ones are never worse."""

TRIAL_TIME_MIN = timedelta(minutes=1)
"""A shorter trial is not worth starting."""

LOGARITHMIC_FROM = 10
"""From this ratio of its ends on, a range of positive numbers is searched by orders of magnitude."""

CLEAR_GAIN = 0.01
"""By how much the best score must at least be above that of the values of before for the best values to be used;
of an error, as a share of it."""

ERRORS = frozenset({"mae", "rmse"})
"""Metrics that are the better the lower they are: their scores are negative."""

TUNINGS_KEPT = 10
"""The last tunings of a data set that are kept."""


class Range(NamedTuple):
    """The values among which one hyperparameter is searched, both ends included."""

    name: str
    low: float
    high: float
    is_whole: bool = False

    @property
    def scale(self) -> str:
        is_wide = self.low > 0 and self.high >= LOGARITHMIC_FROM * self.low
        return ("log" if is_wide else "linear") + (" whole" if self.is_whole else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """How many trials a tuning has, and how long they may take."""

    trials: int
    trial_time: timedelta
    """The maximum runtime of each."""
    time: timedelta
    """The maximum of all, with what their instances take to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What a tuning has found."""

    request_id: str
    at: datetime
    """When it ended."""
    algorithm: str
    """Of the catalogue, without its version."""
    values: tuple[tuple[str, Value], ...]
    """The best values."""
    score: float | None = None
    """Of the best trial, on the rows that were held out of its training; the higher the better."""
    score_before: float | None = None
    """The same of the values of before; None where it is not known."""
    metric: str = ""
    trials: int = 0
    is_used: bool = True
    """Whether trainings begin with these values."""


def ranges_of(tuning: Tuning, algorithm: Algorithm, settings: TrainingSettings) -> tuple[Range, ...]:
    """Return what is searched: what the tuning names, else what the algorithm offers and the settings do not set.

    Raises Refused, naming what is wrong and the way out.
    """
    fixed = dict(settings.hyperparameters)
    asked = {name: (low, high) for name, low, high in tuning.ranges} or {
        name: parameter.search
        for name, parameter in algorithm.hyperparameters.items()
        if parameter.search is not None and name not in fixed
    }
    if not asked:
        numbers = [n for n, p in algorithm.hyperparameters.items() if p.kind in (Kind.INTEGER, Kind.NUMBER)]
        raise Refused(
            f"{algorithm.name} names no hyperparameters to search that the settings leave open: name ranges of "
            f"{', '.join(numbers) or 'its hyperparameters, of which it has none'}"
        )
    if len(asked) > RANGES_MAX:
        raise Refused(f"{len(asked)} ranges are given; at most {RANGES_MAX} hyperparameters are searched at once")
    set_too = sorted(set(asked) & set(fixed))
    if set_too:
        raise Refused(
            f"{set_too[0]} is set to {fixed[set_too[0]]!r}: remove that to search it, or leave its range out"
        )
    return tuple(_range(name, *asked[name], algorithm) for name in sorted(asked))


def _range(name: str, low: float, high: float, algorithm: Algorithm) -> Range:
    parameter = algorithm.hyperparameters.get(name)
    if parameter is None:
        offered = ", ".join(sorted(algorithm.hyperparameters)) or "none"
        raise Refused(f"{algorithm.name} has no hyperparameter {name!r}; it has {offered}")
    if parameter.kind not in (Kind.INTEGER, Kind.NUMBER):
        raise Refused(f"{name} is of type {parameter.kind}: only numbers are searched")
    if low >= high:
        raise Refused(f"the range of {name} is empty: {low:g} is not below {high:g}")
    is_whole = parameter.kind is Kind.INTEGER
    for end in (low, high):
        objection = parameter.objection(int(end) if is_whole and float(end).is_integer() else end)
        if objection is not None:
            raise Refused(f"the range of {name} of {algorithm.name}: {objection}")
    return Range(name, low, high, is_whole)


def ranges_text(ranges: tuple[Range, ...]) -> str:
    """Return ranges as the training script takes them: name → both ends and how they are searched."""
    return json.dumps({r.name: [r.low, r.high, r.scale] for r in ranges}, separators=(",", ":"))


def plan(
    tuning: Tuning, tier: TierPolicy, profile: ResourceProfile, prices: Prices, runtime_max: timedelta
) -> TuningPlan:
    """Return the trials that fit into a tuning's time and money, and into what a run's training may take.

    So a tuning never costs more than a training that is stopped at its maximum, for which budgets reserve. Raises
    Refused where the tier offers none, or where it is not enough for two trials.
    """
    if tier.tuning_trials_max == 0:
        raise Refused(f"tier {tier.name} offers no tuning: ask for a training, or move to a tier that does")
    if tuning.trials > tier.tuning_trials_max:
        raise Refused(
            f"{tuning.trials} trials are asked for; tier {tier.name} allows at most {tier.tuning_trials_max}"
        )
    time = runtime_max + STOP_GRACE
    if tuning.minutes:
        time = min(time, timedelta(minutes=tuning.minutes))
    if tuning.usd is not None:
        time = min(time, timedelta(seconds=_seconds_for(tuning.usd, profile, prices)))
    trials = min(tuning.trials, int(time / (TRIAL_TIME_MIN + STOP_GRACE)))
    if trials < TRIALS_MIN:
        each, grace = (int(span.total_seconds()) for span in (TRIAL_TIME_MIN + STOP_GRACE, STOP_GRACE))
        raise Refused(
            f"all trials together have {int(time.total_seconds())} seconds, by its time, its money and what a job "
            f"of the run may take: {TRIALS_MIN} trials need {TRIALS_MIN * each}, of which {TRIALS_MIN * grace} "
            "are for them to stop"
        )
    trial_time = timedelta(seconds=int(time.total_seconds() / trials)) - STOP_GRACE
    return TuningPlan(trials=trials, trial_time=trial_time, time=time + trials * TRIAL_STARTUP)


def check_plan(
    tuning: Tuning, tier: TierPolicy, profile: ResourceProfile, prices: Prices, runtime_max: timedelta
) -> None:
    """Raise Refused unless all the trials of a tuning fit; at its start, as many as fit are run."""
    trials = plan(tuning, tier, profile, prices, runtime_max).trials
    if trials < tuning.trials:
        raise Refused(
            f"{tuning.trials} trials do not fit into its time, its money and the {runtime_max} that a job of tier "
            f"{tier.name} may take: ask for {trials} at most"
        )


def _seconds_for(usd: Decimal, profile: ResourceProfile, prices: Prices) -> int:
    rate = prices.cost(JobKind.TRAINING, profile.training[0], profile.instances, profile.volume_gb, seconds=1)
    if rate is None:
        raise Refused(f"the price of {profile.training[0]} is not known: bound the tuning by minutes instead")
    return int(usd / rate) if rate else 10**9


def is_clearly_better(
    metric: str,
    *,
    score: float | None,
    before: float | None,
    error: float | None = None,
    gain: float | None = None,
) -> bool:
    """Tell whether trainings are to begin with what a tuning has found.

    Not where its score is hardly above that of the values of before, by a hundredth or by its standard error
    (`error`): of many scores on few rows, one is always a little better. And not where its model was worse than
    the one before (`gain`), as far as that is known. Not either where it is not known how good the values of
    before are: somebody may choose them (`trainyard tuning use`).
    """
    if score is None or before is None or (gain is not None and gain < 0):
        return False
    return score - before >= max(CLEAR_GAIN * (abs(before) if metric in ERRORS else 1), error or 0)


def tuned_values(tuned: Tuned | None, algorithm: Algorithm) -> dict[str, Value]:
    """Return the values with which trainings of a data set begin, beside what its settings say; {} for none.

    Left out is what the algorithm does not take: it may have changed since.
    """
    if tuned is None or not tuned.is_used or tuned.algorithm != algorithm.family:
        return {}
    offered = algorithm.hyperparameters
    return {name: value for name, value in tuned.values if name in offered and not offered[name].objection(value)}


def with_tuned(settings: TrainingSettings, values: Mapping[str, Value]) -> TrainingSettings:
    """Return settings with tuned values for the hyperparameters that they do not set."""
    return replace(
        settings, hyperparameters=tuple(sorted((dict(values) | dict(settings.hyperparameters)).items()))
    )


def remembered(tunings: Sequence[Tuned]) -> tuple[Tuned, ...]:
    """Return the last tunings, and those before whose values are used: they would be lost otherwise."""
    last = tunings[-TUNINGS_KEPT:]
    needed = {id(each) for name in {each.algorithm for each in tunings} if (each := used(tuple(tunings), name))}
    return tuple(each for each in tunings if each in last or id(each) in needed)


def used(tunings: tuple[Tuned, ...], algorithm: str) -> Tuned | None:
    """Return the newest tuning with an algorithm whose values are used; None where there is none."""
    of_family = (each for each in reversed(tunings) if each.algorithm == family_of(algorithm) and each.is_used)
    return next(of_family, None)
