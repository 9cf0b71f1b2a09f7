"""Publish the step scripts and the pipeline definition to S3 when the stack is deployed.

A CloudFormation custom resource, since `sam deploy` uploads only SAM artefacts. Everything is published under a
hash of its content, so that running executions keep the scripts they started with.

    code/<hash>/steps/*.py        what processing jobs read; no_statistics.json stands for those of no training,
                                  no_champion.json for the model of none
    code/<hash>/steps/libraries.zip  the libraries that SageMaker's image lacks, as Python imports them
    code/<hash>/sourcedir.tar.gz  the same, as training jobs in script mode take it
    code/<hash>/definition.json   the pipeline, with the deployment's names filled in
    code/<hash>/definitionTransform.json
                                  the pipeline of batch transforms
    code/<hash>/definition2.json  the same for runs that name two training instance types; and so on, up to five
    code/<hash>/definitionTuning.json
                                  the same for tunings, which train several times with different hyperparameters
    code/<hash>/definitionSpot.json, definitionSpotCheckpoints.json, definitionCheckpoints.json
                                  the same for runs that train on spot capacity, and that save their progress

It also sets the retention of the job log groups, if the account does not have them yet.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import logging
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import boto3

HERE = Path(__file__).parent
TYPE = "TrainingInstanceType"
"""The pipeline's parameter of the preferred instance type; the next one is TrainingInstanceType2, and so on."""
TYPES_MAX = 5
"""As many types as a training job may name (SageMaker API reference, ResourceConfig)."""
LIBRARIES = ("openpyxl", "et_xmlfile")
"""Of requirements.txt: pure Python, for workbooks."""
Vpc = dict[str, list[str]]
"""As SageMaker has it: Subnets and SecurityGroupIds."""
logger = logging.getLogger()
logger.setLevel(logging.INFO)


def handler(event: dict[str, Any], context: Any) -> None:
    """Answer CloudFormation; on deletion of the stack, empty the bucket so that it can be deleted too."""
    properties = event["ResourceProperties"]
    try:
        data = {}
        if event["RequestType"] == "Delete":
            empty(properties["Bucket"])
        else:
            data = publish(properties["Bucket"], names=properties["Names"], vpc=properties.get("Vpc"))
            before = event.get("OldResourceProperties", {}).get("JobLogDays")
            bound_job_logs(int(properties["JobLogDays"]), before=int(before) if before else None)
        answer(event, "SUCCESS", data)
    except Exception as error:
        logger.exception("publishing failed")
        answer(event, "FAILED", {}, reason=f"{type(error).__name__}: {error}")


def publish(bucket: str, *, names: dict[str, str], vpc: Vpc | None = None) -> dict[str, str]:
    """Upload scripts and definitions; return CodeUri and the DefinitionKey of each pipeline. Idempotent."""
    scripts = {path.name: path.read_bytes() for path in sorted((HERE / "steps").glob("*.*"))}
    scripts["libraries.zip"] = libraries()
    template = in_vpc((HERE / "definition.json").read_text(encoding="utf-8"), vpc)
    variants = {"": template} | {str(types): preferring(template, types) for types in range(2, TYPES_MAX + 1)}
    variants |= {
        "Spot": on_spot(template),
        "SpotCheckpoints": saving_progress(on_spot(template)),
        "Checkpoints": saving_progress(template),
        "Tuning": tuning(template),
        "Transform": (HERE / "transform.json").read_text(encoding="utf-8"),
    }
    digest = hashlib.sha256(repr((scripts, variants, sorted(names.items()))).encode()).hexdigest()[:16]
    prefix = f"code/{digest}"
    objects = {f"{prefix}/steps/{name}": body for name, body in scripts.items()}
    objects[f"{prefix}/sourcedir.tar.gz"] = packed(scripts)
    definitions = {f"DefinitionKey{variant}": f"{prefix}/definition{variant}.json" for variant in variants}
    for variant, definition in variants.items():
        key = definitions[f"DefinitionKey{variant}"]
        objects[key] = filled(definition, names | {"CodeUri": f"s3://{bucket}/{prefix}"})
    s3 = boto3.client("s3")
    for key, body in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    return {"CodeUri": f"s3://{bucket}/{prefix}", **definitions}


