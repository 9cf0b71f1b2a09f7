"""Splits, leaks, weights and reports: a model is as good as it says, on rows like those it will see."""

import io
import json
import tarfile
import zipfile
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest

from tests.running_steps import Container, Prepare
from tests.unit.test_reading import csv, customers, homes

# --- splits ----------------------------------------------------------------------------------------------------


def test_all_rows_of_a_group_are_in_one_part_and_nothing_is_learnt_from_its_name(prepare: Prepare) -> None:
    table = customers(200).assign(customer=[f"c{n % 23}" for n in range(200)])
    answer = prepare(csv(table), split="group:customer")
    tested = set(answer["tested_on"])
    groups = table["customer"].groupby(table.index.isin(tested)).unique()
    assert set(groups[True]) & set(groups[False]) == set()
    assert 0.1 < len(tested) / 200 < 0.4
    assert "the rows are split by it" in answer["left_out"]["customer"]
    assert answer["split"] == {
        "kind": "group",
        "column": "customer",
        "train": 200 - len(tested),
        "test": len(tested),
    }


@pytest.mark.parametrize("falling", [False, True])
def test_the_latest_rows_are_tested_on_and_equal_times_stay_together(prepare: Prepare, falling: bool) -> None:
    table = homes(120).assign(sold=np.arange(120) // 7)
    table = table.iloc[::-1] if falling else table.sample(frac=1, random_state=1)
    answer = prepare(csv(table), target="price", split="time:sold")
    sold = table["sold"].reset_index(drop=True)
    is_tested = sold.index.isin(answer["tested_on"])
    assert sold[is_tested].min() > sold[~is_tested].max()
    assert 0.2 < is_tested.mean() < 0.35


@pytest.mark.parametrize(
    ("days", "kind"),
    [
        (pd.date_range("2026-01-01", periods=120), "time"),
        (pd.date_range("2026-01-01", periods=120)[::-1], "time"),
        (pd.date_range("2026-01-01", periods=120).to_series().sample(frac=1, random_state=2), "random"),
        (np.repeat(pd.date_range("2026-01-01", periods=12), 10), "random"),
    ],
    ids=["rising", "falling", "mixed", "repeated"],
)
def test_a_split_by_time_is_guessed_from_the_order_of_the_only_dates_and_told(
    prepare: Prepare, days: Any, kind: str
) -> None:
    table = homes(120).assign(day=pd.Index(days).strftime("%Y-%m-%d"))
    answer = prepare(csv(table), target="price")
    assert answer["split"]["kind"] == kind
    assert any('set the split to "random"' in note for note in answer["notes"]) == (kind == "time")
    assert prepare(csv(table), target="price", split="random")["split"]["kind"] == "random"


def test_equal_rows_are_trained_on_or_tested_on_unless_few_values_are_combined_again_and_again(
    prepare: Prepare,
) -> None:
    table = pd.concat([homes(100)] * 2 + [homes(130).tail(30)], ignore_index=True)
    answer = prepare(csv(table), target="price")
    tested = set(answer["tested_on"])
    assert all((n in tested) == (n + 100 in tested) for n in range(100))
    assert any(
        "100 rows of 230 have the same features as an earlier one: they are all" in n for n in answer["notes"]
    )
    plans = pd.DataFrame({"plan": ["a", "b", "c", "d"] * 30, "churned": ["yes", "no", "yes", "no"] * 30})
    answer = prepare(csv(plans))
    assert any("combined again and again" in note for note in answer["notes"])
    assert {n % 4 for n in answer["tested_on"]} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("split", "why"),
    [
        ("group:colour", "there is no column 'colour' to split by among the 4 columns"),
        ("time:plan", "column 'plan' holds neither dates nor numbers"),
        ("group:plan", "column 'plan' has only 3 values: too few groups"),
        ("by plan", "the split 'by plan' is none of auto, random, group:COLUMN and time:COLUMN"),
        ("group:", "is none of auto"),
        ("random:plan", "is none of auto"),
    ],
)
def test_a_split_that_cannot_be_made_says_why(prepare: Prepare, split: str, why: str) -> None:
    assert why in prepare(csv(customers()), split=split)["message"]


def test_a_split_that_leaves_nothing_to_learn_or_to_test_says_why(prepare: Prepare) -> None:
    table = homes(40).assign(batch=[0] * 39 + [1])
    assert "most rows have the latest time" in prepare(csv(table), target="price", split="time:batch")["message"]
    table = customers(40).sort_values("churned").assign(step=range(40))
    table["churned"] = ["no"] * 34 + ["yes"] * 6
    assert "only one value of the target" in prepare(csv(table), split="time:step")["message"]


