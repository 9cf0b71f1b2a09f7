"""Asynchronous inference: requests are answered into S3, and SNS tells when.

Sources: API reference, InvokeEndpointAsync and AsyncInferenceConfig; developer guide, "Asynchronous inference",
"Check prediction results".
"""

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.sagemaker.containers import Response
from local.sagemaker.errors import ApiError
from local.sagemaker.jobs import split

INLINE_BYTES_MAX = 128_000
INPUT_BYTES_MAX = 1024**3
ANSWER_SECONDS_DEFAULT = 900


@dataclass(frozen=True)
class AsyncInvocation:
    """A request to an asynchronous endpoint."""

    endpoint: str
    input_location: str
    """Of the rows; "" where they came with the request."""
    body: bytes
    content_type: str
    accept: str
    inference_id: str
    seconds: int


@dataclass
class Asynchronous:
    """Answers requests in the background.

    `client_as` returns a client of a service with the rights of a role; `answer` what the endpoint's containers
    answer to a body, or raises ApiError.
    """

    client_as: Callable[[str, str], Any]
    answer: Callable[[AsyncInvocation, bytes], Response]
    region: str

    def __post_init__(self) -> None:
        self._open: Counter[str] = Counter()

    def backlog(self, endpoint: str) -> int:
        """Return how many requests to an endpoint wait or are being answered."""
        return self._open[endpoint]

    def accept(self, invocation: AsyncInvocation, config: Mapping[str, Any], role: str) -> dict[str, str]:
        """Accept a request; return where its answer, or its failure, will be."""
        if bool(invocation.input_location) == bool(invocation.body):
            raise ApiError("ValidationError", "Exactly one of InputLocation and Body is required")
        if len(invocation.body) > INLINE_BYTES_MAX:
            raise ApiError("ValidationError", f"Body has more than {INLINE_BYTES_MAX} bytes", 413)
        name, output = uuid.uuid4().hex, config["OutputConfig"]
        where = {"OutputLocation": f"{output['S3OutputPath'].rstrip('/')}/{name}.out"}
        if "S3FailurePath" in output:
            where["FailureLocation"] = f"{output['S3FailurePath'].rstrip('/')}/{name}-error.out"
        self._open[invocation.endpoint] += 1
        threading.Thread(target=self._run, args=(invocation, output, role, where), daemon=True).start()
        return where

    def _run(
        self, invocation: AsyncInvocation, output: Mapping[str, Any], role: str, where: Mapping[str, str]
    ) -> None:
        s3, topics = self.client_as("s3", role), output.get("NotificationConfig", {})
        encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": output["KmsKeyId"]} if "KmsKeyId" in output else {}
        )
        received = _now()
        try:
            response = self.answer(invocation, invocation.body or self._input(s3, invocation.input_location))
            bucket, key = split(where["OutputLocation"])
            s3.put_object(
                Bucket=bucket, Key=key, Body=response.body, ContentType=response.content_type, **encryption
            )
            self._tell(
                role, topics.get("SuccessTopic"), invocation, received, {"outputLocation": where["OutputLocation"]}
            )
        except Exception as error:  # the notice says what failed
            failure = where.get("FailureLocation")
            if failure:
                bucket, key = split(failure)
                with suppress(Exception):
                    s3.put_object(Bucket=bucket, Key=key, Body=str(error).encode(), **encryption)
            location = {"failureLocation": failure} if failure else {}
            self._tell(role, topics.get("ErrorTopic"), invocation, received, location, failure=str(error))
        finally:
            self._open[invocation.endpoint] -= 1

    def _input(self, s3: Any, location: str) -> bytes:
        bucket, key = split(location)
        answer = s3.get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > INPUT_BYTES_MAX:
            raise ApiError("ValidationError", "the input has more than 1 GB")
        body: bytes = answer["Body"].read()
        return body

    def _tell(
        self,
        role: str,
        topic: str | None,
        invocation: AsyncInvocation,
        received: str,
        response: Mapping[str, str],
        failure: str = "",
    ) -> None:
        """Publish a notice with the rights of the model's role; without them there is none, as on AWS."""
        if topic is None:
            return
        notice = {
            "awsRegion": self.region,
            "eventTime": _now(),
            "receivedTime": received,
            "invocationStatus": "Failed" if failure else "Completed",
            **({"failureReason": failure} if failure else {}),
            "requestParameters": {
                "contentType": invocation.content_type,
                "endpointName": invocation.endpoint,
                "inputLocation": invocation.input_location,
            },
            "responseParameters": {"contentType": invocation.accept, **response},
            "inferenceId": invocation.inference_id,
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }
        with suppress(Exception):
            self.client_as("sns", role).publish(TopicArn=topic, Message=json.dumps(notice))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
