"""Inference: load the packed model and predict from rows as the tenant has them (CSV or JSON lines).

The functions of the SageMaker scikit-learn inference container: model_fn, input_fn, predict_fn, output_fn.
"""

import io
import json
from pathlib import Path
from typing import Any

import joblib
import pandas as pd


def model_fn(model_dir: str) -> Any:
    return joblib.load(Path(model_dir) / "model.joblib")


def input_fn(body: str | bytes, content_type: str) -> pd.DataFrame:
    """Return the rows to predict; raises ValueError for a type that cannot be read."""
    text = body.decode("utf-8") if isinstance(body, bytes) else body
    if content_type.startswith("text/csv"):
        return pd.read_csv(io.StringIO(text))
    if content_type.startswith("application/jsonlines"):
        return pd.read_json(io.StringIO(text), lines=True)
    raise ValueError(f"unsupported {content_type}: send text/csv with a header line, or application/jsonlines")


def predict_fn(rows: pd.DataFrame, model: Any) -> list[Any]:
    predictions: list[Any] = model.predict(rows).tolist()
    return predictions


def output_fn(predictions: list[Any], accept: str) -> tuple[str, str]:
    """Return body and content type: without a type, the container would answer text/html."""
    if accept.startswith("text/csv"):
        return "\n".join(str(value) for value in predictions), "text/csv"
    return json.dumps({"predictions": predictions}), "application/json"
