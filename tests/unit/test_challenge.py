"""Challenge: a new model and the one before it are judged on the same rows, whatever the older archive holds."""

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from local.sagemaker.interpreter import interpreter
from tests.running_steps import STEPS, Container
from tests.unit.test_reading import csv, customers, homes


@pytest.fixture
def before(container: Container, tmp_path: Path) -> Path:
    """Return the folder of a first model's archive."""
    return trained(container, csv(customers(400)), tmp_path / "before")


def trained(container: Container, body: bytes, folder: Path, **asked: Any) -> Path:
    assert container.preprocess(("data.csv", body), **asked) == ""
    assert container.train("linear") == ""
    container.evaluate()
    folder.mkdir()
    shutil.copy(container.root / "model.tar.gz", folder)
    return folder


def challenged(container: Container, body: bytes, champion: Path, by: str = "", **asked: Any) -> dict[str, Any]:
    assert container.preprocess(("data.csv", body), **asked) == ""
    assert container.train("linear") == ""
    answer: dict[str, Any] = container.evaluate(champion, by)["champion"]
    return answer


def held_out(container: Container) -> set[str]:
    return set(json.loads((container.root / "test/rows.json").read_text())["rows"].splitlines())


def test_the_first_model_has_no_champion(container: Container, before: Path) -> None:
    assert "champion" not in json.loads((container.root / "out/evaluation.json").read_text())


def test_the_same_model_gains_nothing(container: Container, before: Path) -> None:
    answer = challenged(container, csv(customers(400)), before)
    assert (answer["request"], answer["metric"], answer["gain"], answer["rows"]) == ("before", "roc_auc", 0, 100)
    assert answer["champion"] == answer["challenger"]
    assert answer["interval"] == [0, 0]
    assert {each["name"] for each in answer["segments"]} == {"class no", "class yes"}
    assert all(each["gain"] == 0 for each in answer["segments"])


@pytest.mark.thorough
def test_a_model_that_learnt_from_wrong_labels_is_worse_and_one_from_right_labels_is_better(
    container: Container, tmp_path: Path
) -> None:
    right = customers(400)
    wrong = right.assign(churned=right["churned"].map({"yes": "no", "no": "yes"}))
    champion = trained(container, csv(wrong), tmp_path / "wrong")
    answer = challenged(container, csv(right), champion)
    assert answer["gain"] > 0.5
    assert answer["interval"][0] > 0.3
    champion = trained(container, csv(right), tmp_path / "right")
    assert container.preprocess(("data.csv", csv(right))) == ""
    test = container.root / "test/test.pkl"
    good = test.read_bytes()
    assert container.preprocess(("data.csv", csv(wrong))) == ""
    assert container.train("linear") == ""
    test.write_bytes(good)
    assert container.evaluate(champion)["champion"]["gain"] < -0.5


def test_nearly_all_rows_to_test_on_are_those_of_the_training_before(container: Container) -> None:
    rows = customers(600)
    assert container.preprocess(("data.csv", csv(rows[:400]))) == ""
    before = held_out(container)
    assert container.preprocess(("data.csv", csv(rows))) == ""
    now = held_out(container)
    assert (len(before), len(now)) == (100, 149)
    assert len(before - now) <= 10


@pytest.mark.thorough
def test_segments_are_the_values_of_a_column_or_quarters_of_it(container: Container, before: Path) -> None:
    by_plan = challenged(container, csv(customers(400)), before, "plan")["segments"]
    assert {each["name"] for each in by_plan} == {f"{plan} (plan)" for plan in set(customers(400)["plan"])}
    by_number = challenged(container, csv(customers(400)), before, "months")["segments"]
    assert len(by_number) == 4
    assert sum(each["rows"] for each in by_number) == 100


@pytest.mark.thorough
def test_a_segment_that_is_worse_is_named_first(container: Container, before: Path) -> None:
    rows = customers(400)
    is_young = rows["months"] < rows["months"].quantile(0.25)
    mixed = rows["churned"].where(~is_young, rows["churned"].map({"yes": "no", "no": "yes"}))
    answer = challenged(container, csv(rows.assign(churned=mixed)), before, "months")
    # The champion has learnt from other labels: where these are as before, it predicts better.
    gains = [each["gain"] for each in answer["segments"]]
    assert gains == sorted(gains)
    assert gains[0] < gains[-1]


