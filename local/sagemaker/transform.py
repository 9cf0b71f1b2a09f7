"""Transform jobs: a model answers each object below a prefix, or of a manifest, and the answers stand in S3 under
their names. What a container says of a request that it refuses is only in the job's log.

Sources: API reference, CreateTransformJob; developer guide, "Batch transform".
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from local.sagemaker.containers import Container, DataMissing, Died, LoadFailed, Response, TimedOut
from local.sagemaker.errors import ApiError
from local.sagemaker.jobs import manifest_entries, split

Answer = dict[str, Any]

PAYLOAD_MB_DEFAULT, PAYLOAD_MB_MAX = 6, 100
SECONDS_DEFAULT = 600
"""In which a container must answer one request, unless ModelClientConfig says otherwise."""


class Failed(Exception):
    """A transform job that fails; the message is its FailureReason."""


@dataclass
class TransformJob:
    name: str
    arn: str
    request: Answer
    status: str = "InProgress"
    failure: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    started_at: datetime | None = None

    @property
    def description(self) -> Answer:
        times = {"TransformStartTime": self.started_at, "TransformEndTime": self.ended_at}
        return (
            {name: value for name, value in self.request.items() if name != "Tags"}
            | {name: at.timestamp() for name, at in times.items() if at is not None}
            | {
                "TransformJobName": self.name,
                "TransformJobArn": self.arn,
                "TransformJobStatus": self.status,
                "CreationTime": self.created_at.timestamp(),
            }
            | ({"FailureReason": self.failure} if self.failure else {})
        )


@dataclass
class TransformJobs:
    """Runs transform jobs.

    `model` returns a model's request by name, or raises ApiError; `start` makes the container of one, given its
    request and further environment variables; `s3_as` and `logs_as` return clients with the rights of a role.
    """

    arn: Callable[[str], str]
    model: Callable[[str], Answer]
    start: Callable[[Answer, Mapping[str, str]], Container]
    s3_as: Callable[[str], Any]
    logs_as: Callable[[str], Any]
    emit: Callable[[Answer], None]
    _jobs: dict[str, TransformJob] = field(default_factory=dict)

    @property
    def operations(self) -> dict[str, Callable[[Answer], Answer]]:
        return {
            "CreateTransformJob": self.create,
            "DescribeTransformJob": lambda request: self.job(request["TransformJobName"]).description,
            "StopTransformJob": self.stop,
            "ListTransformJobs": self.list,
        }

    def create(self, request: Answer) -> Answer:
        name, model = request["TransformJobName"], self.model(request["ModelName"])
        if name in self._jobs:
            raise ApiError("ResourceInUse", f"Job name must be unique: {name} exists already.")
        if request.get("MaxPayloadInMB", PAYLOAD_MB_DEFAULT) > PAYLOAD_MB_MAX:
            raise ApiError("ValidationException", f"MaxPayloadInMB must not exceed {PAYLOAD_MB_MAX}")
        if (model.get("PrimaryContainer") or {}).get("Mode") == "MultiModel":
            raise ApiError("ValidationException", "Batch transform does not support multi-model containers")
        job = self._jobs[name] = TransformJob(name, self.arn(f"transform-job/{name.lower()}"), dict(request))
        self._announce(job)
        threading.Thread(target=self._run, args=(job, model), daemon=True).start()
        return {"TransformJobArn": job.arn}

    def stop(self, request: Answer) -> Answer:
        job = self.job(request["TransformJobName"])
        if job.ended_at is not None:
            raise ApiError("ValidationException", f"The request was rejected because {job.name} is {job.status}.")
        job.stop.set()
        return {}

    def list(self, request: Answer) -> Answer:
        jobs = [job for job in list(self._jobs.values()) if request.get("NameContains", "") in job.name]
        jobs = [job for job in jobs if request.get("StatusEquals") in (None, job.status)]
        names = ("TransformJobName", "TransformJobArn", "TransformJobStatus", "CreationTime", "TransformEndTime")
        begin, size = int(request.get("NextToken") or 0), int(request.get("MaxResults") or 10)
        page = sorted(jobs, key=lambda job: job.created_at, reverse=True)[begin : begin + size]
        answer: Answer = {
            "TransformJobSummaries": [
                {n: job.description[n] for n in names if n in job.description} for job in page
            ]
        }
        return answer | ({"NextToken": str(begin + size)} if begin + size < len(jobs) else {})

    def tags_of(self, arn: str) -> Any:
        job = next((job for job in list(self._jobs.values()) if job.arn == arn), None)
        return None if job is None else job.request.get("Tags", [])

    def _run(self, job: TransformJob, model: Answer) -> None:
        container: Container | None = None
        try:
            job.started_at = datetime.now(UTC)
            container = self.start(model, job.request.get("Environment", {}))
            container.start()
            threading.Thread(target=_stop_when_asked, args=(job, container), daemon=True).start()
            role = model["ExecutionRoleArn"]
            self._transform(job, container, self.s3_as(role), self.logs_as(role))
            job.status = "Stopped" if job.stop.is_set() else "Completed"
        except (Failed, DataMissing) as error:
            job.status, job.failure = "Failed", str(error)
        except LoadFailed:
            job.status = "Failed"
            job.failure = "AlgorithmError: The primary container did not pass the ping health check. See job logs."
        except Exception as error:
            job.status, job.failure = "Failed", f"ClientError: {error}"
        finally:
            if job.stop.is_set():
                job.status, job.failure = "Stopped", None
            if container is not None:
                container.stop()
            job.ended_at = datetime.now(UTC)
            self._announce(job)
            job.ended.set()

    def _transform(self, job: TransformJob, container: Container, s3: Any, logs: Any) -> None:
        """Answer each object; one that cannot be answered fails the job, after the others were written."""
        request, failed = job.request, []
        objects = named_objects(request["TransformInput"]["DataSource"]["S3DataSource"], s3)
        output, encryption = request["TransformOutput"], {}
        if "KmsKeyId" in output:
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": output["KmsKeyId"]}
        to_bucket, to_prefix = split(output["S3OutputPath"])
        for bucket, key, name in objects:
            if job.stop.is_set():
                return
            body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            try:
                answers = [self._answer(job, container, payload) for payload in payloads(body, request)]
            except Failed as error:
                failed += [f"{bucket}/{key}: {line}" for line in str(error).splitlines()]
                continue
            joint = b"\n" if output.get("AssembleWith") == "Line" else b""
            s3.put_object(
                Bucket=to_bucket,
                Key=f"{to_prefix.rstrip('/')}/{name}.out",
                Body=joint.join(response.body for response in answers),
                **encryption,
            )
        if failed:
            write_log(logs, job.name, failed)
            raise Failed("ClientError: See job logs for more information")

    def _answer(self, job: TransformJob, container: Container, payload: bytes) -> Response:
        request, client = job.request, job.request.get("ModelClientConfig", {})
        content_type = request["TransformInput"].get("ContentType", "application/octet-stream")
        accept = request["TransformOutput"].get("Accept", "*/*")
        for _ in range(1 + client.get("InvocationsMaxRetries", 0)):
            try:
                seconds = client.get("InvocationsTimeoutInSeconds", SECONDS_DEFAULT)
                with container.server("") as server:
                    response = server.invoke(payload, content_type, accept, seconds)
            except (Died, TimedOut):
                continue
            if response.status == 200:
                return response
            said = response.body.decode("utf-8", "replace")
            raise Failed(f"ClientError: {response.status}\n\nMessage:\n{said}")
        raise Failed("Bad HTTP status received from algorithm: 500")

    def job(self, name: str) -> TransformJob:
        """Return a job by its name, in whatever case: in ARNs, SageMaker may have it in small letters."""
        for job in list(self._jobs.values()):
            if job.name.lower() == name.lower():
                return job
        raise ApiError("ResourceNotFound", f"Could not find transform job {name}.")

    def _announce(self, job: TransformJob) -> None:
        names = ("TransformJobName", "TransformJobArn", "TransformJobStatus", "ModelName", "FailureReason")
        detail = {name: job.description[name] for name in names if name in job.description}
        tags = {tag["Key"]: tag["Value"] for tag in job.request.get("Tags", [])}
        self.emit(
            {
                "Source": "aws.sagemaker",
                "DetailType": "SageMaker Transform Job State Change",
                "Detail": json.dumps(detail | {"Tags": tags}),
                "Resources": [job.arn],
            }
        )


def _stop_when_asked(job: TransformJob, container: Container) -> None:
    """End the container of a job that is stopped, whatever it answers just then."""
    while not job.ended.wait(0.2):
        if job.stop.is_set():
            container.stop()
            return


LOG_GROUP = "/aws/sagemaker/TransformJobs"


def write_log(logs: Any, job_name: str, lines: list[str]) -> None:
    """Write what became of objects into the job's data log; without the right to, it leaves none."""
    stamp = datetime.now(UTC)
    events = [
        {
            "timestamp": int(stamp.timestamp() * 1000),
            "message": f"{stamp:%Y-%m-%dT%H:%M:%S}.000:[sagemaker logs]: {line}",
        }
        for line in lines
    ]
    stream = f"{job_name}/i-0123456789abcdef0/data-log"
    with suppress(Exception):
        with suppress(Exception):  # it may exist
            logs.create_log_group(logGroupName=LOG_GROUP)
        logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
        logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=events)


