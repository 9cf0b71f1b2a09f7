"""Drift: what has moved since the last training is found, said, and refused where the rules say so."""

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.drift import _drawn, _row
from local.cloud import REPOSITORY
from local.sagemaker.interpreter import interpreter
from tests.build import content, request, tenant, tier
from tests.running_steps import PROGRAMS, STEPS, Container
from tests.unit.test_retraining import Service, asked, ruled, upload
from trainyard.application.ports import LastStatistics
from trainyard.contracts.drift import Distribution, DriftReport, parse_drift
from trainyard.domain.algorithms import BUILT_IN
from trainyard.domain.errors import Malformed
from trainyard.domain.file_types import absent_columns
from trainyard.domain.parameters import Defaults, Locations, pipeline_parameters
from trainyard.domain.requests import State
from trainyard.domain.retraining import Trigger

REFUSING = "refuse:refuse:30:"


def table(rows: int = 400, seed: int = 1, *, columns: str = "age,plan,calls", **changes: Any) -> bytes:
    """Return rows whose columns do not move; `changes` is column → a function of its value."""
    randomly = random.Random(seed)
    lines = [f"{columns},churned"]
    for _ in range(rows):
        values = {
            "age": randomly.gauss(40, 10),
            "plan": randomly.choice(["basic", "family", "pro"]),
            "calls": randomly.expovariate(0.2),
        }
        values = {name: changes[name](value) if name in changes else value for name, value in values.items()}
        shown = [f"{v:.2f}" if isinstance(v, float) else str(v) for name, v in values.items() if name in columns]
        lines.append(",".join([*shown, randomly.choice(["yes", "no", "no"])]))
    return "\n".join(lines).encode()


@pytest.fixture
def trained(container: Container, tmp_path: Path) -> Path:
    """Return the folder with the statistics of a first training."""
    assert container.preprocess(("data.csv", table())) == ""
    folder = tmp_path / "before"
    folder.mkdir()
    shutil.copy(container.root / "profile/statistics.json", folder)
    return folder


def again(container: Container, before: Path, body: bytes, rules: str = "") -> tuple[str, DriftReport, str]:
    """Prepare other data; return the failure, the report, and what the profile notes."""
    message = container.preprocess(("data.csv", body), statistics=before, drift=rules)
    report = parse_drift((container.root / "profile/drift.json").read_bytes())
    profile = json.loads((container.root / "profile/profile.json").read_text())
    return message, report, " ".join(profile.get("notes", []))


def test_a_first_training_leaves_statistics_and_is_compared_with_nothing(container: Container) -> None:
    nothing = container.root / "none"
    nothing.mkdir()
    shutil.copy(STEPS / "no_statistics.json", nothing)
    assert container.preprocess(("data.csv", table()), statistics=nothing) == ""
    assert not (container.root / "profile/drift.json").exists()
    statistics = json.loads((container.root / "profile/statistics.json").read_text())
    assert [each["name"] for each in statistics["columns"]] == ["age", "plan", "calls"]
    assert statistics["rows"] == 400


def test_data_that_has_not_moved_is_told_nothing_about(container: Container, trained: Path) -> None:
    message, report, notes = again(container, trained, table(seed=2), REFUSING)
    assert (message, [each.band for each in report.columns]) == ("", ["stable"] * 3)
    assert "moved" not in notes


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"age": lambda value: value + 20}, "age"),
        ({"calls": lambda value: value * 1000}, "calls"),
        ({"plan": lambda value: "student" if value == "pro" else value}, "plan"),
        ({"calls": lambda value: "" if value < 2 else value}, "calls"),
    ],
)
def test_a_column_that_has_moved_is_named_and_refused_only_by_rule(
    container: Container, trained: Path, changes: dict[str, Any], name: str
) -> None:
    message, report, notes = again(container, trained, table(seed=2, **changes))
    assert message == ""
    assert [each.name for each in report.columns if each.band == "shifted"] == [name]
    assert f"1 column of 3 moved far from the last training: '{name}'" in notes
    message, _, _ = again(container, trained, table(seed=2, **changes), REFUSING)
    assert f"1 column of 3 moved far from the last training: '{name}'. Look at `trainyard drift`" in message
    more = "refuse:refuse:50:"
    assert again(container, trained, table(seed=2, **changes), more)[0] == "", "too few columns"
    assert "moved far" in again(container, trained, table(seed=2, **changes), f"{more}x|{name}")[0]


def test_columns_that_were_swapped_are_named(container: Container, trained: Path) -> None:
    swapped = table(seed=2).replace(b"age,plan,calls", b"calls,plan,age")
    _, report, notes = again(container, trained, swapped)
    assert {*report.swapped[0]} == {"age", "calls"}
    assert "look as if they had been swapped" in notes


def test_other_columns_are_refused_unless_a_rule_says_otherwise(container: Container, trained: Path) -> None:
    without = b"\n".join(line.partition(b",")[2] for line in table(seed=2).splitlines())
    message, report, _ = again(container, trained, without)
    assert "the columns have changed since the last training: without 'age'" in message
    assert "ask for a training with force" in message
    assert report.absent == ["age"]
    message, _, notes = again(container, trained, without, "train:train:30:")
    assert message == ""
    assert "without 'age'" in notes
    as_text = table(seed=2, age=lambda value: f"about {round(value / 10)}")
    assert "'age' was a number, and is a category" in again(container, trained, as_text)[0]
    more = b"\n".join(b"%d,%s" % (n % 5, line) for n, line in enumerate(table(seed=2).splitlines()))
    message, report, _ = again(container, trained, more.replace(b"0,age", b"size,age", 1))
    assert (message, report.added) == ("", ["size"])


