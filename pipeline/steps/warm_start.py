"""Warm start: what an earlier linear classifier has learnt, as a new one can begin with it.

A program of its own reads it, so that whatever an archive holds cannot break a training. The estimator converges
to the same model from anywhere, but sooner from near by.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

from common import json_text, unpack

SECONDS_MAX = 300
BYTES_MAX = 64 * 1024**2
ARCHIVE = "model.tar.gz"


class Learnt(NamedTuple):
    """Coefficients of a linear classifier."""

    classes: list[str]
    features: list[str]
    coefficients: np.ndarray
    """A row for each class, or one for two classes; a column for each feature."""

    intercepts: np.ndarray


def learnt_before(folder: Path) -> Learnt | str:
    """Return what the model in a folder's archive has learnt; or why that cannot be used."""
    if not (folder / ARCHIVE).is_file():
        return "there is no model to begin with"
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        program = [sys.executable, str(Path(__file__)), str(folder / ARCHIVE), str(answer)]
        try:
            subprocess.run(program, capture_output=True, timeout=SECONDS_MAX, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return "the model before took too long to read"
        if not answer.is_file() or answer.stat().st_size > BYTES_MAX:
            return "the model before is not a linear classifier"
        return _checked(json.loads(answer.read_text(encoding="utf-8")))


def _checked(said: dict[str, Any]) -> Learnt | str:
    try:
        learnt = Learnt(
            [str(name) for name in said["classes"]],
            [str(name) for name in said["features"]],
            np.asarray(said["coefficients"], dtype=np.float64),
            np.asarray(said["intercepts"], dtype=np.float64),
        )
    except (KeyError, TypeError, ValueError):
        return "the model before is not a linear classifier"
    rows = 1 if len(learnt.classes) == 2 else len(learnt.classes)
    if learnt.coefficients.shape != (rows, len(learnt.features)) or learnt.intercepts.shape != (rows,):
        return "the model before is not a linear classifier"
    if not (np.isfinite(learnt.coefficients).all() and np.isfinite(learnt.intercepts).all()):
        return "the model before has coefficients that are no numbers"
    return learnt


def begin_with(estimator: Any, learnt: Learnt, classes: list[Any], features: list[str]) -> str:
    """Let an estimator begin with what was learnt before, column by column; return how, or why it does not."""
    if [str(label) for label in classes] != learnt.classes:
        return "the classes are others than before"
    place = {name: number for number, name in enumerate(learnt.features)}
    shared = [name for name in features if name in place]
    if not shared:
        return "no column is as before"
    coefficients = np.zeros((len(learnt.coefficients), len(features)))
    for number, name in enumerate(features):
        if name in place:
            coefficients[:, number] = learnt.coefficients[:, place[name]]
    estimator.set_params(warm_start=True)
    estimator.coef_, estimator.intercept_ = coefficients, learnt.intercepts
    return f"begun with {len(shared)} of {len(features)} coefficients of the model before"


def main(archive: Path, answer: Path) -> None:
    """Write what the model in an archive has learnt; nothing where it is not a linear classifier."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as packed:
            unpack(packed, Path(folder))
        model = joblib.load(Path(folder) / "model.joblib")
    estimator = model.named_steps["estimate"]
    content = {
        "classes": [str(label) for label in estimator.classes_.tolist()],
        "features": [str(name) for name in model.named_steps["encode"].get_feature_names_out()],
        "coefficients": estimator.coef_.tolist(),
        "intercepts": estimator.intercept_.tolist(),
    }
    answer.write_text(json_text(content), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
