"""The command line as a process: terminals of any width and encoding, pipes that close, disks that are full."""

import fcntl
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from cli.show import Answer, lines_of

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "cli"]
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "PYTHONPATH": f"{ROOT}/layers/common/python:{ROOT}",
    "AWS_REGION": "us-east-1",
    "LANG": "C.UTF-8",
}
IDS = ("0124550c9f3e4b7a8d21c6e5f4a3b2c1", "fedcba98765432100123456789abcdef")
REASON = "Preprocess: there is no column 'churned'; the columns are customer, months, calls, plan and price"
REQUESTS = Answer(
    data=None,
    columns=("REQUEST", "DATA SET", "STATE", "ARRIVED", "QUALITY", "COST USD", "REASON"),
    rows=[(i, "customers-of-the-north", "FAILED", "11-28 02:15:30", None, "0.0012", REASON) for i in IDS],
    lines=["the last 2 of 40; --limit N shows more, and " + "so on " * 20],
    below="REASON",
)


def ran(
    *words: str, stdout: int = subprocess.PIPE, close: bool = False, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {">&- 2>&-" if close else ""}', "sh", *COMMAND, *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
        env=ENVIRONMENT | (environment or {}),
    )


def in_terminal(width: int, *words: str, **environment: str) -> tuple[int, str]:
    """Run a command in a terminal of a width; return its exit code and what the terminal received."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd="/",
        env=ENVIRONMENT | {"TERM": "xterm-256color"} | environment,
    )
    os.close(follower)
    received = b""
    try:
        while chunk := os.read(leader, 65536):
            received += chunk
    except OSError:  # Linux says EIO at the end of a terminal
        pass
    os.close(leader)
    return process.wait(60), received.decode().replace("\r\n", "\n")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    shell = " ".join(COMMAND) + ' prices show | head -1; echo "code ${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, check=False, cwd="/", env=ENVIRONMENT
    )
    assert done.stderr == ""
    assert done.stdout.startswith("INSTANCE")
    assert done.stdout.splitlines()[-1] in ("code 141", "code 0")
    reader, writer = os.pipe()
    os.close(reader)
    done = ran("prices", "show", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("words", [("prices", "show"), ("--help",), ("prices", "show", "--json")])
def test_a_full_disk_is_said_in_one_line(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = ran(*words, stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("words", [("prices", "show"), ("tenant", "create", "--help"), ("nonsense",)])
def test_closed_streams_and_terminals_without_unicode_are_no_errors(words: tuple[str, ...]) -> None:
    usual = ran(*words)
    closed = ran(*words, close=True)
    assert (closed.returncode, closed.stdout, closed.stderr) == (usual.returncode, "", "")
    plain = ran(*words, environment={"PYTHONIOENCODING": "ascii", "LANG": "C"})
    assert plain.returncode == usual.returncode
    assert (plain.stdout + plain.stderr).isascii()
    assert "Traceback" not in plain.stderr
    assert plain.stdout.replace("...", "…").split() == usual.stdout.replace("...", "…").split()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_and_tables_fit_the_terminal(width: int) -> None:
    for words in (["tenant", "create", "--help"], ["prices", "show"], ["tennant"]):
        _, said = in_terminal(width, *words)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
        # Examples can be pasted, so they are never wrapped.
        lines = [line for line in plain.splitlines() if not line.startswith(("  trainyard", "    --data-set"))]
        assert max(map(len, lines)) <= width, (words, plain)
        assert "Traceback" not in said


def test_no_colour_is_used_where_none_is_wanted() -> None:
    assert "\x1b[1m" in in_terminal(80, "prices", "show")[1]
    assert "\x1b" not in in_terminal(80, "prices", "show", NO_COLOR="1", TERM="dumb")[1]
    assert "\x1b" not in ran("prices", "show").stdout


ASKED = {
    "bash": "COMP_WORDS=(trainyard tenant cr); COMP_CWORD=2; _trainyard_completion trainyard; "
    'echo "${COMPREPLY[@]}"',
    "zsh": 'echo "${_comps[trainyard]}"; _TRAINYARD_COMPLETE=zsh_complete COMP_WORDS="trainyard tenant cr" '
    "COMP_CWORD=2 trainyard",
    "fish": 'complete -C "trainyard tenant cr"',
}
"""What a shell runs to be offered completions."""
LOADED = {
    "bash": 'eval "$(trainyard completion bash)"',
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(trainyard completion zsh)"',
    "fish": "trainyard completion fish | source",
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_completes_commands(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")  # a fresh machine has bash alone
    (tmp_path / "trainyard").write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n', encoding="utf-8")
    (tmp_path / "trainyard").chmod(0o755)
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, "-c", f"{LOADED[shell]}\n{ASKED[shell]}"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment,
        timeout=60,
    )
    assert done.stderr == ""
    assert {"create", "credentials"} <= set(done.stdout.split())
    assert "trainyard_completion" in done.stdout or shell != "zsh"


INTERRUPTIBLE = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["trainyard", "status"]
runpy.run_module("cli", run_name="__main__")
"""
"""The command where Ctrl-C works, as it does unless the tests run in the background of a shell."""


