"""Author the shared pipelines with the SageMaker SDK, and write them to definition.json and transform.json.

    Preprocess ─► Train ─► Evaluate ─► QualityIsGoodEnough ─┬─► Register ─► Record
                                                            └─► QualityTooLow (fails)
    Transform

Run by `make pipeline`, in an environment of its own: the SDK takes a gigabyte and is needed nowhere else.
`${RecorderArn}`, `${Stage}` and `${CodeUri}` are filled in when a deployment publishes the definition.
"""

import argparse
import difflib
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # the SDK makes a client while it is imported

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.lambda_helper import Lambda
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterBoolean, ParameterFloat, ParameterInteger, ParameterString
from sagemaker.core.workflow.properties import Properties, PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.lambda_step import LambdaStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.retry import (
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.mlops.workflow.steps import ConfigurableRetryStep, StepTypeEnum

DEFINITION = Path(__file__).with_name("definition.json")
TRANSFORM_DEFINITION = Path(__file__).with_name("transform.json")
NAME = "trainyard-training"
TRANSFORM_NAME = "trainyard-transform"
INPUT = "/opt/ml/processing/input"
OUTPUT = "/opt/ml/processing/output"

STRINGS = (
    "RequestId",
    "TenantId",
    "TierName",
    "DataSet",
    "InputDataUri",
    "InputBytes",
    "ModelOutputUri",
    "ReportOutputUri",
    "ProcessingInstanceType",
    "TrainingInstanceType",
    "JobRoleArn",
    "ModelPackageGroupName",
    "TrainingImageUri",
    "ProcessingImageUri",
    "CodeUri",
    "OutputKmsKeyId",
    "Algorithm",
    "TargetColumn",
    "ProblemType",
    "Split",
    "Hyperparameters",
    "QualityMetric",
    "StatisticsUri",
    "DriftRules",
    "ChampionUri",
    "Challenge",
    "WarmStart",
)
DEFAULTS = {
    "Split": "auto",
    "StatisticsUri": "${CodeUri}/steps/no_statistics.json",
    "DriftRules": "refuse:train:30:",
    "ChampionUri": "${CodeUri}/steps/no_champion.json",
    "Challenge": "none:",
    "WarmStart": "no",
}
"""Of parameters that a dispatcher of an earlier version does not give, while a deployment is under way."""

INTEGERS = ("Attempt", "TrainingInstanceCount", "TrainingVolumeSizeGB", "MaxRuntimeSeconds")
FLOATS = ("MinimumQuality",)
BOOLEANS = ("NetworkIsolation", "TrafficEncryption")

PARAMETERS: dict[str, Any] = (
    {name: ParameterString(name=name, default_value=DEFAULTS.get(name)) for name in STRINGS}
    | {name: ParameterInteger(name=name) for name in INTEGERS}
    | {name: ParameterFloat(name=name) for name in FLOATS}
    | {name: ParameterBoolean(name=name) for name in BOOLEANS}
)

TRANSFORM_STRINGS = (
    "RequestId",
    "TenantId",
    "TierName",
    "DataSet",
    "ModelName",
    "InputDataUri",
    "ContentType",
    "PredictionsUri",
    "OutputKmsKeyId",
    "TransformInstanceType",
)
TRANSFORM_PARAMETERS: dict[str, Any] = {name: ParameterString(name=name) for name in TRANSFORM_STRINGS} | {
    name: ParameterInteger(name=name) for name in ("Attempt", "TransformInstanceCount")
}
PAYLOAD_MB_MAX = 100
"""An object is sent to the model as a whole, since only its first part would have the header line."""
ANSWER_SECONDS_MAX = 3600

# A step is retried for a few minutes only, after an internal error of SageMaker or throttling, which cost nothing.
# An exhausted job quota or a lack of capacity ends the execution: the request goes back to the queue, its slot is
# released, and no job is paid for twice (docs/decisions/0017).
RETRY_POLICIES = [
    StepRetryPolicy(
        exception_types=[StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING],
        interval_seconds=10,
        backoff_rate=2.0,
        max_attempts=5,
    ),
]


class RequestStep(ConfigurableRetryStep):  # type: ignore[misc]  # the SDK has no types
    """A step that passes its service request through unchanged.

    The SDK's own job steps do not accept a parameter for role or runtime; the service does.
    """

    def __init__(self, name: str, step_type: StepTypeEnum, request: dict[str, Any], answer: str = "") -> None:
        retried = step_type in (StepTypeEnum.PROCESSING, StepTypeEnum.TRAINING, StepTypeEnum.TRANSFORM)
        super().__init__(name, step_type, retry_policies=RETRY_POLICIES if retried else None)
        self._request = request
        self.property_files: list[PropertyFile] = []
        self._properties = Properties(step_name=name, shape_name=answer) if answer else None

    @property
    def arguments(self) -> dict[str, Any]:
        return self._request

    @property
    def properties(self) -> Any:
        return self._properties

    def to_request(self) -> dict[str, Any]:
        request = dict(super().to_request())
        if self.property_files:
            request["PropertyFiles"] = [file.expr for file in self.property_files]
        return request


def build() -> Pipeline:
    # long: the steps with their inputs and outputs, in order
    p = PARAMETERS
    preprocess = processing_step(
        "Preprocess",
        # With "=", since a column may be called "--all".
        arguments=[
            Join(on="=", values=["--target", p["TargetColumn"]]),
            Join(on="=", values=["--split", p["Split"]]),
            "--problem",
            p["ProblemType"],
            Join(on="=", values=["--drift", p["DriftRules"]]),
        ],
        # Those of the last training; or of none, from the folder of the scripts.
        inputs={"input": (p["InputDataUri"], "ManifestFile"), "statistics": (p["StatisticsUri"], "S3Prefix")},
        # The job fails unless it reads as many bytes as were checked at the start.
        environment={"INPUT_BYTES": p["InputBytes"]},
        outputs={
            "train": joined(p["ReportOutputUri"], "prepared/train"),
            "test": joined(p["ReportOutputUri"], "prepared/test"),
            "profile": joined(p["ReportOutputUri"], "profile"),
        },
    )
    train = training_step(joined(p["ReportOutputUri"], "prepared/train"))
    train.add_depends_on([preprocess])
    evaluate = processing_step(
        "Evaluate",
        arguments=[
            "--metric",
            p["QualityMetric"],
            Join(on="=", values=["--data-set", p["DataSet"]]),
            "--request",
            p["RequestId"],
            Join(on="=", values=["--challenge", p["Challenge"]]),
            Join(on="=", values=["--seconds", p["MaxRuntimeSeconds"]]),
        ],
        inputs={
            "model": (train.properties.ModelArtifacts.S3ModelArtifacts, "S3Prefix"),
            "test": (joined(p["ReportOutputUri"], "prepared/test"), "S3Prefix"),
            "profile": (joined(p["ReportOutputUri"], "profile"), "S3Prefix"),
            # That of the live model; or of none, from the folder of the scripts.
            "champion": (p["ChampionUri"], "S3Prefix"),
        },
        outputs={"output": joined(p["ReportOutputUri"], "evaluation"), "deliver": p["ModelOutputUri"]},
    )
    evaluation = PropertyFile(name="Evaluation", output_name="output", path="evaluation.json")
    evaluate.property_files = [evaluation]
    quality = JsonGet(step_name=evaluate.name, property_file=evaluation, json_path="quality.value")
    better = JsonGet(step_name=evaluate.name, property_file=evaluation, json_path="verdict.beats_baseline")
    verdict = JsonGet(step_name=evaluate.name, property_file=evaluation, json_path="verdict.text")
    register = register_step()
    record = LambdaStep(
        name="Record",
        lambda_func=Lambda(function_arn="${RecorderArn}"),
        inputs={
            "RequestId": p["RequestId"],
            "Attempt": p["Attempt"],
            "ModelPackageArn": register.properties.ModelPackageArn,
        },
    )
    too_low = FailStep(
        name="QualityTooLow",
        error_message=Join(
            on=" ",
            values=[
                "the model was not registered:",
                verdict,
                "- required: at least",
                p["MinimumQuality"],
                "and clearly better than the baseline",
            ],
        ),
    )
    good_enough = ConditionStep(
        name="QualityIsGoodEnough",
        conditions=[
            ConditionGreaterThanOrEqualTo(left=quality, right=p["MinimumQuality"]),
            ConditionGreaterThanOrEqualTo(left=better, right=1),
        ],
        if_steps=[register, record],
        else_steps=[too_low],
    )
    return Pipeline(
        name=NAME,
        parameters=list(p.values()),
        steps=[preprocess, train, evaluate, good_enough],
        pipeline_experiment_config=None,
        sagemaker_session=_OfflineSession(),
    )


def processing_step(
    name: str,
    *,
    arguments: list[Any],
    inputs: dict[str, tuple[Any, str]],
    outputs: dict[str, Any],
    environment: dict[str, Any] | None = None,
) -> RequestStep:
    """Return a processing step that runs the script of the same name, with each directory as an argument."""
    paths = {**{name: f"{INPUT}/{name}" for name in inputs}, **{name: f"{OUTPUT}/{name}" for name in outputs}}
    directories = [text for label, path in paths.items() for text in (f"--{label}", path)]
    request = {
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": PARAMETERS["ProcessingInstanceType"],
                "VolumeSizeInGB": PARAMETERS["TrainingVolumeSizeGB"],
            }
        },
        "AppSpecification": {
            "ImageUri": PARAMETERS["ProcessingImageUri"],
            "ContainerEntrypoint": ["python3", f"{INPUT}/code/{name.lower()}.py"],
            "ContainerArguments": [*directories, "--failure-file", "/opt/ml/output/message", *arguments],
        },
        **({"Environment": environment} if environment else {}),
        "RoleArn": PARAMETERS["JobRoleArn"],
        "StoppingCondition": {"MaxRuntimeInSeconds": PARAMETERS["MaxRuntimeSeconds"]},
        "ProcessingInputs": [
            processing_input("code", joined(PARAMETERS["CodeUri"], "steps"), "S3Prefix"),
            *(processing_input(label, uri, data_type) for label, (uri, data_type) in inputs.items()),
        ],
        "NetworkConfig": {
            "EnableNetworkIsolation": PARAMETERS["NetworkIsolation"],
            "EnableInterContainerTrafficEncryption": PARAMETERS["TrafficEncryption"],
        },
        "ProcessingOutputConfig": {
            "KmsKeyId": PARAMETERS["OutputKmsKeyId"],
            "Outputs": [processing_output(label, uri) for label, uri in outputs.items()],
        },
        "Tags": tags(),
    }
    return RequestStep(name, StepTypeEnum.PROCESSING, request)


