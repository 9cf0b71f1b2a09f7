"""A picture of the demo's result for the README."""

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType

WIDTH = 132


def save(path: Path, shown: RenderableType) -> None:
    """Save terminal output as an SVG with the viewer's own fonts, so that nothing is downloaded to show it."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    own_fonts = re.sub(r"@font-face\s*{{.*?}}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(
        str(path), title="make demo", code_format=own_fonts.replace("Fira Code, monospace", "monospace")
    )
