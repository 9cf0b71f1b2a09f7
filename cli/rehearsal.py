"""`algorithm test`: run an algorithm's steps on this machine as the pipeline runs them, with nothing on AWS.

The steps, their arguments and their order are those of pipeline/definition.json. Each step is a process with a
folder of its own as /opt/ml; the folder STORE stands for S3.
"""

import io
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from cli.algorithm_files import check_is_trainable, doubts, own_scripts, read_entry, shipped_scripts, with_shipped
from cli.arguments import Arguments
from cli.codes import DONE, UNSUCCESSFUL
from cli.deployment import Deployment
from cli.libraries import check_libraries
from cli.show import Answer
from cli.text import printable, say
from cli.values import hyperparameter
from local.sagemaker.definition import Context, Unresolved, ordered, parameter_values
from local.sagemaker.interpreter import described, interpreter
from local.sagemaker.jobs import Job, JobFailed, JobRunner, StoppedEarly
from pipeline.publish import packed
from trainyard.contracts.policy_file import parse_policy, with_entry
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.errors import Refused
from trainyard.domain.failures import error_line, says_nothing
from trainyard.domain.parameters import NO_CHAMPION, NO_STATISTICS

CHECKOUT = Path(__file__).parent.parent
DEFINITION = CHECKOUT / "pipeline/definition.json"
IMAGE = CHECKOUT / "local/sagemaker/image.py"
SHIPPED_POLICY = CHECKOUT / "layers/common/python/trainyard/policy.yaml"
UNUSABLE = "Evaluate wrote no evaluation.json with quality.value and verdict.beats_baseline"
TAIL_LINES = 10
IMAGE_STARTS_WITHIN_SECONDS = 60
QUIETLY = ("-W", "ignore::DeprecationWarning")
"""Python warns of forks beside the threads of numerical libraries, which wait for work when the image forks."""

STORE = "s3://rehearsal"
ROLE = "arn:aws:iam::000000000000:role/rehearsal"


@dataclass
class StepOutcome:
    """How a step ended: its reason where it failed, and the end of what it printed."""

    name: str
    seconds: float
    reason: str | None = None
    printed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rehearsal:
    """What to run: an algorithm with its scripts, on a file, as a tenant would ask for it."""

    algorithm: Algorithm
    own: Mapping[str, bytes]
    """Its own scripts that were given."""
    scripts: Mapping[str, bytes]
    """All that it runs with."""
    data: Path
    target: str
    problem: str
    split: str
    hyperparameters: Mapping[str, Any]
    quality_min: float
    runtime_max_seconds: int


def test(deployment: Deployment, arguments: Arguments) -> Answer:
    """Run the steps of an algorithm on a file, up to the registration, which is left out."""
    own = own_scripts(arguments.scripts) if arguments.scripts is not None else {}
    algorithm, scripts = _algorithm(deployment, arguments, own)
    if not arguments.data.is_file():
        raise Refused(f"--data {arguments.data}: there is no such file")
    rehearsal = Rehearsal(
        algorithm=algorithm,
        own=own,
        scripts=scripts,
        data=arguments.data,
        target=arguments.target,
        problem=arguments.problem,
        split=arguments.split,
        hyperparameters=algorithm.chosen(dict(map(hyperparameter, arguments.hyperparameter))),
        quality_min=arguments.quality_min,
        runtime_max_seconds=arguments.minutes * 60,
    )
    if not algorithm.reads(arguments.data.name):
        raise Refused(
            f"{algorithm.name} reads objects that end in {', '.join(algorithm.suffixes)}: not {arguments.data}"
        )
    check_libraries()
    with tempfile.TemporaryDirectory(prefix="trainyard-test-") as folder:
        home = Path(folder)
        outcomes = _run(rehearsal, home)
        report = _report(home)
        if arguments.output is not None:
            _save(home, arguments.output)
    return _answer(rehearsal, outcomes, report, arguments)


