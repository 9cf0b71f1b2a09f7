"""Every command displays text from tenants, and none of it controls the terminal."""

import json
import re
import unicodedata
from pathlib import Path

import pytest

from tests.e2e.conftest import POLICY, Harness, eventually
from tests.e2e.test_tenants import WINE
from tests.unit.test_cli import leaves
from trainyard.persistence.requests import request_key
from trainyard.persistence.store import Update

HOSTILE = "[/x][bold]\x9b31m\u202e\x1b]0;owned\x07\r\u2028[link=file:///etc]"
STORABLE = re.sub(r"[\x00-\x1f]", "", HOSTILE)
"""Of a tenant's settings, whose schema takes no such characters."""

ALGORITHM = """
name: odd
description: "[/x][bold]\\u202e"
hyperparameters:
  "neighbours": {kind: integer, default: 5, minimum: 1, maximum: 50}
"""


def harmful(text: str) -> set[str]:
    return {c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}}


@pytest.mark.thorough
def test_every_command_shows_hostile_text_as_text(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = harness.create("hostile", "--target", STORABLE)
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    harness.put(bucket, "incoming/[/x]\u202e/data.csv", WINE)
    requests = harness.ended("hostile", 2)
    for request in requests:
        spoilt = {"reason": HOSTILE, "data_set": HOSTILE, "algorithm": HOSTILE}
        harness.deployment.store.transact([Update(request_key(request.request_id), set=spoilt)])
    harness.post("uploads", {"detail": HOSTILE})

    def letter() -> bool:
        capsys.readouterr()
        assert harness.run("--json", "dlq", "list") == 0
        return any(
            q["queue"] == "trainyard-uploads-dlq" and q["letters"] for q in json.loads(capsys.readouterr().out)
        )

    eventually(letter)
    (policy := tmp_path / "policy.yaml").write_text(POLICY + "# [/x]\u202e[bold]\n", encoding="utf-8")
    (file := tmp_path / "odd.yaml").write_text(ALGORITHM, encoding="utf-8")
    (scripts := tmp_path / "scripts").mkdir()
    (scripts / "train.py").write_text("# [/x]\u202e[bold]\n", encoding="utf-8")
    (data := tmp_path / f"{STORABLE.replace('/', '')}.csv").write_bytes(WINE)
    (one, another) = (request.request_id for request in requests)
    month = "2026-11"
    given: dict[str, list[tuple[str, ...]]] = {
        "policy apply": [(str(policy), "--note", HOSTILE), (HOSTILE,)],
        "algorithm register": [(str(file), "--scripts", str(scripts))],
        "tenant list": [("--all",)],
        "tenant show": [("hostile",), (HOSTILE,)],
        "tenant check": [("hostile",)],
        "tenant create": [
            ("hostile-2", "--tier", HOSTILE, "--target", "y"),
            (HOSTILE, "--tier", "basic", "--target", "y"),
        ],
        "tenant update": [("hostile", "--algorithm", HOSTILE, "--retrain", HOSTILE, "--ready-by", HOSTILE)],
        "tenant move": [("hostile", "--tier", HOSTILE)],
        "tenant credentials": [("hostile",), (HOSTILE,)],
        "tenant suspend": [("hostile",)],
        "tenant resume": [("hostile",)],
        "tenant repair": [("hostile",)],
        "tenant delete": [("hostile",), (HOSTILE,)],
        "algorithm test": [
            (str(file), "--data", str(data), "--target", "y"),
            (HOSTILE, "--data", str(data), "--target", HOSTILE),
        ],
        "algorithm list": [()],
        "algorithm show": [("odd",), (HOSTILE,)],
        "wave start": [("linear", "--stage", "100", "--margin", "0"), (HOSTILE,), ("linear", "--tag", HOSTILE)],
        "wave list": [()],
        "wave show": [(HOSTILE,)],
        "wave pause": [(HOSTILE, "--reason", HOSTILE)],
        "wave resume": [(HOSTILE,)],
        "wave back": [(HOSTILE,), (HOSTILE, "--yes")],
        "algorithm remove": [("odd",), (HOSTILE,)],
        "check": [
            (str(data), "--tenant", "hostile"),
            (str(data), "--target", HOSTILE),
            (str(data), "--target", "target", "--split", f"group:{HOSTILE}"),
            (HOSTILE, "--target", "target"),
        ],
        "upload": [("hostile", str(data)), ("hostile", str(data), "--data-set", HOSTILE)],
        "presign": [
            ("hostile", "x", HOSTILE),
            ("hostile", HOSTILE, "a.csv"),
            ("hostile", "x", "[bold]'$(id)'.csv"),
        ],
        "retrain": [("hostile", "--data-set", HOSTILE), ("hostile", "--ready-by", HOSTILE)],
        "drift": [
            ("hostile", HOSTILE),
            (HOSTILE, "churn"),
            ("hostile", "churn", "--request", one),
            ("hostile", "churn", "--captured"),
            ("hostile", HOSTILE, "--captured"),
        ],
        "tuning start": [
            ("hostile", HOSTILE),
            ("hostile", "churn", "--range", HOSTILE, "--usd", HOSTILE),
            ("hostile", "churn", "--range", f"{HOSTILE}=1..2", "--algorithm", HOSTILE),
        ],
        "tuning show": [("hostile", "churn"), ("hostile", HOSTILE), (HOSTILE, "churn")],
        "tuning use": [("hostile", "churn", HOSTILE), ("hostile", "churn", "none")],
        "retraining": [(), ("hostile", "--hours", "2"), (HOSTILE,)],
        "requests": [("hostile",), (HOSTILE,), ("hostile", "--data-set", HOSTILE)],
        "request": [(one,), (another,), (HOSTILE,)],
        "logs": [(one,), (another, "Train"), (HOSTILE,), (one, HOSTILE)],
        "why": [(one,), (another,), (HOSTILE,)],
        "expedite": [(one, "--why", HOSTILE), (HOSTILE, "--why", "x")],
        "stop": [(one,), (HOSTILE,)],
        "models list": [("hostile",), (HOSTILE,)],
        "models approve": [("hostile", "7")],
        "models reject": [("hostile", "7")],
        "models link": [("hostile", "7", "--for", HOSTILE), ("hostile", "1", "--for", HOSTILE)],
        "models fetch": [("hostile", "7", "--to", str(tmp_path))],
        "predict": [("hostile", HOSTILE, str(policy)), ("hostile", "churn", HOSTILE)],
        "transform": [("hostile", HOSTILE), ("hostile", "churn", HOSTILE), (HOSTILE, "churn")],
        "serving show": [("hostile",), (HOSTILE,)],
        "serving promote": [("hostile", HOSTILE, "1")],
        "serving roll-back": [("hostile", HOSTILE, "1")],
        "serving stop": [("hostile", HOSTILE), ("hostile", HOSTILE, "--yes")],
        "user list": [(), ("--tenant", HOSTILE)],
        "user create": [
            (HOSTILE, "--role", "viewer"),
            ("a@example.com", "--role", "tenant-admin", "--tenant", HOSTILE),
        ],
        "user reset": [(HOSTILE,), ("nobody@example.com",)],
        "user delete": [(HOSTILE,), ("nobody@example.com", "--yes")],
        "status": [()],
        "doctor": [()],
        "top": [()],
        "queue": [(), ("basic",), (HOSTILE,)],
        "pause": [("tenant", HOSTILE), ("tier", HOSTILE)],
        "resume": [("tenant", HOSTILE)],
        "policy show": [(), ("--text",)],
        "policy diff": [(str(policy),)],
        "policy history": [()],
        "policy rollback": [("1", "--dry-run")],
        "simulate": [(str(policy), "--generate", "1h")],
        "teardown": [()],
        "dlq list": [()],
        "dlq show": [("trainyard-uploads-dlq",), ("trainyard-uploads-dlq", "--json"), (HOSTILE,)],
        "dlq drop": [("trainyard-uploads-dlq", "--reason", HOSTILE), ("trainyard-uploads-dlq", "--all")],
        "drain": [("tenant", "hostile", "--note", HOSTILE), ("tier", HOSTILE)],
        "retry": [(one,), (HOSTILE,), ("--tenant", "hostile"), ("--tenant", HOSTILE), ("--reason", HOSTILE)],
        "dlq redrive": [("trainyard-uploads-dlq",), (HOSTILE,)],
        "costs report": [("--tenant", "hostile"), ("--by", "data-set")],
        "costs budgets": [()],
        "costs estimates": [("--month", month)],
        "costs statement": [("hostile",)],
        "costs export": [("2026-11-25",), (HOSTILE,)],
        "costs tags": [()],
        "costs reconcile": [()],
        "prices show": [()],
        "prices update": [("--dry-run", "--file", HOSTILE)],
        "completion": [("bash",), (HOSTILE,)],
        "halt": [("tenant", "hostile"), ("tenant", HOSTILE)],
    }
    commands = {" ".join(words): words for words in leaves()}
    assert given.keys() == commands.keys(), "a new command joins"
    shown = ""
    for name, choices in given.items():
        for arguments in choices:
            capsys.readouterr()
            assert harness.run(*commands[name], *arguments) in (0, 1, 2, 4), (name, arguments)
            said = "".join(capsys.readouterr())
            assert not harmful(said), (name, arguments, said)
            shown += said
    assert "[/x][bold]" in shown, "shown as it is"
    assert r"\u202e" in shown
    assert harness.run("policy", "rollback", "--yes", "1") == 0
