"""What a model may answer to rows of its own data set."""

import json
from typing import Any

import pytest

from trainyard.contracts.serving import parse_sample
from trainyard.domain.errors import Malformed
from trainyard.domain.smoke_test import Sample, objection_to

CLASSES = Sample(content_type="application/jsonlines", rows="{}\n{}\n", is_regression=False, classes=("no", "yes"))
NUMBERS = Sample(
    content_type="application/jsonlines", rows="{}\n{}\n", is_regression=True, least=0.0, greatest=10.0
)


@pytest.mark.parametrize(
    ("answer", "objection"),
    [
        ({"predictions": ["no", "yes"]}, None),
        ({"predictions": ["no", "yes"], "probabilities": [[0.5, 0.5], [0, 1]]}, None),
        ({"predictions": ["no"]}, "1 predictions for 2 rows"),
        ({"predictions": ["no", "maybe"]}, "none of the classes"),
        ({"predictions": ["no", "yes"], "probabilities": [[0.5, 0.5]]}, "not as many rows"),
        ({"predictions": ["no", "yes"], "probabilities": [[0.5, 0.6], [0, 1]]}, "do not sum up"),
        ({"predictions": ["no", "yes"], "probabilities": [[1.5, -0.5], [0, 1]]}, "do not sum up"),
        ({"predictions": ["no", "yes"], "probabilities": [["x", 1], [0, 1]]}, "do not sum up"),
        ({"predictions": "no"}, "no list of predictions"),
        (["no", "yes"], "no list of predictions"),
        (None, "no list of predictions"),
    ],
)
def test_classes(answer: Any, objection: str | None) -> None:
    said = objection_to(CLASSES, json.dumps(answer).encode())
    assert (said is None) is (objection is None)
    assert (objection or "") in (said or "")
    assert "maybe" not in (said or ""), "no value of a tenant's"


@pytest.mark.parametrize(
    ("predictions", "objection"),
    [
        ([0, 10.0], None),
        ([-100, 110], None),
        ([-101, 1], "far outside"),
        ([1, 111], "far outside"),
        ([1, float("nan")], "not a finite number"),
        ([1, True], "not a finite number"),
        (["1", 2], "not a finite number"),
    ],
)
def test_numbers(predictions: list[Any], objection: str | None) -> None:
    said = objection_to(NUMBERS, json.dumps({"predictions": predictions}).encode())
    assert (said is None) is (objection is None)
    assert (objection or "") in (said or "")


def test_what_is_no_json_is_no_answer() -> None:
    assert objection_to(CLASSES, b"<html>") == "the answer is not JSON"
    assert objection_to(CLASSES, b"\xff") == "the answer is not JSON"


def test_characters_that_only_look_like_line_ends_are_part_of_a_row() -> None:
    rows = '{"a": "x\u2028y"}\n{"a": "\u0085"}\n'
    sample = Sample(content_type="application/jsonlines", rows=rows, is_regression=False)
    assert objection_to(sample, b'{"predictions": [1, 2]}') is None


def test_numbers_of_any_length_and_any_depth_are_answers_that_can_be_judged() -> None:
    assert "finite" in str(objection_to(NUMBERS, b'{"predictions": [1, ' + b"9" * 400 + b"]}"))
    assert objection_to(NUMBERS, b"[" * 100_000) == "the answer is not JSON"


def test_labels_that_are_not_known_are_not_compared() -> None:
    many = Sample(content_type="application/jsonlines", rows="{}\n", is_regression=False)
    assert objection_to(many, b'{"predictions": ["any"]}') is None


GOOD = {"content_type": "application/jsonlines", "rows": "{}\n", "problem": "regression", "range": [0, 1]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"content_type": "text/html"},
        {"rows": None},
        {"rows": "x" * 200_000},
        {"problem": "ranking"},
        {"range": [0]},
        {"range": ["a", 1]},
        {"classes": ["x" * 2000]},
        {"classes": ["x"] * 2000},
    ],
)
def test_a_sample_that_is_not_one_is_refused(wrong: dict[str, Any]) -> None:
    assert parse_sample(json.dumps(GOOD).encode()).greatest == 1
    with pytest.raises(Malformed):
        parse_sample(json.dumps(GOOD | wrong).encode())
