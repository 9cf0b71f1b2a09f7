"""What the docs point to is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))


def test_every_test_that_the_security_page_names_exists() -> None:
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)(…?)`", text)
    assert len(named) > 15
    missing = [name for name, cut in named if f"def {name}" + ("" if cut else "(") not in SOURCES]
    assert missing == []


def test_every_file_that_a_page_links_to_or_names_exists() -> None:
    wrong = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        links = [page.parent / link.partition("#")[0] for link in re.findall(r"\]\(([^)h#][^)]*)\)", text)]
        named = [
            ROOT / name for name in re.findall(r"`((?:tests|docs|local|events|pipeline)/[\w/.-]+\.\w+)`", text)
        ]
        wrong += [f"{page.name}: {path}" for path in (*links, *named) if not path.exists()]
    assert wrong == []