# --- leaks -----------------------------------------------------------------------------------------------------


def test_a_copy_of_the_target_is_left_out_and_what_predicts_alone_is_told(prepare: Prepare) -> None:
    table = customers(300)
    table = table.assign(left=table["churned"].str.upper(), code=np.where(table["churned"] == "yes", 7.5, 1.25))
    answer = prepare(csv(table))
    assert "equals 'churned'" in answer["left_out"]["left"]
    assert any("'code' predicts 'churned' nearly perfectly by itself (1.000)" in note for note in answer["notes"])
    assert not any("'months' predicts" in note for note in answer["notes"])
    sold = homes(300).assign(paid=lambda t: t["price"], cents=lambda t: t["price"] * 100)
    answer = prepare(csv(sold), target="price")
    assert "paid" in answer["left_out"]
    assert any("'cents' predicts 'price'" in note for note in answer["notes"])


def test_a_column_that_numbers_the_rows_is_left_out_in_a_sorted_file(prepare: Prepare) -> None:
    table = customers(300).sort_values("churned").assign(id=range(1, 301))
    assert "numbers the rows" in prepare(csv(table))["left_out"]["id"]


# --- workbooks -------------------------------------------------------------------------------------------------


def workbook(table: pd.DataFrame, **sheets: str) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    book.active.append(list(table.columns))
    for row in table.itertuples(index=False):
        book.active.append([value.item() if hasattr(value, "item") else value for value in row])
    return book


def saved(book: openpyxl.Workbook) -> bytes:
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def test_the_first_visible_sheet_of_a_workbook_is_read_as_the_same_table(prepare: Prepare) -> None:
    table = homes(120).assign(
        sold=[
            datetime(2026, 1, 1 + n % 28)  # noqa: DTZ001 - Excel has no zones
            for n in range(120)
        ],
        old=[n % 2 == 0 for n in range(120)],
    )
    book = workbook(table)
    book.create_sheet("a note").append(["not", "this"])
    hidden = book.create_sheet("hidden", 0)
    hidden.sheet_state = "hidden"
    read, plain = prepare({"homes.xlsx": saved(book)}, target="price"), prepare(csv(table), target="price")
    for part in ("kinds", "rows", "problem", "tested_on", "distinct", "left_out"):
        assert read[part] == plain[part], part
    assert any("values only, formulas as Excel calculated them last" in note for note in read["notes"])
    assert any("the workbook has 2 more" in note for note in read["notes"])


def test_titles_gaps_and_formulas_of_a_workbook_are_taken(prepare: Prepare) -> None:
    book = workbook(homes(120))
    sheet = book.active
    sheet.insert_rows(1, 2)
    sheet["A1"] = "Homes sold in 2026"
    sheet["H500"] = None
    sheet["E3"], sheet["E4"] = "total", "=A4*2"  # never calculated: no value
    sheet["B10"] = None
    answer = prepare({"homes.xlsx": saved(book)}, target="price")
    assert (answer["rows"], answer["kinds"]) == (120, {"number": 2})
    assert answer["left_out"]["total"] == "it has no values"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda body: body[: len(body) // 2], "is a broken zip archive"),
        (
            lambda body: body.replace(b"xl/worksheets/sheet1.xml", b"xl/worksheets/sheetX.xml"),
            "without a visible sheet",
        ),
        (lambda _: saved(openpyxl.Workbook()), "is empty: its first visible sheet has no values"),
        (lambda _: b"\xd0\xcf\x11\xe0" + b"x" * 600, "an old Excel (.xls), or one with a password"),
    ],
)
def test_a_workbook_that_cannot_be_read_says_why(prepare: Prepare, change: Any, why: str) -> None:
    assert why in prepare({"homes.xlsx": change(saved(workbook(homes(40))))}, target="price")["message"]


# --- weights, reports and cards ----------------------------------------------------------------------------------


