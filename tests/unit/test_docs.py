"""Everything that the docs refer to exists."""

import re
from pathlib import Path

from trainyard.domain.requests import TRANSITIONS

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


def test_the_concepts_page_has_every_state_with_its_next_states() -> None:
    text = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]+) \| .+? \| ([A-Z, ]*?)\s*\|$", text, re.MULTILINE)
    assert {state: set(filter(None, following.split(", "))) for state, following in rows} == {
        state.value: {after.value for after in following} for state, following in TRANSITIONS.items()
    }


PACKAGE = ROOT / "layers/common/python/trainyard"
TOUR = (ROOT / "docs/tour.md").read_text(encoding="utf-8")


def path_of(name: str) -> Path:
    return ROOT / name if name.startswith("functions/") else PACKAGE / name


def test_every_function_of_the_tour_is_in_the_file_that_it_names() -> None:
    steps = re.findall(r"`([\w/]+\.py)` · `(\w+)`(?:.*?; `(\w+)`)?", TOUR)
    assert len(steps) > 20
    for name, *functions in steps:
        source = path_of(name).read_text(encoding="utf-8")
        for function in filter(None, functions):
            assert re.search(rf"(def|class) {function}\b", source), f"{name} has no {function}"
    for name in re.findall(r"`([\w/]+\.py)`", TOUR):
        assert (path_of(name).exists()) or (ROOT / name).exists(), name


def test_a_slot_is_taken_and_given_back_in_six_files_each() -> None:
    for heading in ("Where a slot is taken", "Where a slot is given back"):
        walk = TOUR.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        files = re.findall(r"^\d\. `([\w/]+\.py)`", walk, re.MULTILINE)
        assert 4 <= len(set(files)) == len(files) <= 6