@pytest.mark.thorough
def test_numbers_are_compared_by_the_metric_that_counts(container: Container, tmp_path: Path) -> None:
    asked = {"target": "price"}
    champion = trained(container, csv(homes(400)), tmp_path / "before", **asked)
    answer = challenged(container, csv(homes(400)), champion, "area", **asked)
    assert (answer["metric"], answer["gain"]) == ("r2", 0)
    assert answer["segments"]


def test_a_column_to_compare_by_that_is_not_there_is_named(container: Container, before: Path) -> None:
    answer = challenged(container, csv(customers(400)), before, "rooms")
    assert answer["not_compared"] == "the column to compare models by is not in the data"


def test_a_column_that_only_the_champion_needs_is_named(container: Container, before: Path) -> None:
    answer = challenged(container, csv(customers(400).drop(columns="months")), before)
    assert answer["not_compared"] == "it needs a column that the data does not have any more"


def test_a_champion_of_other_classes_is_not_compared(container: Container, before: Path) -> None:
    other = customers(400).assign(churned=lambda table: table["churned"].map({"yes": "left", "no": "stayed"}))
    answer = challenged(container, csv(other), before)
    assert answer["not_compared"] == "its classes are others"


def ratings(names: dict[int, str], rows: int = 400) -> bytes:
    g = np.random.default_rng(5)
    value = g.normal(0, 1, rows)
    labels = [names[int(each > -0.5) + int(each > 0.5)] for each in value]
    return csv(pd.DataFrame({"a": value.round(3), "b": g.normal(0, 1, rows).round(3), "churned": labels}))


@pytest.mark.thorough
def test_labels_that_are_only_spelt_otherwise_are_the_same_and_others_are_not(
    container: Container, tmp_path: Path
) -> None:
    before = trained(container, ratings({0: "Basic", 1: "Plus", 2: "Pro"}), tmp_path / "before")
    spelt = challenged(container, ratings({0: "basic", 1: "plus", 2: "pro"}), before)
    assert (spelt["metric"], spelt["gain"]) == ("balanced_accuracy", 0)
    renamed = challenged(container, ratings({0: "small", 1: "medium", 2: "large"}), before)
    assert renamed["not_compared"] == "its classes are others"
    numbers = challenged(container, ratings({0: "1", 1: "2", 2: "3"}), before, problem="regression")
    assert numbers["not_compared"] == "it predicts classes"


@pytest.mark.thorough
def test_a_champion_without_a_class_that_is_new_is_compared(container: Container, tmp_path: Path) -> None:
    body = ratings({0: "low", 1: "mid", 2: "high"})
    two = b"\n".join(line for line in body.splitlines() if not line.endswith(b"high"))
    before = trained(container, two, tmp_path / "before")
    assert challenged(container, body, before)["gain"] > 0.1


@pytest.mark.thorough
def test_a_column_to_compare_by_may_hold_what_is_no_finite_number(container: Container, before: Path) -> None:
    table = customers(400).assign(wealth=[float("inf") if n % 3 == 0 else n * 1.5 for n in range(400)])
    assert "segments" in challenged(container, csv(table), before, "wealth")


@pytest.mark.thorough
@pytest.mark.parametrize("groups", [6, 8, 10, 16])
def test_groups_are_split_so_that_each_class_is_in_both_parts(container: Container, groups: int) -> None:
    """Patients: all rows of one have the same class."""
    for seed in range(4):
        table = customers(groups * 20)
        patient = table.index // 20 + seed * 1000
        table = table.assign(patient=[f"p{each}" for each in patient], churned=patient % 2)
        assert container.preprocess(("data.csv", csv(table)), split="group:patient") == "", (groups, seed)


