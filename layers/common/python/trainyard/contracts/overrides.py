"""What a single training has instead of its data set's settings, as it travels in events and messages."""

import json
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    field_validator,
)

from trainyard.domain.algorithms import ALGORITHM_NAME, HYPERPARAMETERS_LENGTH_MAX
from trainyard.domain.requests import TRIALS_DEFAULT, Overrides, Tuning
from trainyard.domain.tuning import RANGES_MAX, TRIALS_MIN

HYPERPARAMETERS_MAX = 50
TRIALS_MAX = 100
"""Of a tuning; a tier allows fewer."""

AlgorithmName = Annotated[str, StringConstraints(pattern=ALGORITHM_NAME, max_length=64)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Text = Annotated[str, StringConstraints(strict=True, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Hyperparameters = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")],
        StrictBool | StrictInt | _Number | _Text,
    ],
    Field(max_length=HYPERPARAMETERS_MAX, description="Beside those of the settings, or in place of them"),
]


class RangeValues(BaseModel):
    """The values among which a hyperparameter is searched, both ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: _Number
    high: _Number


class TuningValues(BaseModel):
    """A search for the best hyperparameters: trainings with different values, one after the other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: Annotated[
        int,
        Field(
            ge=TRIALS_MIN,
            le=TRIALS_MAX,
            strict=True,
            description="Trainings; the first one has the hyperparameters of before",
        ),
    ] = TRIALS_DEFAULT
    minutes: Annotated[
        int, Field(ge=0, le=12_960, strict=True, description="That all trials may take; 0 for what a training may")
    ] = 0
    usd: Annotated[
        Decimal | None,
        Field(gt=0, le=1_000_000, max_digits=12, description="That all trials may cost; null for a training's"),
    ] = None
    ranges: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], RangeValues],
        Field(max_length=RANGES_MAX, description="Hyperparameter to range; empty for those the algorithm offers"),
    ] = {}

    def to_tuning(self) -> Tuning:
        ranges = tuple(sorted((name, each.low, each.high) for name, each in self.ranges.items()))
        return Tuning(trials=self.trials, minutes=self.minutes, usd=self.usd, ranges=ranges)


class OverridesValues(BaseModel):
    """What a single training has instead of what the settings of its data set say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Annotated[AlgorithmName | None, Field(description="Null for that of the settings")] = None
    hyperparameters: Hyperparameters = {}
    tuning: Annotated[TuningValues | None, Field(description="Null for a plain training")] = None

    @field_validator("hyperparameters")
    @classmethod
    def _fit_a_parameter(cls, values: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(values, separators=(",", ":"))) > HYPERPARAMETERS_LENGTH_MAX:
            raise ValueError(f"hyperparameters take more than {HYPERPARAMETERS_LENGTH_MAX} characters as JSON")
        return values

    def to_overrides(self) -> Overrides | None:
        """Return them; None where there are none."""
        if self.algorithm is None and not self.hyperparameters and self.tuning is None:
            return None
        return Overrides(
            algorithm=self.algorithm,
            hyperparameters=tuple(sorted(self.hyperparameters.items())),
            tuning=self.tuning.to_tuning() if self.tuning else None,
        )


def overrides_values(overrides: Overrides | None) -> dict[str, Any] | None:
    """Return them as JSON has them."""
    if overrides is None:
        return None
    values = {"algorithm": overrides.algorithm, "hyperparameters": dict(overrides.hyperparameters)}
    return values | ({"tuning": tuning_values(overrides.tuning)} if overrides.tuning else {})


def tuning_values(tuning: Tuning) -> dict[str, Any]:
    """Return it as JSON has it."""
    return {
        "trials": tuning.trials,
        "minutes": tuning.minutes,
        "usd": str(tuning.usd) if tuning.usd is not None else None,
        "ranges": {name: {"low": low, "high": high} for name, low, high in tuning.ranges},
    }
