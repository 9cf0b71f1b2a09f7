"""Train on random tables, and predict their rows alone, together, in other orders and formats: rows_alone.py STEPS
SEEDS.

Run with the libraries of the steps' image. Prints JSON: how many predictions were compared, and those that differ.
"""

import csv
import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

import numpy as np

import inference
import preprocess
import train

ROWS = 160
ASKED = 12
"""Rows that are predicted alone."""

Values = list[Any]
MARKS = ("", "?", "n/a", "-")


def number(g: np.random.Generator) -> Values:
    return [round(float(value), 2) for value in g.normal(50, 20, ROWS)]


def with_marks(g: np.random.Generator) -> Values:
    return [MARKS[n % 4] if n % 9 == 0 else value for n, value in enumerate(number(g))]


def with_unit(g: np.random.Generator) -> Values:
    return [f"{value} m2" for value in number(g)]


def with_thousands(g: np.random.Generator) -> Values:
    return [f"{int(value):,}.5" for value in g.integers(100, 90_000, ROWS)]


def decimal_comma(g: np.random.Generator) -> Values:
    return [str(value).replace(".", ",") for value in number(g)]


def codes(g: np.random.Generator) -> Values:
    return [("1", "2", "3", "4+")[n] for n in g.integers(0, 4, ROWS)]


def leading_zeros(g: np.random.Generator) -> Values:
    return [("00501", "10001", "02134", "90210")[n] for n in g.integers(0, 4, ROWS)]


def truth(g: np.random.Generator) -> Values:
    return [bool(n) for n in g.integers(0, 2, ROWS)]


def days(g: np.random.Generator) -> Values:
    return [f"2026-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in g.integers(0, 400, ROWS)]


def texts(g: np.random.Generator) -> Values:
    return [("red", "green", 'the "blue", one', " ")[n] for n in g.integers(0, 4, ROWS)]


def many_texts(g: np.random.Generator) -> Values:
    return [f"street {n}" for n in g.integers(0, 130, ROWS)]


KINDS = (number, with_marks, with_unit, with_thousands, decimal_comma, codes, leading_zeros, truth, days, texts,
         many_texts)  # fmt: skip


def table(seed: int) -> tuple[list[str], list[dict[str, Any]]]:
    g = np.random.default_rng(seed)
    kinds = [KINDS[n] for n in g.permutation(len(KINDS))[: int(g.integers(2, len(KINDS)))]]
    columns = {f"{kind.__name__} {n}": kind(g) for n, kind in enumerate([number, *kinds])}
    signal = np.array(columns["number 0"]) + g.normal(0, 5, ROWS)
    if seed % 3 == 0:
        columns["y"] = [round(float(value), 3) for value in signal]
    elif seed % 3 == 1:
        columns["y"] = ["high" if value > 50 else "low" for value in signal]
    else:
        columns["y"] = ["abc"[int(np.digitize(value, [40, 60]))] for value in signal]
    names = list(columns)
    return names, [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_csv(names: list[str], rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, names, delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_json_lines(rows: list[dict[str, Any]]) -> str:
    """Every other number with a decimal comma is a number of JSON, beside texts in the same column."""

    def plain(name: str, value: Any, number: int) -> Any:
        if name.startswith("decimal_comma") and number % 2:
            return float(value.replace(",", "."))
        return None if value == "" else int(value) if value in ("1", "2", "3") else value

    lines = [{name: plain(name, value, n) for name, value in row.items()} for n, row in enumerate(rows)]
    return "\n".join(map(json.dumps, lines))


def trained(folder: Path, body: str, algorithm: str) -> Path:
    (folder / "input").mkdir()
    (folder / "input/data.csv").write_text(body, encoding="utf-8", newline="")
    places = [text for name in ("input", "train", "test", "profile") for text in (f"--{name}", str(folder / name))]
    sys.argv = ["preprocess.py", *places, "--target", "y", "--failure-file", str(folder / "failure")]
    os.environ |= {
        "SM_HPS": json.dumps({"algorithm": algorithm}),
        "SM_CHANNEL_TRAIN": str(folder / "train"),
        "SM_MODEL_DIR": str(folder / "model"),
    }
    with redirect_stdout(io.StringIO()):
        preprocess.main()
        train.main()
    return folder / "model"


def same(ours: list[Any], theirs: list[Any]) -> bool:
    """Tell whether two rows of predictions are equal; numbers but for the last digits of floating point."""
    texts = [[value for value in values if isinstance(value, str)] for values in (ours, theirs)]
    numbers = [[value for value in values if not isinstance(value, str)] for values in (ours, theirs)]
    return texts[0] == texts[1] and np.allclose(*numbers, rtol=1e-9, atol=1e-9)


def compare(seed: int) -> tuple[int, list[str]]:
    names, rows = table(seed)
    others = [str(name) for name in np.random.default_rng(seed).permutation(names)]
    with tempfile.TemporaryDirectory() as folder:
        model_dir = trained(Path(folder), as_csv(names, rows), ("gradient-boosting", "linear")[seed % 2])
        served = inference.model_fn(str(model_dir))

    def predicted(body: str, content_type: str = "text/csv") -> list[list[Any]]:
        answer = inference.predict_fn(inference.input_fn(body.encode(), content_type), served)
        probabilities = answer.get("probabilities", [[] for _ in answer["predictions"]])
        return [[label, *of_row] for label, of_row in zip(answer["predictions"], probabilities, strict=True)]

    together = predicted(as_csv(names, rows))
    features = [name for name in names if name != "y"]
    ways = {
        "in another order of columns": predicted(as_csv(others, rows)),
        "without the target, separated by ;": predicted(as_csv(features, rows, ";")),
        "as JSON lines": predicted(as_json_lines(rows), "application/jsonlines"),
    }
    asked = rows[:ASKED]
    ways["alone"] = [answer for row in asked for answer in predicted(as_csv(features, [row]))]
    ways["alone, as JSON"] = [a for row in asked for a in predicted(as_json_lines([row]), "application/jsonlines")]
    count, wrong = 0, []
    for way, answers in ways.items():
        for position, (ours, theirs) in enumerate(zip(together, answers, strict=len(answers) == len(together))):
            count += 1
            if not same(ours, theirs):
                wrong.append(f"seed {seed}, row {position}, {way}: {ours} {theirs}; {names}")
    return count, wrong


def main() -> None:
    count, wrong = 0, []
    for seed in range(int(sys.argv[2])):
        compared, differ = compare(seed)
        count += compared
        wrong += differ[:2]
    print(json.dumps({"compared": count, "wrong": wrong}))


if __name__ == "__main__":
    main()
