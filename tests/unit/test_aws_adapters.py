"""How the AWS adapters handle AWS's responses, with moto or a stubbed client."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from botocore.stub import Stubber
from moto import mock_aws

from tests.build import NOW, after, content, request, tenant
from tests.evaluator import DEPLOYMENT
from tests.tables import create_tables
from trainyard.adapters.aws import clients, sagemaker, storage
from trainyard.adapters.aws import migration as migration_module
from trainyard.adapters.aws.absence import is_absent
from trainyard.adapters.aws.errors import translated
from trainyard.adapters.aws.migration import S3Migration
from trainyard.adapters.aws.queues import SqsRedelivery
from trainyard.adapters.aws.removal import AwsRemoval, _check
from trainyard.adapters.aws.storage import S3DataSets, S3Receipts
from trainyard.adapters.aws.store import DynamoStore
from trainyard.adapters.aws.tables import DynamoBell, DynamoTenants
from trainyard.adapters.aws.threads import parallel_map
from trainyard.domain.errors import (
    Conflict,
    DataUnavailable,
    OutcomeUnknown,
    Refused,
    StartDelayed,
    StartInvalid,
    Throttled,
)
from trainyard.domain.executions import JobFacts
from trainyard.domain.prices import JobKind
from trainyard.domain.requests import State
from trainyard.domain.tenants import TrainingSettings, TrainOn
from trainyard.persistence.bell import Hint
from trainyard.persistence.store import Key

BUCKET = "trainyard-t-acme"


@pytest.fixture
def aws() -> Iterator[Any]:
    with mock_aws():
        clients.forget()
        create_tables(boto3.client("dynamodb"))
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield s3
    clients.forget()


@pytest.fixture
def stub() -> Iterator[Stubber]:
    """A SageMaker client whose answers are given; requests are checked against botocore's model."""
    clients.forget()
    with Stubber(clients.client("sagemaker")) as stubber:
        yield stubber
    clients.forget()