def processing_output(label: str, uri: Any) -> dict[str, Any]:
    # What a step says of the data is of use also where it refuses to train on them.
    mode = "Continuous" if label == "profile" else "EndOfJob"
    return {
        "OutputName": label,
        "S3Output": {"S3Uri": uri, "LocalPath": f"{OUTPUT}/{label}", "S3UploadMode": mode},
    }


def processing_input(label: str, uri: Any, data_type: str) -> dict[str, Any]:
    return {
        "InputName": label,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"{INPUT}/{label}",
            "S3DataType": data_type,
            "S3InputMode": "File",
            "S3DataDistributionType": "FullyReplicated",
        },
    }


def training_step(prepared: Any) -> RequestStep:
    request = {
        "AlgorithmSpecification": {
            "TrainingImage": PARAMETERS["TrainingImageUri"],
            "TrainingInputMode": "File",
        },
        "HyperParameters": {
            "sagemaker_program": "train.py",
            # From a channel, since a container without network cannot fetch it.
            "sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
            "algorithm": PARAMETERS["Algorithm"],
            "hyperparameters": PARAMETERS["Hyperparameters"],
            "warm_start": PARAMETERS["WarmStart"],
            "metric": PARAMETERS["QualityMetric"],
        },
        "InputDataConfig": [
            channel("train", prepared),
            channel("code", joined(PARAMETERS["CodeUri"], "sourcedir.tar.gz")),
            # The live model, with which an estimator may begin; or none, from the folder of the scripts.
            channel("champion", PARAMETERS["ChampionUri"]),
        ],
        "OutputDataConfig": {
            "S3OutputPath": joined(PARAMETERS["ReportOutputUri"], "training"),
            "KmsKeyId": PARAMETERS["OutputKmsKeyId"],
        },
        "ResourceConfig": {
            "InstanceType": PARAMETERS["TrainingInstanceType"],
            "InstanceCount": PARAMETERS["TrainingInstanceCount"],
            "VolumeSizeInGB": PARAMETERS["TrainingVolumeSizeGB"],
        },
        "EnableNetworkIsolation": PARAMETERS["NetworkIsolation"],
        "EnableInterContainerTrafficEncryption": PARAMETERS["TrafficEncryption"],
        "RoleArn": PARAMETERS["JobRoleArn"],
        "StoppingCondition": {"MaxRuntimeInSeconds": PARAMETERS["MaxRuntimeSeconds"]},
        "Tags": tags(),
    }
    return RequestStep("Train", StepTypeEnum.TRAINING, request, answer="DescribeTrainingJobResponse")


