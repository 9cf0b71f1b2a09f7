"""The HTTP API: every operation, by every role, on what is its own, another tenant's, and not there."""

import re
from itertools import product
from typing import Any

import pytest

from tests.http_api import OPERATIONS, Api

GROUPS = ("operators", "viewers", "tenant-admins", "tenant-readers")
MAY_CHANGE = ("operators", "tenant-admins")
READS_BY_POST = (
    "/v1/tenants/{tenant_id}/quotes",
    "/v1/service/policy/check",
    "/v1/service/policy/what-if",
)
NOT_FOUND = {
    "type": "about:blank",
    "title": "Not found",
    "status": 404,
    "detail": "There is nothing at this address, or nothing that you may see.",
}
IMPOSSIBLE = ("retry", "cancel", "logs")
TENANTS = ("acme", "acme1", "gone", "absent", "ACME", "acme/../acme1", "%61cme1", "acme1%00", "pool")
SERVICE_ACTION = "f" * 32
"""The id of a bulk action of the service."""
WAVE = "20261130-060000-a1b2c3"
OF_SERVICE = {
    "/v1/service": "",
    "/v1/service/queue": "?limit=5",
    "/v1/service/running": "",
    "/v1/service/ended": "?tier=basic&state=FAILED",
    "/v1/service/tenants": "",
    "/v1/service/policy": "",
    "/v1/service/policies": "",
    "/v1/service/policies/0": "",
    "/v1/service/costs": "?by=tier",
    "/v1/service/health": "",
    "/v1/service/deployments": "?limit=5",
    "/v1/service/budgets": "?limit=5",
    f"/v1/service/requests/{1:032x}/passes": "",
    "/v1/service/bulk-actions": "?limit=5",
    f"/v1/service/bulk-actions/{SERVICE_ACTION}": "",
    "/v1/service/calendar": "?hours=5",
    "/v1/service/waves": "?limit=5",
    f"/v1/service/waves/{WAVE}": "?limit=5",
    "/v1/service/dead-letters": "",
    "/v1/service/dead-letters/trainyard-status-dlq": "?reason=x&limit=5",
}
"""Path → what is asked for there: what concerns several tenants."""
CHANGES_OF_SERVICE = (
    "/v1/service/pause",
    "/v1/service/resume",
    "/v1/service/policy",
    "/v1/service/halt",
    f"/v1/service/requests/{1:032x}/expedite",
    "/v1/service/bulk-actions",
    f"/v1/service/bulk-actions/{SERVICE_ACTION}/abort",
    "/v1/service/waves",
    f"/v1/service/waves/{WAVE}/pause",
    f"/v1/service/waves/{WAVE}/resume",
    f"/v1/service/waves/{WAVE}/back",
    "/v1/service/dead-letters/trainyard-status-dlq/redrive",
    "/v1/service/dead-letters/trainyard-status-dlq/drop",
)
FILE = {"data_set": "churn", "name": "a.csv", "size_bytes": 1}
BODIES: dict[str, Any] = {
    "/v1/service/policy/check": {"text": "x: 1"},
    "/v1/service/policy/what-if": {"text": "x: 1"},
    "/v1/tenants/{tenant_id}/requests": {"data_set": "churn"},
    "/v1/tenants/{tenant_id}/data-sets/{data_set}/tunings/use": {"request_id": None},
    "/v1/tenants/{tenant_id}/quotes": FILE,
    "/v1/tenants/{tenant_id}/uploads": FILE,
    "/v1/tenants/{tenant_id}/uploads/{upload_id}/complete": {
        "data_set": "churn",
        "name": "a.csv",
        "parts": [{"number": 1, "etag": "e"}],
    },
    "/v1/tenants/{tenant_id}/uploads/{upload_id}/abort": {"data_set": "churn", "name": "a.csv"},
    "/v1/tenants/{tenant_id}/models/{version}/decision": {"decision": "approve"},
    "/v1/tenants/{tenant_id}/data-sets/{data_set}/predictions": {"rows": "a\n1\n"},
    **{path: {"what": "all"} for path in CHANGES_OF_SERVICE},
    "/v1/service/policy": {"text": "x: 1", "after": 0},
    f"/v1/service/requests/{1:032x}/expedite": {"reason": "x"},
    "/v1/service/requests/{request_id}/expedite": {"reason": "x"},
    "/v1/service/bulk-actions": {"action": "cancel", "state": "QUEUED"},
    f"/v1/service/bulk-actions/{SERVICE_ACTION}/abort": None,
    "/v1/service/waves": {"version": "linear@2", "dry_run": True},
    f"/v1/service/waves/{WAVE}/pause": {},
    f"/v1/service/waves/{WAVE}/resume": {"anyway": True},
    f"/v1/service/waves/{WAVE}/back": {"reason": "it is slow"},
    "/v1/service/waves/{wave_id}/pause": {},
    "/v1/service/waves/{wave_id}/resume": {},
    "/v1/service/waves/{wave_id}/back": {},
    "/v1/service/dead-letters/trainyard-status-dlq/redrive": {},
    "/v1/service/dead-letters/trainyard-status-dlq/drop": {"all": True},
    "/v1/service/dead-letters/{queue}/redrive": {},
    "/v1/service/dead-letters/{queue}/drop": {"all": True},
    "/v1/tenants/{tenant_id}/deployments/{data_set}/promote": {"version": "{version}"},
    "/v1/tenants/{tenant_id}/deployments/{data_set}/roll-back": {"version": "{version}"},
    "/v1/tenants/{tenant_id}/deployments/{data_set}/stop": {},
    "/v1/tenants/{tenant_id}/keys": {"name": "nightly"},
    "/v1/tenants/{tenant_id}/keys/{key_id}/revoke": None,
    "/v1/tenants/{tenant_id}/settings": {"data_set": "churn", "changes": {"priority": 3}},
    "/v1/tenants/{tenant_id}/bulk-actions": {"action": "cancel", "filter": {}, "dry_run": True},
    "/v1/tenants/{tenant_id}/bulk-actions/{action_id}/abort": None,
}
"""Path → what is sent there."""
PATTERNS = {
    f"{1:032x}": "{request_id}",
    "/0$": "/{version}",
    SERVICE_ACTION: "{action_id}",
    "trainyard-status-dlq": "{queue}",
    WAVE: "{wave_id}",
}
"""What paths name → how the description of the API names it."""
QUERIES = {"/v1/tenants/{tenant_id}/requests/{request_id}/logs": "?step=Train"}
"""Path → what a call of it needs after it."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def change_of(api: Api, tenant_id: str, number: int) -> str:
    """Begin a change of a tenant's settings."""
    change_id = f"{tenant_id}-{number:012x}"
    api.updates.start(change_id, {})
    return change_id


