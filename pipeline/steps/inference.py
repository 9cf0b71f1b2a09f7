"""Inference: load the packed model and predict from rows as the tenant has them (CSV or JSON lines).

The functions of the SageMaker scikit-learn inference container: model_fn, input_fn, predict_fn, output_fn. Rows
are read as the training data was, by the schema that was decided then: a row predicts the same alone and among
others.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))  # the container imports this file by its path

import joblib
import pandas as pd

from common import DataError
from schema import Column, frame, from_json
from tables import rows_of_request

TYPES = ("text/csv", "application/jsonlines")


class Served(NamedTuple):
    """A model and how it reads rows."""

    model: Any
    columns: list[Column]


def model_fn(model_dir: str) -> Served:
    schema = json.loads((Path(model_dir) / "schema.json").read_text(encoding="utf-8"))
    return Served(joblib.load(Path(model_dir) / "model.joblib"), from_json(schema["columns"]))


def input_fn(body: str | bytes, content_type: str) -> str:
    """Return the rows to predict, as text; raises ValueError for a type that cannot be read."""
    if content_type.partition(";")[0].strip() not in TYPES:
        raise ValueError(f"unsupported {content_type}: send text/csv with a header line, or application/jsonlines")
    try:
        return body.decode("utf-8-sig") if isinstance(body, bytes) else body
    except UnicodeDecodeError as error:
        raise ValueError("the request is not UTF-8") from error


def features_of(rows: str, columns: list[Column]) -> pd.DataFrame:
    """Return the features of the rows in a request; raises ValueError, naming a column that is not there."""
    names = [column.name for column in columns]
    try:
        table = rows_of_request(rows, names)
    except DataError as error:
        raise ValueError(str(error)) from error
    table.add_missing(names)
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise ValueError(
            f"the request has no column {', '.join(map(repr, absent[:5]))}; the model learnt from {names}"
        )
    return frame(table, columns)


def predict_fn(rows: str, served: Served) -> dict[str, list[Any]]:
    """Return the prediction of each row, and of a classification the probability of each class."""
    features = features_of(rows, served.columns)
    answer: dict[str, list[Any]] = {"predictions": served.model.predict(features).tolist()}
    if hasattr(served.model, "predict_proba"):
        answer["classes"] = served.model.classes_.tolist()
        answer["probabilities"] = served.model.predict_proba(features).tolist()
    return answer


def output_fn(answer: dict[str, list[Any]], accept: str) -> tuple[str, str]:
    """Return body and content type: without a type, the container would answer text/html."""
    if accept.startswith("text/csv"):
        return "\n".join(_csv_field(value) for value in answer["predictions"]), "text/csv"
    return json.dumps(answer), "application/json"


def _csv_field(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
