"""Preprocess: read the tenant's files as one table, decide what its columns are, and split it.

What was decided goes to schema.json, which later steps and the model use to read rows; what the tenant should know
of it goes to profile.json.
"""

import argparse
import hashlib
import json
import os
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.model_selection import train_test_split

from common import DataError, run
from reading import Places, read_all
from schema import as_json, decide, frame
from tables import Table
from target import Target, check_learnable, read_target

ROWS_MIN = 20
TEST_SHARE = 0.25
SEED = 20
TOTALS = frozenset(
    {"total", "totals", "total:", "grand total", "sum", "sum:", "summe", "gesamt", "totale", "somme"}
)
"""Texts in the last line of a table that say it sums up the lines above it."""

NOTES_MAX = 50


def main() -> None:
    arguments = parse_arguments()
    files = sorted(path for path in arguments.input.rglob("*") if path.is_file())
    check_size(files, os.environ.get("INPUT_BYTES"))
    profile = {"files": [describe(path, arguments.input) for path in files]}
    profile["sha256"] = hashlib.sha256("".join(f["sha256"] for f in profile["files"]).encode()).hexdigest()
    write_json(arguments.profile / "profile.json", profile)

    table, places = read_all(files, arguments.target)
    name = target_column(table, arguments.target)
    leave_out_totals(table, places)
    target = read_target(
        name, table.cells[table.columns.index(name)], arguments.problem, table.delimiter, places.where
    )
    findings = decide(table, name, places.where)
    check_learnable(name, target, len(findings.columns), findings.left_out, ROWS_MIN)
    features = frame(table, findings.columns)
    schema = {"target": name, "problem": target.problem, "columns": as_json(findings.columns)}
    summary = {
        "rows": len(target.rows),
        "dropped": dict(table.dropped + target.dropped),
        "left_out": findings.left_out,
        "notes": [*table.notes, *target.notes, *findings.notes][:NOTES_MAX],
    }
    del table
    write_split(features, name, target, arguments)
    write_json(arguments.train / "schema.json", schema)
    kinds = Counter(column.kind for column in findings.columns)
    write_json(
        arguments.profile / "profile.json",
        profile | summary | {"target": name, "problem": target.problem, "kinds": dict(kinds)},
    )
    for note in summary["notes"]:
        print(note)


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


def target_column(table: Table, asked: str) -> str:
    """Return the name of the column to predict; raises DataError when there is none, or no row."""
    if len(table) == 0:
        raise DataError("there are no rows below the header line")
    if asked in table.columns:
        return asked
    near = get_close_matches(asked, table.columns, n=3, cutoff=0.75)
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


def write_split(features: pd.DataFrame, name: str, target: Target, arguments: argparse.Namespace) -> None:
    """Write the rows to train on and those to test on, each with its target, in the types of the schema."""
    stratify = target.values if target.problem == "classification" else None
    rows = np.arange(len(target.rows))
    try:
        parts = train_test_split(rows, test_size=TEST_SHARE, random_state=SEED, stratify=stratify)
    except ValueError:  # more classes than rows to test on
        parts = train_test_split(rows, test_size=TEST_SHARE, random_state=SEED)
    files = arguments.train / "train.pkl", arguments.test / "test.pkl"
    for file, part in zip(files, parts, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        rows_of_part = features.take(target.rows[part])
        rows_of_part.index = pd.RangeIndex(len(rows_of_part))  # reset_index() would copy them once more
        rows_of_part[name] = target.values[part]
        rows_of_part.to_pickle(file)
    print(f"{len(parts[0])} rows to train on, {len(parts[1])} to test on, {target.problem}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    run(main, parse_arguments().failure_file)