@pytest.fixture
def stub_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Stubber]]:
    """Yield what makes a client of a service whose answers are given."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    clients.forget()
    stubbers: list[Stubber] = []

    def make(service: str) -> Stubber:
        stubbers.append(Stubber(clients.client(service)))
        stubbers[-1].activate()
        return stubbers[-1]

    yield make
    for stubber in stubbers:
        stubber.deactivate()
    clients.forget()


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "x"), Throttled),
        (ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "x"), Conflict),
        (
            ClientError(
                {
                    "Error": {"Code": "TransactionCanceledException"},
                    "CancellationReasons": [{"Code": "None"}, {"Code": "TransactionConflict"}],
                },
                "x",
            ),
            Conflict,
        ),
        (
            ClientError({"Error": {"Code": "Odd"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "x"),
            OutcomeUnknown,
        ),
        (ReadTimeoutError(endpoint_url="x"), OutcomeUnknown),
        (ConnectTimeoutError(endpoint_url="x"), Throttled),
        (ClientError({"Error": {"Code": "AccessDenied"}}, "x"), ClientError),
    ],
)
def test_what_botocore_raises_becomes_what_the_caller_must_do(raised: Exception, expected: type) -> None:
    with pytest.raises(expected), translated():
        raise raised


# --- SageMaker ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ValidationException", StartInvalid),
        ("ResourceLimitExceeded", StartDelayed),
        ("ConflictException", StartDelayed),
        ("ResourceNotFound", StartDelayed),
        ("AccessDeniedException", StartDelayed),
        ("ThrottlingException", Throttled),
    ],
)
def test_only_what_no_later_try_can_mend_ends_a_request(stub: Stubber, code: str, expected: type) -> None:
    for _ in range(4):
        stub.add_client_error("start_pipeline_execution", code, "words", 400)
    with pytest.raises(expected):
        sagemaker.SageMakerExecutions(pipeline_names={"": "p"}).start(
            name="n", token="t" * 32, description="d", parameters={"A": "1"}
        )


def test_an_execution_is_found_by_its_name_on_a_later_page(stub: Stubber) -> None:
    pages: list[dict[str, Any]] = [
        {
            "PipelineExecutionSummaries": [
                {"PipelineExecutionDisplayName": "other", "PipelineExecutionArn": "arn/other"}
            ],
            "NextToken": "2",
        },
        {"PipelineExecutionSummaries": [{"PipelineExecutionDisplayName": "n", "PipelineExecutionArn": "arn"}]},
    ]
    since = NOW - timedelta(minutes=5)
    for number, page in enumerate(pages):
        expected = {"PipelineName": "p", "CreatedAfter": since} | ({"NextToken": "2"} if number else {})
        stub.add_response("list_pipeline_executions", page, expected)
    found = sagemaker.SageMakerExecutions(pipeline_names={"": "p"}).started(since=NOW)
    assert found["n"] == "arn"


def test_a_pipeline_that_a_deployment_is_still_making_hides_no_other(stub: Stubber) -> None:
    since = NOW - timedelta(minutes=5)
    listing = "list_pipeline_executions"
    stub.add_client_error(
        listing, "ResourceNotFound", expected_params={"PipelineName": "p-2", "CreatedAfter": since}
    )
    page = {"PipelineExecutionSummaries": [{"PipelineExecutionDisplayName": "n", "PipelineExecutionArn": "arn"}]}
    stub.add_response(listing, page, {"PipelineName": "p", "CreatedAfter": since})
    assert sagemaker.SageMakerExecutions(pipeline_names={"2": "p-2", "": "p"}).started(since=NOW) == {"n": "arn"}


def test_the_shared_pipeline_must_exist(stub: Stubber) -> None:
    stub.add_client_error("list_pipeline_executions", "ResourceNotFound")
    with pytest.raises(ClientError):
        sagemaker.SageMakerExecutions(pipeline_names={"": "p"}).started(since=NOW)


def test_a_failed_processing_steps_own_words_are_its_exit_message(stub: Stubber) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:processing-job/pipelines-x"
    step = {
        "StepName": "Preprocess",
        "StepStatus": "Failed",
        "FailureReason": "ClientError: AlgorithmError: , exit code: 1",
        "Metadata": {"ProcessingJob": {"Arn": arn}},
    }
    job = {
        "ProcessingJobName": "pipelines-x",
        "ProcessingJobArn": arn,
        "ProcessingJobStatus": "Failed",
        "CreationTime": NOW,
        "ProcessingStartTime": NOW,
        "ProcessingEndTime": after(3600),
        "ExitMessage": "there is no column 'y'",
        "AppSpecification": {"ImageUri": "i"},
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 2, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
        },
    }
    stub.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": [step]})
    stub.add_response("describe_processing_job", job)
    report = sagemaker.SageMakerExecutionReports().read(
        "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/x"
    )
    assert (report.failed_step, report.failure) == ("Preprocess", "there is no column 'y'")
    assert report.model_package_arn is None
    assert report.steps[0].job == JobFacts(
        kind=JobKind.PROCESSING,
        arn=arn,
        status="Failed",
        instance_type="ml.m5.large",
        instance_count=2,
        volume_gb=30,
        started_at=NOW,
        ended_at=after(3600),
    )


def test_what_a_run_has_registered_is_read_off_its_steps(stub: Stubber) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model-package/g/1"
    steps = [
        {"StepName": "Register", "StepStatus": "Succeeded", "Metadata": {"RegisterModel": {"Arn": arn}}},
        {"StepName": "Record", "StepStatus": "Failed", "FailureReason": "killed"},
    ]
    stub.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": steps})
    report = sagemaker.SageMakerExecutionReports().read(
        "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/x"
    )
    assert (report.model_package_arn, report.failed_step) == (arn, "Record")


FAILED = "ClientError: Failed to invoke sagemaker:"
TRAILER = (
    "Retry not appropriate on execution of step with PipelineExecutionArn "
    "arn:aws:sagemaker:eu-west-1:999999999999:pipeline/p/execution/cos5h1n0dv8j and StepId Train. No retry policy "
    "configured for the exception type SAGEMAKER_RESOURCE_LIMIT."
)
QUOTA = (
    "The account-level service limit 'ml.m5.large for processing job usage' is 4 Instances, with current "
    "utilization of 4 Instances and a request delta of 1 Instances. Please contact AWS support to request an "
    "increase for this limit."
)
"""As recorded on real accounts; numbers and names are made up."""


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("AlgorithmError: no hyperparameter depth, exit code: 1", "no hyperparameter depth"),
        ("ClientError: AlgorithmError: boom", "boom"),
        (
            'AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "ValueError: bad"\n'
            'Command "/usr/bin/python3 train.py", exit code: 1',
            "ValueError: bad",
        ),
        (f"{FAILED}CreateProcessingJob. Error Details: {QUOTA} {TRAILER}", QUOTA),
        (f"{FAILED}CreateTrainingJob. Error Details: {QUOTA}\n{TRAILER}", QUOTA),
        (
            "the model's quality is 0.4 and at least 0.6 is required",
            "the model's quality is 0.4 and at least 0.6 is required",
        ),
    ],
)
def test_a_failure_reason_is_cut_down_to_its_last_line(reason: str, line: str) -> None:
    assert sagemaker.last_line(reason) == line


# --- S3 -----------------------------------------------------------------------------------------------------


def test_a_manifest_names_the_one_object_and_not_its_neighbour(aws: Any) -> None:
    for name in ("data.csv", "data.csv.bak"):
        aws.put_object(Bucket=BUCKET, Key=f"incoming/churn/{name}", Body=b"x" * 10)
    asked = request(1, data_set="churn")
    assert S3DataSets().write_manifest(tenant(), asked)[:2] == (10, b"x" * 10), "what lies there now"
    body = aws.get_object(Bucket=BUCKET, Key=f"reports/churn/{asked.request_id}/input.manifest")["Body"].read()
    assert json.loads(body) == [{"prefix": f"s3://{BUCKET}/incoming/churn/"}, "data.csv"]


def test_the_first_bytes_of_one_object_come_with_its_size_unless_only_the_run_may_read_it(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(1, data_set="churn")
    aws.put_object(Bucket=BUCKET, Key="incoming/churn/data.csv", Body=b"%PDF-1.7 " * 10)
    assert S3DataSets().write_manifest(tenant(), asked)[:2] == (90, b"%PDF-1.7 " * 10)
    aws.put_object(Bucket=BUCKET, Key="incoming/churn/data.csv", Body=b"")
    assert S3DataSets().write_manifest(tenant(), asked)[:2] == (0, b"")

    class Encrypted:
        """S3 whose objects are encrypted with a key that the scheduler may not use."""

        def __getattr__(self, name: str) -> Any:
            def denied(**_: Any) -> Any:
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": "kms:Decrypt"}}, "GetObject")

            return denied if name == "get_object" else getattr(aws, name)

    aws.put_object(Bucket=BUCKET, Key="incoming/churn/data.csv", Body=b"12345")
    monkeypatch.setattr(storage, "client", lambda *_, **__: Encrypted())
    assert S3DataSets().write_manifest(tenant(), asked)[:2] == (5, b"")


def test_an_archived_object_is_no_data_that_a_run_could_read(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A HEAD of it answers as if it could be read."""
    aws.put_object(Bucket=BUCKET, Key="incoming/churn/data.csv", Body=b"12345")

    class Archived:
        def __getattr__(self, name: str) -> Any:
            def refused(**_: Any) -> Any:
                raise ClientError({"Error": {"Code": "InvalidObjectState", "Message": "archived"}}, "GetObject")

            return refused if name == "get_object" else getattr(aws, name)

    monkeypatch.setattr(storage, "client", lambda *_, **__: Archived())
    with pytest.raises(DataUnavailable, match="InvalidObjectState"):
        S3DataSets().write_manifest(tenant(), request(1, data_set="churn"))


