"""Start and stop local clouds; several can run at once, and nothing is left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

REPOSITORY = Path(__file__).parent.parent
ACCOUNT_ID = "123456789012"
REGION = "us-east-1"
OWN_SERVICES = ("sagemaker", "application-autoscaling")
"""Beginnings of the names of services that the SageMaker server answers for."""


class CloudDied(Exception):
    """The local cloud ended, or never became ready; the message shows the end of its log."""


@dataclass
class Cloud:
    """A local AWS that runs inside a `with` statement.

    It listens on loopback only, keeps its files in its own directory, and ends when its parent process does.
    """

    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="trainyard-")))
    authorise: bool = True
    """Whether each call is authorised against the IAM policies of the template and the tenants."""
    generated: int | None = None
    """The seed for generated durations and ends of jobs and for faulty events; None to run real jobs."""
    steady: float | None = None
    """The duration in seconds of jobs that do nothing; None to run real jobs."""
    port: int = 0
    sagemaker_port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _clients: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.port, self.sagemaker_port = _free_ports(2)
        log = open(self.home / "cloud.log", "wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local.server", str(self.home), str(self.port), str(self.sagemaker_port)],
            cwd=REPOSITORY,
            env=self._server_environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._await_ready(seconds=60)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            _end_group(self._process)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def process_id(self) -> int:
        assert self._process is not None, "the cloud is up"
        return self._process.pid

    def client(self, service: str) -> Any:
        """Return a boto3 client of a service in this cloud."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.sagemaker_url if service.startswith(OWN_SERVICES) else self.url,
                region_name=REGION,
                aws_access_key_id=ACCOUNT_ID,
                aws_secret_access_key="local",  # noqa: S106 - no secret
                config=Config(max_pool_connections=50, read_timeout=180, retries={"max_attempts": 2}),
            )
        return self._clients[service]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sagemaker_url(self) -> str:
        return f"http://127.0.0.1:{self.sagemaker_port}"

    def environment(self) -> dict[str, str]:
        """Return the variables with which any AWS SDK or CLI uses this cloud."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.sagemaker_url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.sagemaker_url,
            "AWS_ENDPOINT_URL_SERVICE_QUOTAS": self.sagemaker_url,
            "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING": self.sagemaker_url,
            "AWS_ACCESS_KEY_ID": ACCOUNT_ID,
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
        }

    def plant_faults(self, *faults: dict[str, Any]) -> None:
        """Let SageMaker calls fail: see local/sagemaker/service.py."""
        self._tell_sagemaker("faults", faults)

    def kill_sagemaker(self, seconds: float) -> None:
        """Stop SageMaker for some seconds: it does not respond, and sends no events for what ends meanwhile."""
        self._tell_sagemaker("outage", {"seconds": seconds})

    def exhaust(self, *instance_types: str) -> None:
        """Leave no capacity of these instance types, and of no others; "spot/ml.…" for spot capacity."""
        self._tell_sagemaker("capacity", {"exhausted": instance_types})

    def interrupt_spot(self, interruptions: int, *, returns: bool = True, step: str = "Failed") -> None:
        """Interrupt each training on spot capacity so often; without `returns`, capacity is not there again, and
        the job's step gets the status `step`.
        """
        self._tell_sagemaker("spot", {"interruptions": interruptions, "returns": returns, "step": step})

    def lose_uploads(self, share: float) -> None:
        """Drop a share of S3's events from now on."""
        self._tell_sagemaker("uploads", {"lost": share})

    def pass_schedule_time(self, seconds: float) -> None:
        """Advance the clock of EventBridge Scheduler, and no other; schedules that become due run now."""
        self._tell_sagemaker("schedules", {"seconds": seconds})

    def _tell_sagemaker(self, what: str, body: Any) -> None:
        url = f"{self.sagemaker_url}/_local/{what}"
        request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass

    def credentials_of(self, role_arn: str) -> dict[str, str]:
        """Return credentials of a role that a service may assume, as arguments of boto3.client."""
        request = urllib.request.Request(
            f"{self.sagemaker_url}/_local/credentials",
            data=json.dumps({"role_arn": role_arn}).encode(),
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.loads(answer.read()))

    def log_tail(self, lines: int = 30) -> str:
        text = (self.home / "cloud.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _server_environment(self) -> dict[str, str]:
        """The repository's code is not on the functions' path: they use the layer that was deployed."""
        inherited = {
            n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "PYTHONPATH", "POWERTOOLS_"))
        }
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        return (
            inherited
            | self.environment()
            | {
                "AUTH": "true" if self.authorise else "false",
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self.port),
                "IOT_MTLS_ENABLED": "0",
                "LAMBDA_EXECUTOR": "local",
                "LOG_LEVEL": "WARNING",
                "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
                "MINISTACK_HOST": "127.0.0.1",
                "MINISTACK_REGION": REGION,
                "OMP_NUM_THREADS": "1",
                # State machines wait a two-thousandth of their time: an hour becomes two seconds.
                "SFN_WAIT_SCALE": "0.0005",
                "PYTHONDONTWRITEBYTECODE": "1",
                "STATE_DIR": str(self.home / "state"),
                "TMPDIR": str(temporary),
            }
            | ({} if self.generated is None else {"TRAINYARD_LOCAL_GENERATED": str(self.generated)})
            | ({} if self.steady is None else {"TRAINYARD_LOCAL_STEADY": str(self.steady)})
        )

    def _await_ready(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.05)
        raise CloudDied(f"the local cloud did not become ready:\n{self.log_tail()}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=2):
                pass
            with socket.create_connection(("127.0.0.1", self.sagemaker_port), timeout=2):
                return True
        except OSError:
            return False


def _free_ports(count: int) -> list[int]:
    """Return free ports; all of them stay bound until the last one is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all processes that it started."""
    for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)  # functions and jobs of the group that outlived it
    except ProcessLookupError:
        pass
