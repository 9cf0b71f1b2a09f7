"""Processing and training jobs as real processes, with the /opt/ml contract of SageMaker's containers.

A job's /opt/ml is a directory of its own: paths below /opt/ml in arguments are mapped to it, as a mount would.
Sources: SageMaker developer guide, "How Amazon SageMaker Processing runs your processing container image" and
"How Amazon SageMaker runs your training image"; SageMaker training toolkit, environment variables.
"""

import json
import math
import os
import shutil
import signal
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.sagemaker.logs import JobLog


class JobFailed(Exception):
    """The job failed; the message is SageMaker's failure reason."""


class JobStopped(Exception):
    """The job was stopped."""


class StoppedEarly(Exception):
    """SageMaker stopped a training job by itself; the message is the job's secondary status."""


class Interrupted(Exception):
    """The job's spot instances were taken away."""


@dataclass(frozen=True)
class SpotMarket:
    """What becomes of jobs on spot capacity."""

    interruptions: int = 0
    """How often each job is interrupted, once it trains and, if it saves its progress, has saved some."""
    returns: bool = True
    """Whether there is capacity again after the last interruption; if not, the job waits for it in vain. The time
    of waiting passes at once."""
    step: str = "Failed"
    """The status of the step of a job that has waited in vain: no documentation says which one Pipelines gives."""


@dataclass
class Job:
    """A processing or training job, as Describe reports it."""

    name: str
    arn: str
    request: dict[str, Any]
    status: str = "InProgress"
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failure: str | None = None
    secondary: str | None = None
    """Its secondary status, where that is not its status."""
    interrupted_at: list[datetime] = field(default_factory=list)
    market: SpotMarket = SpotMarket()
    selected: str | None = None
    """The instance type that was selected from its preferences."""
    exit_message: str | None = None
    artifacts: str | None = None
    told_from: float = 0.0
    """Until this time (time.monotonic), Describe reports the job as running, even if it has ended."""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def is_on_spot(self) -> bool:
        return bool(self.request.get("EnableManagedSpotTraining"))

    @property
    def checkpoints(self) -> dict[str, str] | None:
        """Where it saves its progress: S3Uri and LocalPath."""
        config: dict[str, str] | None = self.request.get("CheckpointConfig")
        return config

    @property
    def seconds(self) -> int:
        """Billable seconds: SageMaker rounds up."""
        if self.started_at is None or self.ended_at is None:
            return 0
        return max(1, math.ceil((self.ended_at - self.started_at).total_seconds()))


PREFERENCES_MAX = 5


def instance_types(cluster: Mapping[str, Any]) -> list[str]:
    """Return the types that a job names, in order of preference; raises JobFailed where SageMaker refuses them.

    Source: developer guide, "Instance preference lists for training jobs"; API reference, ResourceConfig.
    """
    if "InstancePreferences" not in cluster:
        return [cluster["InstanceType"]]
    preferences = cluster["InstancePreferences"]
    types = [preference["InstanceType"] for preference in preferences]
    counts = [preference for preference in preferences if "InstanceCount" in preference]
    objection = (
        "InstanceType and InstancePreferences are mutually exclusive"
        if "InstanceType" in cluster
        else f"InstancePreferences has {len(types)} members; 1 to {PREFERENCES_MAX} are allowed"
        if not 1 <= len(types) <= PREFERENCES_MAX
        else "an instance type can appear only once in InstancePreferences"
        if len(set(types)) < len(types)
        else "InstanceCount must be in ResourceConfig, or in every preference"
        if len(counts) != (0 if "InstanceCount" in cluster else len(types))
        else None
    )
    if objection:
        raise JobFailed(f"ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: {objection}")
    return types


