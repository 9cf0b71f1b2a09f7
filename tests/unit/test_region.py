"""One Region for make, the command line and every client."""

import subprocess
from pathlib import Path

import boto3
import pytest

from cli.region import main, settle_region
from trainyard.domain.errors import Refused

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_either_variable_names_the_region_for_every_client(name: str) -> None:
    environment = {name: "eu-west-1"}
    assert settle_region(environment) == "eu-west-1"
    assert environment == {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}


def test_two_regions_that_differ_are_refused_and_named() -> None:
    with pytest.raises(Refused, match="AWS_REGION=eu-west-1 and AWS_DEFAULT_REGION=us-east-1"):
        settle_region({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"})


def test_without_a_region_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(Refused, match="export AWS_REGION"):
        settle_region({})
    (tmp_path / "config").write_text("[default]\nregion = eu-north-1\n", encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert settle_region({}) == "eu-north-1"


def test_a_failing_look_for_the_account_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main("trainyard-dev") == 1
    assert "check the credentials" in capsys.readouterr().err


def test_make_chooses_no_region() -> None:
    """What make exports reaches `sam deploy`, and not the command line beside it."""
    told = subprocess.run(
        ["make", "--dry-run", "--print-data-base", "help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert "AWS_DEFAULT_REGION" not in told.stdout
    assert "AWS_REGION" not in told.stdout.split("# Files")[0].replace("cli.region", "")
