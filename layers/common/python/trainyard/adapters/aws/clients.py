"""The AWS clients, built once each and only when needed, and a count of their calls."""

from collections import Counter
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

calls: Counter[str] = Counter()
"""Calls since the last `take_calls`, by "Service.Operation"; retries inside botocore count once."""

_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 4}, connect_timeout=2, read_timeout=10, parameter_validation=False
)


@cache
def client(service: str) -> Any:
    """Return the client of a service; the same one for every caller."""
    built = boto3.session.Session().client(service, config=_CONFIG)
    built.meta.events.register("before-call", _count)
    return built


def take_calls() -> Counter[str]:
    """Return the counted calls, and begin again at nothing."""
    taken = Counter(calls)
    calls.clear()
    return taken


def _count(model: Any, **_: Any) -> None:
    calls[f"{model.service_model.service_id}.{model.name}"] += 1