def test_each_upload_that_is_trained_on_is_looked_at_by_its_version(aws: Any) -> None:
    aws.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    put = [
        aws.put_object(Bucket=BUCKET, Key="incoming/churn/data.csv", Body=body)["VersionId"]
        for body in (b"%PDF-1.7", b"a,b\n1,2\n")
    ]
    for version, first in zip(put, (b"%PDF-1.7", b"a,b\n1,2\n"), strict=True):
        one = content(version_id=version, size_bytes=len(first), bucket=BUCKET)
        asked = request(1, data_set="churn", content=one, alone=True)
        assert S3DataSets().write_manifest(tenant(), asked)[:2] == (len(first), first)


def test_a_whole_prefix_is_everything_below_it_but_empty_objects(aws: Any) -> None:
    for number in range(3):
        aws.put_object(Bucket=BUCKET, Key=f"incoming/churn/p/{number}.csv", Body=b"x" * 5)
    aws.put_object(Bucket=BUCKET, Key="incoming/churn/", Body=b"")
    aws.put_object(Bucket=BUCKET, Key="incoming/churn2/other.csv", Body=b"x")
    settings = TrainingSettings(algorithm="linear", target="y", train_on=TrainOn.WHOLE_PREFIX)
    whole, asked = tenant(settings=settings), request(1, data_set="churn")
    assert S3DataSets().write_manifest(whole, asked)[:2] == (15, b"")
    body = aws.get_object(Bucket=BUCKET, Key=f"reports/churn/{asked.request_id}/input.manifest")["Body"].read()
    assert json.loads(body)[1:] == ["p/0.csv", "p/1.csv", "p/2.csv"]
    with pytest.raises(Refused, match="no data left"):
        S3DataSets().write_manifest(whole, request(2, data_set="gone"))


