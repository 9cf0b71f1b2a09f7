"""An algorithm's file and its step scripts: read, and checked before they are published."""

import ast
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from local.sagemaker.interpreter import interpreter
from pipeline.publish import libraries
from trainyard.domain.algorithms import BUILT_IN, Algorithm
from trainyard.domain.errors import Refused

PIPELINE = Path(__file__).parent.parent / "pipeline"
TRAINING_ARGUMENTS = ("--algorithm", "--hyperparameters")
"""What SageMaker's training toolkit passes to train.py: the hyperparameters of the job in pipeline/author.py."""


def read_entry(file: Path) -> dict[str, Any]:
    """Return the fields of an algorithm's file; raises Refused for anything else."""
    try:
        entry = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entry, dict):
        raise Refused(
            f"{file} is not an algorithm: it needs name, description, hyperparameters, … (docs/tenants.md)"
        )
    return entry


def shipped_scripts() -> dict[str, bytes]:
    """Return the step scripts of a deployment, by name, with the libraries that the image lacks."""
    scripts = {path.name: path.read_bytes() for path in sorted((PIPELINE / "steps").glob("*.*"))}
    return scripts | {"libraries.zip": libraries()}


def own_scripts(folder: Path) -> dict[str, bytes]:
    """Return an algorithm's own step scripts, by name; raises Refused where one cannot run in the pipeline."""
    own = {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))} if folder.is_dir() else {}
    if not own:
        raise Refused(f"--scripts {folder}: the folder contains no *.py files")
    for name, body in own.items():
        _check_script(folder / name, body)
    return own


def with_shipped(own: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return an algorithm's own scripts, and the shipped ones that it does not replace."""
    return shipped_scripts() | dict(own)


def check_is_trainable(algorithm: Algorithm, own: Mapping[str, bytes]) -> None:
    """Raise Refused for an algorithm that no script trains: the shipped train.py has only its own ones."""
    shipped = [algorithm.name for algorithm in BUILT_IN]
    published = algorithm.code_uri is not None and not own
    if algorithm.family in shipped or published or algorithm.training_image_uri or "train.py" in own:
        return
    raise Refused(
        f"{algorithm.name} has no script that trains it: give the folder of its train.py with --scripts, or its "
        f"training_image; the shipped train.py has {', '.join(shipped)}"
    )


def doubts(algorithm: Algorithm, own: Mapping[str, bytes]) -> list[str]:
    """Return what is probably wrong with an algorithm's own scripts, but may be right."""
    text = b"\n".join(own.values()).decode("utf-8", "replace")
    unread = [name for name in algorithm.hyperparameters if name not in text] if "train.py" in own else []
    return [
        *(note for name in own for note in _missing_arguments(name, own)),
        *(
            [
                f"note: no script mentions {', '.join(unread)}: train.py finds each hyperparameter in SM_HPS, "
                'below "hyperparameters"'
            ]
            if unread
            else []
        ),
    ]


def _check_script(path: Path, body: bytes) -> None:
    """Raise Refused for a script that does not compile, by this Python or by the one that runs the steps here."""
    try:
        ast.parse(body, filename=path.name)
    except (SyntaxError, ValueError) as error:
        command = [interpreter(), "-c", "import ast, sys; ast.parse(sys.stdin.buffer.read())"]
        if subprocess.run(command, input=body, capture_output=True, check=False).returncode == 0:  # noqa: S603
            return
        line = getattr(error, "lineno", None)
        where = f"{path}, line {line}" if line else str(path)
        raise Refused(f"{where} does not compile: {getattr(error, 'msg', None) or error}") from error


def _missing_arguments(name: str, own: Mapping[str, bytes]) -> Iterator[str]:
    """Yield a note on arguments that the pipeline passes to a script and that no script of its folder names."""
    try:
        trees = {other: ast.parse(body) for other, body in own.items() if other.endswith(".py")}
    except (SyntaxError, ValueError):  # of a newer Python than this one
        return
    named = set().union(*map(_arguments, trees.values()))
    missing = [option for option in _passed_to(name) if option not in named]
    if name in trees and missing and _is_strict(trees[name]):
        yield (
            f"note: {name} does not seem to take {', '.join(missing)}, which the pipeline passes to it: add them "
            "with add_argument, or ignore what it does not know with parse_known_args"
        )


def _passed_to(name: str) -> list[str]:
    """Return the arguments that the pipeline passes to a script."""
    if name == "train.py":
        return list(TRAINING_ARGUMENTS)
    definition = json.loads((PIPELINE / "definition.json").read_text(encoding="utf-8"))
    for step in definition["Steps"]:
        application = step["Arguments"].get("AppSpecification", {})
        if application.get("ContainerEntrypoint", [""])[-1].rpartition("/")[2] == name:
            return [option for value in application["ContainerArguments"] for option in _options(value)]
    return []


def _options(value: Any) -> Iterator[str]:
    """Yield the option that an argument of a step is or begins with: "--target", or {"Std:Join": "--target=…"}."""
    text = value["Std:Join"]["Values"][0] if isinstance(value, dict) and "Std:Join" in value else value
    if isinstance(text, str) and text.startswith("--"):
        yield text


def _arguments(tree: ast.AST) -> set[str]:
    """Return the options that a script names."""
    texts = (
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in texts if text.startswith("-")}


def _is_strict(tree: ast.AST) -> bool:
    """Tell whether a script refuses arguments that it does not name, as far as can be seen without running it."""
    called = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    computed = any(
        isinstance(node, ast.JoinedStr)
        and node.values
        and isinstance(node.values[0], ast.Constant)
        and str(node.values[0].value).startswith("-")
        for node in ast.walk(tree)
    )
    return "parse_args" in called and not computed
