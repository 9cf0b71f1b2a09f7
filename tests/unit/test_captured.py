"""Captured inputs: rows that models were asked, compared with what they were trained on."""

import json
import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from moto import mock_aws

from testing.memory_ports import MemoryCapturedInputs
from tests.build import NOW, after, tenant
from tests.running_steps import Container
from tests.unit.test_retraining import Service, quiet, upload, watch
from trainyard.adapters.aws import captured as captured_adapter
from trainyard.adapters.aws import clients
from trainyard.adapters.aws.captured import S3CapturedInputs
from trainyard.application.scheduling import retraining_watch
from trainyard.contracts.captured import (
    ADDED_MAX,
    CELLS_MAX,
    ROWS_MAX,
    CapturedRows,
    parse_statistics,
    report_on,
)
from trainyard.contracts.drift import parse_drift
from trainyard.domain.captured import (
    CapturedDrift,
    Distribution,
    MovedColumn,
    Statistics,
    _chi_squared,
    compare,
    moved,
)
from trainyard.domain.errors import Malformed, OutcomeUnknown
from trainyard.domain.retraining import RetrainingSettings
from trainyard.domain.tenants import Tenant, TrainingSettings

COLUMNS = ("age", "income", "plan", "flag", "city")


def rows(count: int, seed: int, **changes: Any) -> list[dict[str, Any]]:
    """Return rows of numbers, texts and truth values, some of them missing."""
    drawn = random.Random(seed)
    made = []
    for _ in range(count):
        row = {
            "age": drawn.randint(18, 90),
            "income": round(drawn.lognormvariate(10, 1), 2),
            "plan": drawn.choice(["basic", "plus", "pro"]),
            "flag": drawn.random() < 0.3,
            "city": f"city {int(drawn.paretovariate(0.8)) % 60}",
            "y": drawn.choice(["yes", "no"]),
        }
        if drawn.random() < 0.05:
            row["income"] = None
        made.append(row | {name: change(row) for name, change in changes.items()})
    return made


def lines(made: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in made).encode()


PLANTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a shift": {"age": lambda row: row["age"] + 40},
    "a scale": {"income": lambda row: (row["income"] or 1) / 1000},
    "missing values": {"plan": lambda row: None if row["age"] > 50 else row["plan"]},
    "a new text": {"city": lambda row: "city none knows" if row["age"] > 60 else row["city"]},
    "numbers as texts": {"age": lambda row: str(row["age"])},
}


@pytest.mark.parametrize("planted", PLANTED)
def test_captured_rows_are_as_far_away_as_new_data_of_the_same_rows(container: Container, planted: str) -> None:
    """The steps compare with numpy and scipy; what functions compare without them must be the same."""
    assert container.preprocess(("data.jsonl", lines(rows(1500, 1))), target="y", split="random") == ""
    statistics = (container.root / "profile/statistics.json").read_bytes()
    before = container.root / "before"
    before.mkdir()
    (before / "statistics.json").write_bytes(statistics)
    later = rows(900, 2, **PLANTED[planted])
    container.preprocess(
        ("data.jsonl", lines(later)), target="y", split="random", statistics=before, drift="train:train:30:"
    )
    report = parse_drift((container.root / "profile/drift.json").read_bytes())
    drift = compare(parse_statistics(statistics), [{n: v for n, v in row.items() if n != "y"} for row in later])
    assert {each.name: each.band for each in drift.columns} == {each.name: each.band for each in report.columns}
    for ours, theirs in zip(drift.columns, report.columns, strict=True):
        assert ours.name == theirs.name
        assert ours.index == pytest.approx(theirs.index, abs=1e-4)
        assert (list(ours.now.counts), ours.now.missing) == (theirs.now.counts, theirs.now.missing)
    assert bool(drift.shifted) == (planted not in ("nothing", "numbers as texts")), drift.text()


def test_the_bound_of_chance_is_that_of_the_chi_squared_distribution() -> None:
    # scipy.stats.chi2.isf(1e-6, …)
    expected = {1: 23.92813, 2: 27.63102, 3: 30.66485, 10: 46.86305, 31: 83.64252, 40: 97.65296}
    for degrees, value in expected.items():
        assert _chi_squared(degrees) == pytest.approx(value, rel=1e-6), degrees


NUMBER = Distribution(name="a", kind="number", counts=(50, 50), missing=0, edges=(0.0,))
BEFORE = Statistics(rows=100, columns=(NUMBER,), kinds={"a": "number", "day": "date"})


def test_what_is_no_number_is_missing_and_what_equals_an_edge_lies_below_it() -> None:
    values = [0, 0.0, "0", -1, 1, "1.5", True, None, "x", [1], {"b": 1}, "nan", "inf", 10**400]
    (column,) = compare(BEFORE, [{"a": value} for value in values]).columns
    assert (column.now.counts, column.now.missing) == ((4, 2), 8)


