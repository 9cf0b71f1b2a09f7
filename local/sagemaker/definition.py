"""Read a pipeline definition: parameters, references and functions, as SageMaker Pipelines does.

Source: the JSON schema of SageMaker's model building pipeline definitions (aws-sagemaker-mlops on GitHub Pages).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class InvalidParameter(Exception):
    """A parameter is missing, unknown, or not of its type."""


class Unresolved(Exception):
    """A reference names something that does not exist."""


def parameter_values(definition: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return every parameter's value, of its type; raises InvalidParameter as StartPipelineExecution would."""
    declared = {parameter["Name"]: parameter for parameter in definition["Parameters"]}
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise InvalidParameter(f"Unknown pipeline parameters: {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for name, parameter in declared.items():
        raw = given.get(name, parameter.get("DefaultValue"))
        if raw is None or raw == "":
            raise InvalidParameter(f"Pipeline parameter {name} has no value")
        values[name] = _typed(name, parameter["Type"], raw)
    return values


def _truth(raw: Any) -> bool:
    if str(raw).lower() not in ("true", "false"):
        raise ValueError(raw)
    return str(raw).lower() == "true"


_READERS: Mapping[str, Callable[[Any], Any]] = {"String": str, "Integer": int, "Float": float, "Boolean": _truth}


def _typed(name: str, kind: str, raw: Any) -> Any:
    try:
        return _READERS[kind](raw)
    except ValueError as error:
        raise InvalidParameter(f"Pipeline parameter {name} is not of type {kind}: {raw!r}") from error


@dataclass
class Context:
    """The values of references while an execution runs."""

    parameters: Mapping[str, Any]
    execution: Mapping[str, Any]
    read_json: Callable[[str], Any]
    steps: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Step name → what Describe returns for its job, and "PropertyFiles" → name → S3 URI."""

    def resolve(self, value: Any) -> Any:
        """Return a value with every reference and function in it replaced; raises Unresolved."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._get(value["Get"])
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            return str(join["On"]).join(str(self.resolve(part)) for part in join["Values"])
        if set(value) == {"Std:JsonGet"}:
            return self._json_get(value["Std:JsonGet"])
        return {name: self.resolve(inner) for name, inner in value.items()}

    def holds(self, condition: Mapping[str, Any]) -> bool:
        """Tell whether a condition holds; raises Unresolved for an unknown type."""
        compare: dict[str, Callable[[Any, Any], bool]] = {
            "GreaterThanOrEqualTo": lambda left, right: left >= right,
            "GreaterThan": lambda left, right: left > right,
            "LessThanOrEqualTo": lambda left, right: left <= right,
            "LessThan": lambda left, right: left < right,
            "Equals": lambda left, right: left == right,
        }
        if condition["Type"] not in compare:
            raise Unresolved(f"condition {condition['Type']}")
        return compare[condition["Type"]](
            self.resolve(condition["LeftValue"]), self.resolve(condition["RightValue"])
        )

    def _get(self, path: str) -> Any:
        root, _, rest = path.partition(".")
        try:
            if root == "Parameters":
                return self.parameters[rest]
            if root == "Execution":
                return self.execution[rest]
            step, _, inner = rest.partition(".")
            return _walk(self.steps[step], inner)
        except (KeyError, IndexError) as error:
            raise Unresolved(f"{path} is not known yet") from error

    def _json_get(self, function: Mapping[str, Any]) -> Any:
        document = self.read_json(self._get(function["PropertyFile"]["Get"]))
        try:
            return _walk(document, function["Path"])
        except (KeyError, IndexError, TypeError) as error:
            raise Unresolved(f"{function['Path']} is not in {json.dumps(document)[:200]}") from error


def _walk(found: Any, path: str) -> Any:
    for part in re.findall(r"[^.\[\]'\"]+", path):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def ordered(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps in an order in which each follows those that it depends on, explicitly or by reference."""
    names = {step["Name"] for step in steps}
    done: list[dict[str, Any]] = []
    rest = list(steps)
    while rest:
        ready = next(s for s in rest if not _needs(s, names) - {d["Name"] for d in done})
        done.append(ready)
        rest.remove(ready)
    return done


def _needs(step: Mapping[str, Any], names: set[str]) -> set[str]:
    text = json.dumps(step["Arguments"])
    referenced = {name for name in names if f'"Steps.{name}.' in text and name != step["Name"]}
    return referenced | set(step.get("DependsOn", []))