def named_objects(source: Mapping[str, Any], s3: Any) -> list[tuple[str, str, str]]:
    """Return bucket, key, and name below the output of each object; raises Failed where there are none."""
    uri = source["S3Uri"]
    if source.get("S3DataType") == "ManifestFile":
        entries = [(*split(object_uri), name) for object_uri, name in manifest_entries(s3, uri)]
    else:
        bucket, prefix = split(uri)
        entries = [
            (bucket, item["Key"], item["Key"].removeprefix(prefix).lstrip("/") or item["Key"].rpartition("/")[2])
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for item in page.get("Contents", [])
            if not item["Key"].endswith("/")
        ]
    if not entries:
        raise Failed(f"ClientError: No S3 objects found under {uri}")
    return entries


def payloads(body: bytes, request: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield what is sent to the container at once; raises Failed for what is larger than MaxPayloadInMB.

    Where rows are split, a header line is only in the first part.
    """
    most = int(request.get("MaxPayloadInMB", PAYLOAD_MB_DEFAULT)) * 1024 * 1024
    if request["TransformInput"].get("SplitType", "None") == "None":
        parts = [body]
    elif request.get("BatchStrategy") == "SingleRecord":
        parts = body.splitlines(keepends=True)
    else:
        parts = _packed(body.splitlines(keepends=True), most)
    for part in parts:
        if len(part) > most:
            raise Failed("ClientError: Too much data for max payload size")
        yield part


def _packed(lines: list[bytes], most: int) -> list[bytes]:
    parts, part = [], b""
    for line in lines:
        if part and len(part) + len(line) > most:
            parts.append(part)
            part = b""
        part += line
    return [*parts, part] if part else parts
