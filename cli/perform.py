"""Carry a command out: run its function, print its answer, and say in one line what went wrong."""

import json
import os
import sys
from importlib import import_module
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    NoCredentialsError,
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
    """Run "module:function", and print its answer; return the exit code."""
    deployment = Deployment(stack)
    try:
        if getattr(arguments, "watch", False) and not as_json:
            watch(lambda: call(run, deployment, arguments) or Answer(data=None))
        answer = call(run, deployment, arguments)
    except Unreachable as error:
        return _complain(str(error), UNREACHABLE)
    except TrainyardError as error:
        return _complain(str(error), REFUSED)
    except ClientError as error:
        bad = error.response.get("Error", {}).get("Code") in BAD_CREDENTIALS
        return _complain(*((_credentials(error), UNREACHABLE) if bad else (f"AWS refused: {error}", REFUSED)))
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError) as error:
        return _complain(_credentials(error), UNREACHABLE)
    except ConnectionError as error:
        return _complain(
            f"AWS does not answer: {error} (check the network, the Region and AWS_ENDPOINT_URL)", UNREACHABLE
        )
    except BotoCoreError as error:
        return _complain(f"the call to AWS failed: {error}", UNREACHABLE)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _complain(str(error), REFUSED)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        return _complain(f"unexpected {type(error).__name__}: {error} ({DEBUG}=1 shows where)", REFUSED)
    if answer is None:
        return DONE
    _print(answer, as_json=as_json)
    return answer.code


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


def _complain(message: str, code: int) -> int:
    say(f"trainyard: {message}")
    return code
