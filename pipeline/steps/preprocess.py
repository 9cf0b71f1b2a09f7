"""Preprocess: check the tenant's table, split it, and fit the preprocessing on the training part alone."""

import argparse
import hashlib
import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from common import DataError, read_csv, run

ROWS_MIN = 20
CLASSES_MAX = 20
"""A target with more distinct whole numbers than this is a quantity, not a class."""
CATEGORIES_MAX = 30
"""Of a text column; rarer values share one indicator."""
TEST_SHARE = 0.25
SEED = 20


def main() -> None:
    arguments = parse_arguments()
    files = sorted(path for path in arguments.input.rglob("*") if path.is_file())
    check_size(files, os.environ.get("INPUT_BYTES"))
    profile = {"files": [describe(path, arguments.input) for path in files]}
    profile["sha256"] = hashlib.sha256("".join(f["sha256"] for f in profile["files"]).encode()).hexdigest()
    write_json(arguments.profile / "profile.json", profile)

    table = clean(read_all(files), arguments.target)
    problem = problem_of(table[arguments.target], arguments.problem)
    check_learnable(table, arguments.target, problem)
    train, test = split(table, arguments.target, problem)
    features = train.drop(columns=[arguments.target])
    columns = columns_of(features)
    preprocessor = build_preprocessor(columns).fit(features)

    schema = {"target": arguments.target, "problem": problem, **columns}
    arguments.train.mkdir(parents=True, exist_ok=True)
    arguments.test.mkdir(parents=True, exist_ok=True)
    # Pickled, not CSV: a column's type is that of the whole table, and must be the same in every step.
    train.to_pickle(arguments.train / "train.pkl")
    test.to_pickle(arguments.test / "test.pkl")
    joblib.dump(preprocessor, arguments.train / "preprocessor.joblib")
    write_json(arguments.train / "schema.json", schema)
    write_json(arguments.profile / "profile.json", profile | {"rows": len(table), **schema})
    print(f"{len(train)} rows to train on, {len(test)} to test on, {problem}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("input", "train", "test", "profile", "failure-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--problem", choices=("auto", "classification", "regression"), default="auto")
    return parser.parse_args()


def check_size(files: list[Path], checked: str | None) -> None:
    """Raise DataError when the size of the data differs from what was checked when the run was started."""
    read = sum(path.stat().st_size for path in files)
    if checked is not None and read != int(checked):
        raise DataError(
            f"the data changed while the run was starting: {int(checked):,} bytes were checked, {read:,} were "
            "read; the later upload has a request of its own"
        )


def describe(path: Path, root: Path) -> dict[str, Any]:
    """Return what identifies a file's content: S3's entity tag of a plain upload is its MD5."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as raw:
        while chunk := raw.read(1 << 20):
            md5.update(chunk)
            sha256.update(chunk)
    return {
        "name": str(path.relative_to(root)),
        "bytes": path.stat().st_size,
        "md5": md5.hexdigest(),
        "sha256": sha256.hexdigest(),
    }


def read_all(files: list[Path]) -> pd.DataFrame:
    """Return one table of all files; raises DataError when their columns differ."""
    if not files:
        raise DataError("there is no data: no object was found at the location")
    tables = [read_csv(path) for path in files]
    for path, table in zip(files, tables, strict=True):
        if list(table.columns) != list(tables[0].columns):
            ours, others = set(map(str, table.columns)), set(map(str, tables[0].columns))
            differ = f"{len(others - ours)} are missing and {len(ours - others)} are extra"
            order = "the order differs"
            raise DataError(
                f"{path.name} differs in its columns from {files[0].name}: {differ if ours != others else order}"
            )
    return pd.concat(tables, ignore_index=True)


def clean(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return the rows that have a target; raises DataError when there is no such column or no rows."""
    if target not in table.columns:
        names = [str(column).strip() for column in table.columns]
        near = get_close_matches(target, names, n=3, cutoff=0.75)
        meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else "; is there a header line?"
        raise DataError(f"there is no column {target!r} to predict among the {len(table.columns)} columns{meant}")
    if table.empty:
        raise DataError("there are no rows below the header line")
    rows = table.dropna(subset=[target])
    if len(rows) < ROWS_MIN:
        raise DataError(f"{len(rows)} rows have a value for {target!r}, at least {ROWS_MIN} are needed")
    return rows


def problem_of(target: pd.Series, asked: str) -> str:
    if asked != "auto":
        return asked
    if not pd.api.types.is_numeric_dtype(target) or pd.api.types.is_bool_dtype(target):
        return "classification"
    whole = (target == target.round()).all()
    return "classification" if whole and target.nunique() <= CLASSES_MAX else "regression"


def check_learnable(table: pd.DataFrame, target: str, problem: str) -> None:
    values = table[target]
    if len(table.columns) < 2:
        raise DataError(f"there is no column besides {target!r} to learn from")
    if values.nunique() < 2:
        raise DataError(f"column {target!r} has only one value: there is nothing to learn")
    if problem == "regression" and not pd.api.types.is_numeric_dtype(values):
        raise DataError(f"column {target!r} is not numeric, so it cannot be the target of a regression")
    if problem == "classification" and values.value_counts().min() < 2:
        rare = int((values.value_counts() < 2).sum())
        raise DataError(f"{rare} of the classes of column {target!r} have only one row; at least two are needed")


def split(table: pd.DataFrame, target: str, problem: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    stratify = table[target] if problem == "classification" else None
    try:
        train, test = train_test_split(table, test_size=TEST_SHARE, random_state=SEED, stratify=stratify)
    except ValueError:  # more classes than rows to test on
        train, test = train_test_split(table, test_size=TEST_SHARE, random_state=SEED)
    return train, test


def columns_of(features: pd.DataFrame) -> dict[str, list[str]]:
    numeric = [c for c in features.columns if pd.api.types.is_numeric_dtype(features[c])]
    return {"numeric": numeric, "categorical": [c for c in features.columns if c not in numeric]}


def build_preprocessor(columns: dict[str, list[str]]) -> ColumnTransformer:
    numeric = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    categorical = make_pipeline(
        SimpleImputer(strategy="most_frequent", keep_empty_features=True),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=CATEGORIES_MAX, sparse_output=False),
    )
    return ColumnTransformer(
        [("numeric", numeric, columns["numeric"]), ("categorical", categorical, columns["categorical"])]
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    run(main, parse_arguments().failure_file)