def through(
    container: Container, body: bytes, target: str, algorithm: str = "gradient-boosting"
) -> dict[str, Any]:
    assert container.preprocess(("data.csv", body), target=target) == ""
    assert container.train(algorithm) == ""
    return container.evaluate()


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", ["gradient-boosting", "linear"])
def test_a_class_of_one_row_in_a_thousand_is_learnt(container: Container, algorithm: str) -> None:
    g = np.random.default_rng(60)
    x = g.normal(size=(60_000, 6))
    y = np.zeros(60_000, int)
    y[np.argsort(x[:, 0] + x[:, 1] + g.normal(0, 0.4, 60_000))[-60:]] = 1
    table = pd.DataFrame(x, columns=list("abcdef")).round(4).assign(y=y)
    report = through(container, csv(table), "y", algorithm)
    assert report["quality"]["value"] > 0.95, report["quality"]
    assert report["verdict"]["beats_baseline"] == 1
    assert "average_precision" in report["classification_metrics"]


def test_a_report_tells_what_is_confused_how_many_rows_there_were_and_what_was_used(container: Container) -> None:
    g = np.random.default_rng(5)
    size = g.integers(0, 3, 600)
    table = pd.DataFrame({"size": size + g.normal(0, 0.4, 600), "noise": g.normal(size=600)})
    table["kind"] = np.array(["small", "medium", "large"])[size]
    report = through(container, csv(table), "kind")
    assert [fall["feature"] for fall in report["importance"]] == ["size", "noise"]
    assert report["importance"][0]["fall"] > 0.3
    assert abs(report["importance"][1]["fall"]) < 0.1
    assert sum(map(sum, report["confusion"]["counts"])) == report["rows"] == 150
    assert sum(row["tested_on"] for row in report["classes"]) == 150
    assert sum(row["trained_on"] for row in report["classes"]) == 450
    right = sum(report["confusion"]["counts"][n][n] for n in range(3))
    assert right / 150 == pytest.approx(report["classification_metrics"]["accuracy"]["value"], abs=1e-4)


def test_residuals_are_told_for_quantities_and_the_last_value_is_a_baseline_in_time(container: Container) -> None:
    table = homes(400)
    report = through(container, csv(table), "price")
    assert sum(report["residuals"]["histogram"]["counts"]) == report["rows"] == 100
    assert report["baseline"]["rule"] == "the mean"
    steps = np.random.default_rng(6).normal(size=400).cumsum() + np.arange(400)
    series = pd.DataFrame({"day": pd.date_range("2025-01-01", periods=400), "level": steps})
    report = through(container, csv(series), "level", "linear")
    assert report["baseline"]["rule"] in ("the mean", "the last value before the test")


class Page(HTMLParser):
    """The tags of a page, and the texts in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_card_lies_beside_the_model_and_shows_hostile_names_as_text(container: Container) -> None:
    hostile = '<script>alert("x")</script>'
    table = customers(300).rename(columns={"months": hostile})
    table["churned"] = table["churned"].replace({"yes": '"><img src=x onerror=alert(1)>'})
    report = through(container, csv(table), "churned")
    page = (container.root / "done/card.html").read_text("utf-8")
    parsed = Page(page)
    assert not {"script", "img", "link", "a", "iframe"} & set(parsed.tags)
    assert not [name for name in parsed.attributes if name.startswith("on") or name in ("src", "href")]
    assert hostile[:20] in parsed.text
    assert parsed.tags.count("svg") >= 3
    card = json.loads((container.root / "done/card.json").read_text("utf-8"))
    assert card["evaluation"] == report
    assert card["data"]["rows"] == 300
    assert card["training"]["algorithm"] == "gradient-boosting"


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", ["gradient-boosting", "linear"])
def test_two_runs_have_the_same_bytes(container: Container, algorithm: str) -> None:
    body, runs = csv(customers(300)), []
    for _ in range(2):
        through(container, body, "churned", algorithm)
        files = sorted(
            path
            for folder in ("model", "out", "profile", "train", "test")
            for path in (container.root / folder).rglob("*")
        )
        runs.append({path.name: path.read_bytes() for path in files if path.is_file()})
        runs[-1]["card"] = (container.root / "done/card.html").read_bytes()
        with tarfile.open(container.root / "model.tar.gz") as archive:
            assert {"model.joblib", "schema.json", "training.json", "code/inference.py"} <= set(archive.getnames())
    assert runs[0] == runs[1]


def test_twenty_rows_are_enough_for_gradient_boosting(container: Container) -> None:
    """scikit-learn's leaves have 20 rows at least: of a table of 24 rows, they would make one leaf."""
    table = pd.DataFrame({"x": [n % 24 for n in range(24)], "y": ["low"] * 12 + ["high"] * 12})
    report = through(container, csv(table), "y")
    assert report["classification_metrics"]["accuracy"]["value"] > 0.8


