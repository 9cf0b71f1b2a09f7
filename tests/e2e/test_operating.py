"""What an operator does on a bad day: wait, retry, stop in bulk, drain, read and drop dead letters, go back."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import POLICY, Harness, eventually
from tests.e2e.test_tenants import WINE
from trainyard.domain.requests import State

Capture = pytest.CaptureFixture[str]
NO_TARGET = b"a,b\n" + b"1,2\n" * 50
CUSTOM = """
name: ours
description: "An estimator of our own"
hyperparameters:
  depth: {kind: integer, default: 5, minimum: 1, maximum: 50}
"""


def test_an_upload_can_be_waited_for_and_tells_its_outcome(
    harness: Harness, tmp_path: Path, capsys: Capture
) -> None:
    harness.create("waiter")
    (good := tmp_path / "wine.csv").write_bytes(WINE)
    (bad := tmp_path / "bad.csv").write_bytes(NO_TARGET)
    capsys.readouterr()
    assert harness.run("upload", "waiter", str(good), "--wait") == 0
    said = capsys.readouterr()
    (request,) = harness.requests("waiter")
    assert said.out == f"{request.request_id} SUCCEEDED\n"
    states = re.findall(rf"{request.request_id[:8]} waiter wine (\w+)", said.err)
    assert states[-1] == "SUCCEEDED"
    assert harness.run("upload", "waiter", str(bad), "--wait", "--json") == 4
    (outcome,) = json.loads(capsys.readouterr().out)
    assert "no column" in outcome["reason"]
    assert harness.run("upload", "waiter", str(good), "--data-set", "again") == 0
    assert re.search(r"trainyard why [0-9a-f]{8}\n", capsys.readouterr().out)


@pytest.mark.thorough
def test_a_failed_request_is_tried_again_alone_or_in_bulk(
    harness: Harness, tmp_path: Path, capsys: Capture
) -> None:
    harness.create("second-try")
    harness.drop("second-try", "incoming/one/a.csv", NO_TARGET)
    harness.drop("second-try", "incoming/two/a.csv", NO_TARGET)
    first, _ = sorted(harness.ended("second-try", 2), key=lambda request: request.data_set)
    harness.drop("second-try", "incoming/one/b.csv", WINE)
    harness.ended("second-try", 3)
    capsys.readouterr()
    assert harness.run("retry", first.request_id[:10], "--wait") == 0
    assert "SUCCEEDED" in capsys.readouterr().out
    assert harness.run("retry", "--tenant", "second-try", "--state", first.state.value) == 0
    said = capsys.readouterr().out
    assert "add --yes to ask for 2 trainings (2 requests)" in said
    assert len(harness.requests("second-try")) == 4, "nothing was asked for"
    assert harness.run("retry", "--tenant", "second-try", "--data-set", "two", "--yes", "--wait") == 4
    assert harness.run("retry", "--tenant", "second-try", "--reason", "a reason that none has", "--yes") == 0
    assert len(harness.ended("second-try", 5)) == 5
    assert harness.run("retry") == 1
    assert "name requests, or select them" in capsys.readouterr().err
    assert harness.run("retrain", "second-try", "--data-set", "nosuch") == 1
    assert "has uploaded nothing for data set 'nosuch'; its data sets are one, two" in capsys.readouterr().err


@pytest.mark.thorough
def test_what_waits_is_stopped_in_bulk_after_a_look_and_a_pause_says_who_and_why(
    harness: Harness, capsys: Capture
) -> None:
    for name in ("stopped", "spared"):
        harness.create(name)
    assert harness.run("drain", "tier", "basic", "--note", "moving house") == 0
    assert "nothing of tier basic runs; trainyard resume tier basic" in capsys.readouterr().out
    for number in range(3):
        harness.drop("stopped", f"incoming/set-{number}/a.csv", WINE)
    harness.drop("spared", "incoming/set/a.csv", WINE)
    eventually(lambda: len(harness.requests("stopped")) == 3 and harness.requests("spared"))
    capsys.readouterr()
    assert harness.run("status") == 0
    said = capsys.readouterr().out
    assert "tier basic is paused since" in said
    assert "moving house" in said
    assert "trainyard resume tier basic" in said
    assert harness.run("stop", "--tenant", "stopped") == 0
    assert "add --yes to stop these 3 requests" in capsys.readouterr().out
    assert harness.run("cancel", "--tenant", "stopped", "--yes", "--json") == 0
    assert {request["state"] for request in json.loads(capsys.readouterr().out)} == {"CANCELLED"}
    assert [request.state for request in harness.requests("spared")] == [State.QUEUED]
    assert harness.run("resume", "tier", "basic") == 0
    assert harness.ended("spared")[0].state is State.SUCCEEDED


def test_dead_letters_are_grouped_by_reason_shown_and_dropped(harness: Harness, capsys: Capture) -> None:
    queue = "trainyard-uploads-dlq"
    assert harness.run("dlq", "drop", queue, "--all", "--yes") == 0
    harness.post("uploads", *({"no": number} for number in range(12)), "not json at all")

    def listed() -> list[dict[str, Any]]:
        capsys.readouterr()
        assert harness.run("--json", "dlq", "list") == 0
        (found,) = (each for each in json.loads(capsys.readouterr().out) if each["queue"] == queue)
        return list(found["groups"])

    eventually(lambda: sum(each["letters"] for each in listed()) >= 13, 60)
    groups = listed()
    assert groups[0]["letters"] == 12
    (groups[1],) = (each for each in groups if "not valid JSON" in each["reason"])
    assert harness.run("dlq", "show", queue, "--limit", "2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    reason = groups[1]["reason"].partition("…")[0]
    assert harness.run("dlq", "drop", queue) == 1
    assert "say which: --reason TEXT" in capsys.readouterr().err
    assert harness.run("dlq", "drop", queue, "--reason", reason) == 0
    assert "would delete 1 dead letter for good" in capsys.readouterr().out
    assert harness.run("dlq", "drop", queue, "--reason", reason, "--yes") == 0
    assert not any("not valid JSON" in each["reason"] for each in listed())
    assert harness.run("dlq", "drop", queue, "--all", "--yes") == 0
    assert listed() == []


def test_a_policy_is_shown_and_asked_about_and_going_back_refuses_to_hurt(
    harness: Harness, tmp_path: Path, capsys: Capture
) -> None:
    before = harness.deployment.policies.in_force()
    (file := tmp_path / "policy.yaml").write_text(
        POLICY.replace("delay_seconds: 1", "delay_seconds: 2"), encoding="utf-8"
    )
    capsys.readouterr()
    assert harness.run("policy", "apply", str(file)) == 1
    assert "nothing was applied: there is no terminal to ask on" in capsys.readouterr().err
    assert harness.run("policy", "apply", str(file), "--dry-run") == 0
    assert "+start_retry_delay_seconds: 2" in capsys.readouterr().out
    assert harness.deployment.policies.in_force() == before
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/train.py").write_text("print('hello')\n", encoding="utf-8")
    (ours := tmp_path / "ours.yaml").write_text(CUSTOM, encoding="utf-8")
    assert harness.run("algorithm", "register", str(ours), "--scripts", str(tmp_path / "scripts")) == 0
    harness.create("user", "--algorithm", "ours")
    assert harness.run("policy", "history") == 0
    said = capsys.readouterr().out
    assert "VERSION  APPLIED              BY" in said
    assert re.search(rf"{harness.deployment.caller()} +algorithm ours", said)
    assert harness.run("policy", "rollback", str(before.version), "--yes") == 1
    assert "the policy has no algorithm ours, used by user" in capsys.readouterr().err
    assert harness.run("policy", "rollback", str(before.version), "--yes", "--force") == 0
    assert harness.deployment.policies.in_force().text == before.text
    assert harness.run("tenant", "update", "user", "--algorithm", "linear") == 0


def test_creating_a_tenant_that_exists_compares_and_offers_no_deletion(harness: Harness, capsys: Capture) -> None:
    harness.create("elm")
    capsys.readouterr()
    assert harness.run("tenant", "create", "elm", "--tier", "premium", "--target", "other") == 1
    said = capsys.readouterr().err
    assert "its tier is basic (trainyard tenant move elm --tier premium)" in said
    assert "its target is 'target' (trainyard tenant update elm --target other); nothing was changed" in said
    assert "delete" not in said


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(harness: Harness, capsys: Capture) -> None:
    def findings() -> dict[str, list[dict[str, str]]]:
        capsys.readouterr()
        harness.run("doctor", "--json")
        found: dict[str, list[dict[str, str]]] = {}
        for each in json.loads(capsys.readouterr().out):
            found.setdefault(each["check"], []).append(each)
        return found

    well = findings()
    assert {each["result"] for name in ("account", "stack", "requests", "prices") for each in well[name]} <= {
        "ok",
        "unknown",
    }
    assert all(each["remedy"] for checks in well.values() for each in checks if each["result"] != "ok")
    harness.post("uploads", {"detail": "no event"})
    eventually(lambda: any(each["result"] == "BAD" for each in findings()["dead letters"]), 60)
    assert harness.run("doctor") == 4
    assert "trainyard dlq show trainyard-uploads-dlq" in capsys.readouterr().out
    assert harness.run("dlq", "drop", "trainyard-uploads-dlq", "--all", "--yes") == 0