def test_columns_that_no_row_has_count_as_moved() -> None:
    drift = compare(BEFORE, [{"b": 1}] * 5)
    assert (drift.absent, drift.added, drift.columns) == (("a", "day"), ("b",), ())
    assert drift.has_shifted(100, ())
    assert drift.text() == "2 of 2 columns moved far in 5 rows: 'a', 'day'"


def test_a_share_of_columns_or_a_critical_one_is_far() -> None:
    far = MovedColumn(index=1.0, band="shifted", before=NUMBER, now=NUMBER)
    near = replace(far, index=0.0, band="stable", before=replace(NUMBER, name="b"))
    drift = CapturedDrift(rows_before=9, rows=9, columns=(far, near, near, near))
    assert (drift.has_shifted(25, ()), drift.has_shifted(26, ())) == (True, False)
    assert (drift.has_shifted(100, ("a",)), drift.has_shifted(100, ("b",))) == (True, False)
    assert not CapturedDrift(rows_before=9, rows=9, columns=(near,)).has_shifted(1, ("a",))


def test_few_rows_are_no_shift() -> None:
    assert moved(NUMBER, replace(NUMBER, counts=(5, 1))).band == "stable"
    assert moved(NUMBER, replace(NUMBER, counts=(500, 100))).band == "shifted"
    assert moved(NUMBER, replace(NUMBER, counts=(0, 0))).band == "stable"


# --- what may be stored ------------------------------------------------------------------------------------------


def captured(data: str, kind: str = "text/csv", encoding: str = "CSV") -> bytes:
    line = {"endpointInput": {"observedContentType": kind, "encoding": encoding, "data": data, "mode": "INPUT"}}
    return json.dumps({"captureData": line, "eventMetadata": {"eventId": "1"}, "eventVersion": "0"}).encode()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (captured("a,b\n1,x\n2,y\n"), [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]),
        (captured(b64encode(b"a\n7\n").decode(), "text/csv; charset=utf-8", "BASE64"), [{"a": "7"}]),
        (captured('{"a": 1}\n{"a": 2}\n', "application/jsonlines", "JSON"), [{"a": 1}, {"a": 2}]),
        (captured('[{"a": 1}]', "application/json", "JSON"), [{"a": 1}]),
    ],
)
def test_rows_and_sagemakers_captured_lines_are_read(line: bytes, expected: list[dict[str, Any]]) -> None:
    read = CapturedRows(frozenset({"a", "b"}))
    read.add([line, b"", b"  "])
    assert (read.rows, read.unreadable) == (expected, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[1]",
        b"1",
        b'"text"',
        b"\xff",
        b"[" * 100_000,
        b'{"captureData": 1}',
        b'{"captureData": {}}',
        b'{"captureData": {"endpointInput": {"data": 7}}}',
        captured("a\n1", "image/png"),
        captured("***", "text/csv", "BASE64"),
        captured("a\n1,2", "text/csv"),
        captured("[1]", "application/json"),
        captured('"' + "x" * 200_000, "text/csv"),
        json.dumps({f"c{number}": 1 for number in range(2001)}).encode(),
    ],
)
def test_other_lines_are_counted_and_left_out(line: bytes) -> None:
    read = CapturedRows(frozenset({"a", "b"}))
    read.add([line, b'{"a": 1}'])
    assert (read.rows, read.unreadable) == ([{"a": 1}], 1)