def test_the_newest_object_of_a_data_set_is_found_with_its_version(aws: Any) -> None:
    aws.put_object(Bucket=BUCKET, Key="incoming/churn/b.csv", Body=b"old")
    version = aws.put_object(Bucket=BUCKET, Key="incoming/churn/b.csv", Body=b"newer")["VersionId"]
    found = S3DataSets().content_of(tenant(), "churn")
    assert found is not None
    assert (found.key, found.version_id, found.size_bytes) == ("incoming/churn/b.csv", version, 5)
    assert S3DataSets().names(tenant()) == ["churn"]
    assert S3DataSets().content_of(tenant(), "none") is None


def test_a_receipt_never_goes_back(aws: Any) -> None:
    def told() -> str:
        key = f"receipts/set-1/{request(1).request_id}.json"
        return str(json.loads(aws.get_object(Bucket=BUCKET, Key=key)["Body"].read())["state"])

    receipts = S3Receipts()
    for state, attempt, expected in (
        (State.QUEUED, 0, "QUEUED"),
        (State.RUNNING, 1, "RUNNING"),
        (State.QUEUED, 0, "RUNNING"),
        (State.SUCCEEDED, 1, "SUCCEEDED"),
        (State.RUNNING, 1, "SUCCEEDED"),
    ):
        receipts.write(tenant(), request(1, state=state, attempt=attempt), NOW)
        assert told() == expected


# --- tables -------------------------------------------------------------------------------------------------


def test_a_tenant_is_found_by_its_bucket_or_its_prefix_and_by_nothing_else(aws: Any) -> None:
    records = DynamoTenants(tenants_table="tenants")
    settings = TrainingSettings(
        algorithm="linear", target="y", hyperparameters=(("a", 1.0), ("b", 2), ("c", True))
    )
    silo, pooled = (
        tenant(settings=settings, data_sets={"s": settings}),
        tenant("acme10", bucket="pool", root="acme10/"),
    )
    silo, pooled = records.put(silo), records.put(pooled)
    with pytest.raises(Conflict):
        records.put(replace(silo, revision=0))
    assert records.owner_of(BUCKET, "incoming/x/y") == silo
    assert records.owner_of("pool", "acme10/incoming/x/y") == pooled
    assert records.owner_of("pool", "acme1/incoming/x/y") is None
    assert records.owner_of("pool", "acme10") is None
    assert records.all() == [silo, pooled]
    kept = records.get("acme")
    assert kept is not None
    assert [type(value) for _, value in kept.settings.hyperparameters] == [float, int, bool]


