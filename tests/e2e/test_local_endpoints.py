"""The local cloud's endpoints answer, refuse and change as SageMaker's do."""

import io
import json
import tarfile
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.cloud import Cloud
from local.sagemaker.hosting import BODY_BYTES_MAX, MODELS_LOADED_MAX
from tests.e2e.conftest import Harness, eventually

pytestmark = pytest.mark.thorough

CODE = """
def model_fn(folder):
    with open(folder + "/version") as file:
        return file.read()

def input_fn(body, content_type):
    if content_type != "text/csv":
        raise ValueError("unsupported " + content_type)
    return body.decode()

def predict_fn(rows, model):
    return [model + " " + row for row in rows.splitlines()]

def output_fn(answers, accept):
    return "\\n".join(answers), "text/csv"
"""
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/any:1"
ANYBODY = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
SAGEMAKER = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


def archive(version: str, code: str = CODE) -> bytes:
    """Return a model.tar.gz whose answers begin with its version."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as members:
        for name, text in (("code/inference.py", code), ("version", version)):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            members.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@dataclass
class Place:
    """A bucket with models, and what serves them."""

    cloud: Cloud
    name: str
    role: str

    @property
    def sagemaker(self) -> Any:
        return self.cloud.client("sagemaker")

    def put(self, key: str, body: bytes) -> None:
        self.cloud.client("s3").put_object(Bucket=self.name, Key=key, Body=body)

    def model(self, name: str, **container: Any) -> str:
        one = {"Image": IMAGE, "ModelDataUrl": f"s3://{self.name}/{container.pop('key')}", **container}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=self.role, PrimaryContainer=one)
        return name

    def config(self, name: str, model: str, serverless: dict[str, int] | None = None, **more: Any) -> str:
        how = (
            {"ServerlessConfig": serverless}
            if serverless
            else {"InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        )
        variant = {"VariantName": "all", "ModelName": model, **how}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)
        return name

    def endpoint(self, model: str, **config: Any) -> str:
        """Create an endpoint of a model, of the same name, and wait for it."""
        config_name = self.config(model, model, **config)
        self.sagemaker.create_endpoint(EndpointName=model, EndpointConfigName=config_name)
        assert self.settled(model) == "InService"
        return model

    def settled(self, endpoint: str) -> str:
        """Wait until an endpoint does not change any more; return its status."""

        def status() -> str | None:
            now = str(self.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"])
            return None if now in ("Creating", "Updating", "RollingBack") else now

        return eventually(status)

    def ask(self, endpoint: str, body: bytes = b"row", **more: Any) -> str:
        more = {"ContentType": "text/csv"} | more
        answer = self.cloud.client("sagemaker-runtime").invoke_endpoint(EndpointName=endpoint, Body=body, **more)
        return str(answer["Body"].read().decode())

    def refused(self, endpoint: str, body: bytes = b"row", **more: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as error:
            self.ask(endpoint, body, **more)
        return error.value.response["Error"]["Code"], str(error.value)


def role(cloud: Cloud, name: str, trust: dict[str, Any], *statements: dict[str, Any]) -> str:
    iam = cloud.client("iam")
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy)
    return str(made)


@pytest.fixture
def place(harness: Harness) -> Iterator[Place]:
    name = f"models-{uuid.uuid4().hex[:8]}"
    harness.cloud.client("s3").create_bucket(Bucket=name)
    objects = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": f"arn:aws:s3:::{name}/*",
    }
    lists = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{name}"}
    tells = {"Effect": "Allow", "Action": "sns:Publish", "Resource": f"arn:aws:sns:*:*:{name}"}
    made = Place(harness.cloud, name, role(harness.cloud, name, SAGEMAKER, objects, lists, tells))
    yield made
    sagemaker = made.sagemaker
    for endpoint in sagemaker.list_endpoints()["Endpoints"]:
        if endpoint["EndpointName"].startswith("local-"):
            made.settled(endpoint["EndpointName"])
            sagemaker.delete_endpoint(EndpointName=endpoint["EndpointName"])


def test_a_multi_model_endpoint_loads_what_is_asked_for_and_evicts_what_was_not(place: Place) -> None:
    count = MODELS_LOADED_MAX + 3
    for number in range(count):
        place.put(f"tenant{number}/churn/1/model.tar.gz", archive(f"v{number}"))
    name = place.endpoint(place.model("local-many", key="", Mode="MultiModel"))
    asked = [*range(count), count - 1, 0]
    answers = [place.ask(name, TargetModel=f"tenant{number}/churn/1/model.tar.gz") for number in asked]
    assert answers == [f"v{number} row" for number in asked]
    request = urllib.request.Request(
        f"{place.cloud.sagemaker_url}/_local/loaded", data=json.dumps({"endpoint": name}).encode(), method="POST"
    )
    with urllib.request.urlopen(request) as response:
        loaded = json.load(response)
    assert len(loaded["models"]) == MODELS_LOADED_MAX
    assert loaded["loads"] == count + 1, "the last was still there, the first was not"
    assert place.refused(name)[0] == "ValidationError", "no TargetModel"
    code, message = place.refused(name, TargetModel="tenant1/churn/2/model.tar.gz")
    assert (code, "Failed to download" in message) == ("ValidationError", True)


def test_who_may_only_ask_for_its_own_models_gets_no_neighbours(place: Place) -> None:
    for tenant in ("tenant1", "tenant10", "tenant2"):
        place.put(f"{tenant}/churn/1/model.tar.gz", archive(tenant))
    name = place.endpoint(place.model("local-shared", key="", Mode="MultiModel"))
    own = {"StringLike": {"sagemaker:TargetModel": "${aws:PrincipalTag/tenant}/*"}}
    allowed = {"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": "*", "Condition": own}
    caller = role(place.cloud, f"{place.name}-caller", ANYBODY, allowed)
    keys = place.cloud.client("sts").assume_role(
        RoleArn=caller, RoleSessionName="tenant1", Tags=[{"Key": "tenant", "Value": "tenant1"}]
    )["Credentials"]
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=place.cloud.sagemaker_url,
        region_name="us-east-1",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )

    def ask(**target: str) -> str:
        try:
            answer = runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=b"row", **target)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return str(answer["Body"].read().decode())

    assert ask(TargetModel="tenant1/churn/1/model.tar.gz") == "tenant1 row"
    for target in ("tenant10/churn/1/model.tar.gz", "tenant2/churn/1/model.tar.gz", "tenant1"):
        assert ask(TargetModel=target) == "AccessDeniedException"
    assert ask() == "AccessDeniedException"


def test_what_a_container_says_of_a_request_is_an_error_of_the_model(place: Place) -> None:
    place.put("one.tar.gz", archive("v1"))
    name = place.endpoint(place.model("local-one", key="one.tar.gz"))
    assert place.ask(name, b"a\nb") == "v1 a\nv1 b"
    code, message = place.refused(name, ContentType="image/png")
    assert (code, "(415)" in message, "unsupported image/png" in message) == ("ModelError", True, True)
    assert place.refused(name, TargetModel="any")[0] == "ValidationError"
    assert place.refused(name, TargetVariant="none")[0] == "ValidationError"
    assert place.refused("local-none")[0] == "ValidationError"
    assert len(place.ask(name, b"x" * (BODY_BYTES_MAX - 3))) == BODY_BYTES_MAX
    assert place.refused(name, b"x" * (BODY_BYTES_MAX + 1))[0] == "ValidationError", "one byte too large"
    assert place.refused(name, b"x" * BODY_BYTES_MAX)[0] == "ModelError", "its answer is too large"
    faults = [
        {"operation": f"Container:{name}", "code": code, "message": "planted", "times": 1}
        for code in ("OutOfMemory", "Slow", "Fails")
    ]
    place.cloud.plant_faults(*faults)
    words = [place.refused(name)[1] for _ in faults]
    assert [text in word for text, word in zip(("Worker died", "timed out", "planted"), words, strict=True)] == [
        True
    ] * 3
    assert place.ask(name) == "v1 row", "it was loaded again"


def test_each_container_of_a_multi_container_endpoint_answers_by_its_host_name(place: Place) -> None:
    containers = []
    for host in ("first", "second"):
        place.put(f"{host}.tar.gz", archive(host))
        uri = f"s3://{place.name}/{host}.tar.gz"
        containers.append({"Image": IMAGE, "ModelDataUrl": uri, "ContainerHostname": host})
    place.sagemaker.create_model(
        ModelName="local-several",
        ExecutionRoleArn=place.role,
        Containers=containers,
        InferenceExecutionConfig={"Mode": "Direct"},
    )
    name = place.endpoint("local-several")
    for host in ("first", "second"):
        assert place.ask(name, TargetContainerHostname=host) == f"{host} row"
    assert place.refused(name, TargetContainerHostname="third")[0] == "ValidationError"


@pytest.mark.parametrize("data", [b"no archive", archive("v", "def model_fn(folder): raise OSError('broken')")])
def test_a_model_that_does_not_load_makes_no_endpoint_and_leaves_the_old_one(place: Place, data: bytes) -> None:
    place.put("good.tar.gz", archive("v1"))
    place.put("bad.tar.gz", data)
    suffix = uuid.uuid4().hex[:6]
    good = place.endpoint(place.model(f"local-good-{suffix}", key="good.tar.gz"))
    bad = place.model(f"local-bad-{suffix}", key="bad.tar.gz")
    place.sagemaker.update_endpoint(EndpointName=good, EndpointConfigName=place.config(bad, bad))
    with pytest.raises(ClientError, match="in-progress"):
        place.sagemaker.delete_endpoint(EndpointName=good)
    with pytest.raises(ClientError, match="in-progress"):
        place.sagemaker.update_endpoint(EndpointName=good, EndpointConfigName=bad)
    assert place.settled(good) == "InService"
    described = place.sagemaker.describe_endpoint(EndpointName=good)
    assert (described["EndpointConfigName"], "health check" in described["FailureReason"]) == (good, True)
    assert place.ask(good) == "v1 row"
    place.sagemaker.create_endpoint(EndpointName=bad, EndpointConfigName=bad)
    assert place.settled(bad) == "Failed"
    assert place.refused(bad)[0] == "ValidationError"


@pytest.mark.parametrize("rings", [True, False])
def test_traffic_is_shifted_by_a_canary_and_back_when_an_alarm_rings(place: Place, rings: bool) -> None:
    name, cloudwatch = f"local-canary-{str(rings).lower()}", place.cloud.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        MetricName="Errors",
        Namespace="Own",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    for version in ("1", "2"):
        place.put(f"{version}.tar.gz", archive(f"v{version}"))
    place.endpoint(place.model(name, key="1.tar.gz"))
    second = place.model(f"{name}-2", key="2.tar.gz")
    place.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=place.config(second, second),
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "CANARY",
                    "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
                    "WaitIntervalInSeconds": 3600,
                },
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name}]},
        },
    )
    eventually(lambda: place.ask(name) == "v1 row")
    eventually(lambda: place.ask(name) == "v2 row")
    assert place.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Updating"
    if rings:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="planted")
    assert place.settled(name) == "InService"
    described = place.sagemaker.describe_endpoint(EndpointName=name)
    assert ("rolled back" in described.get("FailureReason", "")) is rings
    assert {place.ask(name) for _ in range(10)} == {"v1 row" if rings else "v2 row"}


def test_an_asynchronous_endpoint_answers_into_the_bucket_and_tells_a_topic(place: Place) -> None:
    sns, sqs, s3 = (place.cloud.client(service) for service in ("sns", "sqs", "s3"))
    topic = sns.create_topic(Name=place.name)["TopicArn"]
    queue = sqs.create_queue(QueueName=place.name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sends = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [sends]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    place.put("one.tar.gz", archive("v1"))
    place.put("rows.csv", b"a\nb")
    output = {
        "S3OutputPath": f"s3://{place.name}/out",
        "S3FailurePath": f"s3://{place.name}/failed",
        "NotificationConfig": {"SuccessTopic": topic, "ErrorTopic": topic},
    }
    model = place.model("local-later", key="one.tar.gz")
    name = place.endpoint(model, AsyncInferenceConfig={"OutputConfig": output})
    runtime = place.cloud.client("sagemaker-runtime")

    def asked(**rows: Any) -> tuple[str, dict[str, Any]]:
        """Return what stands where the answer was promised, and the notice."""
        answer = runtime.invoke_endpoint_async(EndpointName=name, InferenceId="id-1", **rows)
        (message,) = eventually(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"))
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        notice = json.loads(message["Body"])
        failed = notice["invocationStatus"] == "Failed"
        location = answer["FailureLocation" if failed else "OutputLocation"]
        key = location.removeprefix(f"s3://{place.name}/")
        return s3.get_object(Bucket=place.name, Key=key)["Body"].read().decode(), notice

    answer, notice = asked(InputLocation=f"s3://{place.name}/rows.csv", ContentType="text/csv")
    assert answer == "v1 a\nv1 b"
    assert notice["inferenceId"] == "id-1"
    assert asked(Body=b"c", ContentType="text/csv")[0] == "v1 c"
    failure, notice = asked(InputLocation=f"s3://{place.name}/rows.csv", ContentType="image/png")
    assert "unsupported image/png" in failure
    assert "unsupported image/png" in notice["failureReason"]
    assert "NoSuchKey" in asked(InputLocation=f"s3://{place.name}/none.csv", ContentType="text/csv")[0]
    for rows in ({}, {"Body": b"x" * 128_001}):
        with pytest.raises(ClientError, match="ValidationError"):
            runtime.invoke_endpoint_async(EndpointName=name, **rows)
    assert place.refused(name)[0] == "ValidationError", "not at once"


def test_serverless_endpoints_have_their_own_limits(place: Place) -> None:
    place.put(
        "slow.tar.gz", archive("v1", CODE.replace("return [model", "import time; time.sleep(1); return [model"))
    )
    model = place.model("local-serverless", key="slow.tar.gz")
    name = place.endpoint(model, serverless={"MemorySizeInMB": 2048, "MaxConcurrency": 2})
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=place.cloud.sagemaker_url,
        region_name="us-east-1",
        aws_access_key_id="123456789012",
        aws_secret_access_key="local",
        config=Config(retries={"max_attempts": 0}),
    )

    def answered(_: int) -> str:
        try:
            answer = runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=b"row")
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return str(answer["Body"].read().decode())

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(answered, range(3)))
    assert sorted(answers) == ["ThrottlingException", "v1 row", "v1 row"]
    assert place.refused(name, b"x" * (4 * 1024 * 1024 + 1))[0] == "ValidationError"
    for wrong in ({"MemorySizeInMB": 1500, "MaxConcurrency": 1}, {"MemorySizeInMB": 1024, "MaxConcurrency": 1,
                  "ProvisionedConcurrency": 2}):  # fmt: skip
        with pytest.raises(ClientError, match="ValidationException"):
            place.config("local-wrong", model, serverless=wrong)
    many = place.model("local-serverless-many", key="", Mode="MultiModel")
    with pytest.raises(ClientError, match="multi-model"):
        place.config("local-wrong", many, serverless={"MemorySizeInMB": 1024, "MaxConcurrency": 1})


def test_a_transform_job_answers_each_object_below_a_prefix(place: Place) -> None:
    s3 = place.cloud.client("s3")
    place.put("one.tar.gz", archive("v1"))
    place.put("rows/a.csv", b"1\n2\n3\n")
    place.put("rows/more/b.csv", b"4")
    place.put("bad/c.csv", b"x" * (1024 * 1024 + 1))
    model = place.model("local-batch", key="one.tar.gz")

    def ran(prefix: str, **more: Any) -> dict[str, Any]:
        name = f"batch-{uuid.uuid4().hex[:8]}"
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{place.name}/{prefix}"}}
        place.sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName=model,
            MaxPayloadInMB=1,
            TransformInput={"DataSource": source, "ContentType": "text/csv"} | more,
            TransformOutput={"S3OutputPath": f"s3://{place.name}/answers/{prefix}", "AssembleWith": "Line"},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        )

        def ended() -> dict[str, Any] | None:
            job = dict(place.sagemaker.describe_transform_job(TransformJobName=name))
            return job if job["TransformJobStatus"] != "InProgress" else None

        return eventually(ended)

    assert ran("rows/")["TransformJobStatus"] == "Completed"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=place.name, Prefix="answers/")["Contents"]]
    assert keys == ["answers/rows/a.csv.out", "answers/rows/more/b.csv.out"]
    assert s3.get_object(Bucket=place.name, Key=keys[0])["Body"].read() == b"v1 1\nv1 2\nv1 3"
    assert ran("rows/", SplitType="Line")["TransformJobStatus"] == "Completed"
    too_large = ran("bad/")
    assert (too_large["TransformJobStatus"], "job logs" in too_large["FailureReason"]) == ("Failed", True)
    assert "No S3 objects" in ran("none/")["FailureReason"]
