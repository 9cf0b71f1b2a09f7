"""Whatever a command answers, printed to streams that are not an ordinary terminal."""

import io
import os
from contextlib import redirect_stdout
from typing import cast

import pytest

from cli.show import BOLD, PLAIN, RED, Answer, lines_of, show


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(answer: Answer, stream: io.TextIOWrapper) -> str:
    """Return what an answer prints to a stream."""
    with redirect_stdout(stream):
        show(answer)
        stream.flush()
    return cast(io.BytesIO, stream.buffer).getvalue().decode(stream.encoding)


def check_streams(answer: Answer) -> None:
    """Check what an answer prints to a pipe, to terminals with less than usual, and to a reader that left."""
    piped = printed(answer, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert "\x1b" not in piped
    assert piped.splitlines() == [line.text for line in lines_of(answer, None)]  # a row is a line
    ascii_only = printed(answer, io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="plainer"))
    assert ascii_only == piped.encode("ascii", "plainer").decode("ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "80")
        patch.delenv("NO_COLOR", raising=False)
        coloured = printed(answer, Terminal(io.BytesIO(), encoding="utf-8"))
        patch.setenv("NO_COLOR", "1")
        plain = printed(answer, Terminal(io.BytesIO(), encoding="utf-8"))
    assert "\x1b" not in plain
    for code in (BOLD, RED, PLAIN):
        coloured = coloured.replace(code, "")
    assert coloured == plain
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError), open(writer, "w", encoding="utf-8") as left, redirect_stdout(left):
        show(answer)  # what is raised becomes the exit code of `main`