def test_the_bell_is_one_item_and_a_later_ring_one_delayed_message(aws: Any) -> None:
    queue = boto3.client("sqs").create_queue(QueueName="bell")["QueueUrl"]
    bell = DynamoBell(scheduler_table="scheduler", bell_queue_url=queue)
    bell.ring()
    bell.ring([Hint("basic", "acme", "1" * 32)])
    bell.ring_at(after(5000), NOW, [Hint("basic", "acme", "1" * 32)])
    item = boto3.client("dynamodb").get_item(
        TableName="scheduler", Key={"pk": {"S": "ledger"}, "sk": {"S": "bell"}}
    )
    assert item["Item"]["rings"] == {"N": "2"}
    assert item["Item"]["hints"] == {"L": [{"S": f"basic acme {'1' * 32}"}]}
    assert item["Item"]["by"] == {"S": "ring"}
    delayed = boto3.client("sqs").get_queue_attributes(
        QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessagesDelayed"]
    )
    assert delayed["Attributes"]["ApproximateNumberOfMessagesDelayed"] == "1"


def test_a_ring_waits_for_transactions_that_ring_too(stub_of: Any) -> None:
    stub = stub_of("dynamodb")
    for _ in range(3):
        stub.add_client_error("update_item", "TransactionConflictException", "under way", 400)
    stub.add_response("update_item", {})
    DynamoBell(scheduler_table="scheduler", bell_queue_url="").ring()
    stub.assert_no_pending_responses()


def test_what_failed_comes_again_soon_and_later_each_time(aws: Any) -> None:
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName="work", Attributes={"VisibilityTimeout": "370"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    asked: list[dict[str, Any]] = []
    clients.client("sqs", hurried=True).meta.events.register(
        "provide-client-params.sqs.ChangeMessageVisibilityBatch", lambda params, **_: asked.append(params)
    )
    records = []
    for number in range(12):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))
        (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
        received = {"ApproximateReceiveCount": str(1 + number % 4)}
        handle = message["ReceiptHandle"]
        records.append({"receiptHandle": handle, "eventSourceARN": arn, "attributes": received})
    gone = {**records[0], "eventSourceARN": f"{arn}-that-is-gone"}
    with pytest.raises(ClientError, match="GetQueueUrl"):
        SqsRedelivery().soon([*records, gone])
    assert [len(batch["Entries"]) for batch in asked] == [9]
    for entry in asked[0]["Entries"]:
        seconds = (15, 60, 240)[int(entry["Id"]) % 4]
        assert 0.5 * seconds - 1 <= entry["VisibilityTimeout"] <= 1.5 * seconds


def test_what_dynamodb_leaves_unread_is_asked_for_again(stub_of: Any) -> None:
    stub = stub_of("dynamodb")
    one, two = ({"request_id": {"S": name}} for name in ("1", "2"))
    left = {"requests": {"Keys": [two], "ConsistentRead": True}}
    stub.add_response("batch_get_item", {"Responses": {"requests": [one]}, "UnprocessedKeys": left})
    stub.add_response("batch_get_item", {"Responses": {"requests": [two]}}, {"RequestItems": left})
    store = DynamoStore(scheduler_table="scheduler", requests_table="requests", record_table="record")
    found = store.get(*(Key("requests", (("request_id", name),)) for name in ("1", "2")))
    assert found == [{"request_id": "1"}, {"request_id": "2"}]


def test_all_are_done_beside_each_other_before_an_error_is_raised() -> None:
    done: list[int] = []

    def do(number: int) -> int:
        if number == 0:
            raise ValueError("the first")
        time.sleep(0.01)
        done.append(number)
        return number

    with pytest.raises(ValueError, match="the first"):
        parallel_map(do, range(20))
    assert sorted(done) == list(range(1, 20))
    assert parallel_map(lambda number: -number, range(3)) == [0, -1, -2]


def test_presigned_urls_are_of_signature_version_4() -> None:
    clients.forget()
    url = clients.client("s3").generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "k"})
    assert "X-Amz-Signature" in url
    clients.forget()


# --- moves and removals ------------------------------------------------------------------------------------------


@pytest.fixture
def places(aws: Any) -> tuple[Any, Any]:
    """Two roots of one tenant, with versions: below a prefix of a pool, and in a bucket."""
    for bucket in ("pool", "own"):
        aws.create_bucket(Bucket=bucket)
        aws.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return tenant(bucket="pool", root="acme/"), tenant(bucket="own")


