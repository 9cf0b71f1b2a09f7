"""The demo's checks, which rely on the records of others: SageMaker's times, S3's versions, the models."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rich.table import Table

from cli.show import Answer, lines_of
from local.cloud import Cloud
from local.demo import archives
from local.demo.api import OPERATOR, Seen
from local.demo.scenario import Drop
from local.demo.serving import Served
from local.recomputed import executions_of, millionths, recomputed
from trainyard.domain.executions import month_of

ROWS_PREDICTED = 5
EXHAUSTED = "ml.c5.xlarge"
"""The instance type that the local cloud has no capacity of."""


@dataclass(frozen=True)
class Upload:
    drop: Drop
    bucket: str
    key: str
    version_id: str


@dataclass(frozen=True)
class Run:
    """An execution, as reported by SageMaker."""

    request_id: str
    tenant: str
    tier: str
    status: str
    began: datetime
    ended: datetime


@dataclass(frozen=True)
class Facts:
    uploads: list[Upload]
    requests: list[Any]
    runs: list[Run]
    policy: Any
    ledger: Any
    receipts: dict[str, dict[str, Any]]
    predictions: dict[str, int]
    """Request → rows that its downloaded model predicted."""
    versions: dict[str, int]
    """Request → version of its model package."""
    dead_letters: dict[str, int]
    booked: dict[str, Decimal]
    """Tenant → USD, as recorded."""
    recomputed: dict[str, Fraction]
    """Tenant → USD, recomputed from SageMaker's jobs and their tags."""
    trained_on: dict[str, str | None]
    """Request that could train on several instance types → the one that is recorded."""
    resumed_at: datetime
    served: list[Served]
    seen: list[Seen]


@dataclass(frozen=True)
class Result:
    claim: str
    passed: bool
    found: str = field(default="")


def gather(
    cloud: Cloud,
    deployment: Any,
    uploads: list[Upload],
    resumed_at: datetime,
    served: list[Served],
    seen: list[Seen],
) -> Facts:
    requests = [
        r for t in deployment.tenants.all() for r in deployment.scheduler.tables.requests.of_tenant(t.tenant_id)
    ]
    succeeded = _trained(requests)
    return Facts(
        uploads=uploads,
        requests=requests,
        runs=list(_runs(cloud.client("sagemaker"), deployment.outputs["PipelineName"])),
        policy=deployment.policies.current(),
        ledger=deployment.scheduler.tables.ledger.read(),
        receipts={r.request_id: _receipt(cloud.client("s3"), r) for r in requests},
        predictions=_predictions(cloud.client("s3"), succeeded),
        versions={
            r.request_id: int(r.outcome.model_package_arn.rpartition("/")[2])
            for r in succeeded
            if r.outcome.model_package_arn
        },
        dead_letters=_dead_letters(cloud.client("sqs")),
        booked=_booked(deployment),
        recomputed=recomputed(cloud.client("sagemaker"), deployment.outputs["PipelineName"]),
        trained_on=_trained_on(deployment, requests),
        resumed_at=resumed_at,
        served=served,
        seen=seen,
    )


def run_all(facts: Facts) -> list[Result]:
    return [
        limits_held(facts),
        pause_held(facts),
        one_execution_each(facts),
        every_upload_answered(facts),
        trained_on_claimed_content(facts),
        models_predict(facts),
        as_expected(facts),
        receipts_agree(facts),
        nothing_leaked(facts),
        books_agree(facts),
        fell_back(facts),
        models_answer(facts),
        api_shows_own(facts),
    ]


def models_answer(facts: Facts) -> Result:
    answers = [
        f"{each.ask.tenant} {each.rows} rows, {each.mode}" + ("" if each.is_good else f" (!) {each.difference}")
        for each in facts.served
    ]
    return Result(
        "approved models answer calls, and a batch transform, as their archives predict",
        bool(answers) and all(each.is_good for each in facts.served),
        ", ".join(answers),
    )


def api_shows_own(facts: Facts) -> Result:
    """Over HTTP, with tokens: each tenant all of its requests and nothing of others, and the operator all."""
    of_tenants: dict[str, set[str]] = {}
    for request in facts.requests:
        of_tenants.setdefault(request.tenant_id, set()).add(request.request_id)
    wrong = [
        f"{each.by} of {each.tenant}"
        for each in facts.seen
        if each.requests != (of_tenants[each.tenant] if each.by in (OPERATOR, each.tenant) else None)
    ]
    denied = sum(each.requests is None for each in facts.seen)
    return Result(
        "the HTTP API shows each tenant its own requests and nothing of others, and operators all",
        bool(facts.seen) and not wrong,
        f"{len(facts.seen) - denied} lists shown, {denied} denied"
        + (f"; (!) {', '.join(wrong)}" if wrong else ""),
    )