def test_a_column_that_is_empty_now_has_moved(container: Container, trained: Path) -> None:
    message, report, _ = again(container, trained, table(seed=2, age=lambda _: ""), "train:refuse:99:age")
    assert report.emptied == ["age"]
    assert "'age'" in message


@pytest.mark.parametrize("body", ["", "[]", "{", '{"version": 2}', '{"version": "1"}', "null"])
def test_statistics_of_another_version_are_as_none(container: Container, tmp_path: Path, body: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/statistics.json").write_text(body)
    assert container.preprocess(("data.csv", table()), statistics=tmp_path / "other") == ""
    assert not (container.root / "profile/drift.json").exists()


def test_no_value_of_a_row_is_in_what_is_said_of_drift(container: Container, trained: Path) -> None:
    secret = "4111-1111"
    _, report, notes = again(container, trained, table(seed=2, plan=lambda _: secret))
    assert secret not in notes + container.said + report.model_dump_json()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"version": 2}',
        json.dumps({"version": 1, "columns": [{"name": "a", "index": "1"}]}).encode(),
        b"\xff",
    ],
)
def test_a_report_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_drift(body)


def test_a_report_is_drawn_as_its_bins_are_filled() -> None:
    assert _drawn(Distribution(counts=[0, 1, 100, 900], missing=0)) == " ▁▂█"
    assert _drawn(Distribution(counts=[0], missing=0)) == " "
    values = {"counts": [50, 50], "missing": 100}
    column = {"name": "a", "kind": "number", "index": 1.234, "band": "shifted", "before": values, "now": values}
    report = DriftReport.model_validate(
        {"version": 1, "rows_before": 200, "rows": 200, "columns": [column], "target": None}
        | {name: [] for name in ("absent", "changed", "added", "emptied", "swapped")}
    )
    row = _row(report.columns[0], report)
    assert (row[0], row[2], row[3], row[6]) == ("a", "1.23", "shifted", "50 % → 50 %")


def test_a_run_is_told_its_rules_and_where_the_statistics_are() -> None:
    owner = ruled(critical=("age",), shift_percent=10)
    defaults = Defaults(training_image_uri="t", processing_image_uri="p", code_uri="s3://code/1", key_arn="k")

    def parameters(uri: str | None, **changes: Any) -> tuple[str, str]:
        values = pipeline_parameters(
            request(1, **changes), owner, tier(), BUILT_IN[0], defaults=defaults, statistics_uri=uri
        )
        return values["StatisticsUri"], values["DriftRules"]

    assert parameters(None) == ("s3://code/1/steps/no_statistics.json", "refuse:train:10:age")
    forced = parameters("s3://b/statistics.json", accepts_drift=True)
    assert forced == ("s3://b/statistics.json", "train:train:10:age")
    assert Locations.of(tenant(), request(1)).statistics.endswith("/profile/statistics.json")


def test_planted_drift_is_found_and_stationary_data_raises_no_alarm() -> None:
    """A few draws of what `make drift` does with a hundred."""
    command = [interpreter(), str(PROGRAMS / "drift_rates.py"), str(REPOSITORY / "pipeline/steps"), "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 10
    assert [each["alarms"] for each in results] == [0] * 10
    tried = [counts for each in results for counts in each["found"].values()]
    assert sum(count for count, _ in tried) > 0.9 * sum(count for _, count in tried)


def test_an_object_without_columns_of_the_last_training_costs_no_job() -> None:
    service = Service(ruled())
    service.data_sets.first_bytes = b"age,plan,y\n" + b"1,2,3\n" * 5
    first = service.train(upload())
    service.data_sets.statistics[first] = LastStatistics("s3://b/statistics.json", ("age", "income", "column 3"))
    service.put(content(etag="2" * 32))
    for changes, state in (({}, State.FAILED), ({"is_forced": True, "accepts_drift": True}, State.RUNNING)):
        judgement = service.arrive(asked(Trigger.PERSON, f"e{state}", **changes))
        service.work()
        request_id = str(judgement.request_id)
        assert service.request(request_id).state is state
    refused = [each for each in service.requests() if each.state is State.FAILED]
    assert "since the last training: without 'income'. Upload data" in str(refused[0].reason)
    assert len(service.executions.by_token) == 2


@pytest.mark.parametrize(
    ("first", "absent"),
    [
        (b"a,b\n1,2\n3,4\n", ["c d"]),
        (b"a;c d\n1;2\n3;4\n", ["b"]),
        (b'{"a": 1, "b": 2}\n' * 9, []),
        (b"PAR1....", []),
        (b"", []),
        (b"a,b", []),
    ],
)
def test_columns_that_are_certainly_absent_are_found_by_the_first_bytes(first: bytes, absent: list[str]) -> None:
    assert absent_columns(first, ["a", "b", "c d"]) == absent
