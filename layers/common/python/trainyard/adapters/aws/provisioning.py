"""What a tenant needs, made by steps that can be repeated: each ensures, none assumes."""

import json
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.contracts.events import APPLICATION_SOURCE
from trainyard.domain.tenants import Tenant


class AwsProvisioning:
    """Implements Provisioning."""

    def __init__(
        self,
        *,
        stage: str,
        account_id: str,
        region: str,
        boundary_arn: str,
        code_bucket: str,
        data_key_arn: str,
        image_uris: tuple[str, ...],
        event_bus_name: str,
        schedule_group: str,
        schedule_role_arn: str,
        retain_data: bool,
    ) -> None:
        self._stage = stage
        self._account = account_id
        self._region = region
        self._boundary = boundary_arn
        self._code_bucket = code_bucket
        self._data_key = data_key_arn
        self._images = image_uris
        self._bus = event_bus_name
        self._schedule_group = schedule_group
        self._schedule_role = schedule_role_arn
        self._retain_data = retain_data

    def ensure_bucket(self, tenant: Tenant) -> None:
        """A versioned, encrypted, private bucket that speaks to EventBridge and refuses plain HTTP."""
        s3, bucket = client("s3"), tenant.bucket
        place = (
            {}
            if self._region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
        )
        _create(
            lambda: s3.create_bucket(Bucket=bucket, ObjectOwnership="BucketOwnerEnforced", **place),
            exists={"BucketAlreadyOwnedByYou"},
        )
        with translated():
            s3.put_public_access_block(
                Bucket=bucket,
                PublicAccessBlockConfiguration={
                    "BlockPublicAcls": True,
                    "IgnorePublicAcls": True,
                    "BlockPublicPolicy": True,
                    "RestrictPublicBuckets": True,
                },
            )
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            s3.put_bucket_encryption(
                Bucket=bucket,
                ServerSideEncryptionConfiguration={
                    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                },
            )
            s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(_bucket_policy(self._partition, bucket)))
            s3.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": _lifecycle(self._retain_data)}
            )
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": self._tags(tenant)})
            # Last, so that no upload is announced before the rest holds.
            s3.put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
            )

    def ensure_role(self, tenant: Tenant) -> None:
        """The role of the tenant's jobs: reads its own data, writes its own results, and nothing else."""
        iam = client("iam")
        path, _, name = tenant.role_arn.partition(":role")[2].rpartition("/")
        _create(
            lambda: iam.create_role(
                RoleName=name,
                Path=f"{path}/",
                AssumeRolePolicyDocument=json.dumps(self._trust()),
                PermissionsBoundary=self._boundary,
                Description=f"Training jobs of tenant {tenant.tenant_id}",
                Tags=self._tags(tenant),
            ),
            exists={"EntityAlreadyExists"},
        )
        with translated():
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(self._trust()))
            iam.put_role_policy(
                RoleName=name, PolicyName="own-data", PolicyDocument=json.dumps(self.role_policy(tenant))
            )

    def ensure_model_group(self, tenant: Tenant) -> None:
        """The model package group; versions cannot carry tags, so the group does."""
        _create(
            lambda: client("sagemaker").create_model_package_group(
                ModelPackageGroupName=tenant.model_group,
                ModelPackageGroupDescription=f"Models of tenant {tenant.tenant_id}",
                Tags=self._tags(tenant),
            ),
            exists={"ValidationException", "ConflictException"},
            exists_if=lambda: client("sagemaker").describe_model_package_group(
                ModelPackageGroupName=tenant.model_group
            ),
        )

    def ensure_schedule(self, tenant: Tenant) -> None:
        """The schedule that asks for retraining, or none."""
        scheduler, name = client("scheduler"), f"retrain-{tenant.tenant_id}"
        if tenant.retrain_schedule is None:
            _delete(lambda: scheduler.delete_schedule(Name=name, GroupName=self._schedule_group))
            return
        schedule: dict[str, Any] = {
            "Name": name,
            "GroupName": self._schedule_group,
            "ScheduleExpression": tenant.retrain_schedule,
            # Schedules with a rate align: spread ten thousand tenants over a quarter of an hour.
            "FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15},
            "Target": {
                "Arn": f"arn:{self._partition}:events:{self._region}:{self._account}:event-bus/{self._bus}",
                "RoleArn": self._schedule_role,
                "Input": json.dumps({"tenant_id": tenant.tenant_id, "reason": "schedule"}),
                "EventBridgeParameters": {"DetailType": "Retraining Requested", "Source": APPLICATION_SOURCE},
            },
        }
        made = _create(lambda: scheduler.create_schedule(**schedule), exists={"ConflictException"})
        if not made:
            with translated():
                scheduler.update_schedule(**schedule)

    def role_policy(self, tenant: Tenant) -> dict[str, Any]:
        """Return what the tenant's jobs may do; prefixes end in "/", so that acme does not match acme10."""
        bucket = f"arn:{self._partition}:s3:::{tenant.bucket}"
        root = f"{bucket}/{tenant.root}"
        logs = f"arn:{self._partition}:logs:{self._region}:{self._account}:log-group:/aws/sagemaker/*"
        return {
            "Version": "2012-10-17",
            "Statement": [
                _allow("s3:GetObject", "s3:GetObjectVersion", on=[f"{root}incoming/*"]),
                _allow("s3:GetObject", "s3:PutObject", on=[f"{root}models/*", f"{root}reports/*"]),
                _allow(
                    "s3:ListBucket",
                    on=[bucket],
                    when={
                        "StringLike": {
                            "s3:prefix": [f"{tenant.root}{f}/*" for f in ("incoming", "models", "reports")]
                        }
                    },
                ),
                _allow("s3:GetObject", on=[f"arn:{self._partition}:s3:::{self._code_bucket}/code/*"]),
                _allow(
                    "s3:ListBucket",
                    on=[f"arn:{self._partition}:s3:::{self._code_bucket}"],
                    when={"StringLike": {"s3:prefix": ["code/*"]}},
                ),
                _allow("kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt", on=[self._data_key]),
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
                    on=[_repository_arn(self._partition, image) for image in self._images],
                ),
                # GetAuthorizationToken knows no resources (service authorization reference, Amazon ECR).
                _allow("ecr:GetAuthorizationToken", on=["*"]),
                # PutMetricData knows no resources; the namespace narrows it.
                _allow(
                    "cloudwatch:PutMetricData",
                    on=["*"],
                    when={"StringLike": {"cloudwatch:namespace": ["/aws/sagemaker/*", "aws/sagemaker/*"]}},
                ),
            ],
        }

    def _trust(self) -> dict[str, Any]:
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sagemaker.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringEquals": {"aws:SourceAccount": self._account}},
                }
            ],
        }

    def _tags(self, tenant: Tenant) -> list[dict[str, str]]:
        return [
            {"Key": "trainyard:tenant", "Value": tenant.tenant_id},
            {"Key": "trainyard:tier", "Value": tenant.tier},
            {"Key": "trainyard:stage", "Value": self._stage},
        ]

    @property
    def _partition(self) -> str:
        return self._data_key.split(":")[1]


