"""The names, tags and policies of a deployment's tenants, which isolate them from each other.

Three layers, each of which alone denies access to another tenant's data: the role's own policy names the tenant's
root; the boundary (template.yaml) and the pool's bucket policy check the role's tag; a bucket's own policy denies
every tenant role but one. Prefixes end in "/", so that acme does not match acme10.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from trainyard.adapters.aws.storage import REFUSED_TAG
from trainyard.domain.tenants import Tenant

TENANT_TAG = "trainyard:tenant"
CAPTURED_DAYS = 90
"""Captured inputs are deleted after so long: they are compared with the last training alone."""
OWN_FOLDERS = ("incoming", "transform", "models", "reports")
READ_BY_JOBS = ("incoming", "transform")
UPLOADED = (*READ_BY_JOBS, "captured")
RESULTS = ("models", "reports", "receipts")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentNames:
    stack: str
    stage: str
    partition: str
    account_id: str
    region: str
    boundary_arn: str
    tenant_roles: str
    """ARN pattern of all tenants' roles: "arn:aws:iam::<account>:role/<path>/*"."""
    code_bucket: str
    data_key_arn: str
    result_readers: tuple[str, ...]
    """Roles that read what the tenants' own keys encrypt …"""
    result_movers: tuple[str, ...]
    """… and those that copy it when a tenant moves."""
    event_bus_name: str
    schedule_group: str
    schedule_role_arn: str
    retain_data: bool
    console_origins: tuple[str, ...] = ()
    """From where browsers may put files into buckets, as `https://host`."""

    def cors(self) -> Document:
        """Return what lets the console put files: who may put what, the signature of each address says."""
        rule = {
            "AllowedOrigins": list(self.console_origins),
            "AllowedMethods": ["PUT"],
            "AllowedHeaders": ["content-type"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 3600,
        }
        return {"CORSRules": [rule]}

    def key_arns(self, tenant: Tenant) -> list[str]:
        return [tenant.key_arn] if tenant.key_arn else [self.data_key_arn]

    def tags(self, tenant: Tenant) -> list[dict[str, str]]:
        return [
            {"Key": TENANT_TAG, "Value": tenant.tenant_id},
            {"Key": "trainyard:tier", "Value": tenant.tier},
            {"Key": "trainyard:stack", "Value": self.stack},
            {"Key": "trainyard:stage", "Value": self.stage},
        ]

    def is_ours(self, tenant: Tenant, tags: Iterable[Mapping[str, str]]) -> bool:
        """Tell whether tags show that a resource belongs to this tenant, in this stack and stage.

        A name alone does not show it: stack `yard` with tenant `prod-acme`, and stack `yard-prod` with tenant
        `acme`, may produce the same name.
        """
        of = {tag["Key"]: tag["Value"] for tag in tags}
        wanted = {tag["Key"]: tag["Value"] for tag in self.tags(tenant) if tag["Key"] != "trainyard:tier"}
        return wanted.items() <= of.items()

    def grant_name(self, tenant: Tenant) -> str:
        """Return the name of the grants on a tenant's own key, which other stacks may use too."""
        return f"{self.stack}--{tenant.tenant_id}"

    def trust(self) -> Document:
        """Only SageMaker, and only for what it runs in this account and Region, may act as a tenant.

        Source: SageMaker developer guide, "Cross-service confused deputy prevention".
        """
        return _document(
            {
                "Effect": "Allow",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {"aws:SourceAccount": self.account_id},
                    "ArnLike": {
                        "aws:SourceArn": f"arn:{self.partition}:sagemaker:{self.region}:{self.account_id}:*"
                    },
                },
            }
        )

    def role_policy(self, tenant: Tenant, images: tuple[str, ...], *, in_vpc: bool) -> Document:
        """Return what the tenant's jobs may do."""
        bucket = f"arn:{self.partition}:s3:::{tenant.bucket}"
        code = f"arn:{self.partition}:s3:::{self.code_bucket}"
        root = f"{bucket}/{tenant.root}"
        own = [f"{tenant.root}{folder}/*" for folder in OWN_FOLDERS]
        logs = f"arn:{self.partition}:logs:{self.region}:{self.account_id}:log-group:/aws/sagemaker/*"
        return _document(
            _allow("s3:GetObject", "s3:GetObjectVersion", on=[f"{root}{folder}/*" for folder in READ_BY_JOBS]),
            _allow("s3:GetObject", "s3:PutObject", on=[f"{root}models/*", f"{root}reports/*"]),
            _allow("s3:ListBucket", on=[bucket], when={"StringLike": {"s3:prefix": own}}),
            _allow("s3:GetObject", on=[f"{code}/code/*"]),
            _allow("s3:ListBucket", on=[code], when={"StringLike": {"s3:prefix": ["code/*"]}}),
            _allow("kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt", on=self.key_arns(tenant)),
            _allow(
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
                on=[logs],
            ),
            _allow(
                "ecr:BatchCheckLayerAvailability",
                "ecr:GetDownloadUrlForLayer",
                "ecr:BatchGetImage",
                on=sorted({repository_arn(self.partition, image) for image in images}),
            ),
            # GetAuthorizationToken does not support resources (service authorization reference, Amazon ECR).
            _allow("ecr:GetAuthorizationToken", on=["*"]),
            # PutMetricData does not support resources; the namespace restricts it.
            _allow(
                "cloudwatch:PutMetricData",
                on=["*"],
                when={"StringLike": {"cloudwatch:namespace": ["/aws/sagemaker/*", "aws/sagemaker/*"]}},
            ),
            # A job in a VPC makes network interfaces there. SageMaker refuses a narrower policy for processing
            # jobs (SageMaker developer guide, "CreateProcessingJob API: Execution Role Permissions").
            *([_allow(*VPC_ACTIONS, on=["*"])] if in_vpc else []),
        )

    def bucket_policy(self, tenant: Tenant) -> Document:
        """Return the policy of a tenant's own bucket; its size does not grow with the number of tenants."""
        arn = f"arn:{self.partition}:s3:::{tenant.bucket}"
        both = [arn, f"{arn}/*"]
        key = "s3:x-amz-server-side-encryption-aws-kms-key-id"
        foreign_key = {"StringNotEquals": {key: self.key_arns(tenant)}, "Null": {key: "false"}}
        customer_key = {"Null": {"s3:x-amz-server-side-encryption-customer-algorithm": "false"}}
        others = {
            "ArnLike": {"aws:PrincipalArn": self.tenant_roles},
            "ArnNotEquals": {"aws:PrincipalArn": tenant.role_arn},
        }
        return _document(
            _deny("TlsOnly", "s3:*", on=both, when={"Bool": {"aws:SecureTransport": "false"}}),
            _deny("NoOtherTenant", "s3:*", on=both, when=others),
            _deny("NoForeignKey", "s3:PutObject", on=[f"{arn}/*"], when=foreign_key),
            _deny("NoKeyOfTheSender", "s3:PutObject", on=[f"{arn}/*"], when=customer_key),
            *(self._own_account(tenant, arn) if tenant.account_id else []),
        )

    def _own_account(self, tenant: Tenant, arn: str) -> list[Document]:
        """Return what lets the tenant's own account put data and read results."""
        account = {"AWS": f"arn:{self.partition}:iam::{tenant.account_id}:root"}
        results = [f"{arn}/{folder}/*" for folder in RESULTS]
        listed = [f"{folder}/*" for folder in (*UPLOADED, *RESULTS)]
        return [
            _allow("s3:PutObject", on=[f"{arn}/{folder}/*" for folder in UPLOADED])
            | {"Sid": "OwnAccountPuts", "Principal": account},
            _allow("s3:GetObject", on=results) | {"Sid": "OwnAccountReads", "Principal": account},
            _allow("s3:ListBucket", on=[arn], when={"StringLike": {"s3:prefix": listed}})
            | {"Sid": "OwnAccountLists", "Principal": account},
        ]

    def lifecycle(self) -> list[Document]:
        return [
            {
                "ID": "old-versions",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "Expiration": {"ExpiredObjectDeleteMarker": True},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 365 if self.retain_data else 30},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
            },
            {
                "ID": "captured-inputs",
                "Status": "Enabled",
                "Filter": {"Prefix": "captured/"},
                "Expiration": {"Days": CAPTURED_DAYS},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            },
            {
                "ID": "refused-uploads",
                "Status": "Enabled",
                "Filter": {"Tag": REFUSED_TAG},
                "Expiration": {"Days": 7},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            },
        ]


