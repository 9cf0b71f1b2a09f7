"""Resources that are not there: how the services say so, each in its own way."""

import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.errors import code_of, translated

ABSENT = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchCORSConfiguration",
        "NoSuchEntity",
        "NoSuchTagSet",
        "NotFound",
        "NotFoundException",
        "ResourceNotFound",
        "ResourceNotFoundException",
    }
)
_ABSENT_IN_WORDS = re.compile(r"does not exist|could not find|not found", re.IGNORECASE)
"""SageMaker answers ValidationException for a missing resource, as for many other errors."""


def remove(call: Callable[[], Any]) -> bool:
    """Remove something; False when it was not there."""
    return looked_up(call) is not None


def is_absent(error: ClientError) -> bool:
    """Tell whether an error means that the resource does not exist."""
    if code_of(error) == "ValidationException":
        return _ABSENT_IN_WORDS.search(str(error.response["Error"].get("Message", ""))) is not None
    return code_of(error) in ABSENT


def looked_up(call: Callable[[], Any]) -> Any:
    """Return the answer of a call, or None when the resource does not exist."""
    try:
        with translated():
            return call() or {}
    except ClientError as error:
        if is_absent(error):
            return None
        raise
