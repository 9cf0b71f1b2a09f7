"""The isolation matrix, policy by policy: each layer on its own denies access to other tenants' resources.

A weakened layer is therefore detected although the others still hold. These tests include what the local cloud
does not enforce: PassRole, the conditions on jobs, the boundary, session tags. tests/e2e/test_isolation.py has
the same matrix for a deployed service.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from testing.service import ACCOUNT
from tests.build import tenant
from tests.evaluator import (
    ACCESS_ROLE,
    CODE,
    DATA_KEY,
    DEPLOYMENT,
    POOL,
    POOLED_ROLES,
    ROLES,
    STACK,
    Call,
    Document,
    decision,
    template,
)
from trainyard.adapters.aws.deployment_names import Purpose, session_policy
from trainyard.domain.names import is_tenant_id
from trainyard.domain.tenants import Tenant

NEIGHBOURS = ("acme", "acme1", "acme10", "acme-labs", "ac", "a")
IMPOSTERS = ("acme-", "ACME", "acme.", "acm", "incoming", "")
"""Prefixes beside the neighbours' that nobody owns, and that look like a neighbour's."""

READS = ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging", "s3:GetObjectAttributes", "s3:GetObjectAcl")
WRITES = (
    "s3:PutObject",  # multipart uploads and copies are authorised as this
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:PutObjectTagging",
    "s3:PutObjectAcl",
    "s3:AbortMultipartUpload",
    "s3:RestoreObject",
)
KEYS = (
    "incoming/x/data.csv",
    "transform/x/rows.csv",
    "captured/x/rows.jsonl",
    "models/x/1/model.tar.gz",
    "reports/x/1/evaluation.json",
    "receipts/x/1.json",
)
IMAGES = (f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/sklearn:1",)
YARD = template(HttpApi="true")
BOUNDARY = YARD.policy("TenantBoundary")
POOL_POLICY = YARD.policy("PoolBucketPolicy")
ACCESS = YARD.policy("TenantAccessRole")
PIPELINE = YARD.policy("PipelineRole")


def silo(name: str, **changes: Any) -> Tenant:
    return tenant(name, bucket=f"{STACK}-{ACCOUNT}-t-{name}", role_arn=f"{ROLES}{STACK}--{name}", **changes)


def pooled(name: str) -> Tenant:
    return tenant(name, bucket=POOL, root=f"{name}/", role_arn=f"{POOLED_ROLES}{STACK}.pool--{name}")


OWNERS = {"silo": silo, "pool": pooled}


def role_policy(owner: Tenant) -> Document:
    return DEPLOYMENT.role_policy(owner, IMAGES, in_vpc=False)


def own(owner: Tenant, action: str, resource: str, **keys: Any) -> Call:
    """Return a call by a tenant's role."""
    return Call(
        principal=owner.role_arn,
        action=action,
        resource=resource,
        keys=keys,
        tags={"trainyard:tenant": owner.tenant_id},
    )


def on_objects(owner: Tenant, root: str) -> Iterator[Call]:
    for action in (*READS, *WRITES):
        for key in KEYS:
            yield own(owner, action, f"{root}{key}")


def on_listing(owner: Tenant, bucket: str, prefix: str) -> Iterator[Call]:
    for action in ("s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"):
        for folder in ("", "incoming/", "models/"):
            yield own(owner, action, f"arn:aws:s3:::{bucket}", **{"s3:prefix": f"{prefix}{folder}"})


def unmanaged(kind: str) -> Iterator[Call]:
    """Yield every call of every tenant's role on every other tenant's root, and on those of imposters."""
    for name in NEIGHBOURS:
        owner = OWNERS[kind](name)
        for other in (*NEIGHBOURS, *(IMPOSTERS if kind == "pool" else ())):
            if other == name:
                continue
            there = OWNERS[kind](other) if is_tenant_id(other) else pooled(other)
            yield from on_objects(owner, f"arn:aws:s3:::{there.bucket}/{there.root}")
            yield from on_listing(owner, there.bucket, there.root)


LAYERS: dict[str, tuple[str, Any, bool]] = {
    "the role of a tenant with a bucket": ("silo", lambda call: role_policy(_caller(call, silo)), False),
    "the boundary of a tenant with a bucket": ("silo", lambda call: BOUNDARY, False),
    "the policy of a bucket": ("silo", lambda call: DEPLOYMENT.bucket_policy(_target(call)), True),
    "the role of a pooled tenant": ("pool", lambda call: role_policy(_caller(call, pooled)), False),
    "the boundary of a pooled tenant": ("pool", lambda call: BOUNDARY, False),
    "the policy of the pool": ("pool", lambda call: POOL_POLICY, True),
}


def _caller(call: Call, build: Any) -> Tenant:
    found: Tenant = build(call.principal.rpartition("--")[2])
    return found


def _target(call: Call) -> Tenant:
    return silo(call.resource.removeprefix(f"arn:aws:s3:::{STACK}-{ACCOUNT}-t-").partition("/")[0])


def let_through(layer: str, change: Any = lambda document: document) -> tuple[int, list[Call]]:
    """Return how many calls one layer was asked about, and those that it does not deny by itself.

    A role or a boundary denies by allowing nothing; a bucket's policy must deny.
    """
    kind, document_for, is_resource = LAYERS[layer]
    denials = ("Deny",) if is_resource else ("Deny", "ImplicitDeny")
    calls = list(unmanaged(kind))
    passed = [
        call
        for call in calls
        if decision(call, change(document_for(call)), resource_policy=is_resource) not in denials
    ]
    return len(calls), passed