class Purpose(StrEnum):
    """What issued credentials are for."""

    UPLOAD = "upload"
    """Data."""
    READ = "read"
    """Results."""
    PREDICT = "predict"
    """Calls of the tenant's models, on shared endpoints and on its own."""


def session_policy(tenant: Tenant, *, partition: str, data_key_arn: str, purpose: Purpose) -> Document:
    """Return the session policy of issued credentials."""
    if purpose is Purpose.PREDICT:  # of which endpoints, the role says
        own = {"StringLike": {"sagemaker:TargetModel": f"{tenant.tenant_id}/*"}}
        container = {"StringLike": {"sagemaker:TargetContainerHostname": f"{tenant.tenant_id}--*"}}
        anywhere = [f"arn:{partition}:sagemaker:*:*:endpoint/*"]
        tagged = {"StringEquals": {f"aws:ResourceTag/{TENANT_TAG}": tenant.tenant_id}}
        return _document(
            _allow("sagemaker:InvokeEndpoint", on=anywhere, when=own),
            _allow("sagemaker:InvokeEndpoint", on=anywhere, when=container),
            _allow("sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointAsync", on=anywhere, when=tagged),
        )
    upload = purpose is Purpose.UPLOAD
    bucket = f"arn:{partition}:s3:::{tenant.bucket}"
    root = f"{bucket}/{tenant.root}"
    folders = UPLOADED if upload else RESULTS
    on = [f"{root}{folder}/*" for folder in folders]
    listed = [f"{tenant.root}{folder}/*" for folder in folders]
    actions = ("s3:PutObject", "s3:AbortMultipartUpload") if upload else ("s3:GetObject",)
    read_key = () if upload else (_allow("kms:Decrypt", on=[tenant.key_arn or data_key_arn]),)
    return _document(
        _allow(*actions, on=on),
        _allow("s3:ListBucket", on=[bucket], when={"StringLike": {"s3:prefix": listed}}),
        *read_key,
    )


VPC_ACTIONS = (
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)


def repository_arn(partition: str, image_uri: str) -> str:
    """Return the ARN of the repository of <account>.dkr.ecr.<region>.amazonaws.com/<name>:<tag>."""
    host, _, name = image_uri.partition("/")
    account, _, _, region, *_ = host.split(".")
    return f"arn:{partition}:ecr:{region}:{account}:repository/{name.partition(':')[0].partition('@')[0]}"


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(*actions: str, on: list[str], when: Document | None = None) -> Document:
    statement: Document = {"Effect": "Allow", "Action": list(actions), "Resource": on}
    return statement | ({"Condition": when} if when else {})


def _deny(sid: str, action: str, *, on: list[str], when: Document) -> Document:
    return {"Sid": sid, "Effect": "Deny", "Principal": "*", "Action": action, "Resource": on, "Condition": when}
