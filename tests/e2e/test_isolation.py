"""The isolation matrix against the deployed service: every tenant's role on every other tenant's root.

The local cloud authorises each call by the role's own policy, its boundary and the bucket's policy, as AWS does;
tests/unit/test_isolation.py tests each of these policies separately.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.cloud import REGION
from tests.e2e.conftest import Harness
from trainyard.domain.tenants import Tenant

pytestmark = pytest.mark.thorough

SILO = ("corp", "corp1", "corp10", "corp-labs", "co")
POOL = ("pond", "pond1", "pond10", "pond-labs", "po")
IMPOSTERS = ("pond-/", "POND/", "pon/", "/", "pond1", "pond.")
KEYS = ("incoming/x/data.csv", "models/x/1/model.tar.gz", "reports/x/1/evaluation.json", "receipts/x/1.json")
EVERY_KEY = "ISOLATION_EVERY_KEY" in os.environ
BODY = b"target,a\n1,2\n"
DENIED = ("AccessDenied", "403")


@dataclass(frozen=True)
class Neighbourhood:
    harness: Harness
    tenants: dict[str, Tenant]

    def s3_of(self, role_arn: str) -> Any:
        return s3(self.harness, **self.harness.cloud.credentials_of(role_arn))


def s3(harness: Harness, **credentials: str) -> Any:
    config = Config(signature_version="s3v4", retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=harness.cloud.url, region_name=REGION, config=config, **credentials)


@pytest.fixture(scope="module")
def neighbourhood(harness: Harness) -> Iterator[Neighbourhood]:
    owner = harness.cloud.client("s3")
    tenants = {}
    for name in (*SILO, *POOL):
        harness.create(name, tier="premium" if name in POOL else "basic")
        if name in POOL:
            payload = json.dumps({"make": name}).encode()
            function = harness.outputs["RolesFunction"]
            answer = harness.cloud.client("lambda").invoke(FunctionName=function, Payload=payload)
            assert "FunctionError" not in answer
        tenants[name] = harness.deployment.tenant(name)
        harness.run("pause", "tenant", name)
        for key in KEYS:
            owner.put_object(Bucket=tenants[name].bucket, Key=f"{tenants[name].root}{key}", Body=BODY)
    for prefix in IMPOSTERS:
        owner.put_object(Bucket=harness.outputs["PoolBucket"], Key=f"{prefix}incoming/x/data.csv", Body=BODY)
    yield Neighbourhood(harness, tenants)
    for name in tenants:
        forget(harness, name)


def forget(harness: Harness, tenant_id: str) -> None:
    """Delete a paused tenant: `status` names five with requests waiting, and later tests look for their own."""
    assert harness.run("tenant", "delete", tenant_id, "--yes", "--purge") == 0


def denied(call: Callable[..., Any], **arguments: Any) -> bool:
    """Tell whether a call was refused for want of rights; any other error is the test's own mistake."""
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in DENIED:
            raise
        return True
    except urllib.error.HTTPError as error:
        if error.code != 403:
            raise
        return True
    return False