# --- what an attack found ----------------------------------------------------------------------------------------


def test_copies_of_rows_stay_in_one_part_however_many_there_are(prepare: Prepare) -> None:
    """A model of three times the same noise would look good otherwise."""
    g = np.random.default_rng(9)
    noise = pd.DataFrame(g.normal(size=(200, 3)), columns=list("abc")).assign(churned=g.choice(["yes", "no"], 200))
    answer = prepare({f"part-{n}.csv": csv(noise) for n in range(3)})
    tested = set(answer["tested_on"])
    torn = [n for n in range(200) if len({n in tested, n + 200 in tested, n + 400 in tested}) > 1]
    assert torn == [], "rows whose copies are in both parts"


@pytest.mark.parametrize("value", ["1.7976931348623157e308", "-1e39", "1e-300"])
def test_numbers_beyond_single_precision_are_no_trouble(prepare: Prepare, value: str) -> None:
    table = customers(200).assign(fee=[value, *customers(200)["fee"].astype(str)[1:]])
    assert prepare(csv(table))["kinds"] == {"category": 1, "number": 2}


@pytest.mark.parametrize(
    ("prices", "why"),
    [
        ([1e160 * n for n in range(1, 121)], "has values above 1e+100 (line 2)"),
        ([1e-200 * n for n in range(1, 121)], "differ by less than 1e-100: use larger units"),
    ],
)
def test_quantities_whose_squares_are_no_numbers_are_refused(
    prepare: Prepare, prices: list[float], why: str
) -> None:
    assert why in prepare(csv(homes(120).assign(price=prices)), target="price")["message"]


def test_a_split_by_the_target_or_into_one_class_is_refused(prepare: Prepare) -> None:
    assert "which is to be predicted" in prepare(csv(customers()), split="group:churned")["message"]
    table = customers(200).assign(step=range(200), churned=["yes", "no"] * 70 + ["no"] * 60)
    assert "the rows to test on have one class only" in prepare(csv(table), split="time:step")["message"]


def test_a_column_that_numbers_the_rows_may_be_the_order_of_time(prepare: Prepare) -> None:
    table = homes(120).sample(frac=1, random_state=3).assign(id=range(1, 121))
    answer = prepare(csv(table), target="price", split="time:id")
    assert answer["tested_on"] == list(range(90, 120))


def test_groups_are_the_same_however_their_names_are_written(prepare: Prepare) -> None:
    names = [[f"{n % 20}", f"{n % 20}.0"][n % 3 == 0] for n in range(300)]
    texts = [["Zürich AG", "ZÜRICH  ag", "zürich ag"][n % 3] + str(n % 20) for n in range(300)]
    for groups in (names, texts):
        answer = prepare(csv(customers(300).assign(customer=groups)), split="group:customer")
        tested = {n % 20 for n in answer["tested_on"]}
        assert tested & {n % 20 for n in set(range(300)) - set(answer["tested_on"])} == set()


def test_groups_of_very_different_size_are_split_as_evenly_as_they_can_be_and_told(prepare: Prepare) -> None:
    table = homes(400).assign(shop=["large"] * 340 + [f"small {n % 12}" for n in range(60)])
    answer = prepare(csv(table), target="price", split="group:shop")
    assert len(answer["tested_on"]) < 60
    assert any(
        "of the rows are tested on, since groups or times are of different size" in n for n in answer["notes"]
    )


def test_a_class_of_one_group_takes_no_other_class_out_of_the_test(prepare: Prepare) -> None:
    table = customers(200)
    rare = pd.DataFrame({"plan": "pro", "months": 7, "fee": 7.77, "churned": "rare"}, index=range(8))
    answer = prepare(csv(pd.concat([table, rare], ignore_index=True)))
    assert not {n for n in answer["tested_on"] if n >= 200}
    assert any("1 class of the target not among the rows to test on" in note for note in answer["notes"])


def test_what_matters_comes_first_among_many_notes(prepare: Prepare) -> None:
    units = {f"u{n}": [f"{v} kg" for v in np.arange(120) * (n + 1) % 97] for n in range(70)}
    table = homes(120).assign(**units, cents=lambda t: t["price"] * 100)
    notes = prepare(csv(table), target="price")["notes"]
    assert "'cents' predicts 'price' nearly perfectly" in notes[0]


