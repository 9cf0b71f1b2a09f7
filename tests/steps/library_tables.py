"""Compare the steps with scikit-learn by hand, on tables that come with libraries: library_tables.py STEPS FILE.

Each table is written as CSV, and goes through Preprocess, Train and Evaluate with both algorithms. The reference
is fitted on the same rows of the same table, with its columns prepared by hand, and tested on the same rows. Then
each model predicts some rows alone and together, and the whole is run a second time and compared byte by byte.
FILE gets what both algorithms reached, which tenants are shown as examples.
Last, tables with nothing to learn must not give a model that is registered.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

import numpy as np
import pandas as pd
import sklearn.datasets as bundled
import statsmodels.datasets as sm
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from vega_datasets import local_data as vega

import evaluate
import inference
import preprocess
import train
from common import run

BELOW_MAX = 0.01
"""By this much a metric may be below the reference."""

ALONE_MAX = 40
"""Rows that are predicted alone, of each table."""

DIGITS = 2
"""That examples are shown with."""

ALGORITHMS = ("gradient-boosting", "linear")


@dataclass
class Given:
    """A table, and how somebody who knows it prepares it."""

    name: str
    rows: pd.DataFrame
    target: str
    texts: tuple[str, ...] = ()
    """Columns of categories; those that are neither texts nor dates are numbers."""

    date: str = ""
    problem: str = "auto"
    split: str = "auto"


def of_scikit_learn(name: str, load: Callable[..., Any]) -> Given:
    loaded = load(as_frame=True)
    return Given(f"scikit-learn: {name}", loaded.frame, "target")


def of_statsmodels(name: str) -> pd.DataFrame:
    rows: pd.DataFrame = getattr(sm, name).load_pandas().data
    return rows


def library_tables() -> list[Given]:
    fair, modechoice = of_statsmodels("fair"), of_statsmodels("modechoice")
    fair["affair"] = np.where(fair.pop("affairs") > 0, "yes", "no")
    weather = vega.seattle_weather()
    cars = vega.cars().dropna(subset=["Miles_per_Gallon"]).drop(columns=["Name"])
    cars["Year"] = cars["Year"].dt.year
    stocks, barley, airports = vega.stocks(), vega.barley(), vega.airports()
    airports = airports[airports["country"] == "USA"].drop(columns=["iata", "name", "city", "country"])
    airports["is_west"] = np.where(airports.pop("longitude") < -98, "west", "east")
    star = of_statsmodels("star98").drop(columns=["NBELOW"])
    return [
        of_scikit_learn("iris", bundled.load_iris),
        of_scikit_learn("wine", bundled.load_wine),
        of_scikit_learn("breast cancer", bundled.load_breast_cancer),
        of_scikit_learn("diabetes", bundled.load_diabetes),
        of_scikit_learn("digits", bundled.load_digits),
        Given("statsmodels: fair", fair, "affair"),
        Given("statsmodels: anes96", of_statsmodels("anes96"), "vote"),
        Given("statsmodels: modechoice", modechoice, "choice", split="group:individual"),
        Given("statsmodels: randhie", of_statsmodels("randhie"), "mdvis", problem="regression"),
        Given("statsmodels: grunfeld", of_statsmodels("grunfeld"), "invest", ("firm",)),
        Given("statsmodels: star98", star, "NABOVE", problem="regression"),
        Given("vega: cars", cars, "Miles_per_Gallon", ("Origin",)),
        Given("vega: barley", barley, "yield", ("variety", "site")),
        Given("vega: stocks", stocks, "price", ("symbol",), date="date", split="random"),
        Given("vega: seattle-weather", weather, "weather", date="date", split="random"),
        Given("vega: us-employment", vega.us_employment(), "nonfarm", date="month"),
        Given("vega: airports", airports, "is_west", ("state",)),
    ]


def worthless_tables() -> list[Given]:
    g = np.random.default_rng(18)
    noise = pd.DataFrame(g.normal(size=(2000, 8)), columns=[f"x{n}" for n in range(8)])
    few = noise.head(40)
    names = pd.DataFrame({"file": [f"img_{n:05}.png" for n in range(500)], "size": g.integers(1000, 9999, 500)})
    texts = pd.DataFrame({"colour": g.choice(["red", "green", "blue"], 600), "size": g.integers(0, 9, 600)})
    classes = {rows: g.choice(["yes", "no"], rows) for rows in (2000, 40, 500, 600)}
    return [
        Given("noise, two classes", noise.assign(y=classes[2000]), "y"),
        Given("noise, five classes", noise.assign(y=g.choice(list("abcde"), 2000)), "y"),
        Given("noise, quantities", noise.assign(y=g.normal(size=2000)), "y"),
        Given("noise, 1 % of one class", noise.assign(y=np.where(g.random(2000) < 0.01, "yes", "no")), "y"),
        Given("noise, 40 rows, two classes", few.assign(y=classes[40]), "y"),
        Given("noise, 40 rows, quantities", few.assign(y=g.normal(size=40)), "y"),
        Given("constants", pd.DataFrame({"a": 1, "b": "x", "y": classes[500]}), "y"),
        Given("file names", names.assign(y=classes[500]), "y"),
        Given("categories without signal", texts.assign(y=classes[600]), "y"),
        Given("a walk, tested on its future", walk(g), "y"),
    ]


def walk(g: np.random.Generator) -> pd.DataFrame:
    days = pd.date_range("2024-01-01", periods=600, freq="D")
    return pd.DataFrame({"day": days, "noise": g.normal(size=600), "y": g.normal(size=600).cumsum()})


# --- the steps ---------------------------------------------------------------------------------------------------


def steps(given: Given, algorithm: str, root: Path) -> str:
    """Run all three steps; return why there is no model, or ""."""
    (root / "input").mkdir(parents=True)
    given.rows.to_csv(root / "input/data.csv", index=False)
    folders = [t for n in ("input", "train", "test", "profile") for t in (f"--{n}", str(root / n))]
    chosen = ["--target", given.target, "--problem", given.problem, "--split", given.split]
    failure = ["--failure-file", str(root / "failure")]
    environment = {
        "SM_HPS": json.dumps({"algorithm": algorithm}),
        "SM_CHANNEL_TRAIN": str(root / "train"),
        "SM_MODEL_DIR": str(root / "model"),
        "SM_OUTPUT_DIR": str(root),
    }
    places = {
        "model": root,
        "test": root / "test",
        "profile": root / "profile",
        "output": root,
        "deliver": root / "d",
    }
    for main, arguments in (
        (preprocess.main, [*folders, *chosen, *failure]),
        (train.main, []),
        (evaluate.main, [t for n, p in places.items() for t in (f"--{n}", str(p))] + failure),
    ):
        message = step(main, arguments, environment, root / "failure")
        if message:
            return message
        if main is train.main:
            with tarfile.open(root / "model.tar.gz", "w:gz") as archive:
                for path in (root / "model").iterdir():
                    archive.add(path, arcname=path.name)
    report = json.loads((root / "evaluation.json").read_text())
    return "" if report["verdict"]["beats_baseline"] else report["verdict"]["text"]


def step(main: Callable[[], None], arguments: list[str], environment: dict[str, str], failure: Path) -> str:
    given, sys.argv = sys.argv, ["step", *arguments]
    os.environ |= environment
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run(main, failure)
    except SystemExit:
        return failure.read_text(encoding="utf-8")
    finally:
        sys.argv = given
    return ""


def digest(root: Path) -> str:
    """Return a hash of everything that a run writes, but for the archive, which has the times of its files."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "model.tar.gz")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