def _allow(*actions: str, on: list[str], when: dict[str, Any] | None = None) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": on}
    return statement | ({"Condition": when} if when else {})


def _repository_arn(partition: str, image_uri: str) -> str:
    """Return the ARN of the repository of <account>.dkr.ecr.<region>.amazonaws.com/<name>:<tag>."""
    host, _, name = image_uri.partition("/")
    account, _, _, region, *_ = host.split(".")
    return f"arn:{partition}:ecr:{region}:{account}:repository/{name.partition(':')[0].partition('@')[0]}"


def _bucket_policy(partition: str, bucket: str) -> dict[str, Any]:
    arn = f"arn:{partition}:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def _lifecycle(retain_data: bool) -> list[dict[str, Any]]:
    days = 365 if retain_data else 30
    return [
        {
            "ID": "old-versions",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": days},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        }
    ]


def _create(call: Any, *, exists: set[str], exists_if: Any = None) -> bool:
    """Make something; False when it exists already. `exists_if` confirms it where the code is ambiguous."""
    try:
        with translated():
            call()
    except ClientError as error:
        if code_of(error) not in exists:
            raise
        if exists_if is not None:
            with translated():
                exists_if()
        return False
    return True


def _delete(call: Any) -> None:
    try:
        with translated():
            call()
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
