"""The models of a tenant's group."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.serving import aliases_of
from cli.show import Answer
from trainyard.adapters.aws.approval_links import KmsLinks
from trainyard.adapters.aws.serving import SageMakerPackages
from trainyard.domain.approval_links import COMMENT_LENGTH_MAX, ApprovalLink, Decision
from trainyard.domain.errors import Malformed, Refused
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant

BARS = "▁▂▃▄▅▆▇█"
"""For a line of qualities, the lowest to the highest."""

LINE_VERSIONS_MAX = 20
COMMENTS_MAX = 5
"""Of the newest versions, why they were approved or rejected."""

CHANGE = (
    "CHANGE is against the model before, on the same rows; in brackets, against the approved one, each on its own"
)
PENDING = "PendingManualApproval"
SHORT = {PENDING: "pending", "Approved": "approved", "Rejected": "rejected"}
"""SageMaker's status of a model package → how a table shows it."""


def list_models(deployment: Deployment, arguments: Arguments) -> Answer:
    """List the versions of a tenant's models, with their quality, and how it compares with the approved one."""
    tenant = deployment.tenant(arguments.tenant_id)
    views = [_view(deployment, arn) for arn in _package_arns(deployment, tenant)]
    ids = [view["request"] for view in views if view["request"]]
    requests = {request.request_id: request for request in deployment.scheduler.tables.requests.get_all(ids)}
    approved: dict[tuple[str, str], float] = {}
    """Data set and metric → the quality of its last approved version: other metrics cannot be compared."""
    for view in views:
        view.update(_judged(requests.get(view["request"])))
        if view["status"] == "Approved" and view["quality"] is not None:
            approved[view["data_set"], view["metric"]] = view["quality"]
    for view in views:
        of_approved = approved.get((view["data_set"], view["metric"]))
        if view["gain"] is not None:
            view["change"] = view["gain"]
            continue
        is_comparable = of_approved is not None and view["quality"] is not None and view["status"] != "Approved"
        view["change"] = view["quality"] - of_approved if is_comparable else None
    return _table(views, has_approved=bool(approved))


def _table(views: list[dict[str, Any]], *, has_approved: bool) -> Answer:
    return Answer(
        data=views,
        columns=(
            "VERSION",
            "DATA SET",
            "QUALITY",
            "METRIC",
            "CHANGE",
            "STATUS",
            "ALGORITHM",
            "REQUEST",
            "CREATED",
        ),
        rows=[
            (
                view["version"],
                view["data_set"],
                None if view["quality"] is None else f"{view['quality']:.3f}",
                view["metric"],
                _change(view),
                SHORT.get(view["status"], view["status"]),
                view["algorithm"],
                view["request"],
                view["created_at"].astimezone(UTC).strftime("%m-%d %H:%M"),
            )
            for view in views
        ],
        lines=[
            *_quality_lines(views),
            *([CHANGE] if has_approved or any(view["gain"] is not None for view in views) else []),
            *(
                f"version {view['version']}: {view['comment']}"
                for view in views[-COMMENTS_MAX:]
                if view["comment"]
            ),
        ],
    )


def _change(view: dict[str, Any]) -> str | None:
    if view["change"] is None:
        return None
    return f"{view['change']:+.3f}" if view["gain"] is not None else f"({view['change']:+.3f})"


def _judged(request: Request | None) -> dict[str, Any]:
    """Return what is known of the training that made a model; nothing once its request is deleted."""
    outcome = request.outcome if request else None
    return {
        "quality": outcome.quality if outcome else None,
        "metric": outcome.quality_metric if outcome else None,
        "baseline": outcome.baseline if outcome else None,
        "champion": outcome.champion if outcome else None,
        "gain": outcome.gain if outcome else None,
        "segment_gain": outcome.segment_gain if outcome else None,
        "not_compared": outcome.not_compared if outcome else None,
        "algorithm": request.algorithm if request else None,
    }


