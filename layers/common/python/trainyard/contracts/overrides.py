"""What a single training has instead of its data set's settings, as it travels in events and messages."""

import json
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
from trainyard.domain.requests import Overrides

HYPERPARAMETERS_MAX = 50

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


class OverridesValues(BaseModel):
    """What a single training has instead of what the settings of its data set say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Annotated[AlgorithmName | None, Field(description="Null for that of the settings")] = None
    hyperparameters: Hyperparameters = {}

    @field_validator("hyperparameters")
    @classmethod
    def _fit_a_parameter(cls, values: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(values, separators=(",", ":"))) > HYPERPARAMETERS_LENGTH_MAX:
            raise ValueError(f"hyperparameters take more than {HYPERPARAMETERS_LENGTH_MAX} characters as JSON")
        return values

    def to_overrides(self) -> Overrides | None:
        """Return them; None where there are none."""
        if self.algorithm is None and not self.hyperparameters:
            return None
        return Overrides(algorithm=self.algorithm, hyperparameters=tuple(sorted(self.hyperparameters.items())))


def overrides_values(overrides: Overrides | None) -> dict[str, Any] | None:
    """Return them as JSON has them."""
    if overrides is None:
        return None
    return {"algorithm": overrides.algorithm, "hyperparameters": dict(overrides.hyperparameters)}