# --- the reference -----------------------------------------------------------------------------------------------


def reference(given: Given, algorithm: str, root: Path) -> tuple[str, float]:
    """Return metric and value of scikit-learn used by hand, on the rows that the steps chose."""
    learnt, tested = (pd.read_pickle(root / f"{part}/{part}.pkl").index for part in ("train", "test"))
    rows = given.rows.reset_index(drop=True)
    features, target = rows.drop(columns=[given.target]), rows[given.target]
    if given.split.startswith("group:"):
        features = features.drop(columns=[given.split.partition(":")[2]])
    if given.date:
        when = pd.to_datetime(features.pop(given.date))
        features = features.assign(
            year=when.dt.year, month=when.dt.month, day=when.dt.day, weekday=when.dt.dayofweek
        )
        features["days"] = (when - when.min()).dt.days
    texts = list(given.texts)
    features = features.assign(**{name: features[name].astype("category") for name in texts})
    profile = json.loads((root / "profile/profile.json").read_text())
    is_class = profile["problem"] == "classification"
    target = target.astype(str) if is_class else target.astype(float)
    if algorithm == "linear":
        numbers = [name for name in features if name not in texts]
        prepared = make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore"), texts),
        )
        model = make_pipeline(prepared, LogisticRegression(max_iter=1000) if is_class else Ridge())
    else:
        model = (HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor)(
            random_state=train.SEED
        )
    model.fit(features.loc[learnt], target[learnt])
    true, unseen = target[tested], features.loc[tested]
    if not is_class:
        return "r2", float(r2_score(true, model.predict(unseen)))
    if target.nunique() == 2:
        return "roc_auc", float(roc_auc_score(true == model.classes_[1], model.predict_proba(unseen)[:, 1]))
    return "balanced_accuracy", float(balanced_accuracy_score(true, model.predict(unseen)))