def check_spot(request: Mapping[str, Any]) -> None:
    """Raise JobFailed where SageMaker refuses a training job on spot capacity, or one that asks for its settings.

    Sources: API reference, StoppingCondition and ResourceConfig; the first message was seen on accounts.
    """
    stopping, on_spot = request["StoppingCondition"], request.get("EnableManagedSpotTraining", False)
    wait = stopping.get("MaxWaitTimeInSeconds")
    objection = (
        "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
        if wait is not None and not on_spot
        else "Invalid MaxWaitTimeInSeconds. It must be present when EnableManagedSpotTraining is set to true"
        if wait is None and on_spot
        else "Invalid MaxWaitTimeInSeconds. It must be equal to or greater than MaxRuntimeInSeconds"
        if wait is not None and int(wait) < int(stopping["MaxRuntimeInSeconds"])
        else "InstancePreferences is not supported when EnableManagedSpotTraining is set to true"
        if on_spot and "InstancePreferences" in request["ResourceConfig"]
        else None
    )
    if objection:
        raise JobFailed(f"ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: {objection}")


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs on an image, reading and writing S3 as the job's role."""

    home: Path
    image_socket: Path
    client_as: Callable[[str, str], Any]
    """Returns a client of a service with the credentials of a role."""

    def process(self, job: Job) -> None:
        """Run a processing job; raises JobFailed or JobStopped."""
        self._run(job, self._process)

    def train(self, job: Job) -> None:
        """Run a training job; raises JobFailed, JobStopped or StoppedEarly."""
        self._run(job, self._train)

    def log_of(self, job: Job) -> str:
        """Return what a job has printed."""
        log = self.home / "logs" / f"{job.name}.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def _run(self, job: Job, work: Callable[[Job, Path, Any], None]) -> None:
        root = self.home / "jobs" / job.name
        root.mkdir(parents=True)
        job.started_at = datetime.now(UTC)
        try:
            work(job, root, self.client_as("s3", job.request["RoleArn"]))
            job.status = "Completed"
        except JobStopped:
            job.status = "Stopped"
            raise
        except StoppedEarly as error:
            job.status, job.secondary = "Stopped", str(error)
            raise
        except JobFailed as error:
            job.status, job.failure = "Failed", str(error)
            raise
        except Exception as error:
            job.status, job.failure = "Failed", f"ClientError: {error}"
            raise JobFailed(job.failure) from error
        finally:
            job.ended_at = datetime.now(UTC)
            shutil.rmtree(root, ignore_errors=True)

    def _process(self, job: Job, root: Path, s3: Any) -> None:
        request = job.request
        for entry in request.get("ProcessingInputs", []):
            source = entry["S3Input"]
            download(s3, source["S3Uri"], source["S3DataType"], mapped(root, source["LocalPath"]))
        for output in request["ProcessingOutputConfig"]["Outputs"]:
            mapped(root, output["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        specification = request["AppSpecification"]
        _, script = specification["ContainerEntrypoint"]
        arguments = [str(a) for a in specification.get("ContainerArguments", [])]
        over = [a for a in arguments if len(a) > 256]
        if over:
            raise JobFailed(f"ValidationException: container argument of {len(over[0])} characters, at most 256")
        environment = {name: str(value) for name, value in request.get("Environment", {}).items()}
        try:
            code = self._execute(job, root, script, arguments, environment)
        finally:
            self._upload_outputs(request, root, s3, "Continuous")
        message = root / "opt/ml/output/message"
        job.exit_message = message.read_text(encoding="utf-8")[:1024] if message.exists() else None
        if code != 0:
            raise JobFailed(f"AlgorithmError: , exit code: {code}")  # the reason is in the exit message
        self._upload_outputs(request, root, s3, "EndOfJob")

    def _upload_outputs(self, request: dict[str, Any], root: Path, s3: Any, mode: str) -> None:
        """Upload the outputs of a mode: those of a job that failed only if they are uploaded continuously."""
        for output in request["ProcessingOutputConfig"]["Outputs"]:
            target = output["S3Output"]
            if target["S3UploadMode"] == mode:
                key = request["ProcessingOutputConfig"].get("KmsKeyId")
                upload(s3, mapped(root, target["LocalPath"]), target["S3Uri"], key)

    def _train(self, job: Job, root: Path, s3: Any) -> None:
        """Train, and begin anew after each interruption, as managed spot training does."""
        check_spot(job.request)
        for number in range(job.market.interruptions + 1):
            is_last = number == job.market.interruptions
            try:
                self._train_once(job, root / str(number), s3, interrupted=job.is_on_spot and not is_last)
            except Interrupted:
                job.secondary = "Interrupted"
                job.interrupted_at.append(datetime.now(UTC))
                if number + 1 == job.market.interruptions and not job.market.returns:
                    raise StoppedEarly("MaxWaitTimeExceeded") from None
            else:
                job.secondary = None
                return

    def _train_once(self, job: Job, root: Path, s3: Any, *, interrupted: bool) -> None:
        request = job.request
        hyperparameters = {name: str(value) for name, value in request["HyperParameters"].items()}
        environment = {
            "SM_MODEL_DIR": str(root / "opt/ml/model"),
            "SM_OUTPUT_DIR": str(root / "opt/ml/output"),
            "SM_OUTPUT_DATA_DIR": str(root / "opt/ml/output/data"),
            "SM_HPS": json.dumps(own_hyperparameters(hyperparameters)),
            "TRAINING_JOB_NAME": job.name,
            "TRAINING_JOB_ARN": job.arn,
        }
        for channel in request["InputDataConfig"]:
            source, name = channel["DataSource"]["S3DataSource"], channel["ChannelName"]
            directory = root / "opt/ml/input/data" / name
            download(s3, source["S3Uri"], source["S3DataType"], directory)
            environment[f"SM_CHANNEL_{name.upper()}"] = str(directory)
        for directory in ("model", "output/data", "input/config", "code"):
            (root / "opt/ml" / directory).mkdir(parents=True, exist_ok=True)
        (root / "opt/ml/input/config/hyperparameters.json").write_text(json.dumps(hyperparameters))
        bundle = self._bundle(request, hyperparameters["sagemaker_submit_directory"], root, s3)
        with tarfile.open(bundle) as archive:
            unpack(archive, root / "opt/ml/code")
        program = f"/opt/ml/code/{hyperparameters['sagemaker_program']}"
        arguments = [
            text
            for name, value in sorted(own_hyperparameters(hyperparameters).items())
            for text in (f"--{name}", str(value))
        ]
        saved = self._checkpoints_in(job, root, s3)
        try:
            code = self._execute(job, root, program, arguments, environment, saved if interrupted else None)
        finally:
            if job.checkpoints:  # SageMaker copies them while the job trains
                upload(s3, saved, job.checkpoints["S3Uri"], None)
        failure = root / "opt/ml/output/failure"
        if code != 0:
            words = failure.read_text(encoding="utf-8")[:1024] if failure.exists() else f"ExitCode {code}"
            raise JobFailed(f"AlgorithmError: {words}, exit code: {code}")
        self._pack_model(job, root, s3)

    def _checkpoints_in(self, job: Job, root: Path, s3: Any) -> Path:
        """Return where a job saves its progress, with what was saved before."""
        saved = mapped(root, job.checkpoints["LocalPath"] if job.checkpoints else "/opt/ml/checkpoints")
        saved.mkdir(parents=True, exist_ok=True)
        if job.checkpoints:
            with suppress(JobFailed):  # nothing was saved yet
                download(s3, job.checkpoints["S3Uri"] + "/", "S3Prefix", saved)
        return saved

    def _bundle(self, request: Mapping[str, Any], directory: str, root: Path, s3: Any) -> Path:
        """Return the folder of the scripts: a channel, or a download by the container, which needs a network.

        Source: SageMaker developer guide, "Run training and inference containers in internet-free mode".
        """
        if not directory.startswith("s3://"):
            return mapped(root, directory)
        if request.get("EnableNetworkIsolation"):
            raise JobFailed(f"AlgorithmError: Could not connect to the endpoint of {directory}, exit code: 1")
        fetch(s3, directory, root / "sourcedir.tar.gz")
        return root / "sourcedir.tar.gz"

    def _pack_model(self, job: Job, root: Path, s3: Any) -> None:
        """Put model.tar.gz where SageMaker puts it: below the output path, in a folder of the job."""
        output = job.request["OutputDataConfig"]
        packed = root / "packed"
        packed.mkdir()
        with tarfile.open(packed / "model.tar.gz", "w:gz") as archive:
            for path in sorted((root / "opt/ml/model").iterdir()):
                archive.add(path, arcname=path.name)
        uri = f"{output['S3OutputPath'].rstrip('/')}/{job.name}/output"
        upload(s3, packed, uri, output.get("KmsKeyId"))
        job.artifacts = f"{uri}/model.tar.gz"

    def _execute(
        self,
        job: Job,
        root: Path,
        script: str,
        arguments: list[str],
        extra: Mapping[str, str],
        interrupted: Path | None = None,
    ) -> int:
        """Run a script as a process of the image, and return its exit code.

        With `interrupted`, the folder of its checkpoints, raises Interrupted once it has begun.
        """
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(root),
            "TMPDIR": str(root),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            **extra,
        }
        log = self.home / "logs" / f"{job.name}.log"
        log.parent.mkdir(exist_ok=True)
        kind = "Processing" if "ProcessingResources" in job.request else "Training"
        logs = self.client_as("logs", job.request["RoleArn"])
        printed = JobLog(logs, f"/aws/sagemaker/{kind}Jobs", job.name, log)
        order = {
            "script": str(mapped(root, script)),
            "arguments": [str(mapped(root, a)) if a.startswith("/opt/ml/") else a for a in arguments],
            "environment": environment,
            "directory": str(root),
            "log": str(log),
        }
        limit = time.monotonic() + job.request["StoppingCondition"]["MaxRuntimeInSeconds"]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.image_socket))
            connection.settimeout(0.1)
            connection.sendall(json.dumps(order).encode() + b"\n")
            try:
                return self._await_exit(job, connection, limit, interrupted, printed)
            finally:
                printed.send(last=True)

    def _await_exit(
        self, job: Job, connection: socket.socket, limit: float, interrupted: Path | None, printed: JobLog
    ) -> int:
        received, pid, killed_for = b"", 0, ""
        before = set(interrupted.iterdir()) if interrupted else set()
        while True:
            try:
                part = connection.recv(4096)
            except TimeoutError:
                printed.send()
                overdue = time.monotonic() > limit
                taken = interrupted and (not job.checkpoints or set(interrupted.iterdir()) - before)
                reason = "stop" if job.stop.is_set() else "time" if overdue else "spot" if taken else ""
                if pid and not killed_for and reason:
                    killed_for = reason
                    os.killpg(pid, signal.SIGKILL)
                continue
            received += part
            lines = [json.loads(line) for line in received.split(b"\n")[:-1]]
            pid = next((line["pid"] for line in lines if "pid" in line), pid)
            ended = next((line["exit"] for line in lines if "exit" in line), None)
            if ended is not None:
                return int(ended)
            if not part:
                if killed_for == "stop":
                    raise JobStopped("the job was stopped")
                if killed_for == "spot":
                    raise Interrupted
                if killed_for == "time" and "ResourceConfig" in job.request:
                    raise StoppedEarly("MaxRuntimeExceeded")
                if killed_for == "time":
                    raise JobFailed("MaxRuntimeExceeded: the job ran longer than its maximum runtime")
                return 137


