"""The template as CloudFormation receives it: with loops and SAM's resources expanded."""

import copy
from functools import cache
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from local.cloud import REPOSITORY
from local.deploy import load_template

Document = dict[str, Any]


@cache
def transformed() -> Document:
    """Return the template after AWS::LanguageExtensions and AWS::Serverless, with references as they are."""
    template = load_template(REPOSITORY / "template.yaml")
    template["Resources"] = _expanded(template["Resources"], {})
    template["Transform"] = "AWS::Serverless-2016-10-31"
    for resource in template["Resources"].values():
        for member in ("CodeUri", "ContentUri", "DefinitionUri"):
            if member in resource.get("Properties", {}):
                resource["Properties"][member] = "s3://artifacts/key"
    defaults = {name: parameter.get("Default", "") for name, parameter in template["Parameters"].items()}
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name="us-east-1"))
    return dict(translator.translate(copy.deepcopy(template), parameter_values=defaults))


def _expanded(node: Any, names: dict[str, str]) -> Any:
    """Return a part of the template with each Fn::ForEach written out."""
    if isinstance(node, list):
        return [_expanded(one, names) for one in node]
    if isinstance(node, str):
        return _named(node, names)
    if not isinstance(node, dict):
        return node
    written: Document = {}
    for name, value in node.items():
        if name.startswith("Fn::ForEach::"):
            variable, items, body = value
            for item in items:
                written |= _expanded(body, names | {variable: item})
        else:
            written[_named(name, names)] = _expanded(value, names)
    if set(written) == {"Ref"} and written["Ref"] in names:
        return names[written["Ref"]]
    if set(written) == {"Fn::Sub"} and isinstance(written["Fn::Sub"], str) and "${" not in written["Fn::Sub"]:
        return written["Fn::Sub"]
    return written


def _named(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"${{{name}}}", value)
    return text
