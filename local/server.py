"""The local cloud's process: MiniStack and the SageMaker server.

    python -m local.server HOME PORT SAGEMAKER_PORT

Started by `local.cloud`, which sets the environment that both read when they are imported.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import boto3
from botocore.config import Config

from local import faults, patches
from local.sagemaker.containers import Image
from local.sagemaker.generated import GeneratedJobs, LossyEvents, SteadyJobs
from local.sagemaker.interpreter import interpreter
from local.sagemaker.jobs import JobRunner
from local.sagemaker.service import SageMakerService, wait_for


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log each request."""


def main() -> None:
    home, port, sagemaker_port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    region, account_id = os.environ["AWS_DEFAULT_REGION"], os.environ["MINISTACK_ACCOUNT_ID"]
    orphaned = end_with_parent()
    image_socket = home / "image.sock"
    script = Path(__file__).with_name("sagemaker") / "image.py"
    image = subprocess.Popen([interpreter(), str(script), str(image_socket)])
    endpoint = f"http://127.0.0.1:{port}"

    @cache
    def client(service: str) -> Any:
        url = f"http://127.0.0.1:{sagemaker_port}" if service == "sagemaker" else endpoint
        return boto3.client(
            service, endpoint_url=url, region_name=region, config=Config(max_pool_connections=50, read_timeout=120)
        )

    @cache
    def client_as(service: str, role_arn: str) -> Any:
        credentials = patches.assume_as_service(role_arn, "SageMaker", trusted="sagemaker.amazonaws.com")
        return boto3.client(service, endpoint_url=endpoint, region_name=region, **credentials)

    emit: Callable[[dict[str, Any]], None] = partial(patches.emit_as_aws, account_id=account_id, region=region)
    runner: JobRunner | GeneratedJobs = JobRunner(home=home, image_socket=image_socket, client_as=client_as)
    seed = os.environ.get("TRAINYARD_LOCAL_GENERATED")
    if seed is not None:
        runner, emit = GeneratedJobs(int(seed), client_as), LossyEvents(int(seed), emit)
    steady = os.environ.get("TRAINYARD_LOCAL_STEADY")
    if steady is not None:
        runner = SteadyJobs(float(steady), client_as)
    service = SageMakerService(
        account_id=account_id,
        region=region,
        runner=runner,
        client_as=client_as,
        emit=emit,
        client=client,
        image=Image(home, image_socket),
        assume=lambda role_arn: patches.assume_as_service(role_arn, "Test"),
        denial=lambda *call: patches.denial(*call, region=region),
        trusts=lambda *call: patches.trusts(*call, region=region),
        objection=lambda *call: patches.objection(*call, account_id=account_id, region=region),
        lose_uploads=patches.lose_uploads,
        pass_schedule_time=patches.pass_schedule_time,
    )
    server = make_server("127.0.0.1", sagemaker_port, service, server_class=_Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    patches.mend_all(lambda: client("sagemaker"))
    faults.plant_in_tasks(service.next_fault)
    threading.Thread(target=lambda: wait_for(image_socket, 60), daemon=True).start()
    try:
        from ministack.app import main as serve

        logging.getLogger("hypercorn.access").setLevel(logging.WARNING)
        sys.argv = ["ministack"]
        serve()
    finally:
        image.terminate()
        if orphaned.is_set():
            shutil.rmtree(home, ignore_errors=True)


def end_with_parent() -> threading.Event:
    """End this process when its parent ends, which closes standard input; return an event that is set then."""
    orphaned = threading.Event()

    def watch() -> None:
        os.read(0, 1)
        orphaned.set()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return orphaned


if __name__ == "__main__":
    main()
