"""Where the suite runs: an AWS account, through SAM, or the local cloud."""

import contextlib
import io
import json
import os
import subprocess
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import ClientError

from cli.app import main as command_line
from cli.codes import DONE
from cli.deployment import Deployment
from local.cloud import Cloud
from local.deploy import deploy as deploy_locally
from smoke.steps import StepFailed
from trainyard.adapters.aws.clients import client
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.policy import Policy

REPOSITORY = Path(__file__).parents[1]
SAM = REPOSITORY / ".venv-sam/bin/sam"


class Place(Protocol):
    local: bool

    def deploy(self, stack: str, stage: str, **parameters: str) -> None:
        """Create or update the stack, with parameters that differ from the stage's; raises StepFailed with
        CloudFormation's reasons.
        """
        ...

    def changes(self, stack: str, stage: str) -> list[str]:
        """Return what a deployment would change, without deploying."""
        ...


class AnAccount:
    """Implements Place through SAM, with the credentials and the Region of the environment."""

    local = False

    def deploy(self, stack: str, stage: str, **parameters: str) -> None:
        try:
            _sam(stack, stage, *_overrides(stage, parameters))
        except StepFailed as failure:
            causes = failed_resources(stack)
            raise StepFailed("\n".join(causes or str(failure).splitlines())) from failure

    def changes(self, stack: str, stage: str) -> list[str]:
        cloudformation = client("cloudformation")
        before = {summary["ChangeSetId"] for summary in _change_sets(stack)}
        try:
            _sam(stack, stage, "--no-execute-changeset")
            found: list[str] = []
            for summary in _change_sets(stack):
                if summary["ChangeSetId"] not in before:
                    told = cloudformation.describe_change_set(ChangeSetName=summary["ChangeSetId"])
                    found += [_told(change) for change in told.get("Changes", [])]
                    cloudformation.delete_change_set(ChangeSetName=summary["ChangeSetId"])
        finally:  # a stack that only has a change set stays in review until it is deleted
            if status_of(stack) == "REVIEW_IN_PROGRESS":
                cloudformation.delete_stack(StackName=stack)
        return found


def _change_sets(stack: str) -> list[dict[str, Any]]:
    if status_of(stack) is None:
        return []
    pages = client("cloudformation").get_paginator("list_change_sets").paginate(StackName=stack)
    return [summary for page in pages for summary in page["Summaries"]]


def _sam(stack: str, stage: str, *options: str) -> None:
    """Run `sam build`, then `sam deploy`; raises StepFailed with the end of their output."""
    _printed([str(SAM), "build"])
    command = [
        str(SAM),
        "deploy",
        "--config-env",
        stage,
        "--stack-name",
        stack,
        "--region",
        os.environ["AWS_REGION"],
    ]
    command += ["--no-confirm-changeset", "--no-fail-on-empty-changeset", *options]
    _printed(command)


def _overrides(stage: str, parameters: Mapping[str, str]) -> list[str]:
    """Return the option that adds parameters to those of a stage: on its own, it would replace them."""
    if not parameters:
        return []
    config = tomllib.loads((REPOSITORY / "samconfig.toml").read_text(encoding="utf-8"))
    own = config[stage]["deploy"]["parameters"]["parameter_overrides"].split()
    return ["--parameter-overrides", *own, *(f"{name}={value}" for name, value in parameters.items())]


def _printed(command: list[str]) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise StepFailed("\n".join((done.stdout + done.stderr).splitlines()[-30:]))


def _told(change: dict[str, Any]) -> str:
    resource = change["ResourceChange"]
    return f"{resource['Action']} {resource['LogicalResourceId']}"


@dataclass
class ALocalCloud:
    """Implements Place in a local cloud that is up."""

    cloud: Cloud
    local = True

    def deploy(self, stack: str, stage: str, **parameters: str) -> None:
        try:
            deploy_locally(self.cloud, stack, {"Stage": stage, **parameters})
        except RuntimeError as error:
            raise StepFailed(str(error)) from error

    def changes(self, stack: str, stage: str) -> list[str]:
        cloudformation, new = client("cloudformation"), status_of(stack) is None
        change_set = cloudformation.create_change_set(
            StackName=stack,
            ChangeSetName=f"change-{uuid.uuid4()}",
            ChangeSetType="CREATE" if new else "UPDATE",
            TemplateURL=packaged(self.cloud),
            Parameters=[{"ParameterKey": "Stage", "ParameterValue": stage}],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        found = cloudformation.describe_change_set(ChangeSetName=change_set["Id"])
        cloudformation.delete_change_set(ChangeSetName=change_set["Id"])
        if new:
            cloudformation.delete_stack(StackName=stack)
        return [_told(change) for change in found.get("Changes", [])]


def packaged(cloud: Cloud) -> str:
    """Upload the template with its code, and return its URL."""
    from local.deploy import ARTIFACTS, _upload, package

    cloud.client("s3").create_bucket(Bucket=ARTIFACTS)
    return _upload(cloud, json.dumps(package(cloud, REPOSITORY / "template.yaml")).encode(), "template.json")


HEALTHY = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    }
)
"""Statuses in which a stack is as last deployed."""


def way_out(stack: str, status: str) -> str:
    """Return what to do about an unhealthy stack."""
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS", "CREATE_FAILED", "DELETE_FAILED"):
        return f"it contains nothing; delete it: aws cloudformation delete-stack --stack-name {stack}"
    return "wait until the operation has finished"


def failed_resources(stack: str) -> list[str]:
    """Return CloudFormation's reasons for the failed resources, in the order of failure."""
    if status_of(stack) is None:
        return []
    pages = client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack)
    events = [event for page in pages for event in page["StackEvents"]]
    failed = [event for event in reversed(events) if event["ResourceStatus"].endswith("_FAILED")]
    return [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}" for event in failed[:10]]


def status_of(stack: str) -> str | None:
    """Return a stack's status, or None if there is no such stack."""
    try:
        (found,) = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise
    return None if found["StackStatus"] == "DELETE_COMPLETE" else str(found["StackStatus"])


@dataclass(kw_only=True)
class Suite:
    """What the steps have in common."""

    place: Place
    stack: str
    stage: str
    account_id: str
    region: str
    evidence: Path
    """Folder for AWS's exact responses."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Values that one step passes to another; a step that is run alone determines them again."""

    @cached_property
    def deployment(self) -> Deployment:
        return Deployment(self.stack)

    @property
    def shipped_policy(self) -> Policy:
        return parse_policy(DEPLOYED.read_text(encoding="utf-8"), 0, self.region)

    @property
    def patience(self) -> float:
        """The factor by which timeouts on AWS are longer than in the local cloud."""
        return 1.0 if self.place.local else 10.0

    def client(self, service: str) -> Any:
        return client(service)

    def operator(self, *arguments: str, codes: tuple[int, ...] = (DONE,)) -> str:
        """Run a `trainyard` command and return its output; raises StepFailed with its errors for another code."""
        printed, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
            code = command_line(["--stack", self.stack, *arguments])
        if code not in codes:
            raise StepFailed(f"trainyard {' '.join(arguments)}: {complained.getvalue().strip()}")
        return printed.getvalue()

    def keep(self, name: str, value: Any) -> str:
        """Save a value as JSON; return a line that names the file."""
        self.evidence.mkdir(parents=True, exist_ok=True)
        path = self.evidence / f"{name}.json"
        path.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
        return f"saved: {path}"
