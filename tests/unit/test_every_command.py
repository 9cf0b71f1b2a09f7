"""What each command does where there is nothing to talk to, and with words that nobody expects.

What commands show of a deployment is tested by tests/e2e: each answer in terminals of several widths.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from cli.app import main
from cli.syntax.command import Command
from tests.tables import without_cloud
from tests.unit.test_cli import command_of, leaves

TABLE = "plan,months,churned\n" + "a,1,0\nb,2,1\n" * 40
POLICY = (Path(__file__).parents[2] / "layers/common/python/trainyard/policy.yaml").read_text(encoding="utf-8")
FILES = {
    "churn.csv": TABLE,
    "policy.yaml": POLICY,
    "candidate.yaml": POLICY,
    "neighbours.yaml": "name: neighbours\n",
    "neighbours/train.py": "print('trained')\n",
}
ALONE = ("check", "prices show")
"""Commands whose example needs no deployment; so does `algorithm test`, which has tests of its own."""
EARLIER = {
    "top": "needs a terminal",
    "prices update": "--volume-gb-month",
}
"""Commands whose example is refused before AWS is asked → the reason."""
COMMANDS = [
    words for words in leaves() if isinstance(command_of(words), Command) and words != ("algorithm", "test")
]


def example(words: tuple[str, ...]) -> list[str]:
    """Return the first example of a command's help, as a shell would split it."""
    command = command_of(words)
    assert isinstance(command, Command)
    text = re.split(r"(?<![\w-])trainyard ", " ".join(command.examples))[1]
    return shlex.split(text.partition(" | ")[0].removesuffix(')"').replace("\\ ", " "))


@pytest.fixture(autouse=True)
def _nothing_but_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in a folder with the files that the examples name, without credentials, and wait for nobody."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbours").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # which remembers credentials
    yield from without_cloud(monkeypatch)


def named(words: tuple[str, ...]) -> str:
    return "-".join(words)


def ended(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], reason: str) -> None:
    """Run a command's example, and check that it ends with a line that says the reason, or needs no deployment."""
    code = main(example(words))
    printed, said = capsys.readouterr()
    assert "Traceback" not in printed + said
    assert "unexpected" not in said
    name = " ".join(words)
    if name in ALONE:
        assert code == 0, said
        return
    assert code == (1 if name in EARLIER else 3), (code, said)
    assert EARLIER.get(name, reason) in said
    assert said.splitlines()[-1].startswith("trainyard: "), said
    assert printed == ""


@pytest.mark.parametrize("words", COMMANDS, ids=named)
def test_without_credentials_it_says_so(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    ended(words, capsys, "AWS did not accept the credentials")


@pytest.mark.parametrize("words", COMMANDS, ids=named)
def test_where_nobody_answers_it_says_what_to_check(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ended(words, capsys, "AWS does not answer")


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != ("doctor",)], ids=named)
def test_where_nothing_is_deployed_it_says_how_to_name_a_deployment(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with mock_aws():  # which lacks the quotas that `doctor` reads; tests/e2e/test_operating.py has that
        ended(words, capsys, "there is no stack 'trainyard-dev'")


@pytest.mark.parametrize("words", list(leaves()), ids=named)
def test_mistyped_words_are_named_and_nothing_is_done(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--no-such-option", "\x1b[31m"]) == 2
    printed, said = capsys.readouterr()
    assert printed == ""
    assert "--no-such-option" in said
    assert "\x1b" not in said
    assert f"see: trainyard {' '.join(words)} --help" in said
