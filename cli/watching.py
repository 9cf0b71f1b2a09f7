"""Show an answer again and again, in place on a terminal, until Ctrl-C."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from cli.show import Answer, show

SECONDS_BETWEEN = 2.0
HOME_AND_CLEAR = "\x1b[H\x1b[J"
"""Puts the cursor to the top left, and clears what is below it: the screen does not flicker."""


def watch(read: Callable[[], Answer], seconds: float = SECONDS_BETWEEN) -> None:
    """Show what `read` returns every few seconds; what it raises ends the watching."""
    terminal = sys.stdout.isatty()
    while True:
        answer = read()
        if terminal:
            sys.stdout.write(HOME_AND_CLEAR)
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, every {seconds:g} s; Ctrl-C ends it\n")
        show(answer)
        if not terminal:
            print()
        sys.stdout.flush()
        time.sleep(seconds)