def channel(name: str, uri: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def report(uri: Any) -> dict[str, Any]:
    return {"ContentType": "application/json", "S3Uri": uri}


def register_step() -> RequestStep:
    p = PARAMETERS
    request = {
        "ModelPackageGroupName": p["ModelPackageGroupName"],
        "ModelApprovalStatus": "PendingManualApproval",
        "InferenceSpecification": {
            "Containers": [
                {
                    "Image": p["TrainingImageUri"],
                    "ModelDataUrl": joined(p["ModelOutputUri"], "model.tar.gz"),
                    "Environment": {
                        "SAGEMAKER_PROGRAM": "inference.py",
                        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                    },
                }
            ],
            "SupportedContentTypes": ["text/csv", "application/jsonlines"],
            "SupportedResponseMIMETypes": ["text/csv", "application/json"],
        },
        "ModelMetrics": {
            "ModelQuality": {"Statistics": report(joined(p["ReportOutputUri"], "evaluation/evaluation.json"))},
            "ModelDataQuality": {"Statistics": report(joined(p["ReportOutputUri"], "profile/profile.json"))},
            # The only kind of report that a package refers to for people who want to know how a model decides.
            "Explainability": {"Report": report(joined(p["ModelOutputUri"], "card.json"))},
        },
        "DriftCheckBaselines": {
            "ModelDataQuality": {"Statistics": report(joined(p["ReportOutputUri"], "profile/statistics.json"))}
        },
        "CustomerMetadataProperties": {
            "tenant": p["TenantId"],
            "request": p["RequestId"],
            "data_set": p["DataSet"],
        },
    }
    return RequestStep("Register", StepTypeEnum.REGISTER_MODEL, request, answer="DescribeModelPackageOutput")


def build_transform() -> Pipeline:
    """Return the pipeline of batch transforms: one job, which answers each object of a manifest as a whole.

    Sources: SageMaker API reference, CreateTransformJob and ModelClientConfig (limits).
    """
    p = TRANSFORM_PARAMETERS
    source = {"S3DataType": "ManifestFile", "S3Uri": p["InputDataUri"]}
    request = {
        "ModelName": p["ModelName"],
        "MaxConcurrentTransforms": 1,
        "MaxPayloadInMB": PAYLOAD_MB_MAX,
        "BatchStrategy": "SingleRecord",
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": ANSWER_SECONDS_MAX, "InvocationsMaxRetries": 1},
        # The server in the image gives up after a minute otherwise.
        "Environment": {"SAGEMAKER_MODEL_SERVER_TIMEOUT": str(ANSWER_SECONDS_MAX)},
        "TransformInput": {
            "DataSource": {"S3DataSource": source},
            "ContentType": p["ContentType"],
            "SplitType": "None",
            "CompressionType": "None",
        },
        "TransformOutput": {
            "S3OutputPath": p["PredictionsUri"],
            "Accept": "application/json",
            "AssembleWith": "None",
            "KmsKeyId": p["OutputKmsKeyId"],
        },
        "TransformResources": {
            "InstanceType": p["TransformInstanceType"],
            "InstanceCount": p["TransformInstanceCount"],
        },
        "Tags": tags(p),
    }
    return Pipeline(
        name=TRANSFORM_NAME,
        parameters=list(p.values()),
        steps=[RequestStep("Transform", StepTypeEnum.TRANSFORM, request)],
        pipeline_experiment_config=None,
        sagemaker_session=_OfflineSession(),
    )


def tags(parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the cost tags; it is not documented that SageMaker copies an execution's tags to its jobs."""
    p = parameters or PARAMETERS
    return [
        {"Key": "trainyard:tenant", "Value": p["TenantId"]},
        {"Key": "trainyard:tier", "Value": p["TierName"]},
        {"Key": "trainyard:request", "Value": p["RequestId"]},
        {"Key": "trainyard:dataset", "Value": p["DataSet"]},
        {"Key": "trainyard:stage", "Value": "${Stage}"},
    ]


def joined(root: Any, path: str) -> Join:
    return Join(on="/", values=[root, path])


class _OfflineSession(Session):  # type: ignore[misc]  # the SDK has no types
    """A session that needs neither credentials nor network: authoring makes no call."""

    def __init__(self) -> None:
        self.local_mode = False
        self.boto_session = boto3.Session(
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 - no secret
            region_name="us-east-1",
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check whether the definitions are up to date")
    arguments = parser.parse_args()
    drifted = False
    for file, pipeline in ((DEFINITION, build()), (TRANSFORM_DEFINITION, build_transform())):
        text = json.dumps(json.loads(pipeline.definition()), indent=2, sort_keys=True) + "\n"
        if not arguments.check:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {file.name}")
            continue
        committed = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        drift = list(difflib.unified_diff(committed, text.splitlines(), "committed", "authored", lineterm=""))
        print("\n".join(drift) or f"{file.name} is up to date")
        drifted = drifted or bool(drift)
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
