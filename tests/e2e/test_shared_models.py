"""The adapters of serving on the local cloud: a multi-model endpoint that really answers."""

import json
from dataclasses import replace

import pytest

from local.demo import data
from tests.build import NOW, tenant
from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_local_endpoints import CODE, SAGEMAKER, archive, role
from trainyard.adapters.aws.serving import Network, S3Samples, SageMakerPackages, SageMakerSharedModels
from trainyard.application.serving.ports import EndpointState
from trainyard.domain.errors import Refused, Throttled
from trainyard.domain.model_versions import ModelVersion, VersionState, target_of

pytestmark = pytest.mark.thorough

WINE = data.bundled("wine")
AS_JSON = CODE.replace('return "\\n".join(answers), "text/csv"', "import json; return json.dumps(answers), accept")


@pytest.fixture
def models(harness: Harness) -> SageMakerSharedModels:
    name = "shared-models"
    harness.cloud.client("s3").create_bucket(Bucket=name)
    reads = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/models/*"}
    return SageMakerSharedModels(
        stack="another",
        stage="dev",
        bucket=name,
        role_arn=role(harness.cloud, name, SAGEMAKER, reads),
        image_uri="123456789012.dkr.ecr.us-east-1.amazonaws.com/any:1",
        instance_type="ml.m5.large",
        network=Network(("subnet-1", "subnet-2"), ("sg-1",)),
    )


def version(models: SageMakerSharedModels, tenant_id: str, number: int) -> ModelVersion:
    return ModelVersion(
        tenant_id=tenant_id,
        data_set="churn",
        version=number,
        package_arn="arn:any",
        request_id="0" * 32,
        model_uri=f"s3://{models.bucket}/trained/{tenant_id}-{number}.tar.gz",
        state=VersionState.DEPLOYING,
        since=NOW,
        approved_at=NOW,
        endpoint=models.endpoint_of("linear"),
        target=target_of(tenant_id, "churn", number, "0" * 32),
    )


def test_a_version_is_placed_asked_and_removed_on_a_shared_endpoint(
    harness: Harness, models: SageMakerSharedModels
) -> None:
    s3, sagemaker = harness.cloud.client("s3"), harness.cloud.client("sagemaker")
    first, tenth = version(models, "tenant1", 1), version(models, "tenant10", 1)
    for each in (first, tenth):
        key = each.model_uri.removeprefix(f"s3://{models.bucket}/")
        s3.put_object(Bucket=models.bucket, Key=key, Body=archive(each.tenant_id, AS_JSON))
        for _ in range(2):  # a step may be repeated
            models.put(each)
    assert models.ensure(first, tenant()) == (EndpointState.COMING, "")
    eventually(lambda: models.ensure(first, tenant())[0] is EndpointState.READY)
    arn = sagemaker.describe_endpoint(EndpointName=first.endpoint)["EndpointArn"]
    vpc = sagemaker.describe_model(ModelName=first.endpoint)["VpcConfig"]
    assert vpc == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
    assert tags == {"trainyard:stack": "another", "trainyard:stage": "dev"}
    response = models.ask(tenth, tenant(), "row", "text/csv")
    assert json.loads(response.body) == ["tenant10 row"]
    assert response.milliseconds > 0
    with pytest.raises(Refused, match="unsupported image/png"):
        models.ask(first, tenant(), "row", "image/png")
    harness.cloud.plant_faults(
        {"operation": f"Container:{first.endpoint}", "code": "Fails", "message": "line one\nline two", "times": 1}
    )
    with pytest.raises(Refused, match=r"^line one line two$"):
        models.ask(first, tenant(), "row", "text/csv")
    harness.cloud.kill_sagemaker(5)
    with pytest.raises(Throttled):
        models.ask(first, tenant(), "row", "text/csv")
    harness.cloud.kill_sagemaker(0)
    models.remove(tenth)
    models.remove(tenth)
    absent = replace(version(models, "tenant1", 2), model_uri=f"s3://{models.bucket}/trained/none.tar.gz")
    with pytest.raises(Refused, match="there is no model at s3://"):
        models.put(absent)
    with pytest.raises(Refused, match="Failed to download"):
        models.ask(absent, tenant(), "row", "text/csv")
    sagemaker.delete_endpoint(EndpointName=first.endpoint)
    sagemaker.delete_endpoint_config(EndpointConfigName=first.endpoint)
    sagemaker.delete_model(ModelName=first.endpoint)
    eventually(lambda: first.endpoint not in [e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]])


def test_what_a_training_registers_can_be_read_with_the_rows_that_it_kept(harness: Harness) -> None:
    bucket = harness.create("registered")
    harness.put(bucket, "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("registered")
    assert request.outcome is not None
    arn = str(request.outcome.model_package_arn)
    package = SageMakerPackages().get(arn)
    assert package is not None
    owner = harness.deployment.tenant("registered")
    assert (package.tenant_id, package.data_set, package.request_id) == ("registered", "wine", request.request_id)
    assert (package.group, package.version, package.is_approved) == (owner.model_group, 1, False)
    assert package.model_uri == request.outcome.model_uri
    assert harness.run("models", "approve", "registered", "1") == 0
    again = SageMakerPackages().get(arn)
    assert again is not None
    assert again.is_approved
    assert SageMakerPackages().get(f"{arn}0") is None
    sample = S3Samples().read(owner, "wine", request.request_id)
    assert sample is not None
    assert sample.count == 5
    assert S3Samples().read(owner, "wine", "0" * 32) is None
    key = f"reports/wine/{request.request_id}/profile/sample.json"
    for wrong in (b"no json", b'{"rows": 1}', b"x" * 200_000):
        harness.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=wrong)
        assert S3Samples().read(owner, "wine", request.request_id) is None
    sagemaker = harness.cloud.client("sagemaker")
    for status in ("Rejected", "Approved"):  # as the console does, which names no metadata
        sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=status)
        decided = SageMakerPackages().get(arn)
        assert decided is not None
        assert (decided.is_approved, decided.request_id) == (status == "Approved", request.request_id)
