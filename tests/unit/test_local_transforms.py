"""The local cloud's transform jobs: manifests, refusals that only the log names, and stops."""

import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from local.sagemaker.containers import Died, Response
from local.sagemaker.transform import TransformJob, TransformJobs

REQUEST = {
    "TransformJobName": "pipelines-x-Transform-1",
    "ModelName": "m",
    "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": "s3://b/manifest"}}},
    "TransformOutput": {"S3OutputPath": "s3://b/out"},
    "Tags": [{"Key": "trainyard:tenant", "Value": "acme"}],
}


class Storage:
    def __init__(self, **objects: bytes) -> None:
        manifest = [{"prefix": "s3://b/rows/"}, *objects]
        self.objects = {f"rows/{name}": body for name, body in objects.items()}
        self.objects["manifest"] = json.dumps(manifest).encode()

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.objects[Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
        self.objects[Key] = Body


@dataclass
class Logs:
    lines: list[str] = field(default_factory=list)

    def create_log_group(self, **_: Any) -> None: ...
    def create_log_stream(self, **_: Any) -> None: ...
    def put_log_events(self, *, logEvents: list[dict[str, Any]], **_: Any) -> None:
        self.lines += [event["message"] for event in logEvents]


class Model:
    """A container that refuses rows that begin with "bad", and never answers those that begin with "slow"."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def start(self) -> None: ...
    def stop(self) -> None:
        self.stopped.set()

    @contextmanager
    def server(self, _: str) -> Iterator["Model"]:
        yield self

    def invoke(self, payload: bytes, content_type: str, accept: str, seconds: float) -> Response:
        if payload.startswith(b"slow"):
            assert self.stopped.wait(20)
            raise Died
        if payload.startswith(b"bad"):
            return Response(400, "application/json", b'{"error": "no column"}')
        return Response(200, "application/json", payload.upper())


def jobs(storage: Storage, logs: Logs, model: Model) -> TransformJobs:
    def start(_: Mapping[str, Any], __: Mapping[str, str]) -> Any:
        return model

    return TransformJobs(
        arn=lambda resource: f"arn:{resource}",
        model=lambda _: {"ExecutionRoleArn": "role"},
        start=start,
        s3_as=lambda _: storage,
        logs_as=lambda _: logs,
        emit=lambda _: None,
    )


def ended(made: TransformJobs) -> TransformJob:
    job = made.job("PIPELINES-X-TRANSFORM-1".lower())
    assert job.ended.wait(20)
    return job


def test_each_object_of_a_manifest_is_answered_under_its_name() -> None:
    storage = Storage(a=b"one", b=b"two")
    made = jobs(storage, Logs(), Model())
    assert made.create(REQUEST)["TransformJobArn"] == "arn:transform-job/pipelines-x-transform-1"
    assert ended(made).status == "Completed"
    assert (storage.objects["out/a.out"], storage.objects["out/b.out"]) == (b"ONE", b"TWO")


def test_what_the_model_refuses_is_only_in_the_log_and_the_rest_is_answered() -> None:
    storage, logs = Storage(a=b"bad", b=b"two"), Logs()
    made = jobs(storage, logs, Model())
    made.create(REQUEST)
    job = ended(made)
    assert (job.status, job.failure) == ("Failed", "ClientError: See job logs for more information")
    assert logs.lines[-1].endswith(':[sagemaker logs]: b/rows/a: {"error": "no column"}')
    assert storage.objects["out/b.out"] == b"TWO"


@pytest.mark.parametrize("rows", [b"slow"])
def test_a_stop_ends_a_job_whatever_its_model_does(rows: bytes) -> None:
    made = jobs(Storage(a=rows), Logs(), Model())
    made.create(REQUEST)
    made.stop({"TransformJobName": "pipelines-x-Transform-1"})
    job = ended(made)
    assert (job.status, job.failure) == ("Stopped", None)
