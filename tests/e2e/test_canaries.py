"""Values of a tenant's rows are found nowhere outside of the tenant's own root, however an execution ends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Harness
from trainyard.domain.requests import State

CANARY = "canary-4111-1111"
ROWS = "".join(f"{n % 7},{CANARY}-{n % 3},{int(n % 7 > 3)}\n" for n in range(120))
FILES = {
    "good": f"size,name,target\n{ROWS}",
    "headerless": ROWS,
    "ragged": f"size,name,target\n{ROWS}" + f"1,2,{CANARY},4,5\n" * 5,
    "noted": f"size,name,target\n{ROWS}1,2,{CANARY},4,5\n",
    "unquoted": f'size,name,target\n{ROWS}1,"{CANARY}\n',
    "targets": "size,target\n" + "".join(f"{n},{CANARY}-{n}\n" for n in range(60)),
}


def told(harness: Harness, bucket: str, bus: str) -> Iterator[tuple[str, str]]:
    """Yield all that the service, SageMaker and AWS hold outside a bucket: what holds it, and the text."""
    dynamodb, s3, logs = (harness.cloud.client(name) for name in ("dynamodb", "s3", "logs"))
    for table in dynamodb.list_tables()["TableNames"]:
        for page in dynamodb.get_paginator("scan").paginate(TableName=table):
            yield f"table {table}", str(page["Items"])
    for other in s3.list_buckets()["Buckets"]:
        if other["Name"] != bucket:
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=other["Name"]):
                for found in page.get("Contents", []):
                    body = s3.get_object(Bucket=other["Name"], Key=found["Key"])["Body"].read()
                    yield f"s3://{other['Name']}/{found['Key']}", body.decode("utf-8", "replace")
    for group in logs.describe_log_groups()["logGroups"]:
        name = group["logGroupName"]
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=name):
            yield f"log group {name}", str([event["message"] for event in page["events"]])
    for log in Path(harness.cloud.home).glob("logs/*.log"):
        yield f"log of job {log.stem}", log.read_text(encoding="utf-8", errors="replace")
    for queue in ("uploads-dlq", "status-dlq", "undelivered-dlq"):
        yield queue, str(harness.letters(queue))
    sqs = harness.cloud.client("sqs")
    while messages := sqs.receive_message(QueueUrl=bus, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.delete_message(QueueUrl=bus, ReceiptHandle=message["ReceiptHandle"])
            yield "event bus", message["Body"]


def of_sagemaker(harness: Harness, arn: str) -> Iterator[tuple[str, str]]:
    """Yield what SageMaker tells of an execution and of its jobs."""
    sagemaker = harness.cloud.client("sagemaker")
    yield arn, str(sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn))
    for step in sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]:
        yield step["StepName"], json.dumps(step, default=str)
        for kind, call in (
            ("ProcessingJob", sagemaker.describe_processing_job),
            ("TrainingJob", sagemaker.describe_training_job),
        ):
            job = step.get("Metadata", {}).get(kind, {}).get("Arn")
            if job:
                yield job, str(call(**{f"{kind}Name": job.rpartition("/")[2]}))


@pytest.mark.thorough
def test_no_value_of_a_row_leaves_the_tenants_root(harness: Harness) -> None:
    bus = harness.listen("canaries", {"source": ["trainyard"]})
    bucket = harness.create("canaries")
    for name, text in FILES.items():
        harness.put(bucket, f"incoming/{name}/data.csv", text.encode())
    ended = {request.data_set: request for request in harness.ended("canaries", len(FILES), 90)}
    assert ended["good"].state is State.SUCCEEDED
    assert {name for name, request in ended.items() if request.state is State.FAILED} >= {"headerless", "ragged"}
    places = [*told(harness, bucket, bus)]
    assert [name for name, request in ended.items() if request.execution_arn is None] == ["headerless"]
    for request in ended.values():
        places += of_sagemaker(harness, request.execution_arn) if request.execution_arn else []
    kinds = {where.split()[0] for where, _ in places}
    assert kinds >= {"table", "log", "event"}, "there was nothing to look through"
    assert any("/trainyard/" in where for where, _ in places), "the functions' logs were not found"
    assert [where for where, text in places if CANARY in text] == []