def test_a_copy_gives_way_to_another_version_and_what_was_put_at_the_new_place_to_nothing_older(
    aws: Any, places: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = places
    migration = S3Migration(deployment=DEPLOYMENT)
    for key in ("acme/", "acme/incoming/x/a", "acme/incoming/x/b", "acme/models/x/m", "acme1/incoming/x/a"):
        aws.put_object(Bucket="pool", Key=key, Body=b"old", ContentType="text/csv", Metadata={"mine": "1"})
    assert migration.copy(old, new, after=None) == (3, None)
    assert migration.differences(old, new, after=None, late=False) == ([], None)
    copied = aws.head_object(Bucket="own", Key="incoming/x/a")
    assert (copied["ContentType"], copied["Metadata"]["mine"]) == ("text/csv", "1")
    assert aws.head_object(Bucket="own", Key="models/x/m")["ServerSideEncryption"] == "aws:kms"
    aws.put_object(Bucket="own", Key="incoming/x/a", Body=b"the tenant's, at the new place")
    aws.put_object(Bucket="pool", Key="acme/incoming/x/b", Body=b"new")
    aws.put_object(Bucket="pool", Key="acme/incoming/x/c", Body=b"late")
    assert migration.differences(old, new, after=None, late=True) == (["incoming/x/b", "incoming/x/c"], None)
    assert migration.differences(old, new, after="incoming/x/b", late=True) == (["incoming/x/c"], None)
    with monkeypatch.context() as context:
        context.setattr(migration_module, "COMPARED_AT_ONCE", 2)
        assert migration.differences(old, new, after=None, late=True) == (["incoming/x/b"], "incoming/x/b")
        assert migration.differences(old, new, after="incoming/x/b", late=True) == (["incoming/x/c"], "models/x/m")
    assert migration.copy(old, new, after=None, late=True) == (2, None)
    assert migration.differences(old, new, after=None, late=True) == ([], None)
    assert aws.get_object(Bucket="own", Key="incoming/x/a")["Body"].read() == b"the tenant's, at the new place"
    assert migration.copy(old, new, after="incoming/x/b", late=True) == (0, None)


def test_versions_go_before_markers_only_before_a_time_and_never_of_a_neighbour(
    aws: Any, places: tuple[Any, Any]
) -> None:
    old, _ = places
    removal = AwsRemoval(deployment=DEPLOYMENT)
    for body in (b"1", b"2"):
        aws.put_object(Bucket="pool", Key="acme/incoming/x/a", Body=body)
        aws.put_object(Bucket="pool", Key="acme1/incoming/x/a", Body=body)
    aws.delete_object(Bucket="pool", Key="acme/incoming/x/a")
    aws.create_multipart_upload(Bucket="pool", Key="acme/incoming/x/half")
    early, late = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    assert removal.remove_objects(old, before=early) == (0, False)
    assert removal.remove_objects(old, before=late) == (3, False)
    assert len(aws.list_multipart_uploads(Bucket="pool").get("Uploads", [])) == 1
    assert removal.remove_objects(old) == (0, False)
    assert aws.list_multipart_uploads(Bucket="pool").get("Uploads", []) == []
    left = aws.list_object_versions(Bucket="pool")
    assert {v["Key"] for v in left["Versions"]} == {"acme1/incoming/x/a"}
    assert len(left["Versions"]) == 2
    assert removal.remove_objects(tenant(bucket="nobody-has-this")) == (0, False)


def test_of_what_cannot_be_deleted_now_a_further_try_is_made_and_of_the_rest_none() -> None:
    with pytest.raises(Throttled, match="k cannot be deleted: slow"):
        _check([{"Key": "k", "Code": "SlowDown", "Message": "slow"}])
    with pytest.raises(Refused, match="k cannot be deleted: AccessDenied"):
        _check([{"Key": "k", "Code": "AccessDenied"}])
    _check([])


@pytest.mark.parametrize(
    ("code", "message", "absent"),
    [
        ("ValidationException", "Could not find model package", True),
        ("ValidationException", "Cannot update in-progress endpoint", False),
        ("NoSuchEntity", "", True),
        ("AccessDenied", "", False),
    ],
)
def test_what_is_not_there_is_told_from_what_cannot_be_done(code: str, message: str, absent: bool) -> None:
    assert is_absent(ClientError({"Error": {"Code": code, "Message": message}}, "Any")) is absent
