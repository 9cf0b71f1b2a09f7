"""Deploy template.yaml into the local cloud, as `sam package` and `sam deploy` would.

The template is used as it is, except that code folders are zipped, uploaded and replaced by S3 URLs.
"""

import hashlib
import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any

import yaml

from local.cloud import REPOSITORY, Cloud

CODE = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
}
MACHINE = "AWS::Serverless::StateMachine"
ARTIFACTS = "local-artifacts"


def deploy(cloud: Cloud, stack: str = "trainyard", parameters: dict[str, str] | None = None) -> dict[str, str]:
    """Create or update the stack; returns its outputs. Raises RuntimeError naming the resource that failed."""
    cloud.client("s3").create_bucket(Bucket=ARTIFACTS)
    # An API has an address below this one, and no host of its own.
    given = {"ConsoleOrigin": cloud.url} | (parameters or {})
    body = json.dumps(package(cloud, REPOSITORY / "template.yaml"))
    cloudformation = cloud.client("cloudformation")
    known = any(s["StackName"] == stack for s in cloudformation.describe_stacks().get("Stacks", []))
    change_set = cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=f"change-{uuid.uuid4()}",
        ChangeSetType="UPDATE" if known else "CREATE",
        TemplateURL=_upload(cloud, body.encode(), "template.json"),
        Parameters=[{"ParameterKey": n, "ParameterValue": v} for n, v in given.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    cloudformation.get_waiter("change_set_create_complete").wait(
        ChangeSetName=change_set["Id"], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    cloudformation.execute_change_set(ChangeSetName=change_set["Id"])
    return _outputs(cloud, stack, waiter="stack_update_complete" if known else "stack_create_complete")


def _outputs(cloud: Cloud, stack: str, waiter: str) -> dict[str, str]:
    cloudformation = cloud.client("cloudformation")
    try:
        cloudformation.get_waiter(waiter).wait(StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    except Exception as error:
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        failed = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in reversed(events)
            if event["ResourceStatus"].endswith("FAILED")
        ]
        raise RuntimeError(f"stack {stack} failed:\n" + "\n".join(failed[:5])) from error
    (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def package(cloud: Cloud, path: Path) -> dict[str, Any]:
    """Return the template with each code folder uploaded and replaced by an S3 URL."""
    template = load_template(path)
    for name, resource in template["Resources"].items():
        member = CODE.get(resource.get("Type", "")) if not name.startswith("Fn::") else None
        if member:
            folder = path.parent / resource["Properties"][member]
            # A layer's content belongs below python/, where `sam build` puts it.
            prefix = "python/" if member == "ContentUri" else ""
            key = _upload(cloud, zipped(folder, prefix), f"{name}.zip", as_s3=True)
            resource["Properties"][member] = key
            resource.pop("Metadata", None)
        elif not name.startswith("Fn::") and resource["Type"] == MACHINE:
            # CloudFormation reads YAML too (AWS::StepFunctions::StateMachine S3Location); MiniStack only JSON.
            machine = yaml.safe_load((path.parent / resource["Properties"]["DefinitionUri"]).read_text("utf-8"))
            body = json.dumps(machine).encode()
            resource["Properties"]["DefinitionUri"] = _upload(cloud, body, f"{name}.json", as_s3=True)
    return template


def load_template(path: Path) -> dict[str, Any]:
    """Return a template with CloudFormation's short forms (!Ref) converted to their long forms (Ref)."""
    template: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    return template


def zipped(folder: Path, prefix: str) -> bytes:
    """Return a zip file of a folder; the same files always give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            archive.writestr(zipfile.ZipInfo(prefix + file.relative_to(folder).as_posix()), file.read_bytes())
    return buffer.getvalue()


def _upload(cloud: Cloud, body: bytes, name: str, *, as_s3: bool = False) -> str:
    key = f"{hashlib.sha256(body).hexdigest()[:16]}/{name}"
    cloud.client("s3").put_object(Bucket=ARTIFACTS, Key=key, Body=body)
    return f"s3://{ARTIFACTS}/{key}" if as_s3 else f"{cloud.url}/{ARTIFACTS}/{key}"


class _Loader(yaml.SafeLoader):
    """Converts CloudFormation's short forms to their long forms."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)