def test_every_layer_denies_every_tenant_every_other_tenants_root_by_itself(
    record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {layer: let_through(layer) for layer in LAYERS}
    with capsys.disabled():
        print(f"\nisolation, policy by policy: {sum(size for size, _ in sizes.values()):,} calls, all denied")
    assert {layer: passed for layer, (_, passed) in sizes.items() if passed} == {}
    assert all(size > 1000 for size, _ in sizes.values())


def _without_slash(document: Document) -> Document:
    """Weaken prefixes as a careless edit would: acme/* becomes acme*."""
    return dict(json.loads(json.dumps(document).replace('/*"', '*"')))


def _tag_forgotten(document: Document) -> Document:
    return dict(json.loads(json.dumps(document).replace("${aws:PrincipalTag/trainyard:tenant}", "*")))


def _without(sid: str) -> Any:
    def change(document: Document) -> Document:
        kept = [s for s in document["Statement"] if s.get("Sid") != sid]
        assert len(kept) < len(document["Statement"])
        return document | {"Statement": kept}

    return change


def _wide(document: Document) -> Document:
    wide = copy.deepcopy(document)
    wide["Statement"].append({"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{STACK}-*"})
    return wide


@pytest.mark.parametrize(
    ("layer", "weaken"),
    [
        ("the role of a tenant with a bucket", _wide),
        ("the boundary of a tenant with a bucket", _tag_forgotten),
        ("the policy of a bucket", _without("NoOtherTenant")),
        ("the role of a pooled tenant", _wide),
        ("the boundary of a pooled tenant", _tag_forgotten),
        ("the boundary of a pooled tenant", _without_slash),
        ("the policy of the pool", _without("NoOtherTenant")),
        ("the policy of the pool", _without("NoOtherTenantsList")),
        ("the policy of the pool", _tag_forgotten),
    ],
)
def test_a_weakened_policy_shows_in_the_matrix(layer: str, weaken: Any) -> None:
    assert let_through(layer, weaken)[1]


@pytest.mark.parametrize("build", [silo, pooled])
def test_a_tenant_reads_what_it_drops_and_writes_its_results_and_nothing_else(build: Any) -> None:
    owner = build("acme")
    root = f"arn:aws:s3:::{owner.bucket}/{owner.root}"
    may = {
        call.action + " " + call.resource.removeprefix(root).partition("/")[0]
        for call in on_objects(owner, root)
        if decision(call, role_policy(owner)) == "Allow" and decision(call, BOUNDARY) == "Allow"
    }
    assert may == {
        "s3:GetObject incoming",
        "s3:GetObjectVersion incoming",
        "s3:GetObject transform",
        "s3:GetObjectVersion transform",
        "s3:GetObject models",
        "s3:PutObject models",
        "s3:GetObject reports",
        "s3:PutObject reports",
    }
    document = DEPLOYMENT.bucket_policy(owner) if build is silo else POOL_POLICY
    for call in on_objects(owner, root):
        assert decision(call, document, resource_policy=True) != "Deny", call
    listing = own(
        owner, "s3:ListBucket", f"arn:aws:s3:::{owner.bucket}", **{"s3:prefix": f"{owner.root}incoming/x/"}
    )
    assert {decision(listing, role_policy(owner)), decision(listing, BOUNDARY)} == {"Allow"}


def test_a_role_without_its_tag_reaches_nothing_in_the_pool() -> None:
    untagged = [replace(call, tags={}) for call in on_objects(pooled("acme"), f"arn:aws:s3:::{POOL}/acme/")]
    assert {decision(call, POOL_POLICY, resource_policy=True) for call in untagged} == {"Deny"}
    assert {decision(call, BOUNDARY) for call in untagged} == {"ImplicitDeny"}


def test_a_tenants_role_can_do_nothing_outside_s3_its_key_its_logs_and_its_images() -> None:
    owner = silo("acme")
    for action, resource in (
        ("dynamodb:GetItem", f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{STACK}-TenantsTable"),
        ("dynamodb:Query", f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{STACK}-RequestsTable/index/by-tenant"),
        ("sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:{STACK}-tier-premium"),
        ("sagemaker:StartPipelineExecution", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:pipeline/{STACK}-training"),
        ("sagemaker:CreateTrainingJob", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/x"),
        ("sagemaker:CreateModelPackage", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model-package/{STACK}--acme/1"),
        ("iam:PassRole", owner.role_arn),
        ("iam:TagRole", owner.role_arn),
        ("sts:AssumeRole", f"{ROLES}{STACK}--acme1"),
        ("sts:AssumeRole", ACCESS_ROLE),
        ("kms:Decrypt", f"arn:aws:kms:us-east-1:{ACCOUNT}:key/another"),
        ("kms:CreateGrant", DATA_KEY),
        ("ecr:BatchGetImage", f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/another"),
        ("logs:GetLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:x"),
        ("logs:FilterLogEvents", f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/trainyard/{STACK}/Tenants"),
        ("s3:PutObject", f"arn:aws:s3:::{CODE}/code/1/steps/train.py"),
        ("s3:PutBucketPolicy", f"arn:aws:s3:::{owner.bucket}"),
        ("ec2:CreateNetworkInterface", "*"),
    ):
        assert decision(own(owner, action, resource), role_policy(owner)) == "ImplicitDeny", action
    own_image = f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/sklearn"
    assert decision(own(owner, "ecr:BatchGetImage", own_image), role_policy(owner)) == "Allow"


def test_only_sagemaker_may_act_as_a_tenant() -> None:
    (statement,) = DEPLOYMENT.trust()["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:*"},
    }


# --- keys and accounts -------------------------------------------------------------------------------------------

KEY_ID, CUSTOMER = (
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-server-side-encryption-customer-algorithm",
)
OWN_KEY = "arn:aws:kms:us-east-1:222222222222:key/own"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "ImplicitDeny"),
        ({KEY_ID: DATA_KEY}, "ImplicitDeny"),
        ({KEY_ID: "arn:aws:kms:us-east-1:999999999999:key/foreign"}, "Deny"),
        ({CUSTOMER: "AES256"}, "Deny"),
    ],
)
def test_a_put_that_names_a_foreign_key_is_denied(keys: dict[str, str], expected: str) -> None:
    put = own(silo("acme"), "s3:PutObject", f"arn:aws:s3:::{silo('acme').bucket}/incoming/x/d.csv", **keys)
    assert decision(put, DEPLOYMENT.bucket_policy(silo("acme")), resource_policy=True) == expected
    swim = own(pooled("acme"), "s3:PutObject", f"arn:aws:s3:::{POOL}/acme/incoming/x/d.csv", **keys)
    assert decision(swim, POOL_POLICY, resource_policy=True) == expected


def test_a_tenant_with_a_key_of_its_own_uses_that_key_alone() -> None:
    keyed = silo("acme", key_arn=OWN_KEY)
    put = own(keyed, "s3:PutObject", f"arn:aws:s3:::{keyed.bucket}/models/x/m", **{KEY_ID: DATA_KEY})
    assert decision(put, DEPLOYMENT.bucket_policy(keyed), resource_policy=True) == "Deny"
    for key, expected in ((OWN_KEY, "Allow"), (DATA_KEY, "ImplicitDeny")):
        assert decision(own(keyed, "kms:GenerateDataKey", key), role_policy(keyed)) == expected


def test_the_tenants_own_account_puts_data_and_reads_results_and_no_other_account_does() -> None:
    owner = silo("acme", account_id="222222222222", key_arn=OWN_KEY)
    document = DEPLOYMENT.bucket_policy(owner)

    def says(account: str, action: str, key: str, **keys: Any) -> str:
        resource = f"arn:aws:s3:::{owner.bucket}" + (f"/{key}" if key else "")
        call = Call(principal=f"arn:aws:iam::{account}:root", action=action, resource=resource, keys=keys)
        return decision(call, document, resource_policy=True)

    for folder in ("incoming", "transform", "captured"):
        assert says("222222222222", "s3:PutObject", f"{folder}/x/d.csv") == "Allow"
    assert {says("222222222222", "s3:GetObject", key) for key in KEYS[3:]} == {"Allow"}
    assert says("222222222222", "s3:ListBucket", "", **{"s3:prefix": "models/x/"}) == "Allow"
    for action, key in (
        ("s3:GetObject", KEYS[0]),
        ("s3:GetObject", KEYS[1]),
        ("s3:PutObject", KEYS[3]),
        ("s3:DeleteObject", KEYS[0]),
        ("s3:PutBucketPolicy", ""),
    ):
        assert says("222222222222", action, key) == "ImplicitDeny"
    for action, key in (("s3:PutObject", KEYS[0]), ("s3:GetObject", KEYS[3])):
        assert says("333333333333", action, key) == "ImplicitDeny"
    assert len(str(document)) < 4000, "20 KB is the limit, and no list of tenants grows it"


# --- credentials that are handed out -----------------------------------------------------------------------------


@pytest.mark.parametrize("build", [silo, pooled])
@pytest.mark.parametrize("purpose", Purpose)
def test_handed_out_credentials_reach_one_tenant_by_the_role_and_by_the_session_alone(
    build: Any, purpose: Purpose
) -> None:
    owner, upload = build("acme"), purpose is Purpose.UPLOAD
    session = session_policy(owner, partition="aws", data_key_arn=DATA_KEY, purpose=purpose)
    endpoint = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{STACK}-shared-linear"
    for target in ("acme/x/1/model.tar.gz", "acme1/x/1/model.tar.gz", "acme", None):
        may = asks(session, "acme", endpoint, target)
        assert may == (purpose is Purpose.PREDICT and target is not None and target.startswith("acme/"))
    assert len(str(session).replace(" ", "")) < 2048, "the limit of a session policy"
    for name in (*NEIGHBOURS, *(IMPOSTERS if build is pooled else ())):
        there = build(name) if is_tenant_id(name) else pooled(name)
        root = f"arn:aws:s3:::{there.bucket}/{there.root}"
        calls = [*on_objects(owner, root), *on_listing(owner, there.bucket, there.root)]
        for call in calls:
            asked = replace(call, principal=ACCESS_ROLE)
            by_role, by_session = decision(asked, ACCESS), decision(asked, session)
            if name != "acme":
                assert (by_role, by_session) == ("ImplicitDeny", "ImplicitDeny"), call
            elif by_role == by_session == "Allow" and not call.action.startswith("s3:List"):
                assert purpose is not Purpose.PREDICT, call
                folder = call.resource.removeprefix(root).partition("/")[0]
                writes = call.action in ("s3:PutObject", "s3:AbortMultipartUpload")
                assert (folder in ("incoming", "transform", "captured")) == upload, call
                assert writes == upload, call


AS_FUNCTION = f"arn:aws:iam::{ACCOUNT}:role/any"


# --- the pipeline's role -----------------------------------------------------------------------------------------

JOB = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/pipelines-abc-Train-1"
TAGS = ("tenant", "tier", "request", "dataset", "stage")
GOOD: dict[str, Any] = {f"aws:RequestTag/trainyard:{tag}": "x" for tag in TAGS} | {
    "sagemaker:InstanceTypes": ["ml.m5.large"],
    "sagemaker:MaxRuntimeInSeconds": "3600",
    "sagemaker:OutputKmsKey": DATA_KEY,
}


def job(document: Document, action: str = "sagemaker:CreateTrainingJob", **keys: Any) -> str:
    call = Call(principal=f"arn:aws:iam::{ACCOUNT}:role/pipeline", action=action, resource=JOB, keys=keys)
    return decision(call, document)


KINDS = {
    "sagemaker:CreateTrainingJob": "training-job",
    "sagemaker:CreateProcessingJob": "processing-job",
    "sagemaker:CreateHyperParameterTuningJob": "hyper-parameter-tuning-job",
}


@pytest.mark.parametrize("action", KINDS)
def test_jobs_are_made_only_tagged_bounded_encrypted_and_on_allowed_instances(action: str) -> None:
    resource = JOB.replace("training-job", KINDS[action])

    def says(**changes: Any) -> str:
        keys = {name: value for name, value in (GOOD | changes).items() if value is not None}
        return decision(Call(principal=AS_FUNCTION, action=action, resource=resource, keys=keys), PIPELINE)

    assert says() == "Allow"
    for name in GOOD:
        assert says(**{name: None}) == "ImplicitDeny", name
    assert says(**{"sagemaker:InstanceTypes": ["ml.p4d.24xlarge"]}) == "ImplicitDeny"
    assert says(**{"sagemaker:InstanceTypes": ["ml.m5.large", "ml.p4d.24xlarge"]}) == "ImplicitDeny"
    assert says(**{"sagemaker:MaxRuntimeInSeconds": "43201"}) == "ImplicitDeny"


def test_tunings_of_others_are_not_looked_at_and_not_stopped() -> None:
    """Their names are not known before, so their tags say whose they are."""
    tuning = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:hyper-parameter-tuning-job/x"
    readers = ("RecorderFunction", "ReconcilerFunction", "ApiFunction")
    documents = {"PipelineRole": PIPELINE, **{name: YARD.inline(name) for name in readers}}

    def says(document: Document, action: str, **keys: Any) -> str:
        return decision(
            Call(principal=AS_FUNCTION, action=f"sagemaker:{action}", resource=tuning, keys=keys), document
        )

    stage = "aws:ResourceTag/trainyard:stage"
    ours = "dev"  # the default of the parameter
    for name, document in documents.items():
        last = (
            "StopHyperParameterTuningJob"
            if name == "PipelineRole"
            else "ListTrainingJobsForHyperParameterTuningJob"
        )
        for action in ("DescribeHyperParameterTuningJob", last):
            assert says(document, action, **{stage: ours}) == "Allow", (name, action)
            assert says(document, action, **{stage: "other"}) == "ImplicitDeny", (name, action)
            assert says(document, action) == "ImplicitDeny", (name, action)
    assert says(PIPELINE, "AddTags", **{"aws:RequestTag/trainyard:stage": ours}) == "Allow"
    assert says(PIPELINE, "AddTags") == "ImplicitDeny"


def test_a_transform_is_made_only_tagged_encrypted_on_allowed_instances_and_with_a_tenants_own_model() -> None:
    jobs = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:transform-job/"
    model = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/"
    good = {name: value for name, value in GOOD.items() if name != "sagemaker:MaxRuntimeInSeconds"}
    good["sagemaker:ModelArn"] = f"{model}{STACK}-own-acme-churn-1"

    def says(name: str = "pipelines-abc-Transform-1", /, **changes: Any) -> str:
        keys = {name: value for name, value in (good | changes).items() if value is not None}
        call = Call(
            principal=AS_FUNCTION, action="sagemaker:CreateTransformJob", resource=f"{jobs}{name}", keys=keys
        )
        return decision(call, PIPELINE)

    assert says() == "Allow"
    for name in good:
        assert says(**{name: None}) == "ImplicitDeny", name
    assert says(**{"sagemaker:InstanceTypes": ["ml.p4d.24xlarge"]}) == "ImplicitDeny"
    for other in (f"{STACK}-shared-linear", f"{STACK}-2-own-acme", "mine"):
        assert says(**{"sagemaker:ModelArn": f"{model}{other}"}) == "ImplicitDeny", other
    assert says("mine-1") == "ImplicitDeny"


def test_with_a_vpc_a_job_without_subnets_or_without_security_groups_is_denied() -> None:
    document = template(SubnetIds="subnet-1,subnet-2", SecurityGroupIds="sg-1").policy("PipelineRole")
    placed = GOOD | {"sagemaker:VpcSubnets": ["subnet-1"], "sagemaker:VpcSecurityGroupIds": ["sg-1"]}
    assert job(document, **placed) == "Allow"
    for missing in ("sagemaker:VpcSubnets", "sagemaker:VpcSecurityGroupIds"):
        assert job(document, **{name: value for name, value in placed.items() if name != missing}) == "Deny"
    assert job(document, **placed | {"sagemaker:VpcSubnets": ["subnet-1", "subnet-9"]}) == "Deny"
    assert job(document, **placed | {"sagemaker:VpcSecurityGroupIds": ["sg-9"]}) == "Deny"
    in_vpc = DEPLOYMENT.role_policy(silo("acme"), IMAGES, in_vpc=True)
    boundary = template(SubnetIds="subnet-1", SecurityGroupIds="sg-1").policy("TenantBoundary")
    interface = own(silo("acme"), "ec2:CreateNetworkInterface", "*")
    assert {decision(interface, in_vpc), decision(interface, boundary)} == {"Allow"}


def test_the_pipeline_lends_tenants_roles_to_sagemaker_and_no_other_role_to_anybody() -> None:
    def says(role: str, service: str) -> str:
        keys = {"iam:PassedToService": service}
        call = Call(principal=AS_FUNCTION, action="iam:PassRole", resource=role, keys=keys)
        return decision(call, PIPELINE)

    assert says(f"{ROLES}{STACK}--acme", "sagemaker.amazonaws.com") == "Allow"
    assert says(f"{ROLES}{STACK}--acme", "lambda.amazonaws.com") == "ImplicitDeny"
    for other in ("role/admin", f"role/trainyard/{STACK}/x", f"role/trainyard/{STACK}-2/tenants/{STACK}-2-acme"):
        assert says(f"arn:aws:iam::{ACCOUNT}:{other}", "sagemaker.amazonaws.com") == "ImplicitDeny"


# --- the functions' roles ----------------------------------------------------------------------------------------

APPROVAL_KEY = f"arn:aws:any:us-east-1:{ACCOUNT}:ApprovalKey"
PASSES = {
    "iam:PassRole": {"TenantsFunction": "ScheduleRole", "ServingFunction": "tenants' roles, to their endpoints"},
    "sagemaker:StartPipelineExecution": {"DispatcherFunction": ""},
    "sagemaker:CreateTrainingJob": {},
    "iam:CreateRole": {"TenantsFunction": "", "RolesFunction": ""},
    "iam:AttachRolePolicy": {},
    "iam:CreateUser": {},
    "iam:DeleteRolePermissionsBoundary": {},
    "s3:PutBucketPolicy": {"TenantsFunction": ""},
    "s3:DeleteObject": {"TenantsFunction": "", "PublisherFunction": "code"},
    "kms:ScheduleKeyDeletion": {},
    "kms:PutKeyPolicy": {},
    "kms:GenerateMac": {},
    "dynamodb:DeleteTable": {},
    "sqs:DeleteQueue": {},
    "sts:AssumeRole": {"ApiFunction": "the one that is a single tenant's by its tag"},
}
RESOURCES = {
    "iam": (f"{ROLES}{STACK}--acme", f"arn:aws:iam::{ACCOUNT}:role/admin"),
    "s3": (f"arn:aws:s3:::{STACK}-{ACCOUNT}-t-acme", f"arn:aws:s3:::{STACK}-{ACCOUNT}-t-acme/incoming/x/d.csv"),
    "sagemaker": (f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:pipeline/{STACK}-training", JOB),
    "kms": (DATA_KEY, APPROVAL_KEY),
    "dynamodb": (f"arn:aws:any:us-east-1:{ACCOUNT}:TenantsTable",),
    "sqs": (f"arn:aws:sqs:us-east-1:{ACCOUNT}:{STACK}-tier-basic",),
    "sts": (f"{ROLES}{STACK}--acme", ACCESS_ROLE),
}


@pytest.mark.parametrize("function", YARD.functions())
def test_no_function_can_do_more_than_its_duty(function: str) -> None:
    document = YARD.policy(function)
    for action, may in PASSES.items():
        for resource in RESOURCES[action.partition(":")[0]]:
            keys = {"iam:PassedToService": "sagemaker.amazonaws.com"}
            says = decision(Call(principal=AS_FUNCTION, action=action, resource=resource, keys=keys), document)
            if says == "Allow":
                assert function in may, f"{function} may {action} on {resource}"


def test_the_http_api_acts_for_a_tenant_by_its_tag_and_as_no_job_of_it() -> None:
    document = YARD.policy("ApiFunction")

    def says(action: str, resource: str, document: Document = document, **keys: Any) -> str:
        return decision(Call(principal=AS_FUNCTION, action=action, resource=resource, keys=keys), document)

    jobs = (f"{ROLES}{STACK}--acme", f"{POOLED_ROLES}{STACK}.pool--acme", f"arn:aws:iam::{ACCOUNT}:role/admin")
    for action in ("sts:AssumeRole", "sts:TagSession"):
        assert says(action, ACCESS_ROLE) == "Allow"
        assert {says(action, role) for role in jobs} == {"ImplicitDeny"}
    for place in (
        "incoming/churn/a.csv",
        "models/churn/x/model.tar.gz",
        "reports/churn/x.json",
        "transform/x/a.csv",
    ):
        for root in (f"{STACK}-{ACCOUNT}-t-acme", f"{POOL}/acme"):
            for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
                assert says(action, f"arn:aws:s3:::{root}/{place}") == "ImplicitDeny"


def test_the_http_api_changes_nothing_while_it_is_off() -> None:
    documents = [template().policy(function) for function in ("ApiFunction", "OperationsFunction", "BulkFunction")]
    statements = [statement for document in documents for statement in document["Statement"]]
    actions = {
        action
        for statement in statements
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    reads = ("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:Scan", "s3:*")
    assert {action for action in actions if action not in reads} == {
        "dynamodb:UpdateItem",  # counts calls
        "sagemaker:DescribeModelPackage",
        "sagemaker:ListModelPackages",
    }


def test_whoever_verifies_approval_links_cannot_sign_them() -> None:
    for is_on in ("true", "false"):
        document = template(ApprovalLinks=is_on).policy("ApprovalsFunction")

        def says(action: str, key: str, document: dict[str, Any] = document) -> str:
            return decision(Call(principal=AS_FUNCTION, action=action, resource=key), document)

        assert says("kms:VerifyMac", APPROVAL_KEY) == ("Allow" if is_on == "true" else "ImplicitDeny")
        for action in ("GenerateMac", "VerifyMac", "Decrypt", "Sign", "CreateGrant", "PutKeyPolicy"):
            assert says(f"kms:{action}", DATA_KEY) == "ImplicitDeny"
            assert action == "VerifyMac" or says(f"kms:{action}", APPROVAL_KEY) == "ImplicitDeny"


@pytest.mark.parametrize(
    ("group", "status", "allowed"),
    [
        (f"{STACK}--acme", "Approved", True),
        (f"{STACK}--acme", "Rejected", True),
        (f"{STACK}--acme", "PendingManualApproval", False),
        (f"{STACK}--acme", None, False),
        (f"{STACK}2--acme", "Approved", False),
        ("other", "Approved", False),
    ],
)
def test_approvals_decide_about_packages_of_this_stack_and_leave_them_to_their_tenants(
    group: str, status: str | None, allowed: bool
) -> None:
    def may(is_on: str, **metadata: str) -> bool:
        keys = {f"sagemaker:CustomerMetadataProperties/{name}": value for name, value in metadata.items()}
        call = Call(
            principal=AS_FUNCTION,
            action="sagemaker:UpdateModelPackage",
            resource=f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model-package/{group}/3",
            keys=keys | ({"sagemaker:ModelApprovalStatus": status} if status else {}),
        )
        return decision(call, template(ApprovalLinks=is_on).policy("ApprovalsFunction")) == "Allow"

    assert may("true") is allowed
    assert not may("false")
    assert not any(may("true", **{name: "other"}) for name in ("tenant", "data_set", "request"))


def test_a_tenants_credentials_ask_for_its_own_models_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Every tenant asks for every key of every other one, and for keys that only look like its own."""
    document = template(DirectInvocation="true").policy("TenantAccessRole")
    names = [f"tenant{number}" for number in range(40)] + ["acme", "acme-labs", "a", "acm", "acme1"]
    endpoint = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{STACK}-shared-linear"

    def may(name: str, target: str | None, action: str = "sagemaker:InvokeEndpoint") -> bool:
        return asks(document, name, endpoint, target, action)

    key = "churn/3-0123/model.tar.gz"
    tried = 0
    for name in names:
        assert may(name, f"{name}/{key}")
        targets = [f"{other}/{key}" for other in names if other != name]
        targets += [name, f"{name}{key}", f"*/{key}", f"/{name}/{key}"]
        targets += [f"{name}/../acme/{key}", f"{name}/..%2f{key}"]
        for target in (*targets, None):
            assert not may(name, target), (name, target)
            tried += 1
        for action in ("sagemaker:InvokeEndpointAsync", "sagemaker:DescribeEndpoint", "sagemaker:UpdateEndpoint"):
            assert not may(name, f"{name}/{key}", action)
    assert not asks(document, "acme", endpoint.replace("shared", "own"), f"acme/{key}")
    off = template().policy("TenantAccessRole")
    assert not any(asks(off, name, endpoint, f"{name}/{key}") for name in names)
    with capsys.disabled():
        print(f"\nisolation, models of others on a shared endpoint: {tried:,} calls, all denied")


def test_a_tenants_credentials_ask_its_own_endpoints_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Every tenant asks the endpoints of every other one, and one without a tag."""
    role = template(DirectInvocation="true").policy("TenantAccessRole")
    names = [f"tenant{number}" for number in range(40)] + ["acme", "acme-labs", "a", "acm", "acme1"]
    tried = 0
    for name in names:
        tenant = silo(name)
        session = session_policy(tenant, partition="aws", data_key_arn=DATA_KEY, purpose=Purpose.PREDICT)
        for action in ("sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointAsync"):
            for owner in (*names, None):
                call = Call(
                    principal=ACCESS_ROLE,
                    action=action,
                    resource=f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{STACK}-own-{name}-churn-3",
                    keys={"aws:ResourceTag/trainyard:tenant": owner} if owner else {},
                    tags={"trainyard:tenant": name},
                )
                is_allowed = all(decision(call, document) == "Allow" for document in (role, session))
                assert is_allowed is (owner == name), (name, owner)
                tried += owner != name
    with capsys.disabled():
        print(f"\nisolation, own endpoints of others: {tried:,} calls, all denied")


def test_a_tenants_credentials_ask_its_own_containers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Every tenant asks for the containers of all others, also with a model that it may name; and components."""
    role = template(DirectInvocation="true").policy("TenantAccessRole")
    off = template().policy("TenantAccessRole")
    names = [f"tenant{number}" for number in range(40)] + ["acme", "acme-labs", "a", "acm", "acme1"]
    arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"
    containers, components = (f"{arn}:endpoint/{STACK}-shared--{kind}" for kind in ("containers", "components"))
    tried = 0
    for name in names:
        session = session_policy(silo(name), partition="aws", data_key_arn=DATA_KEY, purpose=Purpose.PREDICT)

        def may(resource: str, keys: dict[str, str], *documents: Document) -> bool:
            call = Call(
                principal=ACCESS_ROLE,
                action="sagemaker:InvokeEndpoint",
                resource=resource,
                keys=keys,
                tags={"trainyard:tenant": name},  # noqa: B023
            )
            return all(decision(call, document) == "Allow" for document in documents)

        own = {"sagemaker:TargetContainerHostname": f"{name}--3-0123456789ab"}
        assert may(containers, own, role, session)
        assert not may(containers, own, off)
        model = {"sagemaker:TargetModel": f"{name}/churn/3-0123/model.tar.gz"}
        hosts = [f"{other}--3-0123456789ab" for other in names if other != name]
        hosts += [name, f"{name}-3", f"-{name}--3", "spare", f"x--{name}--3"]
        keys = [{"sagemaker:TargetContainerHostname": host} for host in hosts] + [{}]
        tagged = {"aws:ResourceTag/trainyard:tenant": name}
        for more in ({}, model):
            for tries in keys:
                assert not may(containers, tries | more, role, session), (name, tries, more)
                tried += 1
            for resource in (components, f"{arn}:inference-component/{STACK}-own-{name}-churn-3"):
                assert not may(resource, more | own, role, session)
                tried += 1
        assert not may(components, model | own | tagged, role, session)
    with capsys.disabled():
        print(f"\nisolation, containers of others and components: {tried:,} calls, all denied")


def asks(
    document: Document, name: str, endpoint: str, target: str | None, action: str = "sagemaker:InvokeEndpoint"
) -> bool:
    """Tell whether a tenant's credentials may ask for a model on an endpoint."""
    call = Call(
        principal=ACCESS_ROLE,
        action=action,
        resource=endpoint,
        keys={"sagemaker:TargetModel": target} if target is not None else {},
        tags={"trainyard:tenant": name},
    )
    return decision(call, document) == "Allow"


def test_serving_reads_models_and_kept_rows_and_writes_where_models_are_served_alone() -> None:
    document, served = YARD.policy("ServingFunction"), "models/yard-shared-linear/acme/churn/1/model.tar.gz"
    own, pool, serving = f"{STACK}-{ACCOUNT}-t-acme", POOL, f"{STACK}-{ACCOUNT}-serving"
    endpoint = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{STACK}-shared-linear"

    def may(action: str, resource: str) -> bool:
        keys = {"aws:ResourceAccount": ACCOUNT}
        says = decision(Call(principal=AS_FUNCTION, action=action, resource=resource, keys=keys), document)
        return says == "Allow"

    for root in (f"arn:aws:s3:::{own}/", f"arn:aws:s3:::{pool}/acme/"):
        for key, allowed in {
            "models/churn/1/model.tar.gz": True,
            "reports/churn/1/profile/sample.json": True,
            "reports/churn/1/profile/profile.json": False,
            "reports/churn/predictions/answers/1.out": True,
            "incoming/churn/data.csv": False,
            "receipts/churn/1.json": False,
        }.items():
            assert may("s3:GetObject", root + key) is allowed, root + key
            assert not may("s3:PutObject", root + key)
    assert may("s3:PutObject", f"arn:aws:s3:::{serving}/{served}")
    assert may("sagemaker:InvokeEndpoint", endpoint)
    assert not may("sagemaker:InvokeEndpoint", endpoint.replace("shared", "others"))
    for stack in (STACK, "another"):
        tagged = {"aws:RequestTag/trainyard:stack": stack}
        call = Call(principal=AS_FUNCTION, action="sagemaker:CreateEndpoint", resource=endpoint, keys=tagged)
        assert (decision(call, document) == "Allow") is (stack == STACK)


@pytest.mark.parametrize("action", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint", "DeleteEndpoint"])
@pytest.mark.parametrize(
    ("name", "stack", "tenant_id", "allowed"),
    [
        (f"{STACK}-own-acme-churn-3", STACK, "acme", True),
        (f"{STACK}-own-acme-churn-3", STACK, None, False),
        (f"{STACK}-own-acme-churn-3", "another", "acme", False),
        ("another-own-acme-churn-3", STACK, "acme", False),
        (f"{STACK}-other", STACK, "acme", False),
    ],
)
def test_endpoints_of_a_version_are_created_and_removed_by_name_and_tags(
    action: str, name: str, stack: str, tenant_id: str | None, allowed: bool
) -> None:
    kind = {"CreateModel": "model", "CreateEndpointConfig": "endpoint-config"}.get(action, "endpoint")
    where = "aws:ResourceTag" if action.startswith("Delete") else "aws:RequestTag"
    tags = {f"{where}/trainyard:stack": stack} | ({f"{where}/trainyard:tenant": tenant_id} if tenant_id else {})
    call = Call(
        principal=AS_FUNCTION,
        action=f"sagemaker:{action}",
        resource=f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:{kind}/{name}",
        keys=tags,
    )
    assert (decision(call, YARD.policy("ServingFunction")) == "Allow") is allowed


@pytest.mark.parametrize("function", ["TenantsFunction", "RolesFunction"])
def test_roles_of_tenants_are_made_only_within_the_boundary(function: str) -> None:
    document = YARD.policy(function)

    def says(action: str, role: str, **keys: str) -> str:
        call = Call(principal=AS_FUNCTION, action=action, resource=role, keys=keys)
        return decision(call, document)

    bounded = {"iam:PermissionsBoundary": f"{STACK}-TenantBoundary"}
    own = f"{POOLED_ROLES}{STACK}.pool--acme" if function == "RolesFunction" else f"{ROLES}{STACK}--acme"
    for action in ("iam:CreateRole", "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary"):
        assert says(action, own, **bounded) == "Allow"
        assert says(action, own) == "ImplicitDeny"
        assert says(action, f"arn:aws:iam::{ACCOUNT}:role/admin", **bounded) == "ImplicitDeny"


# What somebody who controls a function's code could do: (label, action, resource, condition keys).
SCHEDULER = f"arn:aws:any:us-east-1:{ACCOUNT}:SchedulerTable"
TENANTS = f"arn:aws:any:us-east-1:{ACCOUNT}:TenantsTable"
BUS = f"arn:aws:any:us-east-1:{ACCOUNT}:EventBus"
THEIR_KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/not-lent"
LENT_KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/lent"
SILO_DATA = f"arn:aws:s3:::{STACK}-{ACCOUNT}-t-acme/incoming/x/data.csv"
POOL_DATA = f"arn:aws:s3:::{POOL}/acme10/incoming/x/data.csv"


def published(detail_type: str, source: str = "trainyard") -> dict[str, Any]:
    return {"events:source": [source], "events:detail-type": [detail_type]}


def grant(role: str) -> dict[str, Any]:
    return {"kms:GranteePrincipal": role, "kms:GrantOperations": ["Decrypt"]}


PROBES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "write the policy": ("dynamodb:PutItem", SCHEDULER, {"dynamodb:LeadingKeys": ["policy"]}),
    "write what the policy says": ("dynamodb:PutItem", SCHEDULER, {"dynamodb:LeadingKeys": ["policy-values"]}),
    "write the ledger": ("dynamodb:UpdateItem", SCHEDULER, {"dynamodb:LeadingKeys": ["ledger"]}),
    "write a tenant's record": ("dynamodb:PutItem", TENANTS, {"dynamodb:LeadingKeys": ["tenant#acme"]}),
    "write where a tenant's data lies": (
        "dynamodb:UpdateItem",
        TENANTS,
        {"dynamodb:LeadingKeys": ["tenant#acme"], "dynamodb:Attributes": ["pk", "bucket", "revision"]},
    ),
    "make operators": ("cognito-idp:AdminAddUserToGroup", f"arn:aws:any:us-east-1:{ACCOUNT}:Users", {}),
    "ask for a retraining": ("events:PutEvents", BUS, published("Retraining Requested")),
    "say that a tenant is deleted": ("events:PutEvents", BUS, published("Tenant Deleted")),
    "say that a request has ended": ("events:PutEvents", BUS, published("Training Request Succeeded")),
    "speak for another application": ("events:PutEvents", BUS, published("Training Request Rejected", "other")),
    "lend a key that is not to be lent": (
        "kms:CreateGrant",
        THEIR_KEY,
        {"aws:ResourceTag/other": "x", **grant(f"{POOLED_ROLES}{STACK}.pool--acme10")},
    ),
    "lend a lendable key to a bucket's tenant": (
        "kms:CreateGrant",
        LENT_KEY,
        {"aws:ResourceTag/trainyard:lend": STACK, **grant(f"{ROLES}{STACK}--acme")},
    ),
    "decrypt with the data key outside S3": ("kms:Decrypt", DATA_KEY, {}),
    "read data of a tenant with a bucket": ("s3:GetObject", SILO_DATA, {}),
    "read data of a pooled tenant": ("s3:GetObject", POOL_DATA, {}),
    "read a bucket that another account has taken": (
        "s3:GetObject",
        SILO_DATA,
        {"aws:ResourceAccount": "999999999999"},
    ),
    "start the pipeline": (
        "sagemaker:StartPipelineExecution",
        f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:pipeline/{STACK}-training",
        {},
    ),
}


def directly(function: str) -> set[str]:
    document = YARD.policy(function)
    return {
        label
        for label, (action, resource, keys) in PROBES.items()
        if decision(Call(principal=AS_FUNCTION, action=action, resource=resource, keys=keys), document) == "Allow"
    }


def through_roles(function: str) -> set[str]:
    """Return what a function reaches through roles whose trust or policy it may write, or that it may assume.

    It can give such a role any policy and any tag, so what remains are the boundary, which it cannot take away,
    and the policies of the buckets.
    """
    document = YARD.policy(function)
    reached: set[str] = set()
    roles = {f"{ROLES}{STACK}--acme": silo("acme"), f"{POOLED_ROLES}{STACK}.pool--acme10": pooled("acme10")}
    roles |= {f"{POOLED_ROLES}{STACK}.pool--acme": pooled("acme")}
    for role, owner in roles.items():
        bounded = {"iam:PermissionsBoundary": f"{STACK}-TenantBoundary"}
        taken = [
            decision(Call(principal=AS_FUNCTION, action=action, resource=role, keys=bounded), document)
            for action in ("iam:CreateRole", "iam:UpdateAssumeRolePolicy", "sts:AssumeRole")
        ]
        if "Allow" not in taken:
            continue
        for label, (action, resource, keys) in PROBES.items():
            for tag in ("acme", "acme10"):
                call = Call(
                    principal=role, action=action, resource=resource, keys=keys, tags={"trainyard:tenant": tag}
                )
                bucket = DEPLOYMENT.bucket_policy(silo("acme")) if resource == SILO_DATA else POOL_POLICY
                denied = decision(call, bucket, resource_policy=True) == "Deny" if ":s3:::" in resource else False
                if decision(call, BOUNDARY) == "Allow" and not denied:
                    reached.add(label)
        assert owner.role_arn == role
    return reached


SILO_READ, POOL_READ = "read data of a tenant with a bucket", "read data of a pooled tenant"
UPLOADS = {SILO_READ, POOL_READ}
REACH: dict[str, tuple[set[str], set[str]]] = {
    # function: (what it reaches by itself, what it reaches through roles that it may write)
    "IntakeFunction": (UPLOADS, set()),
    "EnlistFunction": ({"write the ledger", "say that a request has ended"}, set()),
    "DispatcherFunction": (
        UPLOADS
        | {
            "write the ledger",
            "write what the policy says",
            "say that a request has ended",
            "start the pipeline",
        },
        set(),
    ),
    "RecorderFunction": ({"write the ledger", "say that a request has ended"}, set()),
    "ReconcilerFunction": ({"write the ledger", "say that a request has ended"}, set()),
    "TenantsFunction": (
        UPLOADS
        | {
            "write the policy",
            "write the ledger",
            "write a tenant's record",
            "say that a tenant is deleted",
            "lend a lendable key to a bucket's tenant",
        },
        UPLOADS | {"decrypt with the data key outside S3"},
    ),
    # Of the roles of the pool it is the master; to a tenant with a bucket of its own it does not come.
    "RolesFunction": (set(), {POOL_READ, "decrypt with the data key outside S3"}),
    "GuardFunction": (set(), set()),
    "ServingFunction": (set(), set()),
    "PredictFunction": (set(), set()),
    "ApprovalsFunction": (set(), set()),
    "ApiFunction": (set(), set()),
    "OperationsFunction": ({"write the ledger", "write the policy"}, set()),
    "UsersFunction": ({"make operators"}, set()),
    "BulkFunction": (set(), set()),
    "WavesFunction": (set(), set()),
    "JournalFunction": (set(), set()),
    "ConsoleFunction": (set(), set()),
    "BillingFunction": (set(), set()),
    "PublisherFunction": (set(), set()),
}


@pytest.mark.parametrize("function", YARD.functions())
def test_what_a_function_reaches_by_itself_and_through_roles_that_it_may_write(function: str) -> None:
    assert (directly(function), through_roles(function)) == REACH[function]


def test_every_probe_is_one_that_some_policy_would_let_through() -> None:
    """A probe that names the wrong action or resource is denied to everybody, and would show nothing."""
    everything = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }
    reached = set().union(*(directly(f) | through_roles(f) for f in YARD.functions()))
    assert set(PROBES) - reached == {
        "write where a tenant's data lies",
        "ask for a retraining",
        "speak for another application",
        "lend a key that is not to be lent",
        "read a bucket that another account has taken",
    }
    for action, resource, keys in PROBES.values():
        call = Call(principal=AS_FUNCTION, action=action, resource=resource, keys=keys)
        assert decision(call, everything) == "Allow"
    # Those that nobody reaches are denied by the condition alone: without it somebody would.
    for function, label, change in (
        ("EnlistFunction", "speak for another application", {"events:source": ["trainyard"]}),
        ("TenantsFunction", "lend a key that is not to be lent", {"aws:ResourceTag/trainyard:lend": STACK}),
        ("IntakeFunction", "read a bucket that another account has taken", {"aws:ResourceAccount": ACCOUNT}),
        ("RolesFunction", "write where a tenant's data lies", {"dynamodb:Attributes": ["pk", "role", "revision"]}),
    ):
        action, resource, keys = PROBES[label]
        call = Call(principal=AS_FUNCTION, action=action, resource=resource, keys=keys | change)
        assert decision(call, YARD.policy(function)) == "Allow", label


def test_no_policy_comes_near_its_limit() -> None:
    """10,240 characters for a role's inline policies, 6,144 for a managed one (IAM quotas), spaces left out."""

    def size(document: Document) -> int:
        return len(json.dumps(document, separators=(",", ":")))

    shared = {name for function in YARD.functions() for name in YARD.managed(function)}
    assert max(size(YARD.inline(function)) for function in YARD.functions()) < 9_000
    assert max(size(YARD.policy(name)) for name in shared) < 5_500
    assert size(PIPELINE) < 8_000
    assert size(BOUNDARY) < 4_000
    assert size(DEPLOYMENT.role_policy(silo("a" * 24), IMAGES * 10, in_vpc=True)) < 8_000
    assert max(size(POOL_POLICY), size(DEPLOYMENT.bucket_policy(silo("acme")))) < 10_000
