"""The installed command: it runs the checkout's folders, which lie beside this file."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent / "checkout"


def main() -> int:
    sys.path[:0] = [str(CHECKOUT / "layers/common/python"), str(CHECKOUT)]
    try:
        from cli.app import main as command_line
    except KeyboardInterrupt:
        return 130
    return command_line()
