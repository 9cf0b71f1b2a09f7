"""The step scripts, run as SageMaker runs them: as programs, with arguments and SM_* variables."""

import json
import random
import subprocess

import pytest

from local.demo import data
from local.sagemaker.interpreter import interpreter
from tests.running_steps import PREDICT, Container

HEAD = b"a,b,churned\n"
ROWS = b"".join(b"%d,%d,%s\n" % (n, n % 7, b"yes" if n % 3 else b"no") for n in range(40))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            b"a,b\n1,2\n" * 30,
            "there is no column 'churned' to predict among the 2 columns; is there a header line?",
        ),
        (HEAD, "there are no rows below the header line"),
        (
            HEAD + b"1,2,yes\n3,4,yes\n5,6,yes\n7,8,yes\n9,1,yes\n",
            "5 rows have a 'churned' to learn; 20 are needed",
        ),
        (HEAD + b"1,2,yes\n" * 40, "column 'churned' has only one value: there is nothing"),
        (HEAD + b'1,"2,yes\n' * 31, "has broken quotes"),
        ((HEAD + ROWS).replace(b"a,", b"\x81,", 1), "is neither UTF-8 nor Windows-1252: save it as UTF-8"),
        (b"\xff\xfe\x00\xd8a\x00", "begins like UTF-16 and is not"),
        (HEAD + ROWS.replace(b"3", b"\0"), "is not a text: it has NUL bytes"),
        (b"\n \n", "is empty: a header line and rows are needed"),
        (HEAD + ROWS + b"1,2,a\n1,2,b\n1,2,c\n", "3 of the 5 classes of column 'churned' have fewer than 5 rows"),
        (b"churned\n" + b"yes\nno\n" * 20, "there is no column besides 'churned' to learn from"),
    ],
)
def test_data_that_cannot_be_trained_on_says_why(container: Container, body: bytes, reason: str) -> None:
    assert reason in container.preprocess(("data.csv", body))


def test_no_files_and_files_of_different_columns_say_why(container: Container) -> None:
    (container.root / "input").mkdir()
    assert "there is no data" in container.preprocess()
    parts = ("a.csv", HEAD + ROWS), ("b.csv", b"a,c,churned\n" + ROWS)
    assert "b.csv differs in its columns from a.csv: 1 are missing and 1 are extra" in container.preprocess(*parts)


def test_a_column_that_is_nearly_the_target_is_named(container: Container) -> None:
    body = HEAD.replace(b"churned", b" Churned") + ROWS
    assert "did you mean 'Churned'?" in container.preprocess(("data.csv", body))


CANARY = "canary-4111-1111"


@pytest.mark.parametrize(
    "body",
    [
        b"\n".join(b"canary-4111-1111,1980-02-03,canary-4111-1111" for _ in range(40)),
        b"canary-4111-1111,b\n1,2\n" * 30,
        HEAD + b"1,2,canary-4111-1111\n" * 40,
        HEAD + ROWS + b"1,2,canary-4111-1111\n",
        HEAD + b'1,"canary-4111-1111\n' * 31,
        HEAD + ROWS + b"1,2,3,canary-4111-1111\n",
        HEAD + ROWS + b"\xff\xfecanary-4111-1111\n",
        b"churned,canary-4111-1111\n" + b"yes,canary-4111-1111\n" * 3,
    ],
)
def test_what_a_step_says_never_holds_a_value_of_a_row(container: Container, body: bytes) -> None:
    """A reason is kept for more than a year, in receipt, record, log and bus; the data may be deleted tomorrow."""
    for problem in ("auto", "classification", "regression"):
        message = container.preprocess(("data.csv", body), problem=problem)
        profile = (container.root / "profile/profile.json").read_text()
        assert message or json.loads(profile)["notes"]
        assert CANARY not in message + container.said + profile
    parts = ("a.csv", HEAD + ROWS), ("b.csv", body)
    assert CANARY not in container.preprocess(*parts) + container.said


