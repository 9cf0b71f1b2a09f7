"""Smoke test: whether a model answers rows of its own data set as its problem says it must."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

ANSWERS_BEYOND = 10
"""How many times the range of the training data a number may lie outside of it: a linear model extrapolates, and a
broken one answers anything."""

NUMBER_MAX = 1e300

SUM_TOLERANCE = 1e-6
"""By which the probabilities of a row may miss 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows of a data set, and what may be answered."""

    content_type: str
    rows: str
    """JSON lines; each ends with a line feed."""
    is_regression: bool
    classes: tuple[str, ...] = ()
    """The labels; none where they are not known."""
    least: float = 0.0
    greatest: float = 0.0
    """Of the training data, for a regression."""

    @property
    def count(self) -> int:
        return self.rows.count("\n")  # splitlines() also splits at characters that may stand in a row

    def shortened(self, bytes_max: int) -> "Sample":
        """Return the sample with as many of its first rows as have so many bytes."""
        rows = self.rows.encode()
        if len(rows) <= bytes_max:
            return self
        return replace(self, rows=rows[: rows.rfind(b"\n", 0, bytes_max) + 1].decode())


def objection_to(sample: Sample, body: bytes) -> str | None:
    """Return what is wrong with a model's answer to a sample; None if nothing is.

    Names no value of a row or an answer, which are the tenant's.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return "the answer is not JSON"
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(predictions, list):
        return "the answer has no list of predictions"
    if len(predictions) != sample.count:
        return f"the answer has {len(predictions)} predictions for {sample.count} rows"
    if sample.is_regression:
        return _to_numbers(sample, predictions)
    return _to_classes(sample, predictions, answer.get("probabilities"))


def _to_numbers(sample: Sample, predictions: Sequence[Any]) -> str | None:
    if not all(_is_number(value) for value in predictions):
        return "a prediction is not a finite number"
    margin = ANSWERS_BEYOND * max(sample.greatest - sample.least, abs(sample.greatest), abs(sample.least), 1e-9)
    if not all(sample.least - margin <= value <= sample.greatest + margin for value in predictions):
        return "a prediction is far outside of the values that were trained on"
    return None


def _to_classes(sample: Sample, predictions: Sequence[Any], probabilities: Any) -> str | None:
    if sample.classes and not {str(label) for label in predictions} <= set(sample.classes):
        return "a prediction is none of the classes that were trained on"
    if probabilities is None:
        return None
    if not isinstance(probabilities, list) or len(probabilities) != len(predictions):
        return "there are not as many rows of probabilities as predictions"
    return None if all(map(_is_distribution, probabilities)) else "the probabilities of a row do not sum up to 1"


def _is_distribution(row: Any) -> bool:
    if not isinstance(row, list) or not all(_is_number(share) and 0 <= share <= 1 for share in row):
        return False
    return abs(sum(row) - 1) <= SUM_TOLERANCE


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= NUMBER_MAX  # also where it is an integer of too many digits for a float, or NaN