JOB_LOGS = tuple(f"/aws/sagemaker/{kind}Jobs" for kind in ("Processing", "Training", "Transform"))


def bound_job_logs(days: int, *, before: int | None) -> None:
    """Create the job log groups with this retention; `before` is the one that was set last. Idempotent.

    SageMaker's log groups are shared by the whole account: the retention of one that exists is left unchanged,
    unless it still is `before`.
    """
    logs = boto3.client("logs")
    for name in JOB_LOGS:
        try:
            logs.create_log_group(logGroupName=name)
        except logs.exceptions.ResourceAlreadyExistsException:
            groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
            retention_days = next((g.get("retentionInDays") for g in groups if g["logGroupName"] == name), None)
            if before is None or retention_days != before:
                continue
        logs.put_retention_policy(logGroupName=name, retentionInDays=days)


def in_vpc(template: str, vpc: Vpc | None) -> str:
    """Return the definition with its jobs in a VPC, where there is one; raises ValueError for half of one."""
    if vpc is None:
        return template
    for name in ("Subnets", "SecurityGroupIds"):
        if not any(vpc.get(name, [])):
            raise ValueError(f"jobs in a VPC need both SubnetIds and SecurityGroupIds, and {name} are missing")
    definition = json.loads(template)
    for step in definition["Steps"]:
        if step["Type"] == "Training":
            step["Arguments"]["VpcConfig"] = vpc
        elif step["Type"] == "Processing":
            step["Arguments"]["NetworkConfig"]["VpcConfig"] = vpc
    return json.dumps(definition)


def preferring(template: str, types: int) -> str:
    """Return the definition for runs that name so many training instance types, in order of preference.

    Parameters hold no lists, so each type is one. SageMaker takes either a type or a list of preferences
    (API reference, ResourceConfig).
    """
    if types == 1:
        return template
    definition = json.loads(template)
    names = [TYPE, *(f"{TYPE}{number}" for number in range(2, types + 1))]
    definition["Parameters"] += [{"Name": name, "Type": "String"} for name in names[1:]]
    for step in definition["Steps"]:
        if step["Type"] == "Training":
            resources = step["Arguments"]["ResourceConfig"]
            del resources["InstanceType"]
            resources["InstancePreferences"] = [{"InstanceType": {"Get": f"Parameters.{name}"}} for name in names]
    return json.dumps(definition)


def on_spot(template: str) -> str:
    """Return the definition for runs that train on spot capacity.

    SageMaker takes a maximum wait only together with it (API reference, StoppingCondition), and a parameter cannot
    leave it out.
    """
    definition = json.loads(template)
    definition["Parameters"].append({"Name": "MaxWaitSeconds", "Type": "Integer"})
    for step in definition["Steps"]:
        if step["Type"] == "Training":
            step["Arguments"]["EnableManagedSpotTraining"] = True
            step["Arguments"]["StoppingCondition"]["MaxWaitTimeInSeconds"] = {"Get": "Parameters.MaxWaitSeconds"}
    return json.dumps(definition)


def saving_progress(template: str) -> str:
    """Return the definition for runs whose training saves its progress, and goes on from what was saved.

    SageMaker copies /opt/ml/checkpoints to S3 while a job trains, and back before it does (developer guide, "Use
    checkpoints in SageMaker AI").
    """
    definition = json.loads(template)
    definition["Parameters"].append({"Name": "CheckpointUri", "Type": "String"})
    for step in definition["Steps"]:
        if step["Type"] == "Training":
            step["Arguments"]["CheckpointConfig"] = {
                "S3Uri": {"Get": "Parameters.CheckpointUri"},
                "LocalPath": "/opt/ml/checkpoints",
            }
    return json.dumps(definition)


RANGES = 4
"""Hyperparameters that a tuning may search at once."""

SCORE = r"validation score: ([-+0-9.eE]+)"
"""What a trial prints of its model (pipeline/steps/trial.py)."""