def _algorithm(
    deployment: Deployment, arguments: Arguments, own: Mapping[str, bytes]
) -> tuple[Algorithm, dict[str, bytes]]:
    """Return the algorithm of a file that is not registered yet, or of the catalogue; with its scripts."""
    file = Path(arguments.name)
    if file.suffix in (".yaml", ".yml"):
        entry = read_entry(file)
        name = str(entry.pop("name", ""))
        policy = parse_policy(with_entry(SHIPPED_POLICY.read_text(encoding="utf-8"), "algorithms", name, entry), 0)
        algorithm = policy.algorithms.get(name)
        if algorithm is None:
            raise Refused(f"{file} has no algorithm name: add `name: my-algorithm`")
    else:
        algorithm = deployment.policies.current().algorithm(arguments.name)
    check_is_trainable(algorithm, own)
    if algorithm.training_image_uri and not algorithm.code_uri and "train.py" not in own:
        raise Refused(
            f"{algorithm.name} is trained by its own image, which is not run here: give the folder of its "
            "train.py with --scripts to test that"
        )
    if own:
        return algorithm, with_shipped(own)
    if algorithm.code_uri is not None:
        return algorithm, _published(deployment, algorithm.code_uri)
    return algorithm, shipped_scripts()


def _published(deployment: Deployment, code_uri: str) -> dict[str, bytes]:
    """Return the scripts that were published with an algorithm."""
    bucket, _, prefix = f"{code_uri}/steps/".removeprefix("s3://").partition("/")
    s3 = deployment.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {
        item["Key"].removeprefix(prefix): s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        for page in pages
        for item in page.get("Contents", [])
    }


# --- running --------------------------------------------------------------------------------------------------


def _run(rehearsal: Rehearsal, home: Path) -> list[StepOutcome]:
    """Run the steps one after another until one fails; return how each ended."""
    store = _FolderS3(home / "store")
    definition = json.loads(DEFINITION.read_text(encoding="utf-8"))
    values = parameter_values(definition, _parameters(rehearsal, store))
    context = Context(parameters=values, execution={}, read_json=lambda uri: json.loads(store.read(uri)))
    outcomes: list[StepOutcome] = []
    with _image(home / "image.sock") as socket:
        clients = {"s3": store, "logs": None}
        runner = JobRunner(home=home, image_socket=socket, client_as=lambda service, role: clients[service])
        steps = ordered(definition["Steps"])
        while steps:
            step, *steps = steps
            began = time.monotonic()
            try:
                steps = [*_run_step(step, context, runner), *steps]
                reason = None
            except (JobFailed, StoppedEarly) as error:
                reason = str(error)
            if step["Type"] == "Condition" and reason is None:
                continue
            outcome = StepOutcome(step["Name"], time.monotonic() - began, reason)
            outcomes.append(outcome)
            if reason is not None:
                outcome.printed = _printed(home, step["Name"])
                outcome.reason = _explained(reason, outcome.printed)
                break
    return outcomes


def _run_step(step: dict[str, Any], context: Context, runner: JobRunner) -> list[dict[str, Any]]:
    """Run one step; return the steps that follow from it, where it is a condition. Raises JobFailed."""
    if step["Type"] == "Condition":
        try:
            good = all(context.holds(condition) for condition in step["Arguments"]["Conditions"])
        except (OSError, ValueError, TypeError, Unresolved) as error:
            raise JobFailed(f"{UNUSABLE}: {type(error).__name__}: {error}") from error
        branch: list[dict[str, Any]] = step["Arguments"]["IfSteps" if good else "ElseSteps"]
        return [inner for inner in branch if inner["Type"] == "Fail"]
    request = context.resolve(step["Arguments"])
    if step["Type"] == "Fail":
        raise JobFailed(request["ErrorMessage"])
    say(f"{step['Name']} …")
    job = Job(name=step["Name"], arn="", request=request)
    if step["Type"] == "Training":
        runner.train(job)
        context.steps[step["Name"]] = {"ModelArtifacts": {"S3ModelArtifacts": job.artifacts}}
        return []
    try:
        runner.process(job)
    except JobFailed as error:
        raise JobFailed(job.exit_message or str(error)) from error
    outputs = {o["OutputName"]: o["S3Output"]["S3Uri"] for o in request["ProcessingOutputConfig"]["Outputs"]}
    files = step.get("PropertyFiles", [])
    context.steps[step["Name"]] = {
        "PropertyFiles": {f["PropertyFileName"]: f"{outputs[f['OutputName']]}/{f['FilePath']}" for f in files}
    }
    return []