def _quality_lines(views: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each data set with several versions: how the quality went."""
    judged: dict[tuple[str, str], list[float]] = {}
    for view in views:
        if view["quality"] is not None:
            judged.setdefault((str(view["data_set"]), str(view["metric"])), []).append(view["quality"])
    for (name, metric), qualities in judged.items():
        last = qualities[-LINE_VERSIONS_MAX:]
        if len(last) > 1:
            yield f"{name}: {metric} {_bars(last)}  {last[0]:.3f} to {last[-1]:.3f} over {len(last)} versions"


def _bars(values: list[float]) -> str:
    """Return a character for each value, the higher the greater it is among them."""
    low, high = min(values), max(values)
    return "".join(BARS[round((value - low) / ((high - low) or 1) * (len(BARS) - 1))] for value in values)


def approve(deployment: Deployment, arguments: Arguments) -> Answer:
    return _decide(deployment, arguments, Decision.APPROVE)


def reject(deployment: Deployment, arguments: Arguments) -> Answer:
    return _decide(deployment, arguments, Decision.REJECT)


def link(deployment: Deployment, arguments: Arguments) -> Answer:
    """Make a link by which somebody else decides about a version."""
    key_id = deployment.outputs.get("ApprovalKeyArn")
    if not key_id:
        raise Refused("there are no approval links: deploy with ApprovalLinks=true (docs/serving.md)")
    package = _find(deployment, arguments)
    if package["status"] != PENDING:
        raise Refused(
            f"version {arguments.version} is {package['status']}: a link only decides what nobody has decided; "
            f"`trainyard models approve` and `reject` change it"
        )
    registered = SageMakerPackages().get(package["arn"])
    if registered is None or registered.tenant_id != arguments.tenant_id:
        raise Refused(f"version {arguments.version} was not registered by a training of this deployment")
    expires_at = (datetime.now(UTC) + timedelta(days=arguments.days)).replace(microsecond=0)
    approval = ApprovalLink(
        tenant_id=arguments.tenant_id,
        version=arguments.version,
        request_id=registered.request_id,
        expires_at=expires_at,
        reviewer=arguments.reviewer,
    )
    try:
        text = KmsLinks(key_id).write(approval)
    except Malformed as error:
        raise Refused(f"no link can be made for {arguments.reviewer!r}: {error}") from error
    address = f"{deployment.outputs['ApprovalsAddress']}/approvals/{text}"
    return Answer(
        data={"link": address, "expires_at": expires_at, "arn": package["arn"], "reviewer": arguments.reviewer},
        lines=[
            address,
            f"valid until {expires_at:%Y-%m-%d %H:%M} UTC, or until version {arguments.version} is approved or "
            "rejected; whoever has the link can do that: send it in confidence",
        ],
    )


def fetch(deployment: Deployment, arguments: Arguments) -> Answer:
    package = _find(deployment, arguments)
    target: Path = arguments.to or Path(f"{arguments.tenant_id}-{arguments.version}.tar.gz")
    bucket, _, key = package["model_uri"].removeprefix("s3://").partition("/")
    deployment.client("s3").download_file(bucket, key, str(target))
    return Answer(data={"file": str(target)}, lines=[f"wrote {target}"])


def _decide(deployment: Deployment, arguments: Arguments, decision: Decision) -> Answer:
    package, packages = _find(deployment, arguments), SageMakerPackages()
    # Always with a comment, so that that of an earlier decision does not remain.
    comment = f"{decision.past} by an operator" + (f": {arguments.reason}" if arguments.reason else "")
    if len(arguments.reason or "") > COMMENT_LENGTH_MAX or not comment.isprintable():
        raise Refused(f"a reason is one line of at most {COMMENT_LENGTH_MAX} printable characters")
    (packages.approve if decision is Decision.APPROVE else packages.reject)(package["arn"], comment)
    status = decision.past.capitalize()
    hint = _not_deployed(deployment, arguments, package) if decision is Decision.APPROVE else None
    return Answer(
        data={"arn": package["arn"], "status": status},
        lines=[f"version {arguments.version} is {status}", *([hint] if hint else [])],
    )


def _not_deployed(deployment: Deployment, arguments: Arguments, package: dict[str, Any]) -> str | None:
    """Return why an approved version is not deployed, where that is known already."""
    if deployment.outputs["SharedServing"] != "true":
        return "approved models are not deployed: deploy with SharedServing=true"
    alias = aliases_of(deployment).get(arguments.tenant_id, str(package["data_set"]))
    newest = max((v for v in (alias.live, alias.canary, alias.testing) if v is not None), default=0)
    if arguments.version >= newest:
        return None
    return (
        f"it is not deployed, because version {newest} is newer: take that one out of service first "
        f"(trainyard serving roll-back {arguments.tenant_id} {package['data_set']} {newest}, or serving stop)"
    )


def _find(deployment: Deployment, arguments: Arguments) -> dict[str, Any]:
    tenant = deployment.tenant(arguments.tenant_id)
    for arn in _package_arns(deployment, tenant):
        if arn.rpartition("/")[2] == str(arguments.version):
            return _view(deployment, arn)
    raise Refused(
        f"tenant {tenant.tenant_id} has no model version {arguments.version}; "
        f"see trainyard models list {tenant.tenant_id}"
    )


def _package_arns(deployment: Deployment, tenant: Tenant) -> list[str]:
    pages = deployment.client("sagemaker").get_paginator("list_model_packages")
    return [
        package["ModelPackageArn"]
        for page in pages.paginate(
            ModelPackageGroupName=tenant.model_group, SortBy="CreationTime", SortOrder="Ascending"
        )
        for package in page["ModelPackageSummaryList"]
    ]


def _view(deployment: Deployment, arn: str) -> dict[str, Any]:
    package = deployment.client("sagemaker").describe_model_package(ModelPackageName=arn)
    metadata = package.get("CustomerMetadataProperties", {})
    return {
        "arn": arn,
        "version": int(arn.rpartition("/")[2]),
        "status": package.get("ModelApprovalStatus"),
        "comment": package.get("ApprovalDescription") or None,
        "metadata": metadata,
        "data_set": metadata.get("data_set"),
        "request": metadata.get("request"),
        "created_at": package["CreationTime"],
        "model_uri": package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
    }