def attempts(
    as_caller: Any, caller: Tenant, bucket: str, root: str, keys: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield each way to reach a root that is not the caller's."""
    own = {"Bucket": caller.bucket, "Key": f"{caller.root}{KEYS[0]}"}
    loot = {"Bucket": caller.bucket, "Key": f"{caller.root}models/loot"}
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    for key in keys:
        at = {"Bucket": bucket, "Key": f"{root}{key}"}
        yield "read", partial(as_caller.get_object, **at)
        yield "head", partial(as_caller.head_object, **at)
        yield "write", partial(as_caller.put_object, **at, Body=b"x")
        yield "delete", partial(as_caller.delete_object, **at)
        yield "copy from", partial(as_caller.copy_object, **loot, CopySource=at)
        yield "copy to", partial(as_caller.copy_object, **at, CopySource=own)
        yield "multipart", partial(as_caller.create_multipart_upload, **at)
        yield "tag", partial(as_caller.put_object_tagging, **at, Tagging=tags)
        yield "read tags", partial(as_caller.get_object_tagging, **at)
        yield "presigned read", partial(fetch, as_caller.generate_presigned_url("get_object", Params=at))
        yield "presigned write", partial(fetch, as_caller.generate_presigned_url("put_object", Params=at), b"x")
    for prefix in (root, f"{root}incoming/", f"{root}models/x/"):
        yield "list", partial(as_caller.list_objects_v2, Bucket=bucket, Prefix=prefix)
        yield "list versions", partial(as_caller.list_object_versions, Bucket=bucket, Prefix=prefix)
        yield "list uploads", partial(as_caller.list_multipart_uploads, Bucket=bucket, Prefix=prefix)
    yield "list all", partial(as_caller.list_objects_v2, Bucket=bucket)
    yield "read policy", partial(as_caller.get_bucket_policy, Bucket=bucket)
    yield "write policy", partial(as_caller.put_bucket_policy, Bucket=bucket, Policy="{}")


def fetch(url: str, body: bytes | None = None) -> None:
    request = urllib.request.Request(url, data=body, method="PUT" if body else "GET")
    with urllib.request.urlopen(request, timeout=10):
        pass


def roots_beside(there: Neighbourhood, caller: Tenant) -> Iterator[tuple[str, str]]:
    """Yield bucket and prefix of everybody else, and of what only looks like somebody's."""
    for other in there.tenants.values():
        if other.tenant_id != caller.tenant_id:
            yield other.bucket, other.root
    if caller.pooled:
        for prefix in IMPOSTERS:
            yield caller.bucket, prefix


def run_matrix(there: Neighbourhood, callers: dict[str, tuple[Any, Tenant]]) -> tuple[int, list[str]]:
    """Return how many attempts were made, and those that were not denied.

    `make isolation` tries each key below each root; a run of all tests tries one of each, in turn.
    """
    count, passed = 0, []
    for number, (name, (as_caller, caller)) in enumerate(callers.items()):
        for turn, (bucket, root) in enumerate(roots_beside(there, caller), number):
            keys = KEYS if EVERY_KEY else KEYS[turn % len(KEYS) :][:1]
            for what, call in attempts(as_caller, caller, bucket, root, keys):
                count += 1
                if not denied(call):
                    passed.append(f"{name}: {what} {bucket}/{root}")
    return count, passed


@pytest.mark.thorough
def test_no_tenants_role_reaches_any_other_tenants_root_in_any_way(
    harness: Harness, neighbourhood: Neighbourhood, capsys: pytest.CaptureFixture[str]
) -> None:
    callers = {
        name: (neighbourhood.s3_of(tenant.role_arn), tenant) for name, tenant in neighbourhood.tenants.items()
    }
    for as_caller, tenant in callers.values():
        at = {"Bucket": tenant.bucket, "Key": f"{tenant.root}{KEYS[0]}"}
        assert as_caller.get_object(**at)["Body"].read() == BODY
        as_caller.put_object(Bucket=tenant.bucket, Key=f"{tenant.root}reports/x/1/own.json", Body=b"{}")
        as_caller.list_objects_v2(Bucket=tenant.bucket, Prefix=f"{tenant.root}incoming/x/")
        for key in (KEYS[0], KEYS[3]):
            assert denied(as_caller.put_object, Bucket=tenant.bucket, Key=tenant.root + key, Body=b"x")
    count, passed = run_matrix(neighbourhood, callers)
    with capsys.disabled():
        print(f"\nisolation, against the deployed service: {count:,} attempts by {len(callers)} roles, all denied")
    assert passed == []
    assert count > (4000 if EVERY_KEY else 1500)


def test_credentials_that_are_handed_out_reach_one_tenant_and_one_purpose(
    harness: Harness, neighbourhood: Neighbourhood, capsys: pytest.CaptureFixture[str]
) -> None:
    callers = {}
    for name in ("corp", "pond"):
        tenant = neighbourhood.tenants[name]
        for purpose in ("upload", "read"):
            capsys.readouterr()
            assert harness.run("--json", "tenant", "credentials", name, "--purpose", purpose) == 0
            found = json.loads(capsys.readouterr().out)
            as_caller = s3(
                harness,
                aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
                aws_session_token=found["AWS_SESSION_TOKEN"],
            )
            callers[f"{name} to {purpose}"] = (as_caller, tenant)
            put = {"Bucket": tenant.bucket, "Key": f"{tenant.root}incoming/y/d.csv", "Body": BODY}
            got = {"Bucket": tenant.bucket, "Key": f"{tenant.root}{KEYS[1]}"}
            read = {"Bucket": tenant.bucket, "Key": f"{tenant.root}{KEYS[0]}"}
            assert denied(as_caller.put_object, **put) == (purpose == "read")
            if purpose == "upload":
                foreign = "arn:aws:kms:us-east-1:999999999999:key/11111111-2222-3333-4444-555555555555"
                assert denied(as_caller.put_object, **put, ServerSideEncryption="aws:kms", SSEKMSKeyId=foreign)
                assert denied(as_caller.put_object, **put, SSECustomerAlgorithm="AES256", SSECustomerKey="k" * 32)
            assert denied(as_caller.get_object, **got) == (purpose == "upload")
            assert denied(as_caller.get_object, **read)
    count, passed = run_matrix(neighbourhood, callers)
    with capsys.disabled():
        print(f"\nisolation, handed-out credentials: {count:,} attempts, all denied")
    assert passed == []
    assert harness.run("tenant", "credentials", "corp", "--minutes", "5") == 1
    assert "choose between 15 and 60" in capsys.readouterr().err
    sts = harness.cloud.client("sts")
    untagged = {"RoleArn": harness.outputs["TenantAccessRoleArn"], "RoleSessionName": "mallory"}
    for tags in ([], [{"Key": "other", "Value": "x"}]):
        with pytest.raises(ClientError, match="AccessDenied"):
            sts.assume_role(**untagged, Tags=tags)


def test_the_matrix_is_not_empty_words_when_every_layer_is_weakened_it_fails(
    harness: Harness, neighbourhood: Neighbourhood
) -> None:
    """One layer alone holds the others out (tests/unit/test_isolation.py weakens each of them by itself)."""
    iam, owner = harness.cloud.client("iam"), harness.cloud.client("s3")
    caller, victim = neighbourhood.tenants["corp"], neighbourhood.tenants["corp1"]
    everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})

    def steal() -> bool:
        as_caller = neighbourhood.s3_of(caller.role_arn)
        return not denied(partial(as_caller.get_object, Bucket=victim.bucket, Key=KEYS[0]))

    try:
        iam.put_role_policy(RoleName="trainyard--corp", PolicyName="more", PolicyDocument=policy)
        assert not steal(), "the boundary and the bucket's policy hold"
        iam.delete_role_permissions_boundary(RoleName="trainyard--corp")
        assert not steal(), "the bucket's policy holds"
        owner.delete_bucket_policy(Bucket=victim.bucket)
        assert steal()
    finally:
        iam.delete_role_policy(RoleName="trainyard--corp", PolicyName="more")
        for name in ("corp", "corp1"):
            assert harness.run("tenant", "repair", name) == 0
    assert not steal()