def limits_held(facts: Facts) -> Result:
    """No limit was ever exceeded, according to SageMaker's times of the executions, not to our ledger."""
    policy = facts.policy
    peaks = {"account": (_peak(facts.runs), policy.running_max)}
    for tier in policy.tiers:
        of_tier = [run for run in facts.runs if run.tier == tier.name]
        peaks[tier.name] = (_peak(of_tier), tier.slots_max)
        for tenant in sorted({run.tenant for run in of_tier}):
            peaks[tenant] = (_peak(r for r in of_tier if r.tenant == tenant), policy.ceiling(tier, tenant))
    over = {name: f"{peak} > {limit}" for name, (peak, limit) in peaks.items() if peak > limit}
    found = ", ".join(f"{name} {peak}/{limit}" for name, (peak, limit) in peaks.items())
    return Result("limits were never exceeded", not over, f"peaks {found}" + (f"; OVER: {over}" if over else ""))


def pause_held(facts: Facts) -> Result:
    early = [run.request_id for run in facts.runs if run.began < facts.resumed_at]
    return Result(
        "nothing started while the service was paused", not early, f"{len(early)} early starts {early or ''}"
    )


UNPAID = "has no column"
"""Of the demo's reasons, the one for which no run was started."""


def one_execution_each(facts: Facts) -> Result:
    """One execution for each request that was not refused or superseded, and none for the others.

    A file without the column to predict is accepted, and refused when its run is about to start.
    """
    counts = Counter(run.request_id for run in facts.runs)
    accepted = {
        r.request_id
        for r in facts.requests
        if r.state not in ("REJECTED", "SUPERSEDED", "CANCELLED") and UNPAID not in (r.reason or "")
    }
    wrong = {r: counts[r] for r in accepted | set(counts) if counts[r] != (1 if r in accepted else 0)}
    return Result(
        "one execution per accepted request",
        not wrong,
        f"{len(facts.runs)} executions, {len(accepted)} requests {wrong or ''}",
    )


def every_upload_answered(facts: Facts) -> Result:
    """Each uploaded object version became exactly one request, however often its event was delivered."""
    counts = Counter(
        (r.content.bucket, r.content.key, r.content.version_id) for r in facts.requests if r.cause == "upload"
    )
    dropped = [(u.bucket, u.key, u.version_id) for u in facts.uploads]
    missing = [key for bucket, key, version in dropped if counts[(bucket, key, version)] != 1]
    return Result(
        "one request per upload",
        not missing and len(counts) == len(dropped),
        f"{len(dropped)} uploads {missing or ''}",
    )


def trained_on_claimed_content(facts: Facts) -> Result:
    """The version that was read is the one that the request names; for a whole prefix, all files were read."""
    ran = _trained(facts.requests)
    single = [r for r in ran if r.outcome.trained_files == 1]
    wrong = [r.request_id for r in single if r.outcome.trained_version_id != r.content.version_id]
    parts = [r.outcome.trained_files for r in ran if r.outcome.trained_files != 1]
    newest = {(u.bucket, u.key): u.version_id for u in facts.uploads}
    stale = [r.request_id for r in single if r.content.version_id != newest[(r.content.bucket, r.content.key)]]
    return Result(
        "each model was trained on the content that its request names",
        not wrong and not stale and parts == [12],
        f"{len(single)} by object version, {len(parts)} on {parts} files {wrong or ''} {stale or ''}",
    )


def models_predict(facts: Facts) -> Result:
    succeeded = _trained(facts.requests)
    good = [r for r in succeeded if facts.predictions.get(r.request_id, 0) > 0 and r.request_id in facts.versions]
    return Result(
        "each model is registered, can be downloaded and predicts",
        len(good) == len(succeeded) > 0,
        f"{len(good)} models, {sum(facts.predictions.values())} rows predicted from model.tar.gz",
    )