def test_ctrl_c_ends_quietly() -> None:
    silent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
            "print(s.getsockname()[1], flush=True); c = s.accept(); print(flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert silent.stdout is not None
    address = f"http://127.0.0.1:{silent.stdout.readline().strip()}"
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": address}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=ENVIRONMENT | keys,
    )
    try:
        assert silent.stdout.readline() == "\n"  # it has connected, and waits for an answer
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate(timeout=20))
    finally:
        silent.kill()
        silent.wait()
    assert (process.returncode, said.strip()) == (130, "trainyard: interrupted")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "a"),
            },
            "AWS does not answer",
        ),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "AWS did not accept the credentials"),
        ({"AWS_REGION": ""}, "no Region is set"),
        ({"AWS_PROFILE": "nobody"}, "nobody"),
    ],
)
def test_no_deployment_no_credentials_and_no_connection_are_told_within_seconds(
    environment: dict[str, str], reason: str
) -> None:
    began = time.monotonic()
    done = ran("status", environment=environment)
    assert time.monotonic() - began < 8
    assert done.returncode == 3
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def plain(answer: Answer, width: int | None) -> list[str]:
    return [line.text for line in lines_of(answer, width)]


def test_a_piped_table_has_one_line_for_each_row() -> None:
    header, *rows, line = plain(REQUESTS, None)
    assert header.split()[0] == "REQUEST"
    assert [row.split()[0] for row in rows] == list(IDS)
    assert all(row.endswith(REASON) for row in rows)
    assert line == REQUESTS.lines[0]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_no_column_is_dropped_and_ids_are_ones_that_commands_take_at_any_width(width: int) -> None:
    lines = plain(REQUESTS, width)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width
    for i in IDS:
        assert i[:8] in text
    for value in ("customers-of-the-north", "FAILED", "0.0012", REASON):
        assert text.count(value) == 2, (value, text)


def test_ids_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    alike = ["0123456789" + i[10:] for i in IDS]
    answer = Answer(data=None, columns=("REQUEST",), rows=[(i,) for i in alike])
    assert plain(answer, 80)[1:] == [i[:11] for i in alike]
    assert plain(answer, None)[1:] == alike


def test_a_long_value_is_wrapped_beside_its_name() -> None:
    answer = Answer(data=None, columns=("FIELD", "VALUE"), rows=[("state", "FAILED"), ("reason", REASON)])
    first, second, *rest = plain(answer, 40)
    assert (first, second[:8]) == ("state   FAILED", "reason  ")
    assert all(line.startswith(" " * 8) for line in rest)
    assert " ".join(line[8:] for line in (second, *rest)) == REASON
    long_names = Answer(
        data=None, columns=("FIELD", "VALUE"), rows=[("training_instances", "1 x ml.m5.large or more")]
    )
    assert plain(long_names, 30) == ["training_instances", " " * 10 + "1 x ml.m5.large or", " " * 10 + "more"]


def test_columns_that_do_not_fit_stand_by_name_below_their_row() -> None:
    assert plain(REQUESTS, 60)[:4] == [
        "REQUEST   DATA SET                STATE   ARRIVED",
        "01245508  customers-of-the-north  FAILED  11-28 02:15:30".replace("01245508", IDS[0][:8]),
        "    cost usd 0.0012",
        "    Preprocess: there is no column 'churned'; the columns",
    ]


def test_what_may_be_pasted_is_never_wrapped() -> None:
    command = "curl --fail --upload-file data.csv 'https://bucket.s3.amazonaws.com/key?" + "x" * 300 + "'"
    assert plain(Answer(data=None, verbatim=[command, "  indented:  twice"]), 40) == [
        command,
        "  indented:  twice",
    ]


def test_lines_of_a_list_keep_their_indentation() -> None:
    answer = Answer(data=None, lines=["two failed", "  2 as 0124550c: there is no column"])
    assert plain(answer, 24) == ["two failed", "  2 as 0124550c: there", "  is no column"]


def test_wide_characters_are_counted_as_the_terminal_does() -> None:
    answer = Answer(data=None, columns=("NAME", "N"), rows=[("数据", 1), ("data", 2)])
    assert plain(answer, 80) == ["NAME  N", "数据  1", "data  2"]
