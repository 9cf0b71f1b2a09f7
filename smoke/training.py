"""Steps with tenants and their data: onboarding, one file that becomes a model, and each way to fail."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from smoke.data import BAD_TARGET, NO_PATTERN, ONE_CLASS, WORKS, table
from smoke.deployed import POLICY, POOLED, SILO, STRICT, apply
from smoke.place import Suite
from smoke.steps import Step, StepFailed, eventually
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.errors import Refused
from trainyard.domain.requests import TERMINAL, Request, State
from trainyard.domain.tenants import Tenant, TenantState

RUN_SECONDS_MAX = 1800
JOBS_OF_A_RUN = 3


def onboard(suite: Suite) -> list[str]:
    _create(suite, SILO, "basic", "--retrain", "rate(30 days)")
    _create(suite, POOLED, "premium")
    drift = suite.operator("tenant", "check", SILO) + suite.operator("tenant", "check", POOLED)
    if SILO in drift or POOLED in drift:
        raise StepFailed(drift)
    sagemaker, group = suite.client("sagemaker"), suite.deployment.tenant(SILO).model_group
    try:
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
        raise StepFailed(f"the model group {group} was created twice")
    except sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("ValidationException", "ConflictException"):
            raise
        said = suite.keep("group-exists", error.response["Error"])
    return [f"{SILO} has a bucket, {POOLED} has a prefix in the pool, and both match their records", said]


def _create(suite: Suite, name: str, tier: str, *options: str) -> None:
    """Create a tenant, or repair it if an earlier run of the suite created it."""
    try:
        made = suite.deployment.tenant(name).state is not TenantState.DELETED
    except Refused:
        made = False
    if made:
        suite.operator("tenant", "repair", name)
    else:
        suite.operator("tenant", "create", name, "--tier", tier, "--target", "target", *options)


_uploads = count(1)


def upload(suite: Suite, tenant_id: str, data_set: str, kind: str = WORKS) -> tuple[str, str]:
    """Upload a table; return its key and version, which identify its request."""
    tenant = suite.deployment.tenant(tenant_id)
    key = f"{tenant.root}incoming/{data_set}/data.csv"
    # Blank lines make it another content each time: what has not changed is not trained on.
    body = table(kind) + b"\n" * next(_uploads)
    answer = suite.client("s3").put_object(Bucket=tenant.bucket, Key=key, Body=body)
    return key, str(answer["VersionId"])


def request_of(suite: Suite, tenant_id: str, uploaded: tuple[str, str]) -> Request | None:
    requests = suite.deployment.scheduler.tables.requests.of_tenant(tenant_id)
    return next((r for r in requests if (r.content.key, r.content.version_id) == uploaded), None)


def await_end(suite: Suite, tenant_id: str, uploaded: tuple[str, str]) -> Request:
    def ended() -> Request | None:
        request = request_of(suite, tenant_id, uploaded)
        return request if request is not None and request.state in TERMINAL else None

    request, _ = eventually(ended, RUN_SECONDS_MAX, f"the end of {uploaded[0]}")
    assert isinstance(request, Request)
    return request


def one_file(suite: Suite) -> list[str]:
    lines = []
    # One upload to a new bucket, whose events may not arrive yet, and one to the pool.
    uploaded = {name: upload(suite, name, "first") for name in (SILO, POOLED)}
    for name in (SILO, POOLED):
        request, _ = eventually(lambda: request_of(suite, name, uploaded[name]), 1200, f"a request of {name}")  # noqa: B023
        delay = (request.arrived_at - request.content.event_time).total_seconds()
        lines.append(f"{name}: upload → request after {delay:.0f} s")
    for name in (SILO, POOLED):
        request = await_end(suite, name, uploaded[name])
        if request.state is not State.SUCCEEDED:
            raise StepFailed(f"{name}: {request.state}, {request.reason}")
        lines += _checked(suite, suite.deployment.tenant(name), request)
    return lines


def _checked(suite: Suite, tenant: Tenant, request: Request) -> list[str]:
    """Check the jobs, the model, the receipt and the cost of an execution; raises StepFailed."""
    sagemaker, names = suite.client("sagemaker"), []
    for job in jobs_of(suite, str(request.execution_arn)):
        arn = job.get("TrainingJobArn") or job["ProcessingJobArn"]
        names.append(arn.rpartition("/")[2])
        tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
        output = job.get("OutputDataConfig") or job["ProcessingOutputConfig"]
        wanted = (tenant.role_arn, tenant.tenant_id, tenant.key_arn or suite.deployment.outputs["DataKeyArn"])
        seen = (job["RoleArn"], tags.get("trainyard:tenant"), output.get("KmsKeyId"))
        if seen != wanted:
            raise StepFailed(f"{arn}: role, tenant and key are {seen}, not {wanted}")
    outcome = request.outcome
    if outcome is None or outcome.model_package_arn is None or len(names) != JOBS_OF_A_RUN:
        raise StepFailed(f"expected {JOBS_OF_A_RUN} jobs and a model, found {len(names)} jobs and {outcome}")
    package = sagemaker.describe_model_package(ModelPackageName=outcome.model_package_arn)
    card = package.get("ModelMetrics", {}).get("Explainability", {}).get("Report", {}).get("S3Uri", "")
    bucket, _, card_key = card.removeprefix("s3://").partition("/")
    suite.client("s3").head_object(Bucket=bucket, Key=card_key)
    key = f"{tenant.root}receipts/{request.data_set}/{request.request_id}.json"
    receipt = suite.client("s3").get_object(Bucket=tenant.bucket, Key=key)["Body"].read()
    if b"SUCCEEDED" not in receipt:
        raise StepFailed(f"the receipt says {receipt.decode('utf-8', 'replace')[:300]}")
    has_prices = bool(prices_of(suite.region).hourly)
    if has_prices and (outcome.cost_usd is None or outcome.cost_unknown):
        raise StepFailed(f"the cost of the execution is unknown: {outcome}")
    cost = f"{outcome.cost_usd} USD" if has_prices else f"no prices for {suite.region} (trainyard prices update)"
    return [f"{tenant.tenant_id}: {outcome.model_package_arn}, quality {outcome.quality}, {cost}"]


def jobs_of(suite: Suite, execution_arn: str) -> Iterator[dict[str, Any]]:
    """Yield SageMaker's description of each job of an execution."""
    sagemaker = suite.client("sagemaker")
    for step in steps_of(suite, execution_arn):
        for kind, describe in (
            ("ProcessingJob", sagemaker.describe_processing_job),
            ("TrainingJob", sagemaker.describe_training_job),
        ):
            arn = step.get("Metadata", {}).get(kind, {}).get("Arn")
            if arn:
                yield describe(**{f"{kind}Name": arn.rpartition("/")[2]})


