"""The models of a tenant's group."""

from pathlib import Path
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant


def list_models(deployment: Deployment, arguments: Arguments) -> Answer:
    tenant = deployment.tenant(arguments.tenant_id)
    models = [_view(deployment, arn) for arn in _package_arns(deployment, tenant)]
    return Answer(
        data=models,
        columns=("VERSION", "STATUS", "DATA SET", "REQUEST", "CREATED"),
        rows=[
            (v["version"], v["status"], v["data_set"], v["request"], v["created_at"].strftime("%Y-%m-%d %H:%M:%S"))
            for v in models
        ],
    )


def approve(deployment: Deployment, arguments: Arguments) -> Answer:
    return _decide(deployment, arguments, "Approved")


def reject(deployment: Deployment, arguments: Arguments) -> Answer:
    return _decide(deployment, arguments, "Rejected")


def fetch(deployment: Deployment, arguments: Arguments) -> Answer:
    package = _find(deployment, arguments)
    target: Path = arguments.to or Path(f"{arguments.tenant_id}-{arguments.version}.tar.gz")
    bucket, _, key = package["model_uri"].removeprefix("s3://").partition("/")
    deployment.client("s3").download_file(bucket, key, str(target))
    return Answer(data={"file": str(target)}, lines=[f"wrote {target}"])


def _decide(deployment: Deployment, arguments: Arguments, status: str) -> Answer:
    package = _find(deployment, arguments)
    deployment.client("sagemaker").update_model_package(
        ModelPackageArn=package["arn"],
        ModelApprovalStatus=status,
        CustomerMetadataProperties=package["metadata"],  # as it is: an update must not lose it
    )
    return Answer(
        data={"arn": package["arn"], "status": status}, lines=[f"version {arguments.version} is {status}"]
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
        "metadata": metadata,
        "data_set": metadata.get("data_set"),
        "request": metadata.get("request"),
        "created_at": package["CreationTime"],
        "model_uri": package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
    }