def test_only_so_many_rows_and_cells_are_read() -> None:
    read = CapturedRows(frozenset({"a", "b"}))
    read.add([captured("a\n" + "1\n" * 30_000)] * 3)
    assert len(read.rows) == ROWS_MAX
    # A short text may stand for very many cells.
    wide = CapturedRows(frozenset({"a"}))
    wide.add([captured(",".join(f"c{number}" for number in range(1999)) + ",a\n" + "1\n" * 50_000)] * 5)
    assert (wide.cells <= CELLS_MAX + 2001, len(wide.rows) <= CELLS_MAX // 2000 + 1) == (True, True)
    assert all(set(row) <= {"a"} for row in wide.rows)
    assert len(wide.added) <= 2 * ADDED_MAX
    many = CapturedRows(frozenset(f"c{number}" for number in range(500)))
    many.add([b"{}"] * 100_000)
    assert len(many.rows) == CELLS_MAX // 500, "each column is compared in each row"


def test_half_a_character_is_a_text_like_any_other() -> None:
    texts = replace(NUMBER, kind="category", edges=(), categories=("x",), counts=(90, 5, 5), others=frozenset({7}))
    (column,) = compare(
        Statistics(rows=100, columns=(texts,), kinds={"a": "category"}), [{"a": "\ud83d"}] * 9
    ).columns
    assert column.now.counts == (0, 0, 9)


@pytest.mark.parametrize("text", ["1,5", "12 %", "1.500 €", "CHF 7"])
def test_numbers_that_are_written_in_another_way_are_not_taken_for_missing(text: str) -> None:
    drift = compare(BEFORE, [{"a": text, "day": "x"}] * 500 + [{"a": 1}] * 100)
    assert (drift.unlike, drift.columns, drift.has_shifted(1, ("a",))) == (("a",), (), False)
    assert report_on(drift).changed == ["'a' was a number, and is written in another way"]


def test_captured_text_with_semicolons_or_tabs_is_read() -> None:
    for delimiter in ";\t":
        read = CapturedRows(frozenset({"a", "b"}))
        read.add([captured(f"a{delimiter}b\n1{delimiter}2\n")])
        assert read.rows == [{"a": "1", "b": "2"}]


def test_statistics_of_another_script_are_refused() -> None:
    good = {
        "version": 1,
        "rows": 3,
        "columns": [{"name": "a", "kind": "number", "counts": [1, 2], "missing": 0, "edges": [0.5]}],
        "kinds": {"a": "number"},
    }
    assert parse_statistics(json.dumps(good).encode()).rows == 3
    column = good["columns"][0]  # type: ignore[index]
    for wrong in (
        {"version": 2},
        {"rows": -1},
        {"columns": [column | {"counts": [1]}]},
        {"columns": [column | {"counts": [1, 2, 3], "edges": [2, 1]}]},
        {"columns": [column | {"kind": "date"}]},
        {"columns": [column | {"counts": [1] * 65, "edges": list(range(64))}]},
        {"kinds": {"a": "text"}},
    ):
        with pytest.raises(Malformed):
            parse_statistics(json.dumps(good | wrong).encode())


def test_a_report_on_captured_inputs_is_one_on_drift() -> None:
    report = report_on(compare(BEFORE, [{"a": 1, "new": 2}] * 200))
    assert (report.rows_before, report.rows, report.absent, report.added) == (100, 200, ["day"], ["new"])
    assert [(each.name, each.band) for each in report.columns] == [("a", "shifted")]


# --- what is read ------------------------------------------------------------------------------------------------

STATISTICS = {
    "version": 1,
    "rows": 100,
    "columns": [{"name": "a", "kind": "number", "counts": [50, 50], "missing": 0, "edges": [0.0]}],
    "kinds": {"a": "number"},
}


@pytest.fixture
def bucket() -> Iterator[Any]:
    with mock_aws():
        clients.forget()
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=tenant().bucket)
        key = f"{tenant().root}reports/churn/before/profile/statistics.json"
        s3.put_object(Bucket=tenant().bucket, Key=key, Body=json.dumps(STATISTICS))
        yield s3
    clients.forget()


def look(since: Any = NOW - timedelta(days=30_000), data_set: str = "churn", trained: str = "before") -> Any:
    return S3CapturedInputs().compare(tenant(), data_set, trained=trained, since=since)


def put(s3: Any, name: str, body: bytes) -> None:
    s3.put_object(Bucket=tenant().bucket, Key=f"{tenant().root}captured/churn/{name}", Body=body)


def test_captured_inputs_are_compared_with_the_training(bucket: Any) -> None:
    assert look().problem == "nothing was captured since the training"
    put(bucket, "2026/a.jsonl", b'{"a": 5}\n' * 300)
    put(bucket, "2026/b.jsonl", b"rubbish\n" + b'{"a": 5}\n' * 100)
    found = look()
    assert (found.objects, found.unreadable, found.drift.rows, found.drift.shifted) == (2, 1, 400, ("a",))
    assert look(since=NOW + timedelta(days=30_000)).problem == "nothing was captured since the training"
    assert look(trained="another").problem == "the training has left no statistics"
    put(bucket, "2026/a.jsonl", b"x\n")
    bucket.delete_object(Bucket=tenant().bucket, Key=f"{tenant().root}captured/churn/2026/b.jsonl")
    assert look().problem.startswith("none of its 1 captured lines is a row of JSON")


def test_only_so_much_of_captured_inputs_is_read(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_adapter, "OBJECTS_MAX", 3)
    monkeypatch.setattr(captured_adapter, "OBJECT_BYTES_MAX", 95)
    for number in range(5):
        put(bucket, f"{number}.jsonl", b'{"a": 5}\n' * 50)
    found = look()
    assert (found.objects, found.drift.rows, found.unreadable) == (3, 30, 0), "what is cut off is no line"
    monkeypatch.setattr(captured_adapter, "BYTES_MAX", 100)
    assert look().objects == 2


