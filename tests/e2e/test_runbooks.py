"""Every command of docs/runbooks.md shows what it is there for, while the fault of its page is planted."""

import re
import shlex
from pathlib import Path

import pytest

from local.runbooks import PAGE, written
from tests.e2e.conftest import Harness
from tests.unit.test_cli import typed


def commands(text: str) -> list[str]:
    """Return the commands of a page, without ids and versions, which differ from run to run."""
    return [
        re.sub(r"\b[0-9a-f]{8}\b|\b\d+\b", "…", line) for line in re.findall(r"^\$ trainyard (.+)$", text, re.M)
    ]


@pytest.mark.thorough
def test_the_page_has_the_commands_that_the_faults_ask_for(harness: Harness, tmp_path: Path) -> None:
    harness.letters("uploads-dlq")  # of other tests: the page shows its own
    text = written(harness.cloud, harness.deployment, tmp_path)
    assert commands(PAGE.read_text(encoding="utf-8")) == commands(text), "run `make runbooks`"


def test_the_commands_of_the_page_can_be_typed() -> None:
    for line in re.findall(r"^\$ trainyard (.+)$", PAGE.read_text(encoding="utf-8"), re.M):
        assert typed(*shlex.split(line)).run
