from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.build import tenant
from tests.running_steps import container, image, prepare
from tests.tables import without_cloud

__all__ = ["container", "image", "prepare"]


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from without_cloud(monkeypatch)


@pytest.fixture
def s3(_no_cloud: None) -> Iterator[Any]:
    """Yield a client of an S3 in which acme has its versioned bucket."""
    with mock_aws():
        client = boto3.client("s3")
        bucket = tenant().bucket
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield client