def steps_of(suite: Suite, execution_arn: str) -> list[dict[str, Any]]:
    answer = suite.client("sagemaker").list_pipeline_execution_steps(PipelineExecutionArn=execution_arn)
    return list(answer["PipelineExecutionSteps"])


def failures(suite: Suite) -> list[str]:
    _create(suite, STRICT, "standard")
    lines = []
    cases = ((SILO, BAD_TARGET), (SILO, ONE_CLASS), (STRICT, NO_PATTERN))
    uploaded = {kind: upload(suite, name, kind, kind) for name, kind in cases}
    for name, kind in cases:
        request = await_end(suite, name, uploaded[kind])
        if request.state is not State.FAILED:
            raise StepFailed(f"{kind}: {request.state}, {request.reason}")
        if kind == BAD_TARGET:
            if request.execution_arn is not None:
                raise StepFailed(f"{kind}: a run was started and paid for: {request.execution_arn}")
            lines.append(f"{kind}: {request.reason}")
            continue
        words = words_of(suite, str(request.execution_arn), cause="run", told=request.reason)
        lines += [f"{kind}: {request.reason}", suite.keep(f"words-{kind}", words)]
    return lines


def words_of(suite: Suite, execution_arn: str, *, cause: str, told: str | None) -> dict[str, Any]:
    """Return SageMaker's messages about a failed execution, the expected cause, and what the tenant was told.

    The format is that of tests/data/words/.
    """
    steps = [step for step in steps_of(suite, execution_arn) if step.get("FailureReason")]
    jobs = [
        {name: job.get(name) for name in ("FailureReason", "ExitMessage") if job.get(name)}
        for job in jobs_of(suite, execution_arn)
    ]
    return {
        "cause": cause,
        "steps": {step["StepName"]: step["FailureReason"] for step in steps},
        "jobs": [job for job in jobs if job],
        "told": told,
    }


