"""Pictures of terminal output, for the README and the documentation."""

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType

WIDTH = 132


def save(path: Path, shown: RenderableType, *, title: str = "make demo", width: int = WIDTH) -> None:
    """Save terminal output as an SVG with the viewer's own fonts."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    path.write_text(with_own_fonts(console.export_svg(title=title)), encoding="utf-8")


def with_own_fonts(svg: str) -> str:
    """Return a picture without the fonts that it would have downloaded when it is shown."""
    without = re.sub(r"@font-face\s*{.*?}\s*", "", svg, flags=re.DOTALL)
    return without.replace("Fira Code, monospace", "monospace").replace("Fira Code", "monospace")
