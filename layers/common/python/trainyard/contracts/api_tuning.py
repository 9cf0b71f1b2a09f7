"""What tunings of a data set have found, as the HTTP API answers it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trainyard.domain.algorithms import Value
from trainyard.domain.tuning import Tuned


class TuningAnswer(BaseModel):
    """A tuning that ended with a model."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    ended_at: datetime
    algorithm: str
    trials: Annotated[int, Field(description="That it was to have")]
    metric: str
    score: Annotated[
        float | None,
        Field(description="Of the best trial, on rows that it was not trained on; the higher the better"),
    ]
    score_before: Annotated[float | None, Field(description="The same of the hyperparameters of before")]
    values: Annotated[dict[str, Value], Field(description="The best hyperparameters")]
    is_used: Annotated[bool, Field(description="Whether trainings begin with these values")]


class TuningList(BaseModel):
    """The last tunings of a data set, newest first."""

    model_config = ConfigDict(frozen=True)

    items: list[TuningAnswer]


class TuningChoice(BaseModel):
    """With which tuning's values trainings begin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None,
        Field(description="Of one of the data set's last tunings; null for none"),
    ]


def tunings_of(tunings: Sequence[Tuned], begun: Tuned | None) -> TuningList:
    """Return them, the newest first; `begun` is the one whose values are used with the data set's algorithm."""
    return TuningList(
        items=[
            TuningAnswer(
                request_id=each.request_id,
                ended_at=each.at,
                algorithm=each.algorithm,
                trials=each.trials,
                metric=each.metric,
                score=each.score,
                score_before=each.score_before,
                values=dict(each.values),
                is_used=each is begun,
            )
            for each in reversed(tunings)
        ]
    )
