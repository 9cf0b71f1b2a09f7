"""The local SageMaker is as strict as the real one: a pipeline can only do what its role allows."""

import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.cloud import REPOSITORY
from local.patches import trust_lets
from local.sagemaker.containers import Image
from local.sagemaker.jobs import Job
from local.sagemaker.service import SageMakerService
from testing.service import ACCOUNT, DEFAULTS
from tests.build import policy, request, tenant, tier
from tests.evaluator import DATA_KEY, DEPLOYMENT, ROLES, STACK, Call, decision, template
from trainyard.domain.parameters import Defaults, pipeline_parameters

ROLE = f"arn:aws:iam::{ACCOUNT}:role/{STACK}-PipelineRole"
KEYS = {"Stage": "dev", "RecorderArn": f"arn:aws:any:us-east-1:{ACCOUNT}:RecorderFunction"}


class Runner:
    """Jobs that end at once."""

    def process(self, job: Job) -> None:
        job.started_at = job.ended_at = datetime.now(UTC)

    def train(self, job: Job) -> None:
        self.process(job)
        job.artifacts = "s3://bucket/model.tar.gz"


class Clients:
    """What the pipeline calls as itself."""

    def get_object(self, **_: Any) -> dict[str, Any]:
        return {
            "Body": io.BytesIO(
                json.dumps({"quality": {"value": 0.9}, "verdict": {"beats_baseline": 1, "text": ""}}).encode()
            )
        }

    def invoke(self, **_: Any) -> dict[str, Any]:
        return {"Payload": io.BytesIO(b"{}")}

    def create_model_package(self, **_: Any) -> dict[str, str]:
        return {"ModelPackageArn": "arn:package"}


Denial = Callable[[str, str, str, dict[str, Any]], str | None]
Trusts = Callable[[str, str], bool]


def run(denial: Denial, trusts: Trusts = lambda *_: True) -> tuple[str, dict[str, str]]:
    """Run the shipped pipeline; return the execution's status, and step → failure."""
    clients = Clients()
    service = SageMakerService(
        account_id=ACCOUNT,
        region="us-east-1",
        runner=Runner(),  # type: ignore[arg-type]
        client_as=lambda _, __: clients,
        emit=lambda _: None,
        client=lambda _: clients,
        assume=lambda _: {},
        image=Image(Path(), Path()),
        denial=denial,
        trusts=trusts,
    )
    text = (REPOSITORY / "pipeline" / "definition.json").read_text(encoding="utf-8")
    for name, value in KEYS.items():
        text = text.replace(f"${{{name}}}", value)
    service.create_pipeline({"PipelineName": "p", "PipelineDefinition": text, "RoleArn": ROLE})
    owner = tenant(model_group=f"{STACK}--acme", role_arn=f"{ROLES}{STACK}--acme")
    defaults = Defaults(
        training_image_uri=DEFAULTS.training_image_uri,
        processing_image_uri=DEFAULTS.processing_image_uri,
        code_uri=DEFAULTS.code_uri,
        key_arn=DATA_KEY,
    )
    limits = policy()
    parameters = pipeline_parameters(
        request(attempt=1), owner, tier(), limits.algorithm("linear"), defaults=defaults
    )
    started = service.start(
        {
            "PipelineName": "p",
            "ClientRequestToken": "t" * 32,
            "PipelineParameters": [{"Name": name, "Value": value} for name, value in parameters.items()],
        }
    )
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        told = service.describe_execution(started)
        if told["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            break
        time.sleep(0.01)
    steps = service.list_steps(started)["PipelineExecutionSteps"]
    return told["PipelineExecutionStatus"], {s["StepName"]: s.get("FailureReason", "") for s in steps}


def by_policy(document: dict[str, Any], asked: list[str]) -> Denial:
    """Return what a role with this policy may do; notes each action that is asked for."""

    def denial(role: str, action: str, resource: str, keys: dict[str, Any]) -> str | None:
        asked.append(action)
        call = Call(principal=role, action=action, resource=resource, keys=keys)
        return None if decision(call, document) == "Allow" else f"is not authorized to perform: {action}"

    return denial


NEEDED = (
    "sagemaker:CreateProcessingJob",
    "sagemaker:CreateTrainingJob",
    "sagemaker:CreateModelPackage",
    "sagemaker:CreateModelPackageGroup",
    "sagemaker:AddTags",
    "iam:PassRole",
)


def test_the_pipelines_role_may_do_all_that_pipelines_does_with_it() -> None:
    asked: list[str] = []
    status, failures = run(by_policy(template().policy("PipelineRole"), asked))
    assert (status, [text for text in failures.values() if text]) == ("Succeeded", [])
    assert set(asked) == set(NEEDED)


@pytest.mark.parametrize("action", NEEDED)
def test_without_any_one_of_these_rights_the_run_fails_and_says_which(action: str) -> None:
    document = template().policy("PipelineRole")
    denied = {"Sid": "No", "Effect": "Deny", "Action": action, "Resource": "*"}
    status, failures = run(by_policy({**document, "Statement": [*document["Statement"], denied]}, []))
    assert status == "Failed"
    assert f"is not authorized to perform: {action}" in str(failures)


def test_roles_trust_sagemaker_for_what_it_runs_in_this_account_and_region_alone() -> None:
    asked: list[tuple[str, str]] = []

    def trusts(role_arn: str, source_arn: str) -> bool:
        asked.append((role_arn, source_arn))
        trust = template().trust("PipelineRole") if role_arn == ROLE else DEPLOYMENT.trust()
        return trust_lets(trust, role_arn, source_arn)

    assert run(lambda *_: None, trusts)[0] == "Succeeded"
    assert len(asked) == 4, "the pipeline's role, and the tenant's for each job"
    for role_arn, source_arn in tuple(asked):
        assert not trusts(role_arn, source_arn.replace(ACCOUNT, "999999999999"))
        assert not trusts(role_arn, source_arn.replace(":us-east-1:", ":eu-west-1:"))
    assert not trust_lets(template().trust("PipelineRole"), ROLE, asked[1][1]), "no job runs as the pipeline"
    status, failures = run(lambda *_: None, lambda role_arn, _: role_arn == ROLE)
    assert (status, "Could not assume role" in str(failures)) == ("Failed", True)


def test_registering_needs_tags_on_group_and_package_alike() -> None:
    for resource in ("model-package-group", "model-package/"):
        document = template().policy("PipelineRole")
        arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:{resource}*"
        denied = {"Effect": "Deny", "Action": "sagemaker:AddTags", "Resource": arn}
        status, failures = run(by_policy({**document, "Statement": [*document["Statement"], denied]}, []))
        assert (status, "sagemaker:AddTags" in failures["Register"]) == ("Failed", True)