def body_of(path: str, things: dict[str, str]) -> Any:
    """Return what is sent to a path about what it names."""
    body = BODIES.get(path)
    return {"version": int(things["version"])} if body == {"version": "{version}"} else body


def as_described(path: str) -> str:
    """Return how the description of the API names a path."""
    for pattern, name in PATTERNS.items():
        path = re.sub(pattern, name, path)
    return path


def things_of(api: Api, tenant_id: str, number: int) -> dict[str, str]:
    """Make what paths name, of one tenant."""
    request = api.enlist(number, tenant_id=tenant_id)
    api.deploy(number, tenant_id, live=number, previous=number + 100)
    upload = api.storage.in_parts(api.tenants.get(tenant_id), "incoming/churn/a.csv", [1])  # type: ignore[arg-type]
    assert upload.upload_id is not None
    return {
        "request_id": request.request_id,
        "action_id": api.bulk_action(tenant_id, [request.request_id]).action_id,
        "version": str(number),
        "upload_id": upload.upload_id,
        "change_id": change_of(api, tenant_id, number),
        "queue": "trainyard-status-dlq",
        "wave_id": WAVE,
        "data_set": "churn",
        "key_id": api.make_key(tenant_id).key_id,
    }


def test_everybody_gets_what_the_role_may_see_and_others_what_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    of_tenants = [each for each in OPERATIONS if "{tenant_id}" in each[1]]
    others = {path for _, path, _ in OPERATIONS} - {path for _, path, _ in of_tenants}
    of_service = {as_described(path) for path in (*OF_SERVICE, *CHANGES_OF_SERVICE)}
    assert others == {"/v1/me", *READS_BY_POST[1:], *of_service}
    for (method, path, _), group in product(of_tenants, GROUPS):
        api = Api(monkeypatch)
        things = {"acme": things_of(api, "acme", 1), "acme1": things_of(api, "acme1", 2)}
        nothing = {
            "change_id": "0" * 32,
            "request_id": "0" * 32,
            "action_id": "0" * 32,
            "version": "9",
            "upload_id": "x",
            "data_set": "churn",
            "key_id": "0" * 15 + "f",
        }
        sees = {"operators": ("acme", "acme1"), "viewers": ("acme", "acme1")}.get(group, ("acme",))
        changes = method == "POST" and path not in READS_BY_POST
        for tenant_id, (owner, of_owner) in product(TENANTS, [*things.items(), ("", nothing)]):
            before = dict(api.store.items)
            called = path.format(tenant_id=tenant_id, **of_owner) + QUERIES.get(path, "")
            body = body_of(path, of_owner)
            status, answer = api.post(called, body, group) if method == "POST" else api.get(called, group)
            tried += 1
            is_allowed = tenant_id in sees and (not changes or group in MAY_CHANGE)
            is_its = owner == tenant_id or not set(of_owner) & {
                name
                for name in ("request_id", "action_id", "change_id", "version", "key_id")
                if f"{{{name}}}" in path
            }
            if not (is_allowed and is_its):
                assert (status, answer) == (404, NOT_FOUND), (method, called, group)
                assert api.store.items == before
            elif is_allowed and owner == tenant_id:
                # A waiting request cannot be tried again, cannot be cancelled twice, and has printed nothing.
                assert status in (200, 201, 202, 204) or (status == 409 and path.endswith(IMPOSSIBLE)), (
                    method,
                    called,
                    group,
                    answer,
                )
    with capsys.disabled():
        print(f"\n{tried} calls of {len(of_tenants)} operations of the HTTP API by role and tenant", end="")