def tuning(template: str) -> str:
    """Return the definition for tunings: a tuning step in the place of the training step.

    A definition has fixed names of hyperparameters, and data sets tune different ones: SageMaker searches
    positions from 0 to 1, and the script derives from the parameter `Search` for which values they stand. The
    trials run one by one, so that a tuning holds no more instances than a training. They are drawn at random,
    since the first one takes the values of before, whatever its positions: a search that learns would learn from
    it what is not so.

    Sources: API reference, CreateHyperParameterTuningJob; developer guide, "Define a pipeline", tuning steps.
    """
    definition = json.loads(template)
    definition["Parameters"].append({"Name": "Search", "Type": "String"})
    definition["Parameters"] += [
        {"Name": name, "Type": "Integer"} for name in ("Trials", "TrialSeconds", "TuningSeconds", "Seed")
    ]
    (train,) = (step for step in definition["Steps"] if step["Type"] == "Training")
    trial = train.pop("Arguments")
    tags = trial.pop("Tags")
    output = trial["OutputDataConfig"]["S3OutputPath"]
    trial["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "validation", "Regex": SCORE}]
    trial["StaticHyperParameters"] = trial.pop("HyperParameters") | {"search": _parameter("Search")}
    trial["StoppingCondition"] = {"MaxRuntimeInSeconds": _parameter("TrialSeconds")}
    positions = [
        {"Name": f"position_{number}", "MinValue": "0", "MaxValue": "1", "ScalingType": "Linear"}
        for number in range(1, RANGES + 1)
    ]
    train |= {"Name": "Tune", "Type": "Tuning"}
    train["Arguments"] = {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": _parameter("Trials"),
                "MaxParallelTrainingJobs": 1,
                "MaxRuntimeInSeconds": _parameter("TuningSeconds"),
            },
            "ParameterRanges": {"ContinuousParameterRanges": positions},
            "TrainingJobEarlyStoppingType": "Off",
            "RandomSeed": _parameter("Seed"),
        },
        "TrainingJobDefinition": trial,
        "Tags": tags,
    }
    best = {"Get": "Steps.Tune.BestTrainingJob.TrainingJobName"}
    archive = {"Std:Join": {"On": "/", "Values": [output, best, "output/model.tar.gz"]}}
    text = json.dumps(definition)
    before = json.dumps({"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"})
    assert before in text, "the evaluation reads the model that was trained"
    return text.replace(before, json.dumps(archive))


def _parameter(name: str) -> dict[str, str]:
    return {"Get": f"Parameters.{name}"}


def filled(template: str, names: dict[str, str]) -> bytes:
    """Return the definition, minified, with each ${Name} replaced; raises ValueError for one left over."""
    for name, value in names.items():
        template = template.replace("${" + name + "}", value)
    if "${" in template:
        raise ValueError(f"no value was given for {template.split('${')[1].split('}')[0]!r}")
    return json.dumps(json.loads(template), separators=(",", ":")).encode()


def libraries() -> bytes:
    """Return the modules of LIBRARIES as a zip file, the same for the same modules."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in LIBRARIES:
            spec = importlib.util.find_spec(name)
            assert spec is not None, f"{name} is in requirements.txt"
            assert spec.origin is not None, f"{name} has files"
            root = Path(spec.origin).parent
            for file in sorted(root.rglob("*.py")):
                member = zipfile.ZipInfo(f"{name}/{file.relative_to(root).as_posix()}")
                archive.writestr(member, file.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def packed(scripts: dict[str, bytes]) -> bytes:
    """Return the scripts as a .tar.gz that is the same for the same scripts."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, body in scripts.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return gzip.compress(plain.getvalue(), mtime=0)


def empty(bucket: str) -> None:
    """Delete every object version, so that the stack can delete the bucket."""
    s3 = boto3.client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if versions:
            keys = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in versions]
            s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


def answer(event: dict[str, Any], status: str, data: dict[str, str], reason: str = "") -> None:
    """Tell CloudFormation; the resource keeps its id, so only the stack's deletion deletes it."""
    body = {
        "Status": status,
        "Reason": reason[:4000] or "see the function's log",
        "PhysicalResourceId": event.get("PhysicalResourceId", "published-code"),
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
        "Data": data,
    }
    request = urllib.request.Request(  # noqa: S310 - CloudFormation's own URL
        event["ResponseURL"], data=json.dumps(body).encode(), headers={"content-type": ""}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