# --- what is compared --------------------------------------------------------------------------------------------


def differing_alone(given: Given, root: Path) -> tuple[int, int]:
    """Return how many rows predict otherwise alone than together, and of how many."""
    served = inference.model_fn(str(root / "model"))
    rows = given.rows.head(ALONE_MAX).drop(columns=[given.target])
    together = inference.predict_fn(rows.to_csv(index=False), served)
    alone = [inference.predict_fn(rows.iloc[[n]].to_csv(index=False), served) for n in range(len(rows))]
    lines = inference.predict_fn(rows.to_json(orient="records", lines=True, date_format="iso"), served)
    wrong = 0
    for position, answer in enumerate(alone):
        alike = (together["predictions"][position], lines["predictions"][position])
        wrong += not all(_is_same(answer["predictions"][0], other) for other in alike)
    return wrong, len(rows)


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether predictions are the same; sums differ in their last bits with the number of rows."""
    return math.isclose(one, other, rel_tol=1e-9) if isinstance(one, float) else bool(one == other)


def a_line_each(reached: dict[str, list[dict[str, Any]]]) -> str:
    """Return it as JSON, each example on a line of its own."""
    lists = (
        f"{json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(each)}" for each in examples) + "\n]"
        for name, examples in reached.items()
    )
    return "{" + ", ".join(lists) + "}\n"


def main() -> int:
    warnings.simplefilter("ignore")
    failed = 0
    reached: dict[str, list[dict[str, Any]]] = {algorithm: [] for algorithm in ALGORITHMS}
    print(f"{'table':28} {'rows':>6} {'algorithm':18} {'metric':18} {'steps':>8} {'by hand':>8}  alone≠batch")
    for given in library_tables():
        for algorithm in ALGORITHMS:
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                root = Path(first)
                message = steps(given, algorithm, root / "run")
                if not (root / "run/evaluation.json").exists():
                    print(f"{given.name:28} {len(given.rows):6} {algorithm:18} FAILED: {message}")
                    failed += 1
                    continue
                report = json.loads((root / "run/evaluation.json").read_text())
                metric, by_hand = reference(given, algorithm, root / "run")
                group = report.get("classification_metrics") or report["regression_metrics"]
                ours = group[metric]["value"]
                reached[algorithm].append(
                    {
                        "data": given.name,
                        "rows": len(given.rows),
                        "metric": report["quality"]["metric"],
                        "quality": round(report["quality"]["value"], DIGITS),
                        "baseline": round(report["baseline"]["value"], DIGITS),
                    }
                )
                wrong, asked = differing_alone(given, root / "run")
                steps(given, algorithm, Path(second) / "run")
                same = digest(root / "run") == digest(Path(second) / "run")
                ok = ours >= by_hand - BELOW_MAX and not wrong and same
                failed += not ok
                print(
                    f"{given.name:28} {len(given.rows):6} {algorithm:18} {metric:18} {ours:8.4f} {by_hand:8.4f}  "
                    f"{wrong:4} of {asked:3}  {'same bytes' if same else 'DIFFERENT'} {'' if ok else ' FAILED'}"
                )
    if not failed:
        Path(sys.argv[2]).write_text(a_line_each(reached), encoding="utf-8")
    print(f"\n{'nothing to learn':28} {'algorithm':18} why no model is registered")
    for given in worthless_tables():
        for algorithm in ALGORITHMS:
            with tempfile.TemporaryDirectory() as folder:
                message = steps(given, algorithm, Path(folder) / "run")
            failed += not message
            print(f"{given.name:28} {algorithm:18} {message or 'REGISTERED'}")
    print(f"\n{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
