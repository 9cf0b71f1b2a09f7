"""Challenge: a new model beside the one before, its champion, on the same rows that neither has learnt from.

Both are judged by the metric that counts, on all these rows and on each segment of them: the values of a column,
or the classes. What follows from it, the data set's settings say.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from baseline import LOWER_IS_BETTER, RESAMPLES, SEED, rounded

SECONDS_MAX, SHARE_OF_JOB = 600, 0.25
"""In which the champion must have answered them: so many seconds, or that share of what the job has."""

ANSWER_BYTES_MAX = 256 * 1024**2
SEGMENT_ROWS_MIN = 20
"""Of fewer rows, nothing can be said."""

SEGMENTS_MAX = 20
"""Of a column, the most frequent values."""

NAME_LENGTH_MAX = 60
Score = Callable[[np.ndarray, np.ndarray], float]


class NotComparedError(Exception):
    """The champion cannot be judged on these rows; the message says why, in words of ours alone: those of the
    champion's code may quote rows.
    """


REASONS = {
    "unusable": "its archive cannot be used",
    "large": "its archive is too large to be compared",
    "column": "it needs a column that the data does not have any more",
}
"""What champion.py may say → as people read it."""


class Rows(NamedTuple):
    """The rows that are compared, as the tenant has them."""

    file: Path
    positions: list[int]
    """In the table that was read."""

    text: str

    @classmethod
    def read(cls, file: Path) -> "Rows":
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(file, content["positions"], content["rows"])

    def column(self, name: str) -> list[Any]:
        return [json.loads(line).get(name) for line in self.text.split("\n") if line]


class Champion(NamedTuple):
    """What the champion answered to the rows that are compared."""

    predictions: list[Any]
    classes: list[Any]
    probabilities: np.ndarray | None

    def codes(self, labels: list[str]) -> np.ndarray:
        """Return the number among labels of each prediction, one more for another label.

        Classes may have come or gone since; raises NotComparedError where they are others.
        """
        now, before = set(map(folded, labels)), set(map(folded, self.classes or self.predictions))
        if not (before <= now or (self.classes and now <= before)):
            raise NotComparedError("its classes are others")
        number = {folded(label): code for code, label in enumerate(labels)}
        return np.array([number.get(folded(each), len(labels)) for each in self.predictions])

    def scores(self, label: str) -> np.ndarray:
        """Return the probability of a class for each row; raises NotComparedError where it does not say."""
        names = [folded(each) for each in self.classes]
        if self.probabilities is None or folded(label) not in names:
            raise NotComparedError("its classes are others")
        return self.probabilities[:, names.index(folded(label))]

    def quantities(self) -> np.ndarray:
        if self.classes:
            raise NotComparedError("it predicts classes")
        try:
            values = np.asarray(self.predictions, dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            values = np.array([np.nan])
        if not np.isfinite(values).all():
            raise NotComparedError("it predicts no numbers")
        return values


def folded(label: Any) -> str:
    """Return a label as it is compared: data and models may write it differently ("Yes", "yes"; 1, 1.0)."""
    text = " ".join(str(label).casefold().split())
    with suppress(ValueError):
        return f"{float(text):g}"
    return text


def ask(archive: Path, rows: Rows, seconds_of_job: float = np.inf) -> Champion:
    """Return what the model in an archive answers to rows; raises NotComparedError."""
    if not archive.is_file():
        raise NotComparedError("its archive is gone")
    if not rows.positions:
        raise NotComparedError("there are no rows to compare it by")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        program = [sys.executable, str(Path(__file__).with_name("champion.py")), str(archive), str(rows.file)]
        seconds = min(SECONDS_MAX, seconds_of_job * SHARE_OF_JOB)
        drop = subprocess.DEVNULL  # its output may quote rows, and this job's log is kept longer than the data
        try:
            subprocess.run([*program, str(answer)], stdout=drop, stderr=drop, timeout=seconds, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise NotComparedError(f"it did not answer within {seconds:.0f} seconds") from None
        if not answer.is_file() or answer.stat().st_size > ANSWER_BYTES_MAX:
            raise NotComparedError("its code ended without an answer")
        said = json.loads(answer.read_text(encoding="utf-8"))
    if not isinstance(said, dict) or said.get("error") is not None:
        error = said.get("error") if isinstance(said, dict) else None
        raise NotComparedError(REASONS.get(str(error), REASONS["unusable"]))
    return _checked(said, len(rows.positions))


def _checked(said: dict[str, Any], rows: int) -> Champion:
    predictions, probabilities = said.get("predictions"), said.get("probabilities")
    if not isinstance(predictions, list) or len(predictions) != rows:
        raise NotComparedError("it did not answer each row")
    classes, table = said.get("classes") or [], None
    if not isinstance(classes, list):
        raise NotComparedError("its classes are no list")
    if probabilities is not None:
        try:
            table = np.asarray(probabilities, dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            table = np.empty(0)
        if table.shape != (rows, len(classes)) or not np.isfinite(table).all():
            raise NotComparedError("its probabilities are not those of its classes")
    return Champion(predictions, classes, table)


@dataclass(frozen=True)
class Judged:
    """What happened in the rows that are compared, and what both models say of them, as a metric takes it."""

    metric: str
    score: Score
    true: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray
    segments: dict[str, np.ndarray]
    """Name → whether each row is in it."""

    of_segment: Score
    """By which the models are judged within a segment."""

    right: tuple[np.ndarray, np.ndarray] | None = None
    """What they are judged on there, if it is something else: what is predicted, by challenger and champion."""


def report(judged: Judged) -> dict[str, Any]:
    """Return how the challenger stands beside its champion: by any metric, it is better by a gain above 0."""
    sign = -1 if judged.metric in LOWER_IS_BETTER else 1

    def gain(rows: np.ndarray) -> float:
        true = judged.true[rows]
        return sign * (judged.score(true, judged.challenger[rows]) - judged.score(true, judged.champion[rows]))

    g, everything = np.random.default_rng(SEED), np.arange(len(judged.true))
    drawn = np.array([gain(g.choice(everything, len(everything))) for _ in range(RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    interval = np.percentile(drawn, [2.5, 97.5]) if len(drawn) >= RESAMPLES / 2 else None
    segments = sorted(_segments(judged, sign), key=lambda each: float(each["gain"]))
    return {
        "metric": judged.metric,
        "rows": len(everything),
        "champion": rounded(judged.score(judged.true, judged.champion)),
        "challenger": rounded(judged.score(judged.true, judged.challenger)),
        "gain": rounded(gain(everything)),
        "interval": None if interval is None else [rounded(bound) for bound in interval],
        "segments": segments,
    }


def _segments(judged: Judged, sign: int) -> list[dict[str, Any]]:
    challenger, champion = judged.right or (judged.challenger, judged.champion)
    segments = []
    for name, is_in in judged.segments.items():
        if is_in.sum() < SEGMENT_ROWS_MIN:
            continue
        true = judged.true[is_in]
        values = [judged.of_segment(true, said[is_in]) for said in (champion, challenger)]
        if np.isfinite(values).all():
            segments.append(
                {
                    "name": name[:NAME_LENGTH_MAX],
                    "rows": int(is_in.sum()),
                    "champion": rounded(values[0]),
                    "challenger": rounded(values[1]),
                    "gain": rounded(sign * (values[1] - values[0])),
                }
            )
    return segments


def segments_by(column: str, rows: Rows) -> dict[str, np.ndarray]:
    """Return the segments of a column of the rows that are compared: its most frequent values, or the quarters of
    its range. Raises NotComparedError where there is no such column.
    """
    values = pd.Series(rows.column(column), dtype=object)
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64).replace([np.inf, -np.inf], np.nan)
    if numbers.nunique() > SEGMENTS_MAX and numbers.notna().mean() > 1 / 2:
        quarters = pd.qcut(numbers, 4, duplicates="drop")
        parts = quarters.cat.categories
        return {f"{part} {column}": (quarters == part).to_numpy() for part in parts}
    texts = values.map(lambda cell: "missing" if cell is None or cell == "" else str(cell))
    if set(texts) == {"missing"}:
        raise NotComparedError("the column to compare models by is not in the data")
    names = texts.value_counts().index[:SEGMENTS_MAX]
    return {f"{name} ({column})": (texts == name).to_numpy() for name in names}