def test_rows_of_something_else_are_no_drift(bucket: Any) -> None:
    put(bucket, "a.jsonl", b'{"instances": [[1]]}\n' * 50)
    assert look().problem == "none of 50 captured rows has a column of the data set"


def test_the_newest_are_found_whatever_their_keys_and_too_many_are_told(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1100):
        put(bucket, f"{number:05d}.jsonl", b'{"a": 5}\n')
    monkeypatch.setattr(captured_adapter, "OBJECTS_MAX", 5)
    assert look().objects == 5
    monkeypatch.setattr(captured_adapter, "LISTED_MAX", 1000)
    assert "delete old ones" in look(since=NOW + timedelta(days=30_000)).problem


def test_what_cannot_be_read_is_a_reason_and_no_error(bucket: Any) -> None:
    key = f"{tenant().root}reports/churn/before/profile/statistics.json"
    bucket.put_object(Bucket=tenant().bucket, Key=key, Body=b"{}")
    assert look().problem.startswith("statistics.json was not read: version")
    bucket.delete_bucket_policy(Bucket=tenant().bucket)
    gone = replace(tenant(), bucket="no-such-bucket")
    assert S3CapturedInputs().compare(gone, "churn", trained="before", since=NOW).problem != ""


# --- what asks for a training ------------------------------------------------------------------------------------

FAR = CapturedDrift(
    rows_before=100,
    rows=50,
    columns=(MovedColumn(index=1.0, band="shifted", before=NUMBER, now=NUMBER),),
)


def owner(**rules: Any) -> Tenant:
    settings = TrainingSettings(algorithm="linear", target="y", retraining=RetrainingSettings(**rules))
    return tenant(settings=settings)


def asked(service: Service, owner: Tenant, drift: CapturedDrift | None) -> list[tuple[str | None, str, str, str]]:
    ports = MemoryCapturedInputs()
    ports.drift = drift
    with patch.object(retraining_watch, "PARTS", 1):
        watched = watch(service, owner, captured=ports).run(service.now)
    assert watched.failed == {}
    return [(each.data_set, each.trigger.value, each.event_id, each.detail) for each in watched.asked]


def test_inputs_that_have_moved_far_ask_for_a_training_once() -> None:
    service = Service(owner())
    trained = service.train(upload())
    service.at(after(7200))
    rules = owner(captured_drift=True)
    quiet(service)
    words = "1 of 1 columns moved far in 50 rows: 'a'"
    event = ("churn", "captured inputs", f"captured {trained}", words)
    assert asked(service, rules, FAR) == [event]
    assert asked(service, rules, None) == []
    assert asked(service, rules, replace(FAR, columns=())) == []
    assert asked(service, owner(), FAR) == []
    assert asked(service, owner(captured_drift=True, shift_percent=30), FAR) == [event]


def test_what_cannot_be_compared_hides_nothing_else_that_is_due() -> None:
    rules = owner(captured_drift=True, age_max_days=1)
    service = quiet(Service(rules))
    service.train(upload())
    service.at(after(86400 * 2))

    class Failing(MemoryCapturedInputs):
        def compare(self, *_: Any, **__: Any) -> Any:
            raise OutcomeUnknown("S3 does not answer")

    with patch.object(retraining_watch, "PARTS", 1):
        watched = watch(service, rules, captured=Failing()).run(service.now)
    assert [each.trigger.value for each in watched.asked] == ["age"]
    assert list(watched.failed) == ["acme"]
    ports = MemoryCapturedInputs()
    times = iter([False, True])
    with patch.object(retraining_watch, "PARTS", 1):
        watched = watch(service, rules, captured=ports).run(service.now, out_of_time=lambda: next(times))
    assert (ports.asked, watched.failed) == ([], {}), "there was no time to compare"


def test_a_training_that_captured_inputs_asked_for_says_so_and_is_asked_for_once() -> None:
    rules = owner(captured_drift=True)
    service = Service(rules)
    trained = service.train(upload())
    service.at(after(7200))
    ports = MemoryCapturedInputs()
    ports.drift = FAR
    service.put(replace(service.data_sets.objects["acme", "churn"][0], etag="b" * 32, version_id="v2"))
    service.retrainings.arrive = service.arrive
    with patch.object(retraining_watch, "PARTS", 1):
        watch(service, rules, captured=ports).run(service.now)
    service.work()
    (request,) = [each for each in service.requests() if each.request_id != trained]
    assert request.triggers == ("captured inputs: 1 of 1 columns moved far in 50 rows: 'a'",)
    ports.asked.clear()
    with patch.object(retraining_watch, "PARTS", 1):
        assert watch(service, rules, captured=ports).run(service.now).asked == []
    assert ports.asked == [], "what was asked before is not looked at again"
