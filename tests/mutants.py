"""Remove each condition of each write of the protocol, one at a time, and check that a test fails.

    python -m tests.mutants [--only completion] [--comparisons]

A copy of the repository is changed, in a temporary directory; the tests are those of the protocol over the store
in memory. Prints each mutant that survives, and how many of all did; fails if any did.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from local.cloud import REPOSITORY

PACKAGE = "layers/common/python/trainyard"
FOLDERS = ("application/scheduling", "persistence")
WRITE_NOTHING = ("explain.py",)
"""Files of these folders that are no part of the protocol: a wrong answer of theirs changes nothing."""
CONDITIONS = frozenset({"Is", "IsOr", "AtMost", "AtLeast", "Absent", "OneOf"})
TESTS = (
    "tests/unit/test_conditions.py",
    "tests/conformance",
    "tests/unit/test_ends.py",
    "tests/unit/test_use_cases.py",
    "tests/unit/test_instance_preferences.py",
    "tests/unit/test_spot.py",
    "tests/unit/test_book.py",
    "tests/unit/test_tenants.py",
    "tests/unit/test_lost_uploads.py",
    "tests/unit/test_explain.py",
    "tests/unit/test_storage_faults.py",
    "tests/unit/test_passes.py",
    "tests/unit/test_requests.py",
    "tests/unit/test_guard.py",
    "tests/unit/test_merging.py",
    "tests/unit/test_deadlines.py",
    "tests/unit/test_limits_by_the_hour.py",
    "tests/unit/test_expedite.py",
    "tests/unit/test_reports.py",
    "tests/unit/test_template.py",
    "tests/unit/test_cold_start.py",
    "tests/unit/test_aliases.py",
    "tests/unit/test_model_deployment.py",
    "tests/unit/test_inference.py",
    "tests/unit/test_bulk_actions.py",
    "tests/unit/test_api_keys.py",
    "tests/unit/test_retraining.py",
    "tests/unit/test_waves.py",
    "tests/unit/test_tuning.py",
)
WORKERS = 2
SECONDS_MAX = 300
"""A mutant whose tests take longer loops for ever, and counts as failing."""


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    gone: str
    source: str


def condition_makers(sources: Iterable[str]) -> frozenset[str]:
    """Return the names of conditions, and of the functions that say that they return some."""
    made = {
        node.name
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.returns is not None
        if {"Condition", *CONDITIONS} & set(re.findall(r"\w+", ast.unparse(node.returns)))
    }
    return CONDITIONS | made


def mutants(file: str, source: str, makers: frozenset[str]) -> Iterator[Mutant]:
    """Return the source without each condition in turn."""
    text = Text(file, source)
    for function in ast.walk(text.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        named = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and _makes_condition(node.value, makers)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
                for element in node.elts:
                    if _is_condition(element, named, makers):
                        yield text.without(element, "*()")
            elif isinstance(node, ast.keyword) and node.arg == "when" and not isinstance(node.value, ast.Tuple):
                yield text.without(node.value, "()")


OPPOSITE: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: ">=",
    ast.LtE: ">",
    ast.Gt: "<=",
    ast.GtE: "<",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}


def comparisons(file: str, source: str) -> Iterator[Mutant]:
    """Return the source with each comparison turned into its opposite in turn, those of assertions left out."""
    text = Text(file, source)
    asserted = {
        id(inner) for node in ast.walk(text.tree) if isinstance(node, ast.Assert) for inner in ast.walk(node)
    }
    for node in ast.walk(text.tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and id(node) not in asserted:
            left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
            yield text.without(node, f"({left} {OPPOSITE[type(node.ops[0])]} {right})")


class Text:
    """The source of a file, of which parts are replaced."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source, self.tree = file, source.encode(), ast.parse(source)
        lines = self.source.splitlines(keepends=True)
        self.starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]

    def without(self, node: ast.expr, instead: str) -> Mutant:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        gone = " ".join(self.source[begin:end].decode().split())
        changed = (self.source[:begin] + instead.encode() + self.source[end:]).decode()
        return Mutant(self.file, node.lineno, gone, changed)


def _is_condition(element: ast.expr, named: set[str], makers: frozenset[str]) -> bool:
    """Tell whether an element of a tuple is a condition, or some: a call, or a name that holds it."""
    value = element.value if isinstance(element, ast.Starred) else element
    return (
        _is_call(value, makers)
        or (isinstance(value, ast.Name) and value.id in named)
        or (isinstance(element, ast.Starred) and _makes_condition(value, makers))
    )


def _makes_condition(node: ast.expr, makers: frozenset[str]) -> bool:
    return any(_is_call(inner, makers) for inner in ast.walk(node)) and not any(
        isinstance(inner, ast.Call) and ast.unparse(inner.func) in ("Update", "Put", "Delete")
        for inner in ast.walk(node)
    )


def _is_call(node: ast.AST, makers: frozenset[str]) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in makers


@contextmanager
def copies(count: int) -> Iterator["SimpleQueue[Path]"]:
    """Yield so many copies of the repository, to change."""
    free: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            copy = Path(folder) / str(number)
            left_out = shutil.ignore_patterns(".venv*", ".git", ".aws-sam", "*_cache", "__pycache__")
            shutil.copytree(REPOSITORY, copy, ignore=left_out)
            free.put(copy)
        yield free


def survives(mutant: Mutant, free: "SimpleQueue[Path]") -> bool:
    copy = free.get()
    path = copy / PACKAGE / mutant.file
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(mutant.source, encoding="utf-8")
        over_memory = ("-k", "not moto and not ministack")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *over_memory, *TESTS],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": f"{copy}/layers/common/python:{copy}", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=False,
            timeout=SECONDS_MAX,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.file}:{mutant.line}: {done.stdout.decode()[-2000:]}")
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(before, encoding="utf-8")
        free.put(copy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of a file's name")
    parser.add_argument("--comparisons", action="store_true", help="turn comparisons around instead")
    arguments = parser.parse_args()
    only = arguments.only
    every = {
        f"{folder}/{path.name}": path.read_text(encoding="utf-8")
        for folder in FOLDERS
        for path in sorted((REPOSITORY / PACKAGE / folder).glob("*.py"))
        if path.name not in WRITE_NOTHING
    }
    makers = condition_makers(every.values())
    sources = {name: source for name, source in every.items() if only in name}
    made = (
        [m for name, source in sources.items() for m in comparisons(name, source)]
        if arguments.comparisons
        else [m for name, source in sources.items() for m in mutants(name, source, makers)]
    )
    if not made:
        parser.error(f"no file of {PACKAGE} whose name holds {only!r} has a condition")
    alive = 0
    with copies(WORKERS) as free, ThreadPoolExecutor(WORKERS) as pool:
        for number, (mutant, survived) in enumerate(
            zip(made, pool.map(lambda one: survives(one, free), made), strict=True), 1
        ):
            alive += survived
            if survived or sys.stdout.isatty():
                word = "SURVIVES" if survived else "fails"
                print(f"{number}/{len(made)} {word} {mutant.file}:{mutant.line} {mutant.gone}", flush=True)
    print(f"{alive} of {len(made)} conditions are needed by no test")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