def test_a_role_that_only_reads_changes_nothing(api: Api) -> None:
    things = things_of(api, "acme", 1)
    for group in ("viewers", "tenant-readers"):
        for method, path, _ in OPERATIONS:
            if method == "POST" and path not in READS_BY_POST:
                called = path.format(tenant_id="acme", **things)
                assert api.post(called, body_of(path, things), group) == (404, NOT_FOUND), (group, path)
    assert not api.retrainings.asked
    assert not api.predictions.asked
    assert not api.key_users.secrets
    assert api.packages.get(api.register(1).arn).is_pending  # type: ignore[union-attr]


@pytest.mark.parametrize("path", OF_SERVICE)
def test_what_concerns_several_tenants_is_the_providers(api: Api, path: str) -> None:
    api.bulk_action("_service", ["0" * 32], action_id=SERVICE_ACTION)
    api.wave(WAVE)
    for number, tenant_id in enumerate(("acme", "acme1"), start=1):
        things_of(api, tenant_id, number)
    for group in GROUPS:
        status, body = api.get(f"{path}{OF_SERVICE[path]}", group)
        if group in ("operators", "viewers"):
            assert status == 200
        else:
            assert (status, body) == (404, NOT_FOUND)


@pytest.mark.parametrize("path", CHANGES_OF_SERVICE)
def test_only_operators_change_what_concerns_several_tenants(api: Api, path: str) -> None:
    api.bulk_action("_service", ["0" * 32], action_id=SERVICE_ACTION)
    api.wave(WAVE)
    api.enlist(1)
    for group in GROUPS:
        before = dict(api.store.items)
        status, body = api.post(path, BODIES[path], group)
        if group == "operators":
            assert status in (200, 202, 204)
        else:
            assert (status, body, api.store.items) == (404, NOT_FOUND, before)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_there(api: Api, method: str) -> None:
    for _, path, _ in OPERATIONS:
        called = path.format(tenant_id="acme", **things_of(api, "acme", 1)) if "{" in path else path
        assert api.call(method, called, "operators")[0] == 404
