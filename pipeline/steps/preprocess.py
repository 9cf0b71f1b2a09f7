"""Preprocess: read the tenant's files as one table, decide what its columns are, and split it.

What was decided goes to schema.json, which later steps and the model use to read rows; what the tenant should know
of it goes to profile.json, and a few rows by which the model is tried before it serves to sample.json.
"""

import argparse
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from column_statistics import statistics_of
from common import DataError, json_text, run
from drift import Drift, Rules, check, compare, read_before
from folds import folds_of
from leaks import copies_of_target, predicting_alone
from reading import Places, read_all
from sample import ROWS, RawRows, sample_of
from schema import Findings, as_json, decide, frame
from split import Split, plan, split
from tables import Table
from target import Target, check_learnable, read_target
from trial import FOLDS_FILE

ROWS_MIN = 20
TOTALS = frozenset(
    {"total", "totals", "total:", "grand total", "sum", "sum:", "summe", "gesamt", "totale", "somme"}
)
"""Texts in the last line of a table that say it sums up the lines above it."""

NUMBER = re.compile("[-+]?[0-9][0-9.,eE+-]*")
"""What stands in the first line of a file without a header, and in no header."""

NOTES_MAX = 50


@dataclass
class Prepared:
    """A data set that can be trained on, and what the tenant should know of it."""

    features: pd.DataFrame
    target: Target
    parts: Split
    schema: dict[str, Any]
    summary: dict[str, Any]
    sample: dict[str, Any]
    compared: dict[str, Any]
    """Of the rows to test on, those by which the model is compared with the one before."""

    statistics: dict[str, Any]
    drift: Drift | None
    """From the last training; None where that has left no statistics."""


def main() -> None:
    arguments = parse_arguments()
    files = sorted(path for path in arguments.input.rglob("*") if path.is_file())
    check_size(files, os.environ.get("INPUT_BYTES"))
    profile = {"files": [describe(path, arguments.input) for path in files]}
    profile["sha256"] = hashlib.sha256("".join(f["sha256"] for f in profile["files"]).encode()).hexdigest()
    write_json(arguments.profile / "profile.json", profile)
    before = read_before(arguments.statistics) if arguments.statistics else None
    prepared = prepare(files, arguments.target, arguments.problem, arguments.split, before)
    if prepared.drift is not None:
        write_json(arguments.profile / "drift.json", prepared.drift.as_json())
        check(prepared.drift, Rules.parse(arguments.drift))
    write_json(arguments.profile / "statistics.json", prepared.statistics)
    write_split(prepared, arguments.train, arguments.test)
    np.save(arguments.train / FOLDS_FILE, folds_of(prepared.parts, prepared.target))
    write_json(arguments.test / ROWS, prepared.compared)
    write_json(arguments.train / "schema.json", prepared.schema)
    write_json(arguments.profile / "profile.json", profile | prepared.summary)
    write_json(arguments.profile / "sample.json", prepared.sample)
    for note in prepared.summary["notes"]:
        print(note)