def as_expected(facts: Facts) -> Result:
    """Requests were refused, failed or were superseded as expected, each with a reason."""
    by_upload = {(r.content.key, r.content.version_id): r for r in facts.requests if r.cause == "upload"}
    allowed = {"SUPERSEDED": ("SUPERSEDED", "SUCCEEDED"), "MERGED": ("SUPERSEDED", "SUCCEEDED")}
    wrong = []
    for upload in facts.uploads:
        request = by_upload.get((upload.key, upload.version_id))
        state = request.state.value if request else "missing"
        if state not in allowed.get(upload.drop.expected, (upload.drop.expected,)):
            wrong.append(f"{upload.drop.key} {state}: {request.reason if request else ''}")
        if request and state in ("REJECTED", "FAILED") and not request.reason:
            wrong.append(f"{upload.drop.key} has no reason")
    retrained = [r for r in facts.requests if r.cause == "retraining"]
    if [r.state.value for r in retrained] not in (["SUCCEEDED"], ["SUPERSEDED"]):
        wrong.append(f"retraining {[r.state.value for r in retrained]}")
    states = Counter(r.state.value for r in facts.requests)
    return Result(
        "refused, failed and superseded as expected", not wrong, f"{dict(sorted(states.items()))} {wrong or ''}"
    )


def receipts_agree(facts: Facts) -> Result:
    wrong = [r.request_id for r in facts.requests if facts.receipts[r.request_id].get("state") != r.state.value]
    return Result(
        "each request has a receipt with its state",
        not wrong,
        f"{len(facts.receipts)} receipts {wrong or ''}",
    )


def nothing_leaked(facts: Facts) -> Result:
    """No slot is held at the end, and the only dead letter is the malformed event."""
    used = sum(facts.ledger.usage.values())
    return Result(
        "no slot leaked, nothing lost",
        used == 0 and facts.dead_letters == {"trainyard-uploads-dlq": 1},
        f"{used} slots held; dead letters {facts.dead_letters}, the malformed event",
    )


def books_agree(facts: Facts) -> Result:
    ours = {tenant: millionths(usd) for tenant, usd in facts.booked.items()}
    theirs = {tenant: millionths(usd) for tenant, usd in facts.recomputed.items()}
    total = sum(facts.booked.values(), Decimal(0))
    return Result(
        "each tenant's recorded cost matches its jobs in SageMaker",
        ours == theirs and total > 0,
        f"{total} USD of {len(ours)} tenants, recomputed to a millionth of a dollar",
    )


def fell_back(facts: Facts) -> Result:
    """Where the preferred instance type has no capacity, runs train on the next one, and are charged for that."""
    counts = Counter(facts.trained_on.values())
    return Result(
        "runs whose preferred instances had no capacity trained on the next type",
        bool(counts) and EXHAUSTED not in counts and None not in counts,
        ", ".join(f"{count} on {name}" for name, count in counts.items()) + f", none on {EXHAUSTED}",
    )


def request_lines(facts: Facts, width: int) -> list[str]:
    """Return the lines of a table of all requests, by tenant, for a terminal of a width."""
    shown = [r for r in facts.requests if not (r.state == "SUPERSEDED" and r.data_set == "sales")]
    answer = Answer(
        data=None,
        columns=("REQUEST", "TENANT", "DATA SET", "STATE", "WAITED", "QUALITY", "MODEL", "COST USD", "REASON"),
        rows=[
            (
                r.request_id,
                r.tenant_id,
                r.data_set,
                r.state.value,
                _seconds(r.arrived_at, r.started_at),
                f"{r.outcome.quality:.3f}" if r.outcome and r.outcome.quality is not None else None,
                f"v{facts.versions[r.request_id]}" if r.request_id in facts.versions else None,
                r.outcome.cost_usd if r.outcome else None,
                r.reason,
            )
            for r in sorted(shown, key=lambda r: (r.tenant_id, r.arrived_at))
        ],
        lines=[f"{len(facts.requests) - len(shown)} more of the twelve sales parts were merged into one training"],
        below="REASON",
    )
    return [line.text for line in lines_of(answer, width)]


