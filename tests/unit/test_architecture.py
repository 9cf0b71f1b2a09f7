"""Imports go one way: functions → bootstrap → adapters → contracts → application → persistence → domain."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers/common/python/trainyard"

MAY_IMPORT = {
    "domain": {"domain"},
    "persistence": {"persistence", "domain"},
    "application": {"application", "persistence", "domain"},
    "contracts": {"contracts", "application", "persistence", "domain"},
    "adapters": {"adapters", "contracts", "application", "persistence", "domain"},
}
PURE_NEEDS = {
    "__future__",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "itertools",
    "statistics",
    "hashlib",
    "json",
    "math",
    "re",
    "typing",
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in (PACKAGE / room).rglob("*.py")
        for name in imports(path)
        if name.startswith("trainyard.") and name.split(".")[1] not in MAY_IMPORT[room]
    ]
    assert wrong == []


def test_the_domain_knows_no_clock_no_environment_and_no_aws() -> None:
    wrong = [
        f"{path.name} imports {name}"
        for path in (PACKAGE / "domain").glob("*.py")
        for name in imports(path)
        if name.split(".")[0] not in PURE_NEEDS | {"trainyard"}
    ]
    calls = [
        path.name for path in (PACKAGE / "domain").glob("*.py") if ".now(" in path.read_text(encoding="utf-8")
    ]
    assert (wrong, calls) == ([], [])


def test_only_the_aws_adapters_use_boto3() -> None:
    users = {
        path.relative_to(PACKAGE).parts[:2]
        for path in PACKAGE.rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in ("boto3", "botocore")
    }
    assert users == {("adapters", "aws")}


def test_the_functions_use_no_sdk_of_their_own() -> None:
    wrong = [
        f"{path} imports {name}"
        for path in (ROOT / "functions").rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in ("boto3", "botocore", "aws_xray_sdk")
    ]
    assert wrong == []
