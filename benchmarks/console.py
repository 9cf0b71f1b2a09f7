"""The operator's command line, run against a stack in the local cloud."""

import contextlib
import io
import os

from cli.app import answer
from cli.deployment import Deployment
from local.cloud import Cloud
from trainyard.adapters.aws import clients


def trainyard(cloud: Cloud, stack: str, *arguments: str) -> Deployment:
    """Run a command, if one is given; return the deployment."""
    os.environ |= cloud.environment()
    clients.forget()
    deployment = Deployment(stack)
    if arguments:
        with contextlib.redirect_stdout(io.StringIO()):
            answer(deployment, *arguments)
    return deployment
