"""Files of the kinds that were mistrained, or refused in words that lead astray, before the reader was written."""

import gzip
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.running_steps import Prepare
from tests.unit.test_reading import csv, customers, homes

Body = bytes | dict[str, bytes]
CHURN, HOMES = customers(300), homes(300)
LINES = csv(CHURN).splitlines(keepends=True)
HOME_LINES = csv(HOMES).splitlines(keepends=True)


def with_price(change: Callable[[pd.Series], Any]) -> bytes:
    return csv(HOMES.assign(price=change(HOMES["price"])))


def texts(values: pd.Series, marks: dict[int, str]) -> list[str]:
    """Return numbers as texts, with other texts at some rows."""
    return [marks.get(row, str(value)) for row, value in enumerate(values)]


def counts() -> pd.DataFrame:
    visits = np.random.default_rng(40).poisson(5, 300)
    visits[7] = 19
    return HOMES.assign(price=visits)


CASES: dict[str, tuple[Body, str, dict[str, Any]]] = {
    # name: body, target, what Preprocess should make of it
    "the control, classes": (csv(CHURN), "churned", {"kinds": {"category": 1, "number": 2}, "rows": 300}),
    "the control, quantities": (csv(HOMES), "price", {"kinds": {"number": 2}, "rows": 300}),
    "a trailing comma in rows": (
        LINES[0] + b"".join(line.rstrip() + b",\n" for line in LINES[1:]),
        "churned",
        {"kinds": {"category": 1, "number": 2}, "note": "more delimiters than the header"},
    ),
    "a part of a header only": (
        {"a.csv": csv(HOMES), "b.csv": HOME_LINES[0]},
        "price",
        {"problem": "regression", "kinds": {"number": 2}, "note": "a header and no rows left out (b.csv)"},
    ),
    "the header repeated": (
        b"".join(line + (LINES[0] if n % 99 == 50 else b"") for n, line in enumerate(LINES)),
        "churned",
        {"rows": 300, "kinds": {"category": 1, "number": 2}, "note": "3 repetitions of the header"},
    ),
    "an index of a sorted file": (
        CHURN.sort_values("churned").reset_index(drop=True).to_csv().encode(),
        "churned",
        {"left_out": "column 1"},
    ),
    "nothing to learn from": (
        csv(pd.DataFrame({"filename": [f"{n}.png" for n in range(60)], "label": ["a", "b"] * 30})),
        "label",
        {"message": "there is no column besides 'label' to learn from; 'filename' was left out"},
    ),
    "codes, one of them no number": (
        csv(CHURN.assign(plan=["1", "2", "3", "4+"] * 75)),
        "churned",
        {"kinds": {"category": 1, "number": 2}, "note": "column 'plan' is read as text: 75 of 300"},
    ),
    "leading zeros": (
        csv(CHURN.assign(plan=["00501", "10001", "02134"] * 100)),
        "churned",
        {"kinds": {"category": 1, "number": 2}, "note": "leading zeros"},
    ),
    "marks in numbers": (
        csv(HOMES.assign(area=texts(HOMES["area"], {4: "?", 9: "-", 30: "n/a"}))),
        "price",
        {"kinds": {"number": 2}, "rows": 300},
    ),
    "units": (csv(HOMES.assign(area=[f"{v} m2" for v in HOMES["area"]])), "price", {"kinds": {"number": 2}}),
    "ids of classes": (
        csv(HOMES.assign(price=np.arange(300) % 30)),
        "price",
        {"problem": "regression", "note": 'set the problem to "classification" if they are classes'},
    ),
    "spellings of a class": (
        csv(CHURN.assign(churned=[f" {v.upper()}" if n % 3 else v for n, v in enumerate(CHURN["churned"])])),
        "churned",
        {"classes": 2, "note": "spellings differed by case or blanks only"},
    ),
    "blanks in the target": (
        csv(CHURN.assign(churned=[" " if n % 4 == 0 else v for n, v in enumerate(CHURN["churned"])])),
        "churned",
        {"classes": 2, "rows": 225, "note": "75 rows without a value"},
    ),
    "semicolons": (csv(CHURN, sep=";"), "churned", {"kinds": {"category": 1, "number": 2}}),
    "semicolons and quotes": (csv(CHURN, sep=";", quoting=1), "churned", {"kinds": {"category": 1, "number": 2}}),
    "tabs": (csv(CHURN, sep="\t"), "churned", {"kinds": {"category": 1, "number": 2}}),
    "Latin 1": (
        csv(CHURN.assign(plan=["café", "grün", "basic"] * 100)).decode().encode("latin-1"),
        "churned",
        {"rows": 300, "note": "read as Windows-1252"},
    ),
    "gzip": ({"data.csv.gz": gzip.compress(csv(CHURN))}, "churned", {"rows": 300, "note": "unpacked from gzip"}),
    "plain text named gz": ({"data.csv.gz": csv(CHURN)}, "churned", {"rows": 300}),
    "blanks in the header": (csv(CHURN).replace(b",", b", "), "churned", {"kinds": {"category": 1, "number": 2}}),
    "sep=": (b"sep=,\n" + csv(CHURN), "churned", {"rows": 300}),
    "a title": (b"Customers 2026\n\n" + csv(CHURN), "churned", {"rows": 300, "note": "above the header"}),
    "a currency in the target": (
        with_price(lambda price: [f"${value:,.2f}" for value in price]),
        "price",
        {"problem": "regression", "rows": 300, "note": "read without their unit"},
    ),
    "a class of two rows": (
        csv(CHURN.assign(churned=texts(CHURN["churned"], {3: "maybe", 5: "maybe"}))),
        "churned",
        {"classes": 2, "rows": 298, "note": "fewer than 5 rows left out (2 rows)"},
    ),
    "infinity in a feature": (
        csv(HOMES.assign(area=texts(HOMES["area"], {3: "inf", 5: "-inf"}))),
        "price",
        {"kinds": {"number": 2}, "rows": 300},
    ),
    "infinity in the target": (
        with_price(lambda price: texts(price, {3: "inf"})),
        "price",
        {"problem": "regression", "rows": 299},
    ),
    "a row of totals": (
        csv(HOMES) + b"Total,1,99999\n",
        "price",
        {"kinds": {"number": 2}, "rows": 300, "note": "sums up the others"},
    ),
    "a count, the largest once": (csv(counts()), "price", {"problem": "regression", "rows": 300}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_each_kind_does_what_is_right_in_it(prepare: Prepare, name: str) -> None:
    body, target, right = CASES[name]
    answer = prepare(body, target=target)
    right = dict(right)
    assert right.pop("message", "") in answer.get("message", ""), answer
    note, column, classes = right.pop("note", ""), right.pop("left_out", None), right.pop("classes", None)
    assert not note or any(note in said for said in answer["notes"]), answer["notes"]
    assert column is None or column in answer["left_out"]
    assert classes is None or answer["distinct"][target] == classes
    assert {field: answer[field] for field in right} == right
