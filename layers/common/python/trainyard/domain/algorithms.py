"""The catalogue: the algorithms that the provider offers, and what a tenant may choose of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite

from trainyard.domain.errors import Refused

Value = str | int | float | bool

ALGORITHM_NAME = r"^[a-z][a-z0-9-]{0,31}(@[1-9][0-9]{0,3})?$"
"""Of the catalogue: "neighbours", and "neighbours@2" for a version of it that some tenants use first."""


def family_of(name: str) -> str:
    """Return the name of an algorithm without its version."""
    return name.partition("@")[0]


class Kind(StrEnum):
    """Of a hyperparameter's values."""

    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"


HYPERPARAMETERS_LENGTH_MAX = 1024
"""Characters of all of them as JSON: one parameter of a pipeline (SageMaker API reference, Parameter)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameter:
    """What a tenant may set one hyperparameter to."""

    kind: Kind
    default: Value | None = None
    """None: the algorithm's own."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    search: tuple[float, float] | None = None
    """The lowest and the highest value that a tuning tries, where it names no ranges itself."""

    def objection(self, value: Value) -> str | None:
        """Return why a value cannot be taken, None when it can."""
        if not self._is_of_kind(value) or (isinstance(value, float) and not isfinite(value)):
            return f"{value!r} is not of type {self.kind}; it must be {self}"
        if self.choices and value not in self.choices:
            return f"{value!r} is not offered; it must be {self}"
        below = self.minimum is not None and not isinstance(value, str) and value < self.minimum
        above = self.maximum is not None and not isinstance(value, str) and value > self.maximum
        return f"{value!r} is out of bounds; it must be {self}" if below or above else None

    def _is_of_kind(self, value: Value) -> bool:
        if self.kind is Kind.BOOLEAN or isinstance(value, bool):
            return self.kind is Kind.BOOLEAN and isinstance(value, bool)
        if self.kind is Kind.TEXT:
            return isinstance(value, str)
        return isinstance(value, int) or (self.kind is Kind.NUMBER and isinstance(value, float))

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is Kind.BOOLEAN:
            return "true or false"
        low, high = (f"{bound:g}" if bound is not None else "" for bound in (self.minimum, self.maximum))
        noun = {Kind.INTEGER: "a whole number", Kind.NUMBER: "a number", Kind.TEXT: "text"}[self.kind]
        bounds = f" from {low} to {high}" if low and high else f" of at least {low}" if low else ""
        return noun + (bounds or (f" of at most {high}" if high else ""))


TRANSFORM_INSTANCE_TYPE = "ml.m5.large"
"""Of batch transforms, where a policy names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChoice:
    """What a run gets when its data is no larger than `data_mb_max`."""

    data_mb_max: int
    processing_instance_type: str
    training_instance_types: tuple[str, ...]
    """In order of preference: SageMaker trains on the first one that has capacity."""
    training_instance_count: int
    training_volume_gb: int
    transform_instance_type: str = TRANSFORM_INSTANCE_TYPE
    """Of a batch transform of so much data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypicalQuality:
    """What models of an algorithm reached on some data, on rows that were held out."""

    data: str
    """What data that was, in a few words."""
    rows: int
    metric: str
    quality: float
    baseline: float | None = None
    """The same metric of always predicting the same; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """One algorithm of the catalogue. All of them run in the one shared pipeline; these are its parameters."""

    name: str
    description: str = ""
    training_image_uri: str | None = None
    """None for the deployment's; a custom image must follow SageMaker's conventions under /opt/ml."""
    processing_image_uri: str | None = None
    code_uri: str | None = None
    """Where its step scripts were published (s3://…/code/<hash>); None for the deployment's."""
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    instances: tuple[InstanceChoice, ...] = ()
    """By size of the data, ascending; empty for the tier's own."""
    suffixes: tuple[str, ...] = ()
    """Of the keys it reads, such as ".csv"; empty for any."""
    input_format: str = "csv"
    network_isolation: bool = False
    """Whether its containers have no network access; data goes in and out through channels."""
    traffic_encryption: bool = False
    """Whether traffic between the containers of one job is encrypted."""
    spot: bool | None = None
    """Whether its first attempts train on spot capacity; None for what the tier says."""
    checkpoints: bool = False
    """Whether its script saves its progress in /opt/ml/checkpoints and goes on from what it finds there, so that
    an interrupted training need not begin anew."""
    quality_metric: str = "auto"
    """The metric that must reach the tier's `quality_min`; "auto" leaves the choice to the evaluation."""
    typical_quality: tuple[TypicalQuality, ...] = ()
    """Examples, by which a tenant may choose an algorithm; those of the shipped ones come with the code."""

    @property
    def images(self) -> tuple[str, ...]:
        """Return its own container images, which the jobs of whoever uses it pull."""
        return tuple(uri for uri in (self.training_image_uri, self.processing_image_uri) if uri)

    @property
    def brings_code(self) -> bool:
        """Tell whether its jobs run scripts or an image that are not the deployment's."""
        return any((self.code_uri, self.training_image_uri, self.processing_image_uri))

    @property
    def family(self) -> str:
        """Its name without the version; scripts are given it, so that all versions can share them."""
        return family_of(self.name)

    def chosen(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return every hyperparameter of a run: the defaults, and what the tenant has chosen.

        Raises Refused, naming what is allowed.
        """
        for name, value in values.items():
            parameter = self.hyperparameters.get(name)
            if parameter is None:
                offered = ", ".join(sorted(self.hyperparameters)) or "none"
                raise Refused(f"{self.name} has no hyperparameter {name!r}; it has {offered}")
            objection = parameter.objection(value)
            if objection is not None:
                raise Refused(f"hyperparameter {name} of {self.name}: {objection}")
        defaults = {
            name: parameter.default
            for name, parameter in self.hyperparameters.items()
            if parameter.default is not None
        }
        return {**defaults, **values}

    def reads(self, key: str) -> bool:
        """Tell whether an object of that key can be in the algorithm's format."""
        return not self.suffixes or key.lower().endswith(self.suffixes)


BUILT_IN = (
    Algorithm(
        name="gradient-boosting",
        description="Histogram gradient boosting: handles missing values and non-linear relations",
        hyperparameters={
            "max_iter": Hyperparameter(kind=Kind.INTEGER, default=100, minimum=1, maximum=5000),
            "learning_rate": Hyperparameter(
                kind=Kind.NUMBER, default=0.1, minimum=0.001, maximum=1, search=(0.02, 0.3)
            ),
            "max_leaf_nodes": Hyperparameter(
                kind=Kind.INTEGER, default=31, minimum=2, maximum=1024, search=(4, 127)
            ),
            "min_samples_leaf": Hyperparameter(
                kind=Kind.INTEGER, default=20, minimum=1, maximum=10_000, search=(2, 60)
            ),
            "l2_regularization": Hyperparameter(
                kind=Kind.NUMBER, default=0.0, minimum=0, maximum=1000, search=(0, 5)
            ),
            "early_stopping": Hyperparameter(kind=Kind.BOOLEAN, default=True),
        },
    ),
    Algorithm(
        name="linear",
        description="Logistic or ridge regression: fast, with interpretable coefficients",
        hyperparameters={
            "regularization": Hyperparameter(
                kind=Kind.NUMBER, default=1.0, minimum=1e-6, maximum=1e6, search=(1e-4, 1e3)
            ),
            "max_iter": Hyperparameter(kind=Kind.INTEGER, default=1000, minimum=1, maximum=100_000),
        },
    ),
)
"""Available in addition to those of the policy, which may replace them by name."""