def test_a_tenants_own_account_puts_data_and_reads_results(harness: Harness) -> None:
    key = harness.lent_key()
    bucket = harness.create("federal", "--account", "222222222222", "--kms-key", key)
    harness.run("pause", "tenant", "federal")
    for key in KEYS:
        harness.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=BODY)

    def by(account: str) -> Any:
        iam = boto3.client(
            "iam",
            endpoint_url=harness.cloud.url,
            region_name=REGION,
            aws_access_key_id=account,
            aws_secret_access_key="x",
        )
        iam.create_user(UserName="engineer")
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam.put_user_policy(UserName="engineer", PolicyName="all", PolicyDocument=document)
        key = iam.create_access_key(UserName="engineer")["AccessKey"]
        return s3(harness, aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])

    own, foreign = by("222222222222"), by("333333333333")
    own.put_object(Bucket=bucket, Key="incoming/x/more.csv", Body=BODY)
    assert own.get_object(Bucket=bucket, Key=KEYS[3])["Body"].read() == BODY
    assert denied(own.get_object, Bucket=bucket, Key=KEYS[0])
    assert denied(own.put_object, Bucket=bucket, Key=KEYS[1], Body=BODY)
    assert denied(foreign.put_object, Bucket=bucket, Key="incoming/x/d.csv", Body=BODY)
    assert denied(foreign.get_object, Bucket=bucket, Key=KEYS[3])
    assert harness.run("tenant", "update", "federal", "--account", "") == 0
    assert denied(own.get_object, Bucket=bucket, Key=KEYS[3])
    forget(harness, "federal")


