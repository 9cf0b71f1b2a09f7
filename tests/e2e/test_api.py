"""The HTTP API over HTTP: tokens of the deployment's user pool, and those that are none."""

import base64
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_tenants import WINE
from trainyard.domain.executions import month_of

CALLS = 190
"""More than a caller may make in nearly two windows, and fewer than API Gateway takes at once of all callers."""
PASSWORD = "Correct-horse-7-battery"


def user(harness: Harness, name: str, group: str, tenant_id: str | None = None) -> dict[str, str]:
    """Make a user, and return its tokens."""
    users, email = harness.cloud.client("cognito-idp"), f"{name}@example.com"
    pool = harness.outputs["ApiUsers"]
    attributes = {"email": email} | ({"custom:tenant": tenant_id} if tenant_id else {})
    named = [{"Name": key, "Value": value} for key, value in attributes.items()]
    users.admin_create_user(UserPoolId=pool, Username=email, UserAttributes=named, MessageAction="SUPPRESS")
    users.admin_set_user_password(UserPoolId=pool, Username=email, Password=PASSWORD, Permanent=True)
    users.admin_add_user_to_group(UserPoolId=pool, Username=email, GroupName=group)
    answer = users.initiate_auth(
        ClientId=harness.outputs["ApiClient"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": email, "PASSWORD": PASSWORD},
    )
    tokens: dict[str, str] = answer["AuthenticationResult"]
    return tokens


def get(harness: Harness, path: str, token: str | None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    request = urllib.request.Request(f"{harness.outputs['ApiAddress']}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def forged(token: str, **claims: Any) -> dict[str, str]:
    """Return tokens that were changed, or signed by nobody."""
    header, payload, signature = token.split(".")

    def encoded(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    said = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = encoded(said | claims)
    kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
    return {
        "other claims": f"{header}.{changed}.{signature}",
        "no algorithm": f"{encoded({'alg': 'none', 'kid': kid})}.{changed}.",
        "no signature": f"{header}.{payload}.",
        "another key": f"{encoded({'alg': 'RS256', 'kid': 'other'})}.{payload}.{signature}",
        "half of it": f"{header}.{payload}",
        "nonsense": "x.y.z",
        "nothing": "",
    }


def test_a_tenant_sees_its_requests_and_nobody_elses(harness: Harness) -> None:
    for tenant_id in ("caller", "caller1"):
        harness.put(harness.create(tenant_id), "incoming/wine/wine.csv", WINE)
    (own,), (foreign,) = harness.ended("caller"), harness.ended("caller1")
    reader = user(harness, "reader", "tenant-readers", "caller")
    operator = user(harness, "operator", "operators")["IdToken"]
    token = reader["IdToken"]
    assert get(harness, "/v1/me", token)[1]["tenant_id"] == "caller"

    def listed() -> bool:
        status, body = get(harness, "/v1/tenants/caller/requests?state=SUCCEEDED", token)
        return status == 200 and [item["request_id"] for item in body["items"]] == [own.request_id]

    eventually(listed)
    path = "/v1/tenants/{}/requests/{}"
    status, shown = get(harness, path.format("caller", own.request_id), token)
    written = harness.receipt(own)
    assert (status, shown) == (200, {name: value for name, value in written.items() if name != "written_at"})
    assert get(harness, path.format("caller1", foreign.request_id), operator)[0] == 200
    (books,) = harness.deployment.book.totals(month_of(datetime.now(UTC)), "caller")
    _, costs = get(harness, "/v1/tenants/caller/costs", token)
    assert (costs["total"]["runs"], Decimal(costs["total"]["usd"])) == (1, books.usd)
    assert books.usd > 0
    absent = get(harness, path.format("caller", "0" * 32), token)
    assert absent[0] == 404
    for foreign_path in (
        path.format("caller1", foreign.request_id),
        path.format("caller", foreign.request_id),
        "/v1/tenants/caller1/requests",
        "/v1/tenants/caller1/costs",
        "/v1/tenants/nobody/requests",
    ):
        assert get(harness, foreign_path, token) == absent, foreign_path
    for name, other in forged(token, **{"cognito:groups": ["operators"], "custom:tenant": "caller1"}).items():
        assert get(harness, "/v1/tenants/caller1/requests", other)[0] == 401, name
    assert get(harness, "/v1/me", None)[0] == 401
    assert get(harness, "/v1/me", reader["AccessToken"])[0] == 403, "it names no tenant"
    with pytest.raises(ClientError, match="unauthorized attribute"):
        harness.cloud.client("cognito-idp").update_user_attributes(
            AccessToken=reader["AccessToken"], UserAttributes=[{"Name": "custom:tenant", "Value": "caller1"}]
        )
    assert harness.run("tenant", "delete", "caller", "--yes") == 0
    assert get(harness, "/v1/tenants/caller/requests", token) == absent, "of a tenant that is deleted"


@pytest.mark.thorough
def test_a_burst_of_one_tenant_is_held_back_and_others_are_unharmed(harness: Harness) -> None:
    harness.create("bursting")
    token = user(harness, "burst", "tenant-readers", "bursting")["IdToken"]
    operator = user(harness, "calm", "operators")["IdToken"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: get(harness, "/v1/me", token), range(CALLS)))
    assert "Too many requests" in [body.get("title") for _, body in answers], "as fast as the local cloud takes it"
    assert get(harness, "/v1/me", operator)[0] == 200, "others are unharmed"
    eventually(lambda: get(harness, "/v1/me", token)[0] == 200)