@pytest.mark.thorough
def test_groups_that_are_tested_on_stay_so_when_there_are_more(container: Container) -> None:
    g = np.random.default_rng(7)
    sizes = g.lognormal(2, 1, 60).astype(int) + 1
    names = np.repeat([f"c{number}" for number in range(60)], sizes)
    table = customers(len(names)).assign(customer=names)
    parts = []
    for count in (54, 57, 60):
        some = table[: int(sizes[:count].sum())]
        assert container.preprocess(("data.csv", csv(some)), split="group:customer") == ""
        positions = json.loads((container.root / "test/rows.json").read_text())["positions"]
        parts.append(set(names[positions]))
    assert len(parts[0]) > 5
    assert parts[0] <= parts[1] <= parts[2]


RAW = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, pyarrow as pa, sample
from tables import Table
sample.RAW_BYTES_MAX = 20_000
cells = pa.chunked_array([pa.array([f"value {n}" for n in range(begin, begin + 700)]) for begin in (0, 700)])
table = Table(["a", "y"], [cells, cells], np.arange(1400))
chosen = sample.RawRows.of_table(table, "y").of(range(1400))
assert all(f'"a": "value {at}"' in line for at, line in zip(chosen["positions"], chosen["rows"].splitlines()))
odd = sum(at % 2 for at in chosen["positions"])
print(len(chosen["positions"]), len(chosen["rows"]), odd)
"""


def test_rows_that_are_set_aside_are_bounded_and_drawn_from_all() -> None:
    done = subprocess.run(
        [interpreter(), "-c", RAW, str(STEPS)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    rows, size, odd = map(int, done.stdout.split())
    assert 500 < rows < 1400
    assert size < 25_000
    assert 0.4 < odd / rows < 0.6


def archived(folder: Path, **files: str) -> Path:
    """Return a folder with the archive of some files, each by its name with "_" for "/"."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("_", "/").replace("DOT", "."))
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return folder


SCHEMA = '{"columns": []}'


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"readme": "nothing"}, "its archive cannot be used"),
        ({"schemaDOTjson": "["}, "its archive cannot be used"),
        ({"schemaDOTjson": SCHEMA}, "its archive cannot be used"),
        (
            {"schemaDOTjson": SCHEMA, "code_inferenceDOTpy": "raise ValueError('a row of the data')"},
            "its archive cannot be used",
        ),
        (
            {"schemaDOTjson": SCHEMA, "code_inferenceDOTpy": "import os; os._exit(3)"},
            "its code ended without an answer",
        ),
        (
            {
                "schemaDOTjson": SCHEMA,
                "code_inferenceDOTpy": "input_fn = model_fn = lambda *_: 1\n"
                "predict_fn = lambda *_: {'predictions': [1]}",
            },
            "it did not answer each row",
        ),
        (
            {
                "schemaDOTjson": SCHEMA,
                "code_inferenceDOTpy": "import os, sys\n"
                "open(sys.argv[3], 'w').write('{\"error\": \"a row of the data\"}'); os._exit(0)",
            },
            "its archive cannot be used",
        ),
        (
            {
                "schemaDOTjson": SCHEMA,
                "code_inferenceDOTpy": "import os, sys\nopen(sys.argv[3], 'w').write('[7'); os._exit(0)",
            },
            "it cannot be compared (JSONDecodeError)",
        ),
        (
            {
                "schemaDOTjson": SCHEMA,
                "code_inferenceDOTpy": "import os, sys\n"
                "print('a row of the data' * 10**6)\n"
                "open(sys.argv[3], 'w').write('{\"predictions\": ' + str([10**400] * 50) + '}'); os._exit(0)",
            },
            "its classes are others",
        ),
        (
            {
                "schemaDOTjson": SCHEMA,
                "code_inferenceDOTpy": "input_fn = lambda rows, _: rows.count('\\n')\nmodel_fn = lambda _: 1\n"
                "predict_fn = lambda n, _: {'predictions': ['x'] * n, 'probabilities': [[1, 2]] * n}",
            },
            "its probabilities are not those of its classes",
        ),
    ],
    ids=[
        "no model",
        "malformed",
        "no code",
        "raises",
        "exits",
        "says a row",
        "no JSON",
        "huge",
        "too few",
        "odd probabilities",
    ],
)
def test_whatever_the_archive_holds_the_new_model_is_evaluated(
    container: Container, tmp_path: Path, files: dict[str, str], why: str
) -> None:
    answer = challenged(container, csv(customers(200)), archived(tmp_path / "odd", **files))
    assert answer["not_compared"] == why
    assert "a row of the data" not in container.said