def own_hyperparameters(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the script's hyperparameters, decoded as the training toolkit does: as JSON where possible."""
    return {name: decoded(value) for name, value in hyperparameters.items() if not name.startswith("sagemaker_")}


def decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract an archive, safely if this Python supports that (3.11.4 and later)."""
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    archive.extractall(folder, **safely)  # noqa: S202


def mapped(root: Path, path: str) -> Path:
    """Return the path on this machine for a path inside the container."""
    return root / path.lstrip("/")


def split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def fetch(s3: Any, uri: str, path: Path) -> None:
    bucket, key = split(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except s3.exceptions.ClientError as error:
        raise JobFailed(f"ClientError: {error} ({uri})") from error


def download(s3: Any, uri: str, data_type: str, directory: Path) -> None:
    """Download the objects of an S3 data source; raises JobFailed if there are none, as SageMaker does."""
    directory.mkdir(parents=True, exist_ok=True)
    if data_type == "ManifestFile":
        for object_uri, name in manifest_entries(s3, uri):
            fetch(s3, object_uri, contained(directory, name))
        return
    bucket, prefix = split(uri)
    found = [
        item["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in page.get("Contents", [])
    ]
    if not found:
        raise JobFailed(f'ClientError: No S3 objects found under S3 URL "{uri}" given in input data source.')
    folder = prefix if prefix.endswith("/") else prefix.rpartition("/")[0] + "/"
    for key in found:
        name = (
            key.removeprefix(prefix.rstrip("/") + "/")
            if key.startswith(prefix.rstrip("/") + "/")
            else key.removeprefix(folder)
        )
        if name and not name.endswith("/"):
            fetch(s3, f"s3://{bucket}/{key}", contained(directory, name))


def contained(directory: Path, name: str) -> Path:
    """Return the path on this machine for a tenant's object; raises JobFailed for one outside of the directory."""
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise JobFailed(f"ClientError: {name!r} is outside of its channel")
    return path


def manifest_entries(s3: Any, uri: str) -> list[tuple[str, str]]:
    """Return (object URI, relative name) for each entry of a manifest file."""
    bucket, key = split(uri)
    manifest = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    prefix = manifest[0]["prefix"]
    return [(prefix + name, name) for name in manifest[1:]]


def upload_text(s3: Any, text: str, uri: str, key_id: str | None) -> None:
    bucket, key = split(uri)
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id} if key_id else {}
    s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), **encryption)


def upload(s3: Any, directory: Path, uri: str, key_id: str | None) -> None:
    bucket, prefix = split(uri)
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key_id} if key_id else {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        key = f"{prefix.rstrip('/')}/{path.relative_to(directory).as_posix()}"
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), **encryption)
        except s3.exceptions.ClientError as error:
            raise JobFailed(f"ClientError: {error} (s3://{bucket}/{key})") from error