def _parameters(rehearsal: Rehearsal, store: "_FolderS3") -> dict[str, str]:
    """Put what a run reads into the store; return the pipeline's parameters, as a dispatcher gives them."""
    for name, body in rehearsal.scripts.items():
        store.write(f"{STORE}/code/steps/{name}", body)
    store.write(f"{STORE}/code/sourcedir.tar.gz", packed(dict(rehearsal.scripts)))
    data = rehearsal.data.read_bytes()
    store.write(f"{STORE}/incoming/{rehearsal.data.name}", data)
    store.write(
        f"{STORE}/manifest.json", json.dumps([{"prefix": f"{STORE}/incoming/"}, rehearsal.data.name]).encode()
    )
    return {
        "RequestId": "rehearsal",
        "Attempt": "1",
        "TenantId": "rehearsal",
        "TierName": "rehearsal",
        "DataSet": rehearsal.data.stem,
        "InputDataUri": f"{STORE}/manifest.json",
        "InputBytes": str(len(data)),
        "StatisticsUri": f"{STORE}/code/steps/{NO_STATISTICS}",
        "ChampionUri": f"{STORE}/code/steps/{NO_CHAMPION}",
        "Challenge": "none:",
        "WarmStart": "no",
        "DriftRules": "train:train:100:",
        "ModelOutputUri": f"{STORE}/models",
        "ReportOutputUri": f"{STORE}/reports",
        "ProcessingInstanceType": "local",
        "TrainingInstanceType": "local",
        "TrainingInstanceCount": "1",
        "TrainingVolumeSizeGB": "1",
        "MaxRuntimeSeconds": str(rehearsal.runtime_max_seconds),
        "JobRoleArn": ROLE,
        "ModelPackageGroupName": "rehearsal",
        "TrainingImageUri": "local",
        "ProcessingImageUri": "local",
        "CodeUri": f"{STORE}/code",
        "OutputKmsKeyId": "none",
        "Algorithm": rehearsal.algorithm.family,
        "QualityMetric": rehearsal.algorithm.quality_metric,
        "NetworkIsolation": str(rehearsal.algorithm.network_isolation),
        "TrafficEncryption": str(rehearsal.algorithm.traffic_encryption),
        "TargetColumn": rehearsal.target,
        "ProblemType": rehearsal.problem,
        "Split": rehearsal.split,
        "MinimumQuality": str(rehearsal.quality_min),
        "Hyperparameters": json.dumps(dict(rehearsal.hyperparameters), separators=(",", ":")),
    }


@contextmanager
def _image(socket: Path) -> Iterator[Path]:
    """Run the process that stands for SageMaker's container image."""
    image = subprocess.Popen([interpreter(), *QUIETLY, str(IMAGE), str(socket)])  # noqa: S603 - our interpreter
    try:
        limit = time.monotonic() + IMAGE_STARTS_WITHIN_SECONDS
        while not socket.exists():
            if image.poll() is not None or time.monotonic() > limit:
                raise Refused("the process that runs the steps did not start; its error is above")
            time.sleep(0.05)
        yield socket
    finally:
        image.terminate()
        image.wait()


