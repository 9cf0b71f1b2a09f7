"""What the HTTP API answers about algorithms."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from trainyard.contracts.shipped_quality import typical_quality_of
from trainyard.domain.algorithms import (
    Algorithm,
    Hyperparameter,
    InstanceChoice,
    Kind,
    Value,
)
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.prices import SECONDS_PER_HOUR, JobKind, Prices, rounded


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class HyperparameterAnswer(_Answer):
    name: str
    kind: Kind
    default: Annotated[Value | None, Field(description="Null for the algorithm's own")]
    allowed: Annotated[str, Field(description="In words: `a whole number from 1 to 5000`")]


class InstancesAnswer(_Answer):
    """What a training gets, by the size of its data."""

    data_mb_max: Annotated[int, Field(description="Of so many MB at most")]
    training: Annotated[list[str], Field(description="Instance types; the first one that has capacity is taken")]
    training_count: int
    processing: Annotated[str, Field(description="Of the steps before and after the training")]
    training_usd_per_hour: Annotated[
        str | None,
        Field(description="Of its instances of the first type, with volumes, at list prices; null if not known"),
    ]


class TypicalQualityAnswer(_Answer):
    """What a model reached on some data, on rows that were held out."""

    data: str
    rows: int
    metric: str
    quality: float
    baseline: Annotated[float | None, Field(description="The same metric of always predicting the same")]


class OutputAnswer(_Answer):
    name: str
    description: str


class AlgorithmAnswer(_Answer):
    """An algorithm that a data set may be trained with, and what it costs in the tenant's tier."""

    name: str
    description: str
    input_format: str
    suffixes: Annotated[list[str], Field(description="Of the files that it reads; empty for any")]
    quality_metric: Annotated[str, Field(description="`auto`: accuracy, ROC AUC or R2, as fits the problem")]
    quality_min: Annotated[float, Field(description="What a model must reach in the tenant's tier")]
    typical_quality: Annotated[
        list[TypicalQualityAnswer], Field(description="Examples on other data; yours may reach more or less")
    ]
    hyperparameters: list[HyperparameterAnswer]
    instances: Annotated[list[InstancesAnswer], Field(description="By size, ascending")]


class AlgorithmList(_Answer):
    """The algorithms that a tenant may choose."""

    tier: str
    outputs: Annotated[list[OutputAnswer], Field(description="What each training that succeeds gives")]
    items: list[AlgorithmAnswer]


OUTPUTS = {
    "model": "An archive with the model, and with the code that answers for it (…/models/{version}/files)",
    "card": "A page that says how good the model is, and on what data (…/models/{version}/files)",
    "predictions": "Of each row: a class with the probability of each class, or a number; CSV or JSON lines are "
    "sent, JSON is answered (…/data-sets/{data_set}/predictions)",
}


def algorithms_of(policy: Policy, tier: TierPolicy) -> AlgorithmList:
    items = [_algorithm(each, tier, policy.choices(tier, each.name), policy.prices) for each in _sorted(policy)]
    outputs = [OutputAnswer(name=name, description=text) for name, text in OUTPUTS.items()]
    return AlgorithmList(tier=tier.name, outputs=outputs, items=items)


def _sorted(policy: Policy) -> list[Algorithm]:
    return [policy.catalogue[name] for name in sorted(policy.catalogue)]


def _algorithm(
    algorithm: Algorithm, tier: TierPolicy, choices: Iterable[InstanceChoice], prices: Prices
) -> AlgorithmAnswer:
    return AlgorithmAnswer(
        name=algorithm.name,
        description=algorithm.description,
        input_format=algorithm.input_format,
        suffixes=list(algorithm.suffixes),
        quality_metric=algorithm.quality_metric,
        quality_min=tier.quality_min,
        typical_quality=[
            TypicalQualityAnswer(
                data=each.data,
                rows=each.rows,
                metric=each.metric,
                quality=each.quality,
                baseline=each.baseline,
            )
            for each in typical_quality_of(algorithm)
        ],
        hyperparameters=[_hyperparameter(name, each) for name, each in algorithm.hyperparameters.items()],
        instances=[_instances(choice, prices) for choice in choices],
    )


def _hyperparameter(name: str, parameter: Hyperparameter) -> HyperparameterAnswer:
    return HyperparameterAnswer(name=name, kind=parameter.kind, default=parameter.default, allowed=str(parameter))


def _instances(choice: InstanceChoice, prices: Prices) -> InstancesAnswer:
    first, count = choice.training_instance_types[0], choice.training_instance_count
    hourly = prices.cost(JobKind.TRAINING, first, count, choice.training_volume_gb, SECONDS_PER_HOUR)
    return InstancesAnswer(
        data_mb_max=choice.data_mb_max,
        training=list(choice.training_instance_types),
        training_count=count,
        processing=choice.processing_instance_type,
        training_usd_per_hour=None if hourly is None else f"{rounded(hourly):f}",
    )
