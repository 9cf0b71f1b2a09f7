"""A local cloud whose DynamoDB the conformance suite also runs over."""

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from local.cloud import Cloud
from tests.tables import create_tables, without_cloud
from trainyard.adapters.aws import clients
from trainyard.adapters.aws.store import DynamoStore


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from without_cloud(monkeypatch)


@pytest.fixture(scope="session")
def ministack_cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.fixture
def ministack_store(
    ministack_cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], DynamoStore]]:
    """Yield what makes an empty store in the cloud's DynamoDB."""
    for name, value in ministack_cloud.environment().items():
        monkeypatch.setenv(name, value)
    clients.client.cache_clear()
    yield lambda: _empty_store(ministack_cloud)
    clients.client.cache_clear()


_numbers = count()


def _empty_store(cloud: Cloud) -> DynamoStore:
    prefix = f"conformance-{os.getpid()}-{next(_numbers)}-"
    create_tables(cloud.client("dynamodb"), prefix=prefix)
    names = {f"{name}_table": f"{prefix}{name}" for name in ("scheduler", "requests", "record")}
    return DynamoStore(**names)