DUTIES: dict[str, tuple[tuple[str, str], ...]] = {
    # Role → what it may not do with a tenant's objects; what a function's duty needs is left out.
    "Intake": (("get", KEYS[1]), ("put", KEYS[0]), ("put", KEYS[1]), ("delete", KEYS[0])),
    "Enlist": (("get", KEYS[0]), ("get", KEYS[1]), ("put", KEYS[0]), ("delete", KEYS[0])),
    "Dispatcher": (("get", KEYS[1]), ("put", KEYS[0]), ("put", KEYS[1]), ("delete", KEYS[0])),
    "Recorder": (("get", KEYS[0]), ("get", KEYS[1]), ("put", KEYS[2]), ("delete", KEYS[2])),
    "Reconciler": (("get", KEYS[0]), ("put", KEYS[2]), ("delete", KEYS[2])),
    "Roles": tuple((verb, key) for verb in ("get", "put", "delete") for key in KEYS),
    "Guard": tuple((verb, key) for verb in ("get", "put", "delete") for key in KEYS),
    "Publisher": tuple((verb, key) for verb in ("get", "put", "delete") for key in KEYS),
    "Pipeline": (("get", KEYS[0]), ("put", KEYS[1]), ("put", KEYS[2]), ("delete", KEYS[1])),
}


def _writes_denied(harness: Harness, name: str, credentials: dict[str, str]) -> int:
    """Assert that a function writes neither the policy, by a put or in a transaction, nor a record of a tenant,
    and asks for no retraining in another's name; return how many attempts that were."""
    dynamodb, events = (
        boto3.client(service, endpoint_url=harness.cloud.url, region_name=REGION, **credentials)
        for service in ("dynamodb", "events")
    )
    policy = {
        "TableName": harness.outputs["SchedulerTable"],
        "Item": {"pk": {"S": "policy"}, "sk": {"S": "policy"}},
    }
    record = {
        "TableName": harness.outputs["TenantsTable"],
        "Key": {"pk": {"S": "tenant#corp"}},
        "UpdateExpression": "SET #b = :b",
        "ExpressionAttributeNames": {"#b": "bucket"},
        "ExpressionAttributeValues": {":b": {"S": "mine"}},
    }
    entry = {
        "EventBusName": harness.outputs["EventBus"],
        "Source": "trainyard",
        "DetailType": "Retraining Requested",
        "Detail": '{"tenant_id": "corp"}',
    }
    attempts: tuple[tuple[Any, dict[str, Any]], ...] = (
        (dynamodb.put_item, policy),
        (dynamodb.transact_write_items, {"TransactItems": [{"Put": policy}]}),
        (dynamodb.update_item, record),
        (events.put_events, {"Entries": [entry]}),
    )
    for call, arguments in attempts:
        with pytest.raises(ClientError, match=r"AccessDenied|not authorized"):
            call(**arguments)
    return len(attempts)


def test_no_function_reaches_what_its_duty_does_not_need(
    harness: Harness, neighbourhood: Neighbourhood, capsys: pytest.CaptureFixture[str]
) -> None:
    roles = {role["RoleName"]: role["Arn"] for role in harness.cloud.client("iam").list_roles()["Roles"]}
    count = 0
    for name, forbidden in DUTIES.items():
        starts = (f"trainyard-{name}FunctionRole", f"trainyard-{name}Role")
        (arn,) = {arn for role, arn in roles.items() if role.startswith(starts)}
        credentials = harness.cloud.credentials_of(arn)
        as_function = s3(harness, **credentials)
        for owner in (neighbourhood.tenants["corp"], neighbourhood.tenants["pond"]):
            for verb, key in forbidden:
                at = {"Bucket": owner.bucket, "Key": owner.root + key}
                more = {"Body": b"x"} if verb == "put" else {}
                count += 1
                call = getattr(as_function, f"{verb}_object")
                assert denied(call, **at, **more), f"{name} may {verb} {at}"
        for service, call_name, arguments in (
            ("iam", "create_user", {"UserName": "mallory"}),
            ("iam", "delete_role", {"RoleName": "trainyard--corp"}),
            ("sqs", "purge_queue", {"QueueUrl": harness.outputs["UploadsQueue"]}),
            ("dynamodb", "delete_table", {"TableName": harness.outputs["TenantsTable"]}),
            ("dynamodb", "scan", {"TableName": harness.outputs["RequestsTable"]}),
            ("kms", "schedule_key_deletion", {"KeyId": harness.outputs["DataKeyArn"]}),
            ("s3", "delete_bucket", {"Bucket": neighbourhood.tenants["corp"].bucket}),
        ):
            client = boto3.client(service, endpoint_url=harness.cloud.url, region_name=REGION, **credentials)
            with pytest.raises(ClientError, match=r"AccessDenied|not authorized"):
                getattr(client, call_name)(**arguments)
            count += 1
        count += _writes_denied(harness, name, credentials)
    with capsys.disabled():
        print(f"\nisolation, functions outside their duties: {count} attempts, all denied")
