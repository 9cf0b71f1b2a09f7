"""What serving reads: steps of its state machine, the rows that a training has kept, and what models answer."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from trainyard.contracts.events import explain
from trainyard.domain.aliases import Environment
from trainyard.domain.errors import Malformed
from trainyard.domain.smoke_test import Sample

SAMPLE_BYTES_MAX = 128 * 1024
"""Of sample.json, which the steps write with at most half as much."""

PackageArn = Annotated[
    str, StringConstraints(pattern=r"^arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/\S{1,200}$")
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Label = Annotated[str, StringConstraints(max_length=1000)]


class _Sample(BaseModel):
    """sample.json, which lies in the tenant's root."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    content_type: Literal["application/jsonlines"]
    rows: Annotated[str, StringConstraints(max_length=SAMPLE_BYTES_MAX)]
    problem: Literal["classification", "regression"]
    classes: Annotated[tuple[Label, ...], Field(max_length=1000)] = ()
    range: tuple[Finite, Finite] = (0, 0)


def parse_sample(body: bytes) -> Sample:
    """Return the rows that a training has kept; raises Malformed, naming what is wrong."""
    try:
        sample = _Sample.model_validate_json(body)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
    return Sample(
        content_type=sample.content_type,
        rows=sample.rows,
        is_regression=sample.problem == "regression",
        classes=sample.classes,
        least=sample.range[0],
        greatest=sample.range[1],
    )


class Prediction(BaseModel):
    """What a model answers: its inference code writes it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    predictions: list[str | bool | int | Finite]
    classes: list[str | bool | int | Finite] | None = None
    probabilities: list[Annotated[list[Finite], Field(min_length=1)]] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.probabilities is not None and len(self.probabilities) != len(self.predictions):
            raise ValueError("there are not as many rows of probabilities as predictions")
        return self


def parse_prediction(body: bytes) -> Prediction:
    """Return what a model answered; raises Malformed, naming what is wrong."""
    try:
        return Prediction.model_validate_json(body)
    except ValidationError as error:
        raise Malformed(explain(error)) from error


class PredictCommand(BaseModel):
    """Rows to predict: CSV with a header line, or JSON lines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant_id: Annotated[str, StringConstraints(max_length=64)]
    data_set: Annotated[str, StringConstraints(max_length=64)]
    rows: str = ""
    input: Annotated[str, StringConstraints(max_length=1100, pattern=r"^(s3://[^\x00-\x1f]+)?$")] = ""
    """Where rows for an asynchronous endpoint are in S3."""
    content_type: Literal["text/csv", "application/jsonlines"] = "text/csv"
    key: Annotated[str, StringConstraints(max_length=256)] | None = None
    environment: Environment = Environment.PRODUCTION

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if bool(self.rows) == bool(self.input):
            raise ValueError("give either rows, or input: where they are in S3")
        return self


def parse_predict_command(event: Any) -> PredictCommand:
    """Return the rows to predict; raises Malformed, naming what is wrong."""
    try:
        return PredictCommand.model_validate(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error


class _Version(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant_id: str
    data_set: str
    version: int


class ServingStep(BaseModel):
    """One task of the state machine deploy-model (see statemachines/), or the search for lost approvals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: Literal["Begin", "Restore", "Place", "BringUp", "Test", "Switch", "Judge", "Fail", "Search"]
    run: str
    package_arn: PackageArn | Literal[""] = ""
    version: _Version | None = None
    error: dict[str, Any] | None = None

    @property
    def failure(self) -> str:
        """Return what the failed task said: the message of its error, where the error is ours."""
        cause = str((self.error or {}).get("Cause") or (self.error or {}).get("Error") or "no reason was given")
        try:
            return str(json.loads(cause)["errorMessage"])
        except (ValueError, KeyError, TypeError):
            return cause


def parse_serving_step(event: Any) -> ServingStep:
    """Return the step that a task is; raises Malformed, naming what is wrong."""
    try:
        return ServingStep.model_validate(event)
    except ValidationError as error:
        raise Malformed(explain(error)) from error