def no_quota(suite: Suite) -> list[str]:
    """Let an execution request an instance type for which the account has no quota."""
    quotas = suite.client("service-quotas").get_paginator("list_service_quotas")
    ending = " for training job usage"
    allowed = suite.deployment.outputs["AllowedInstanceTypes"].split(",")
    none = [
        quota["QuotaName"].removesuffix(ending)
        for page in quotas.paginate(ServiceCode="sagemaker")
        for quota in page["Quotas"]
        if quota["QuotaName"].endswith(ending) and quota["Value"] == 0
    ]
    chosen = next((name for name in none if any(name.startswith(one.rstrip("*")) for one in allowed)), None)
    if chosen is None:
        raise StepFailed(f"every instance type of {allowed} has a quota: there is nothing to test")
    without = POLICY.replace("training: ml.m5.large", f"training: {chosen}").replace(
        "attempts_max: 1", "attempts_max: 3"
    )
    apply(suite, without, "an instance type without quota")
    try:
        uploaded = upload(suite, SILO, "no-quota")

        def over() -> Request | None:
            request = request_of(suite, SILO, uploaded)
            again = request is not None and (request.failures > 0 or request.state in TERMINAL)
            return request if again else None

        request, seconds = eventually(over, RUN_SECONDS_MAX, "the end of its first attempt")
        words = words_of(suite, _first_execution(suite, request), cause="resource limit", told=request.reason)
        kept = suite.keep("words-no-quota", words)
        if request.state in TERMINAL:
            raise StepFailed(f"{chosen}: {request.state}, {request.reason}\n{kept}")
        suite.operator("stop", request.request_id)
    finally:
        apply(suite, POLICY, "smoke suite")
    return [f"{chosen}: the request was requeued after {seconds:g} s", kept]


def _first_execution(suite: Suite, request: Request) -> str:
    """Return the ARN of a request's first execution that has ended."""
    pages = suite.client("sagemaker").get_paginator("list_pipeline_executions")
    name = suite.deployment.outputs["PipelineName"]
    for page in pages.paginate(PipelineName=name, SortBy="CreationTime", SortOrder="Descending"):
        for summary in page["PipelineExecutionSummaries"]:
            if str(summary.get("PipelineExecutionDisplayName", "")).startswith(request.request_id):
                return str(summary["PipelineExecutionArn"])
    raise StepFailed(f"SageMaker lists no execution of {request.request_id}")


def own_key(suite: Suite) -> list[str]:
    kms, name = suite.client("kms"), "smoke-key"
    _forget(suite, name)  # an earlier key of this tenant is scheduled for deletion
    key = kms.create_key(
        Description=f"{suite.stack}: smoke suite",
        Tags=[{"TagKey": "trainyard:lend", "TagValue": suite.stack}],
    )["KeyMetadata"]["Arn"]
    try:
        time.sleep(300)  # it takes minutes until a tag authorises
        _create(suite, name, "basic", "--kms-key", key)
        request = await_end(suite, name, upload(suite, name, "first"))
        if request.state is not State.SUCCEEDED:
            raise StepFailed(f"{request.state}: {request.reason}")
        lines = _checked(suite, suite.deployment.tenant(name), request)
        _forget(suite, name)
    finally:
        kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    return [*lines, "the key will be deleted in seven days"]


def _forget(suite: Suite, tenant_id: str) -> None:
    if suite.deployment.tenants.get(tenant_id) is not None:
        suite.operator("tenant", "delete", tenant_id, "--yes", "--purge")


STEPS: tuple[Step[Suite], ...] = (
    Step(
        name="onboard",
        does="create a tenant with a bucket and one in the pool; try to create an existing model group",
        means="the state machine's last state names the call that was denied; so does `trainyard tenant show`.",
        run=onboard,
        minutes=3,
    ),
    Step(
        name="one-file",
        does="upload one small file for each, and follow it to its model: tags, roles, keys, receipt, cost",
        means="an upload without a request: a new bucket's events may take minutes, the sweep runs every five; a "
        "failed execution: see `trainyard request`; aws:SourceArn may differ when roles are assumed.",
        run=one_file,
        minutes=25,
        jobs=2 * JOBS_OF_A_RUN,
    ),
    Step(
        name="failures",
        does="let requests fail: a missing column, one class, a model of low quality; save SageMaker's messages",
        means="SageMaker words a failure differently than domain/failures.py expects: compare the saved messages.",
        run=failures,
        minutes=20,
        jobs=5,
    ),
    Step(
        name="no-quota",
        does="use an instance type whose quota is 0, check that the request is requeued, save the messages",
        means="a request that lacks quota would fail permanently, or hold its slot: see domain/failures.py.",
        run=no_quota,
        on_aws_alone="the local cloud has no quotas",
        minutes=15,
        jobs=2,
    ),
    Step(
        name="own-key",
        does="create a KMS key, let a tenant use it only through grants, and train with it",
        means="a job's role needs more than a grant, or KMS ignores the tag: see adapters/aws/provisioning.py.",
        run=own_key,
        on_aws_alone="the local cloud does not check KMS permissions",
        minutes=25,
        jobs=JOBS_OF_A_RUN,
    ),
)
