"""The AWS clients, built once each and only when needed, and a count of their calls."""

from collections import Counter
from functools import cache
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config

calls: Counter[str] = Counter()
"""Calls since the last `take_calls`, by "Service.Operation"; retries inside botocore count once."""

_CONFIG = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=2, read_timeout=10)
_OWN_CONFIG = {
    # Presigned URLs of other signature versions are refused by new buckets, and name the global host.
    "s3": Config(signature_version="s3v4"),
    # A model may take a minute to answer, and is loaded by the first call (API reference, InvokeEndpoint). Another
    # attempt would make it do the same work twice, and last longer than the functions that call.
    "sagemaker-runtime": Config(read_timeout=70, retries={"total_max_attempts": 1}),
    # Wait for a function as long as it may run, and never invoke it a second time.
    "lambda": Config(read_timeout=130, retries={"total_max_attempts": 1}),
}


_HURRIED = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})


@cache
def client(service: str, region: str | None = None, *, hurried: bool = False, waits: int | None = None) -> Any:
    """Return the client of a service, in the environment's region if none is named; the same for every caller.

    A `hurried` client tries once and times out within seconds: for calls that may be skipped. `waits` is how many
    seconds it waits for an answer, where that is not what calls of the service usually take.
    """
    config = _CONFIG.merge(_HURRIED if hurried else _OWN_CONFIG.get(service, Config()))
    if waits is not None:
        config = config.merge(Config(read_timeout=waits))
    with _building:
        built = _session().client(service, region_name=region, config=config)
    built.meta.events.register("before-call", _count)
    return built


def forget() -> None:
    """Discard all clients, so that they are rebuilt after a change of the environment."""
    client.cache_clear()
    _session.cache_clear()


def take_calls() -> Counter[str]:
    """Return the counted calls, and reset the counter."""
    with _counting:
        taken = Counter(calls)
        calls.clear()
        return taken


def _count(model: Any, **_: Any) -> None:
    with _counting:
        calls[f"{model.service_model.service_id}.{model.name}"] += 1


@cache
def _session() -> boto3.session.Session:
    """Return the one session, which reads once what all clients need: the regions and the services of AWS."""
    return boto3.session.Session()


_building, _counting = Lock(), Lock()
"""Building clients is not safe in threads (boto3 guide, "Multithreading"); using them is."""
