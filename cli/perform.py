"""Carry a command out: run its function, print its answer, and say in one line what went wrong."""

import json
import os
import sys
from importlib import import_module
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from cli.arguments import Arguments
from cli.codes import DONE, REFUSED, UNREACHABLE
from cli.deployment import Deployment, Unreachable
from cli.show import Answer, show
from cli.text import say
from cli.watching import watch
from trainyard.domain.errors import TrainyardError

DEBUG = "TRAINYARD_DEBUG"
"""Set to see the traceback of an error that nobody expected."""

BAD_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
    }
)
"""AWS's codes for credentials that it does not accept, whatever is asked for."""


def call(run: str, deployment: Deployment, arguments: Arguments) -> Answer | None:
    """Call "module:function" of the package `cli`."""
    module, _, function = run.partition(":")
    answer: Answer | None = getattr(import_module(f"cli.{module}"), function)(deployment, arguments)
    return answer


def perform(run: str, stack: str, arguments: Arguments, *, as_json: bool) -> int:
    """Run "module:function", and print its answer, or in a line why it failed; return the exit code."""
    deployment = Deployment(stack)
    try:
        if getattr(arguments, "watch", False) and not as_json:
            watch(lambda: call(run, deployment, arguments) or Answer(data=None))
        answer = call(run, deployment, arguments)
    except BrokenPipeError:
        raise
    except Exception as error:
        message, code = _explained(error)
        say(f"trainyard: {message}")
        return code
    if answer is None:
        return DONE
    _print(answer, as_json=as_json)
    return answer.code


def _explained(error: Exception) -> tuple[str, int]:
    """Return what to say about an error, and the exit code; raises it again where nobody expected it."""
    if isinstance(error, Unreachable):
        return str(error), UNREACHABLE
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", REFUSED
    if isinstance(error, TrainyardError | OSError):
        return str(error), REFUSED
    if isinstance(error, ClientError):
        bad = error.response.get("Error", {}).get("Code") in BAD_CREDENTIALS
        return (_credentials(error), UNREACHABLE) if bad else (f"AWS refused: {error}", REFUSED)
    if isinstance(error, ParamValidationError | Boto3Error):
        return f"AWS refused: {error}", REFUSED
    if isinstance(
        error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | TokenRetrievalError
    ):
        return _credentials(error), UNREACHABLE
    if isinstance(error, ConnectionError):
        return f"AWS does not answer: {error} (check the network, the Region and AWS_ENDPOINT_URL)", UNREACHABLE
    if isinstance(error, BotoCoreError):
        return f"the call to AWS failed: {error}", UNREACHABLE
    if os.environ.get(DEBUG):
        raise error
    return f"unexpected {type(error).__name__}: {error} ({DEBUG}=1 shows where)", REFUSED


def _credentials(error: Any) -> str:
    return (
        f"AWS did not accept the credentials: {error} (sign in again, or set AWS_PROFILE; "
        "`aws sts get-caller-identity` tests them)"
    )


def _print(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(answer.data, indent=2, default=str) + "\n")
    else:
        show(answer)