def request_table(facts: Facts, *, each: int | None = None) -> Table:
    """Return a table of all requests by tier and tenant, or of the first `each` ones of each tenant."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = (
        "REQUEST",
        "TENANT",
        "TIER",
        "DATA SET",
        "STATE",
        "WAITED",
        "RAN",
        "QUALITY",
        "MODEL",
        "COST USD",
        "REASON",
    )
    for column in columns:
        numeric = column in ("WAITED", "RAN", "QUALITY", "MODEL", "COST USD")
        table.add_column(
            column, justify="right" if numeric else "left", overflow="ellipsis", no_wrap=column != "REASON"
        )
    shown = [r for r in facts.requests if not (r.state == "SUPERSEDED" and r.data_set == "sales")]
    count: Counter[str] = Counter()
    for r in sorted(shown, key=lambda r: (r.tier, r.tenant_id, r.arrived_at)):
        count[r.tenant_id] += 1
        if each is not None and count[r.tenant_id] > each:
            continue
        quality = f"{r.outcome.quality:.3f}" if r.outcome and r.outcome.quality is not None else ""
        table.add_row(
            r.request_id[:8],
            r.tenant_id,
            r.tier,
            r.data_set,
            r.state.value,
            _seconds(r.arrived_at, r.started_at),
            _seconds(r.started_at, r.finished_at),
            quality,
            f"v{facts.versions[r.request_id]}" if r.request_id in facts.versions else "",
            (r.outcome.cost_usd if r.outcome else None) or "",
            r.reason or "",
        )
    table.caption = (
        f"{len(facts.requests) - len(shown)} more of the twelve sales parts were merged into one training"
    )
    return table


def _booked(deployment: Any) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for totals in deployment.book.totals(month_of(datetime.now(UTC))):
        found[totals.tenant_id] = found.get(totals.tenant_id, Decimal(0)) + totals.usd
    return found


def _trained_on(deployment: Any, requests: Iterable[Any]) -> dict[str, str | None]:
    several = [r for r in requests if r.state == "SUCCEEDED" and "," in r.profile]
    jobs = {r.request_id: _training_jobs(deployment.book.executions(r.request_id)) for r in several}
    return {request_id: of_request[-1] if of_request else None for request_id, of_request in jobs.items()}


def _training_jobs(executions: Iterable[Any]) -> list[str | None]:
    """Return the instance types of the training jobs of executions."""
    steps = (record.step for execution in executions for record in execution.steps)
    return [step.job.instance_type for step in steps if step.job is not None and step.kind == "Training"]


def _peak(runs: Iterable[Run]) -> int:
    """Return the maximum of concurrent executions; one that starts when another ends does not overlap it."""
    moves = [(at, step) for run in runs for at, step in ((run.began, 1), (run.ended, -1))]
    running = peak = 0
    for _, step in sorted(moves):
        running += step
        peak = max(peak, running)
    return peak


def _runs(sagemaker: Any, pipeline: str) -> Iterable[Run]:
    for summary in executions_of(sagemaker, pipeline):
        arn = summary["PipelineExecutionArn"]
        execution = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        listed = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
        parameters = {p["Name"]: p["Value"] for p in listed}
        yield Run(
            request_id=parameters["RequestId"],
            tenant=parameters["TenantId"],
            tier=parameters["TierName"],
            status=execution["PipelineExecutionStatus"],
            began=execution["CreationTime"],
            ended=execution["LastModifiedTime"],
        )


def _trained(requests: Iterable[Any]) -> list[Any]:
    return [r for r in requests if r.state == "SUCCEEDED" and r.kind == "training"]


def _receipt(s3: Any, request: Any) -> dict[str, Any]:
    root = re.split("incoming/|transform/", request.content.key, maxsplit=1)[0]
    key = f"{root}receipts/{request.data_set}/{request.request_id}.json"
    try:
        body = s3.get_object(Bucket=request.content.bucket, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return {}
    found: dict[str, Any] = json.loads(body)
    return found


def _predictions(s3: Any, requests: Iterable[Any]) -> dict[str, int]:
    """Return how many of the first rows of its data each model predicts, downloaded."""
    tables = {
        request: s3.get_object(Bucket=request.content.bucket, Key=request.content.key)["Body"].read()
        for request in requests
    }
    return {name: len(rows) for name, rows in archives.predicted(s3, tables, ROWS_PREDICTED).items()}


def _dead_letters(sqs: Any) -> dict[str, int]:
    urls = [url for url in sqs.list_queues().get("QueueUrls", []) if url.endswith("-dlq")]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = {
        url.rpartition("/")[2]: sum(
            int(n) for n in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()
        )
        for url in urls
    }
    return {name: count for name, count in counts.items() if count}


def _seconds(begin: datetime | None, end: datetime | None) -> str:
    return f"{(end - begin).total_seconds():.1f} s" if begin and end else ""