def test_an_unforeseen_error_names_its_place_and_not_what_it_could_not_read(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert container.preprocess(("data.csv", HEAD + ROWS)) == ""
    (container.root / "train/schema.json").write_text('"canary-4111-1111"')
    message = container.train()
    assert message.startswith("unexpected TypeError in train.py, line ")
    assert CANARY not in message + container.said


def test_data_that_changed_after_it_was_checked_is_not_trained_on(container: Container) -> None:
    assert container.preprocess(("data.csv", HEAD + ROWS), checked=len(HEAD + ROWS)) == ""
    said = container.preprocess(("data.csv", HEAD + ROWS), checked=7)
    assert "7 bytes were checked" in said
    assert "data changed" in said


def test_a_text_target_cannot_be_a_regressions(container: Container) -> None:
    said = container.preprocess(("data.csv", HEAD + ROWS), problem="regression")
    assert said == (
        "column 'churned' has values that are not numbers (line 2), so it cannot be the target of a regression"
    )


def predicted(container: Container, body: bytes, content_type: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [interpreter(), "-W", "error", "-c", PREDICT, str(container.root / "model"), content_type],
        input=body,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "target", "answers"),
    [
        (data.churn(600, seed=1), "churned", ["no", "yes"]),
        (b"".join(b'{"a": %d, "b": "x%d", "t": %d}\n' % (n, n % 3, n * 2) for n in range(60)), "t", None),
    ],
)
def test_some_rows_are_kept_by_which_the_model_can_be_tried(
    container: Container, body: bytes, target: str, answers: list[str] | None
) -> None:
    assert container.preprocess(("data.jsonl" if answers is None else "data.csv", body), target=target) == ""
    assert container.train("linear") == ""
    sample = json.loads((container.root / "profile/sample.json").read_text())
    rows = [json.loads(line) for line in sample["rows"].splitlines()]
    assert len(rows) == 5
    assert all(target not in row for row in rows)
    done = predicted(container, sample["rows"].encode(), sample["content_type"])
    assert done.returncode == 0, done.stderr
    (_, answer) = json.loads(done.stdout)
    predictions = json.loads(answer[0])["predictions"]
    assert len(predictions) == 5
    if answers is None:
        assert sample["range"] == [0, 118]
        assert isinstance(rows[0]["a"], int | float)
    else:
        assert sample["classes"] == answers
        assert {str(label) for label in predictions} <= set(answers)


def test_a_request_with_further_columns_is_answered_and_another_type_is_refused(container: Container) -> None:
    assert container.preprocess(("data.csv", HEAD + ROWS)) == ""
    assert container.train("linear") == ""
    lines = (HEAD + ROWS).decode().splitlines()[:4]
    plain = predicted(container, "\n".join(lines).encode(), "text/csv")
    more = [f"{line},{'note' if n == 0 else '=1+1'}" for n, line in enumerate(lines)]
    further = predicted(container, "\n".join(more).encode(), "text/csv; charset=utf-8")
    assert (plain.returncode, further.returncode) == (0, 0), further.stderr
    assert json.loads(plain.stdout) == json.loads(further.stdout), "what the model has not learnt from is ignored"
    image = predicted(container, b"\x89PNG", "image/png")
    assert image.returncode != 0
    assert "unsupported image/png: send text/csv with a header line, or application/jsonlines" in str(image.stderr)


@pytest.mark.parametrize("cell", ["1e999", "Infinity", "NaN", '"\ue000abc"', '"\ue0001e999"', '"a\u2028b"'])
def test_a_sample_takes_every_cell_that_the_table_takes(container: Container, cell: str) -> None:
    lines = [
        f'{{"a": {cell if n == 1 else chr(34) + "x" * (n % 3) + chr(34)}, "b": {n}, "t": {n % 7}}}'
        for n in range(80)
    ]
    body = "\n".join(lines).encode()
    assert container.preprocess(("data.jsonl", body), target="t") == ""
    sample = json.loads((container.root / "profile/sample.json").read_text())
    assert len([json.loads(line) for line in sample["rows"].split("\n") if line]) == 5