def test_an_archive_that_is_gone_is_told(container: Container, tmp_path: Path) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    assert challenged(container, csv(customers(200)), empty)["not_compared"] == "its archive is gone"


def test_what_the_archive_brings_replaces_no_script_of_the_step(container: Container, before: Path) -> None:
    """The champion's own reading code counts, as it does where it is served."""
    with tarfile.open(before / "model.tar.gz") as archive:
        streams = {member.name: archive.extractfile(member) for member in archive}
        bodies = {name: stream.read() for name, stream in streams.items() if stream is not None}
    odd = b"def input_fn(rows, kind): return rows.count('\\n')\ndef model_fn(path): return None\n"
    odd += b"def predict_fn(n, model):\n    return {'predictions': ['no'] * n, 'classes': ['no', 'yes'], "
    odd += b"'probabilities': [[0.5, 0.5]] * n}\n"
    bodies["code/inference.py"] = odd
    with tarfile.open(before / "model.tar.gz", "w:gz") as archive:
        for name, body in bodies.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    answer = challenged(container, csv(customers(400)), before)
    assert answer["champion"] == 0.5
    assert np.isclose(answer["gain"], answer["challenger"] - 0.5, atol=1e-3)


# --- warm start --------------------------------------------------------------------------------------------------


def begun(container: Container, champion: Path, algorithm: str = "linear") -> tuple[str, int]:
    """Train from a champion; return how it began, and how many iterations it took."""
    assert container.train(algorithm, champion) == ""
    training = json.loads((container.root / "model/training.json").read_text())
    return str(training["warm_start"]), container.said.count("fitted")


def iterations(container: Container) -> int:
    """Return how many iterations the estimator of the last training took."""
    code = "import joblib, sys; print(joblib.load(sys.argv[1]).named_steps['estimate'].n_iter_.max())"
    program = [interpreter(), "-c", code, str(container.root / "model/model.joblib")]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(STEPS)})
    return int(done.stdout)


@pytest.mark.thorough
def test_a_linear_classifier_that_begins_with_the_live_model_ends_at_the_same_one_sooner(
    container: Container, before: Path
) -> None:
    assert container.preprocess(("data.csv", csv(customers(420)))) == ""
    assert container.train("linear") == ""
    cold, quality = iterations(container), container.evaluate()["quality"]["value"]
    how, _ = begun(container, before)
    assert how.startswith("begun with 5 of 5 coefficients")
    assert iterations(container) < cold
    assert abs(container.evaluate()["quality"]["value"] - quality) < 1e-3


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("make", "algorithm", "why"),
    [
        (lambda folder: folder, "gradient-boosting", "cannot begin with another model"),
        (lambda folder: archived(folder.parent / "odd", readme="x"), "linear", "is not a linear classifier"),
        (lambda folder: folder.parent / "none", "linear", "there is no model to begin with"),
    ],
)
def test_a_training_goes_on_without_a_model_that_it_can_begin_with(
    container: Container, before: Path, make: Any, algorithm: str, why: str
) -> None:
    assert container.preprocess(("data.csv", csv(customers(400)))) == ""
    assert why in begun(container, make(before), algorithm)[0]
    assert container.evaluate()["quality"]["value"] > 0.5


@pytest.mark.thorough
def test_other_classes_and_other_columns_are_not_mixed_up(container: Container, before: Path) -> None:
    more = customers(400).assign(age=range(400)).drop(columns="fee")
    assert container.preprocess(("data.csv", csv(more))) == ""
    assert begun(container, before)[0] == "begun with 4 of 5 coefficients of the model before"
    other = customers(400).assign(churned=lambda table: table["churned"].map({"yes": "left", "no": "stayed"}))
    assert container.preprocess(("data.csv", csv(other))) == ""
    assert begun(container, before)[0] == "the classes are others than before"
