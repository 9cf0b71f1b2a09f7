"""How data has moved, by the HTTP API: read with the tenant's own credentials, and by a schema."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.http_api import NOT_MOVED, Api
from trainyard.domain.tenants import TenantState


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def column(name: str, index: float) -> dict[str, Any]:
    counts = {"counts": [5, 5], "missing": 0}
    band = "shifted" if index > 0.25 else "stable"
    return {"name": name, "kind": "number", "index": index, "band": band, "before": counts, "now": counts}


def test_the_columns_that_moved_farthest_come_first(api: Api) -> None:
    request = api.enlist(1)
    tenant = api.tenants.get("acme")
    assert tenant is not None
    report = NOT_MOVED | {
        "columns": [column(f"c{number}", number / 100) for number in range(150)],
        "absent": ["age"],
    }
    key = f"reports/{request.data_set}/{request.request_id}/profile/drift.json"
    api.results.objects[tenant.bucket, tenant.root + key] = json.dumps(report).encode()
    api.results.default = None
    status, answer = api.get(f"/v1/tenants/acme/requests/{request.request_id}/drift")
    assert status == 200
    shown = answer["report"]
    assert [each["name"] for each in shown["columns"]][:2] == ["c149", "c148"]
    assert (len(shown["columns"]), shown["is_complete"], shown["absent"]) == (100, False, ["age"])


def test_a_training_whose_data_was_not_compared_has_no_report(api: Api) -> None:
    request = api.enlist(1)
    api.results.default = None
    address = f"/v1/tenants/acme/requests/{request.request_id}/drift"
    assert api.get(address) == (200, {"report": None})
    assert api.get(address.replace(request.request_id, "f" * 32))[0] == 404


@pytest.mark.parametrize(
    "body", [b"[", b"{}", b"x" * 2_000_000, b'{"version": 2}'], ids=["broken", "empty", "too large", "version"]
)
def test_what_is_no_report_is_refused(api: Api, body: bytes) -> None:
    request = api.enlist(1)
    api.results.default = body
    assert api.get(f"/v1/tenants/acme/requests/{request.request_id}/drift")[0] == 409


def test_nothing_is_read_of_a_tenant_that_is_not_active(api: Api) -> None:
    request = api.enlist(1)
    owner = api.tenants.get("acme")
    assert owner is not None
    api.tenants.put(replace(owner, state=TenantState.SUSPENDED))
    assert api.get(f"/v1/tenants/acme/requests/{request.request_id}/drift")[0] == 409