def prepare(
    files: list[Path],
    asked_target: str,
    asked_problem: str,
    asked_split: str,
    before: dict[str, Any] | None = None,
) -> Prepared:
    """Return the files' rows as features and target, compared with the statistics of the last training, if any.

    Raises DataError when they cannot be trained on.
    """
    table, places = read_all(files, asked_target)
    name = target_column(table, asked_target)
    leave_out_totals(table, places)
    cells = table.cells[table.columns.index(name)]
    target = read_target(name, cells, asked_problem, table.delimiter, places.where)
    findings = decide(table, name, places.where)
    check_learnable(name, target, len(findings.columns), findings.left_out, ROWS_MIN)
    how = plan(asked_split, table, name, findings)
    sample = sample_of(table, [column.name for column in findings.columns], target)
    raw = RawRows.of_table(table, name)
    features = frame(table, findings.columns)
    leaks = look_for_leaks(features, name, target, findings)
    check_learnable(name, target, len(findings.columns), findings.left_out, ROWS_MIN)
    predicted = pd.Series(target.values, name=name)
    statistics = statistics_of(features, findings.columns, predicted, target.problem)
    drift = compare(before, features, findings, table.columns, predicted) if before else None
    moves = drift.notes() if drift else []
    parts = split(how, features, target)
    last = target.values[parts.train[-1]] if parts.kind == "time" and target.problem == "regression" else None
    schema = {
        "target": name,
        "problem": target.problem,
        "columns": as_json(findings.columns),
        "last_value": None if last is None else float(last),
    }
    summary = {
        "target": name,
        "problem": target.problem,
        "rows": len(target.rows),
        "dropped": dict(table.dropped + target.dropped),
        "left_out": findings.left_out,
        "notes": [*moves, *parts.notes, *leaks, *target.notes, *table.notes, *findings.notes][:NOTES_MAX],
        "split": parts.as_json(),
        "kinds": dict(Counter(column.kind for column in findings.columns)),
    }
    compared = raw.of(target.rows[parts.test])
    return Prepared(features, target, parts, schema, summary, sample, compared, statistics, drift)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("input", "train", "test", "profile", "failure-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--problem", choices=("auto", "classification", "regression"), default="auto")
    parser.add_argument("--split", default="auto", help="auto, random, group:COLUMN or time:COLUMN")
    parser.add_argument("--statistics", type=Path, help="a folder with those of the last training")
    parser.add_argument("--drift", default="", help="what follows from drift: refuse:train:30:age|income")
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


def target_column(table: Table, asked: str) -> str:
    """Return the name of the column to predict; raises DataError when there is none, or no row."""
    if len(table) == 0:
        raise DataError("there are no rows below the header line")
    if asked in table.columns:
        return asked
    is_row = any(NUMBER.fullmatch(column) for column in table.columns)  # then its values are not quoted
    near = [] if is_row else get_close_matches(asked, table.columns, n=3, cutoff=0.75)
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else "; is there a header line?"
    raise DataError(f"there is no column {asked!r} to predict among the {len(table.columns)} columns{meant}")


def leave_out_totals(table: Table, places: Places) -> None:
    """Leave out the last line if it sums up the others."""
    last = len(table) - 1
    texts = [cells[last].as_py() for cells in table.cells if pa.types.is_string(cells.type)]
    if any(text.casefold() in TOTALS for text in texts if text):
        table.notes.append(f"the last row ({places.where(last)}) sums up the others and was left out")
        table.dropped["a row of totals"] = 1
        table.cells = [cells.slice(0, last) for cells in table.cells]
        table.lines = table.lines[:last]


def look_for_leaks(features: pd.DataFrame, name: str, target: Target, findings: Findings) -> list[str]:
    """Leave out columns that equal the target; return what to tell of them, and of those that predict it alone."""
    notes = []
    columns = {column.name for column in findings.columns}
    for copy in copies_of_target(features, target):
        if copy in columns:
            findings.left_out[copy] = f"it equals {name!r}, which is to be predicted"
            notes.append(f"column {copy!r} equals {name!r} in every row, so nothing is learnt from it")
            findings.columns = [column for column in findings.columns if column.name != copy]
            del features[copy]
    for column, reached in predicting_alone(features, target):
        notes.append(
            f"column {column!r} predicts {name!r} nearly perfectly by itself ({reached:.3f}): if it is not known "
            "when a prediction is made, remove it from the data"
        )
    return notes


def write_split(prepared: Prepared, train: Path, test: Path) -> None:
    """Write the rows to train on and those to test on, each with its target, in the types of the schema.

    Their index is the position of each row in the table that was read.
    """
    target, parts = prepared.target, prepared.parts
    for file, part in ((train / "train.pkl", parts.train), (test / "test.pkl", parts.test)):
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = target.rows[part]
        rows_of_part = prepared.features.take(rows)
        rows_of_part.index = pd.Index(rows)
        values = pd.Series(target.values[part], index=rows_of_part.index)
        columns = {name: rows_of_part[name] for name in rows_of_part} | {prepared.schema["target"]: values}
        pd.DataFrame(columns, copy=False).to_pickle(file)
    print(f"{len(parts.train)} rows to train on, {len(parts.test)} to test on, {target.problem}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text(content), encoding="utf-8")


if __name__ == "__main__":
    run(main, parse_arguments().failure_file)