def test_a_sample_of_long_rows_is_bounded(container: Container) -> None:
    long = HEAD.replace(b"\n", b",note\n") + b"".join(
        b"%d,%d,%s,%s\n" % (n, n % 7, b"yes" if n % 2 else b"no", b"x" * 50_000) for n in range(40)
    )
    container.preprocess(("data.csv", long))
    sample = json.loads((container.root / "profile/sample.json").read_text())
    assert len(sample["rows"].encode()) <= 65_536


@pytest.mark.parametrize(
    ("algorithm", "body", "target", "metric", "at_least"),
    [
        ("linear", data.churn(600, seed=1), "churned", "roc_auc", 0.6),
        ("gradient-boosting", data.bundled("wine"), "target", "balanced_accuracy", 0.8),
        ("gradient-boosting", data.sales(900, seed=2), "revenue", "r2", 0.7),
        ("linear", data.sales(900, seed=2), "revenue", "r2", 0.5),
    ],
)
def test_both_algorithms_solve_both_problems_and_the_packed_model_predicts_raw_rows(
    container: Container, algorithm: str, body: bytes, target: str, metric: str, at_least: float
) -> None:
    assert container.preprocess(("data.csv", body), target=target) == ""
    assert container.train(algorithm) == ""
    report = container.evaluate()
    assert report["quality"]["metric"] == metric
    assert report["quality"]["value"] >= at_least
    assert report["verdict"]["beats_baseline"] == 1
    done = predicted(container, body[:2000].rpartition(b"\n")[0], "text/csv")
    assert done.returncode == 0, done.stderr
    (lines, kind), (document, kind_of_document) = json.loads(done.stdout)
    rows = body[:2000].count(b"\n") - 1
    assert (len(lines.splitlines()), kind) == (rows, "text/csv")
    answer = json.loads(document)
    assert (len(answer["predictions"]), kind_of_document) == (rows, "application/json")
    if metric != "r2":
        likeliest = [answer["classes"][max(range(len(p)), key=p.__getitem__)] for p in answer["probabilities"]]
        assert likeliest == answer["predictions"]


@pytest.mark.parametrize("algorithm", ["linear", "gradient-boosting"])
@pytest.mark.parametrize(
    "values", [("yes", "no"), ("a", "b", "c"), tuple(range(40))], ids=["two", "three", "numbers"]
)
def test_a_model_of_noise_is_not_better_than_the_baseline(
    container: Container, algorithm: str, values: tuple[object, ...]
) -> None:
    """Whatever quality the policy asks for: of 300 rows some metric may be above it by chance."""
    rng = random.Random(5)
    rows = [f"{rng.gauss(0, 1):.3f},{rng.choice('xyz')},{rng.choice(values)}" for _ in range(300)]
    assert container.preprocess(("data.csv", "\n".join(["a,b,churned", *rows]).encode())) == ""
    assert container.train(algorithm) == ""
    report = container.evaluate()
    assert report["verdict"]["beats_baseline"] == 0, report
    assert "baseline" in report["verdict"]["text"]
    low, high = report["interval"]
    assert low < report["baseline"]["value"] + 0.05
    assert high >= low, "a model may always say the same"


def test_many_parts_are_one_table_and_what_was_read_is_told(container: Container) -> None:
    parts = [(f"2026/part-{n}.csv", HEAD + ROWS) for n in range(5)]
    assert container.preprocess(*parts) == ""
    profile = json.loads((container.root / "profile/profile.json").read_text())
    assert (profile["rows"], len(profile["files"])) == (200, 5)


def test_missing_values_and_values_never_seen_are_taken(container: Container) -> None:
    gaps = HEAD + ROWS.replace(b"3,3,", b",,") + b"5,,yes\n" * 3
    assert container.preprocess(("data.csv", gaps)) == ""
    assert container.train("gradient-boosting") == ""


def test_an_unknown_hyperparameter_is_named(container: Container) -> None:
    container.preprocess(("data.csv", HEAD + ROWS))
    assert "linear has no hyperparameter depth" in container.train("linear", depth=3)
