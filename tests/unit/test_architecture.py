"""Imports go one way: functions → bootstrap → adapters → contracts → application → persistence → domain."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers/common/python/trainyard"

FILE_LINES_MAX, CLASS_LINES_MAX, FUNCTION_LINES_MAX = 500, 400, 50

MAY_IMPORT = {
    "domain": {"domain"},
    "persistence": {"persistence", "domain"},
    "application": {"application", "persistence", "domain"},
    "contracts": {"contracts", "application", "persistence", "domain"},
    "adapters": {"adapters", "contracts", "application", "persistence", "domain"},
}
PURE_NEEDS = {
    "__future__",
    "bisect",
    "codecs",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "functools",
    "itertools",
    "statistics",
    "hashlib",
    "json",
    "math",
    "re",
    "zoneinfo",  # its data is a package (tzdata), and depends on no clock
    "typing",
    "zlib",
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in (PACKAGE / package).rglob("*.py")
        for name in imports(path)
        if name.startswith("trainyard.") and name.split(".")[1] not in MAY_IMPORT[package]
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


def test_the_functions_import_no_adapter() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "functions").rglob("*.py")
        for name in imports(path)
        if name.startswith("trainyard.adapters")
    ]
    assert wrong == []


def test_no_file_class_or_function_that_ships_is_longer_than_a_reader_can_hold() -> None:
    """Longer functions say why in a comment of their own, "long: …"."""
    too_long = []
    shipped = (PACKAGE, ROOT / "functions", ROOT / "cli", ROOT / "pipeline")
    for path in (path for folder in shipped for path in folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        name = str(path.relative_to(ROOT))
        if source.count("\n") > FILE_LINES_MAX:
            too_long.append(f"{name}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            lines = (node.end_lineno or 0) - node.lineno + 1
            limit = CLASS_LINES_MAX if isinstance(node, ast.ClassDef) else FUNCTION_LINES_MAX
            excused = "# long: " in "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])
            if lines > limit and not excused:
                too_long.append(f"{name}: {node.name} has {lines} lines")
    assert too_long == []


def test_no_two_modules_of_the_layer_import_each_other() -> None:
    """Imports inside functions count too: those of the bootstrap alone are there for cold starts."""
    needs = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): {
            name for name in imports(path) if name.startswith("trainyard.")
        }
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    reached: dict[str, set[str]] = {}

    def reach(module: str, path: tuple[str, ...]) -> set[str]:
        assert module not in path, f"a circle: {' → '.join((*path[path.index(module) :], module))}"
        if module not in reached:
            below = needs.get(module, set())
            reached[module] = below.union(*(reach(other, (*path, module)) for other in below))
        return reached[module]

    for module in needs:
        reach(module, ())


def test_the_service_is_wired_in_two_places_only() -> None:
    """One wiring ships; simulator, benchmarks and tests share the other."""
    use_cases = {"Intake", "Enlist", "Dispatch", "Starts", "Record", "Reconcile", "Stop", "OutboxRelay"}
    wirings = {"layers/common/python/trainyard/entrypoints", "testing", "cli"}
    found = {
        str(path.relative_to(ROOT))
        for folder in ("layers", "functions", "testing", "simulation", "benchmarks", "local", "cli", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in use_cases
    }
    assert {path for path in found if not any(path.startswith(wiring) for wiring in wirings)} == set()
    assert len(found) >= 3


SAY_NOTHING = {"found", "known", "one", "told", "kept", "left"}


def test_names_say_what_they_hold() -> None:
    """A name such as `found` leaves its reader to search for what was."""
    shipped = (PACKAGE, ROOT / "functions", ROOT / "cli", ROOT / "pipeline")
    bindings = [
        (str(path.relative_to(ROOT)), node.lineno, node.id if isinstance(node, ast.Name) else node.arg)
        for folder in shipped
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)) or isinstance(node, ast.arg)
    ]
    assert len(bindings) > 7000
    assert [place for *place, name in bindings if name in SAY_NOTHING] == []


def test_no_two_files_of_tests_create_a_tenant_of_the_same_name() -> None:
    """Files of end-to-end tests share a deployment, in an order that depends on how they are spread.

    Those of several deployments side by side have deployments of their own.
    """
    created: dict[str, set[str]] = {}
    for path in sorted({*(ROOT / "tests/e2e").glob("test_*.py")} - {ROOT / "tests/e2e/test_side_by_side.py"}):
        for name in re.findall(r'\bcreate(?:_pooled)?\(\s*"([a-z0-9-]+)"', path.read_text(encoding="utf-8")):
            created.setdefault(name, set()).add(path.name)
    assert {name: files for name, files in created.items() if len(files) > 1} == {}