def test_a_rare_class_in_many_rows_is_still_looked_at_for_leaks(prepare: Prepare) -> None:
    g = np.random.default_rng(12)
    y = np.zeros(50_000, int)
    y[:20] = 1
    table = pd.DataFrame({"x": g.normal(size=50_000).round(3), "leak": (y * 100 + g.normal(size=50_000)).round(3)})
    answer = prepare(csv(table.assign(churned=np.where(y, "yes", "no"))))
    assert any("column 'leak' predicts" in note for note in answer["notes"])


def test_classes_that_were_never_trained_on_make_no_area_under_a_curve(container: Container) -> None:
    g = np.random.default_rng(13)
    table = pd.DataFrame({"t": range(400), "x": g.normal(size=400), "y": g.choice(["a", "b"], 400)})
    table.loc[300:, "y"] = g.choice(["a", "c"], 100)
    assert container.preprocess(("data.csv", csv(table)), target="y", split="time:t") == ""
    assert container.train("linear") == ""
    report = container.evaluate()
    assert report["quality"]["metric"] == "balanced_accuracy"
    assert "NaN" not in (container.root / "out/evaluation.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("algorithm", "chosen", "why"),
    [
        ("linear", {"regularization": 0}, "regularization must be a number above 0"),
        ("linear", {"regularization": "strong"}, "regularization must be a number above 0"),
        ("gradient-boosting", {"max_iter": "many"}, "cannot take max_iter='many'"),
        ("linear", {"class_weight": {"maybe": 2}}, "class_weight names 1 class that the data does not have"),
    ],
)
def test_a_hyperparameter_that_does_not_fit_is_named(
    container: Container, algorithm: str, chosen: dict[str, Any], why: str
) -> None:
    assert container.preprocess(("data.csv", csv(customers(200)))) == ""
    assert why in container.train(algorithm, **chosen)


def test_chosen_weights_and_leaves_are_taken_as_they_are(container: Container) -> None:
    table = customers(60).assign(churned=[1] * 5 + [0] * 55)
    assert container.preprocess(("data.csv", csv(table))) == ""
    for chosen, kept in (
        ({}, {"class_weight": "'balanced'"}),
        ({"class_weight": None}, {}),
        ({"class_weight": {"0": 1, "1": 5}, "min_samples_leaf": 20}, {"class_weight": "{0: 1, 1: 5}"}),
    ):
        assert container.train("gradient-boosting", **chosen) == ""
        training = json.loads((container.root / "model/training.json").read_text())
        found = training["hyperparameters"]
        assert {name: found[name] for name in ("class_weight",) if name in found} == kept
    assert "min_samples_leaf" not in found


def with_sheet(change: Any) -> bytes:
    """Return a workbook of homes whose first sheet's XML was changed."""
    body = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(workbook(homes(60))))) as old, zipfile.ZipFile(body, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            new.writestr(name, change(text) if name.endswith("sheet1.xml") else text)
    return body.getvalue()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            with_sheet(lambda x: x.replace(b"<worksheet", b'<!DOCTYPE x [<!ENTITY a "aaaa">]><worksheet', 1)),
            "is a broken",
        ),
        (with_sheet(lambda _: '<!DOCTYPE x [<!ENTITY a "aaaa">]><worksheet/>'.encode("utf-16")), "is a broken"),
        (with_sheet(lambda x: x.replace(b"<v>", b"<v>" + b"9" * 400, 1)), ""),
        (with_sheet(lambda x: x.replace(b'<row r="30"', b'<row r="99999999"', 1)), ""),
        (
            with_sheet(lambda x: x.replace(b"</row>", b'<c r="XFD1"><v>1</v></c></row>', 1)),
            "more than 2,000 columns",
        ),
    ],
    ids=["entities", "entities in UTF-16", "digits", "row number", "far cell"],
)
def test_a_workbook_that_no_excel_writes_is_bounded(prepare: Prepare, body: bytes, why: str) -> None:
    answer = prepare({"homes.xlsx": body}, target="price")
    assert why in answer.get("message", "")
    assert "unexpected" not in answer.get("message", "")


def test_durations_and_errors_of_excel_are_hours_and_missing(prepare: Prepare) -> None:
    table = homes(120)
    book = workbook(table.assign(spent=[timedelta(hours=n % 30, minutes=30) for n in range(120)]))
    for row in range(2, 20):
        book.active.cell(row, 2).value = "#NUM!"
    answer = prepare({"homes.xlsx": saved(book)}, target="price")
    assert answer["kinds"] == {"number": 3}
