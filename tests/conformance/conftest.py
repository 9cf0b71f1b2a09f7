"""The stores for the conformance suite, and a local cloud for one of them."""

import os
from collections.abc import Callable, Iterator
from itertools import count

import boto3
import pytest
from moto import mock_aws

from local.cloud import Cloud
from testing.memory_store import MemoryStore
from tests.tables import create_tables, without_cloud
from trainyard.adapters.aws import clients
from trainyard.adapters.aws.store import DynamoStore
from trainyard.persistence.store import Store


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
    clients.forget()
    yield lambda: _empty_store(ministack_cloud)
    clients.forget()


@pytest.fixture(params=["memory", "moto", pytest.param("ministack", marks=pytest.mark.thorough)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Yield an empty store of each kind; its tables are those of the template."""
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "moto":
        with mock_aws():
            clients.forget()
            create_tables(boto3.client("dynamodb"))
            names = {f"{name}_table": name for name in TABLES}
            yield DynamoStore(**names)
        clients.forget()
    else:
        yield request.getfixturevalue("ministack_store")()


TABLES = ("scheduler", "requests", "record", "tenants")

_numbers = count()


def _empty_store(cloud: Cloud) -> DynamoStore:
    prefix = f"conformance-{os.getpid()}-{next(_numbers)}-"
    create_tables(cloud.client("dynamodb"), prefix=prefix)
    names = {f"{name}_table": f"{prefix}{name}" for name in TABLES}
    return DynamoStore(**names)
