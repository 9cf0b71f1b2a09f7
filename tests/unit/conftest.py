from collections.abc import Iterator

import pytest

from tests.tables import without_cloud


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from without_cloud(monkeypatch)