class _FolderS3:
    """A folder with the calls of an S3 client that the job runner makes."""

    exceptions = SimpleNamespace(ClientError=ClientError)

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, uri: str) -> bytes:
        return self._path(uri.removeprefix(f"{STORE}/")).read_bytes()

    def write(self, uri: str, body: bytes) -> None:
        path = self._path(uri.removeprefix(f"{STORE}/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        path = self._path(Key)
        if not path.is_file():
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "there is no such object"}}, "GetObject")
        return {"Body": io.BytesIO(path.read_bytes())}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **encryption: str) -> None:
        self.write(f"{STORE}/{Key}", Body)

    def get_paginator(self, operation: str) -> "_FolderS3":
        assert operation == "list_objects_v2", operation
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:
        keys = (p.relative_to(self.root).as_posix() for p in sorted(self.root.rglob("*")) if p.is_file())
        yield {"Contents": [{"Key": key} for key in keys if key.startswith(Prefix)]}

    def _path(self, key: str) -> Path:
        return self.root / key


# --- reporting ------------------------------------------------------------------------------------------------


def _printed(home: Path, step: str) -> list[str]:
    """Return what a step printed, with its paths as they are inside of a container."""
    log = home / "logs" / f"{step}.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return re.sub(rf"{re.escape(str(home))}/jobs/{step}(/\d+)?(?=/)", "", text).splitlines()


def _explained(reason: str, printed: list[str]) -> str:
    """Return a reason as a run's record has it: the script's last error, where SageMaker gives an exit code."""
    return error_line(printed) or reason if says_nothing(reason) else reason


def _report(home: Path) -> dict[str, Any] | None:
    """Return what Evaluate wrote, None when it wrote nothing."""
    path = home / "store/reports/evaluation/evaluation.json"
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def _save(home: Path, folder: Path) -> None:
    """Copy what a run leaves for its tenant, and the steps' logs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("store/models", "store/reports", "logs"):
        if (home / name).is_dir():
            shutil.copytree(home / name, folder / Path(name).name, dirs_exist_ok=True)


def _answer(
    rehearsal: Rehearsal, outcomes: list[StepOutcome], report: dict[str, Any] | None, arguments: Arguments
) -> Answer:
    failed = next((outcome for outcome in outcomes if outcome.reason is not None), None)
    lines = [
        *(_quality(report) if report else []),
        *([] if failed else ["the model would be registered"]),
        described(),
        *_own_images(rehearsal.algorithm),
        *doubts(rehearsal.algorithm, rehearsal.own),
        *([f"model, card, reports and logs are in {arguments.output}"] if arguments.output else []),
    ]
    tail = [f"  {printable(line.expandtabs())}" for line in failed.printed[-TAIL_LINES:]] if failed else []
    return Answer(
        data={
            "algorithm": rehearsal.algorithm.name,
            "succeeded": failed is None,
            "steps": [
                {
                    "step": o.name,
                    "seconds": round(o.seconds, 3),
                    "reason": o.reason,
                    "printed": o.printed[-TAIL_LINES:],
                }
                for o in outcomes
            ],
            "quality": report and report.get("quality"),
            "baseline": report and report.get("baseline"),
        },
        columns=("STEP", "OUTCOME", "SECONDS", "REASON"),
        rows=[
            (o.name, "failed" if o.reason else "succeeded", f"{o.seconds:.1f}", o.reason or "") for o in outcomes
        ],
        below="REASON",
        verbatim=tail,
        lines=lines,
        code=UNSUCCESSFUL if failed else DONE,
    )


def _quality(report: dict[str, Any]) -> list[str]:
    """Return what Evaluate found out, as far as a script of somebody's own wrote it."""
    verdict = report.get("verdict")
    return [str(verdict["text"])] if isinstance(verdict, dict) and "text" in verdict else []


def _own_images(algorithm: Algorithm) -> list[str]:
    images = [uri for uri in (algorithm.processing_image_uri, algorithm.training_image_uri) if uri]
    names = ", ".join(dict.fromkeys(images))
    return [f"note: on AWS, steps run in {names}; here they did not"] if images else []
