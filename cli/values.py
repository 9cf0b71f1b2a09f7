"""Values of options that have a name: NAME=VALUE."""

import json
from typing import Any

from trainyard.domain.errors import Refused


def hyperparameter(text: str) -> tuple[str, Any]:
    """Return name and value of a hyperparameter, the value of the type that JSON gives it, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Refused(f"--hyperparameter {text!r}: write NAME=VALUE, for example max_iter=200")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
