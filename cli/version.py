"""The version of this software, from pyproject.toml: of the checkout, or of the installed package."""

import tomllib
from pathlib import Path


def version() -> str:
    file = Path(__file__).parents[1] / "pyproject.toml"
    return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"])
