"""The health that `status` tells: failures by reason, alarms, budgets, SageMaker's refusals and silence."""

import json
import re

import pytest

from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_tenants import WINE
from trainyard.persistence.ledger import LEDGER
from trainyard.persistence.store import Update


def test_each_thing_that_needs_attention_has_a_line(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    alarms = harness.cloud.client("cloudwatch")
    (name,) = (a["AlarmName"] for a in alarms.describe_alarms()["MetricAlarms"] if "NoPasses" in a["AlarmName"])
    alarms.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="rehearsal")
    harness.deployment.store.transact(
        [Update(LEDGER, set={"throttled_to": 4, "throttled_until": "2999-01-01T00:00:00.000000Z"})]
    )

    def said() -> str:
        capsys.readouterr()
        assert harness.run("status") == 0
        return capsys.readouterr().out

    shown = said()
    assert "alarm NoPasses" in shown
    assert "SageMaker takes at most 4 executions now; more are tried at 00:00:00 UTC" in shown
    alarms.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="rehearsed")
    harness.deployment.store.transact([Update(LEDGER, remove=("throttled_to", "throttled_until"))])


def test_failures_of_the_day_are_grouped_by_reason(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.create("failing", "--target", "z")
    for name in ("one", "two"):
        harness.drop("failing", f"incoming/{name}/a.csv", b"a,b,z\n" + b"1,2,3\n" * 60)
    harness.ended("failing", 2)

    def grouped() -> bool:
        capsys.readouterr()
        assert harness.run("--json", "status") == 0
        groups = json.loads(capsys.readouterr().out)["failed_today"]
        return any(group["requests"] >= 2 for group in groups)

    eventually(grouped)
    assert harness.run("status") == 0
    said = capsys.readouterr().out
    assert re.search(r"\d+ requests failed today \(UTC\); trainyard requests --state FAILED --since 20", said)
    assert re.search(r"  \d+ like [0-9a-f]{8}: Preprocess: ", said)


@pytest.mark.thorough
def test_who_is_next_is_listed_for_each_tier(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.create("lining")
    assert harness.run("pause", "tier", "basic") == 0
    for number in range(3):
        harness.drop("lining", f"incoming/set-{number}/a.csv", WINE)
    eventually(lambda: len(harness.requests("lining")) == 3)
    capsys.readouterr()
    assert harness.run("queue", "basic", "--limit", "2") == 0
    said = capsys.readouterr().out
    assert said.count("the tier is paused") == 2
    assert "tier basic: 2 of 3 waiting requests shown; trainyard requests --state QUEUED lists all" in said
    assert harness.run("queue", "--json") == 0
    assert [each["position"] for each in json.loads(capsys.readouterr().out)] == [1, 2, 3]
    assert harness.run("queue", "gold") == 1
    assert "there is no tier 'gold'" in capsys.readouterr().err
    assert harness.run("resume", "tier", "basic") == 0
    harness.ended("lining", 3)
