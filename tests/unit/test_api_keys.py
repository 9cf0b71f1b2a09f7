"""API keys: made once, listed without their secrets, checked with each call, revoked at once; and their users."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto import mock_aws

from testing.memory_store import MemoryStore
from tests.build import NOW, tenant
from tests.http_api import Api
from tests.tables import without_cloud
from tests.unit.test_functions import Context, load
from trainyard.adapters.aws import clients
from trainyard.adapters.aws.users import CognitoUsers
from trainyard.contracts.users_command import DeleteKey, DeleteUsers, MakeKey, parse_users_command
from trainyard.domain.api_keys import KEYS_MAX, ApiKey, key_id_of, user_name_of
from trainyard.domain.errors import Conflict, Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.domain.principals import Role
from trainyard.domain.tenants import TenantState
from trainyard.entrypoints import bootstrap
from trainyard.persistence.api_keys import StoredKeys

KEYS = "/v1/tenants/acme/keys"
ID = "0123456789abcdef"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def as_key(api: Api, key: ApiKey) -> None:
    """Let calls come from a program that has a key."""
    api.claims = {"email": key.user_name, "custom:tenant": key.tenant_id}


def test_a_key_is_made_and_its_secret_is_shown_once(api: Api) -> None:
    api.claims = {"email": "ada@example.com"}
    status, made = api.post(KEYS, {"name": "nightly upload", "role": "tenant-admin", "days": 30})
    assert status == 201
    assert made.pop("secret") == api.key_users.secrets[made["key_id"]]
    assert (made["name"], made["role"], made["last_used_at"]) == ("nightly upload", "tenant-admin", None)
    assert made["created_by"] == "tenant-admin ada@example.com"
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lasts == timedelta(days=30)
    assert key_id_of(made["user_name"]) == made["key_id"]
    assert api.get(KEYS) == (200, {"items": [made], "next": None})
    assert "secret" not in repr(api.store.items)


def test_without_more_a_key_reads_for_ninety_days(api: Api) -> None:
    status, made = api.post(KEYS, {"name": "n"})
    assert (status, made["role"]) == (201, "tenant-reader")
    days = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert days == timedelta(days=90)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"name": ""},
        {"name": "x" * 61},
        {"name": "a\nb"},
        {"name": "n", "role": "operator"},
        {"name": "n", "role": "viewer"},
        {"name": "n", "days": 0},
        {"name": "n", "days": 366},
        {"name": "n", "days": "30"},
        {"name": "n", "tenant_id": "acme1"},
    ],
)
def test_what_no_key_can_be_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    assert api.post(KEYS, wrong)[0] == 400
    assert not api.key_users.secrets


def test_a_key_reads_or_changes_as_its_role_says_and_its_use_is_noted(api: Api) -> None:
    key = api.make_key()
    as_key(api, key)
    assert api.get(KEYS)[0] == 200
    assert api.get("/v1/me")[1] == {"subject": "s", "role": "tenant-reader", "tenant_id": "acme"}
    assert api.post("/v1/tenants/acme/requests", {"data_set": "churn"}, "tenant-readers")[0] == 404
    (shown,) = api.get(KEYS)[1]["items"]
    assert datetime.now(UTC) - datetime.fromisoformat(shown["last_used_at"]) < timedelta(minutes=1)


def test_a_key_that_was_revoked_or_has_expired_is_refused_at_once(api: Api) -> None:
    revoked, expired = api.make_key(), api.make_key(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    api.make_key("acme1", key_id="a" * 16)
    assert api.post(f"{KEYS}/{revoked.key_id}/revoke") == (204, None)
    assert revoked.key_id not in [each["key_id"] for each in api.get(KEYS)[1]["items"]]
    other = ApiKey(**{name: getattr(revoked, name) for name in ApiKey.__slots__} | {"key_id": "a" * 16})
    for key in (revoked, expired, other):
        as_key(api, key)
        for path in ("/v1/me", KEYS, "/v1/tenants/acme/requests"):
            status, problem = api.get(path)
            assert (status, problem["detail"]) == (403, "the API key was revoked, or has expired")


def test_a_token_with_another_role_than_its_key_is_refused(api: Api) -> None:
    as_key(api, api.make_key(role=Role.TENANT_READER))
    assert api.get(KEYS, "tenant-admins")[0] == 403


def test_a_key_makes_and_revokes_no_keys(api: Api) -> None:
    key = api.make_key(role=Role.TENANT_ADMIN)
    as_key(api, key)
    for path, body in ((KEYS, {"name": "n"}), (f"{KEYS}/{key.key_id}/revoke", None)):
        status, problem = api.post(path, body)
        assert (status, "a key cannot do that" in problem["detail"]) == (409, True)
    counted = {update.key.pk for update in api.counted}
    assert counted == {f"calls#key#{key.key_id}", "calls#tenant#acme"}, "nothing of what users may do is used up"
    assert api.api_keys.keys.get("acme", key.key_id) is not None


def test_a_key_is_nothing_to_the_service(api: Api) -> None:
    as_key(api, api.make_key(role=Role.TENANT_ADMIN))
    assert api.get("/v1/service", "tenant-admins")[0] == 404


def test_a_tenant_has_so_many_keys(api: Api) -> None:
    keys = [api.make_key() for _ in range(KEYS_MAX)]
    status, problem = api.post(KEYS, {"name": "n"})
    assert (status, f"{KEYS_MAX} keys, which is the most" in problem["detail"]) == (409, True)
    assert api.post(f"{KEYS}/{keys[0].key_id}/revoke")[0] == 204
    assert api.post(KEYS, {"name": "n"})[0] == 201
    assert api.post("/v1/tenants/acme1/keys", {"name": "n"}, "operators")[0] == 201


def test_where_the_pool_is_busy_nothing_is_left_and_where_nobody_knows_it_can_be_revoked(api: Api) -> None:
    api.key_users.error = Throttled("busy")
    assert api.post(KEYS, {"name": "n"})[0] == 503
    assert api.get(KEYS)[1]["items"] == []
    api.key_users.error = OutcomeUnknown("lost")
    assert api.post(KEYS, {"name": "n"})[0] == 503
    (key,) = api.get(KEYS)[1]["items"]
    assert api.post(f"{KEYS}/{key['key_id']}/revoke")[0] == 503
    assert len(api.get(KEYS)[1]["items"]) == 1
    api.key_users.error = None
    assert api.post(f"{KEYS}/{key['key_id']}/revoke") == (204, None)


@pytest.mark.parametrize("state", [TenantState.SUSPENDED, TenantState.DELETING])
def test_a_tenant_that_is_suspended_or_leaves_gets_no_keys(api: Api, state: TenantState) -> None:
    api.tenants.put(tenant(state=state))
    status, problem = api.post(KEYS, {"name": "n"})
    assert (status, f"is {state.value}" in problem["detail"]) == (409, True)


def test_calls_of_a_key_that_is_not_valid_use_up_nothing_of_its_tenant(api: Api) -> None:
    key = api.make_key(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    as_key(api, key)
    api.get(KEYS)
    assert {update.key.pk for update in api.counted} == {f"calls#key#{key.key_id}"}


def test_a_token_that_is_older_than_its_tenant_is_of_an_earlier_one(api: Api) -> None:
    created = datetime(2026, 11, 29, 12, 0, 0, 500_000, tzinfo=UTC)
    api.tenants.put(tenant(created_at=created))
    for age, status in ((1, 403), (0, 200), (-1, 200)):
        api.claims = {"iat": str(int(created.timestamp()) - age)}
        assert api.get(KEYS)[0] == status
        assert api.get(KEYS, "operators")[0] == 200, "operators belong to no tenant"
    for unknown in ("", "1.7e9", "-5", "9" * 40):
        api.claims = {"iat": unknown}
        assert api.get(KEYS)[0] == 200


def test_without_a_user_pool_there_are_no_keys(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "api_keys", type(api.api_keys)(keys=api.api_keys.keys, users=None))
    assert api.get(KEYS) == (200, {"items": [], "next": None})
    status, problem = api.post(KEYS, {"name": "n"})
    assert (status, "your identity provider" in problem["detail"]) == (409, True)


def test_a_use_that_cannot_be_noted_fails_no_call(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    as_key(api, api.make_key())

    def throttled(*_: Any) -> None:
        raise Throttled("busy")

    monkeypatch.setattr(api.store, "transact", throttled)
    assert api.get("/v1/me")[0] == 200


def test_the_use_of_a_key_is_noted_once_an_hour_and_never_makes_it_again() -> None:
    keys = StoredKeys(MemoryStore())
    key = ApiKey(
        key_id=ID,
        tenant_id="acme",
        name="n",
        role=Role.TENANT_READER,
        created_at=NOW,
        created_by="a",
        expires_at=NOW + timedelta(days=1),
    )
    keys.note_use(key, NOW)
    assert keys.get("acme", ID) is None, "it was revoked"
    keys.add(key)
    with pytest.raises(Conflict):
        keys.add(replace(key, role=Role.TENANT_ADMIN))
    assert keys.get("acme", ID) == key
    noted = []
    for minutes in (0, 59, 61):
        present = keys.get("acme", ID)
        assert present is not None
        keys.note_use(present, NOW + timedelta(minutes=minutes))
        noted.append(keys.get("acme", ID).last_used_at - NOW)  # type: ignore[union-attr,operator]
    assert noted == [timedelta(0), timedelta(0), timedelta(minutes=61)]


@pytest.mark.parametrize(
    "name",
    [
        "key-0123456789abcdef@keys.invalid.example.com",
        "key-0@keys.invalid",
        "xkey-0123456789abcdef@keys.invalid",
        "",
    ],
)
def test_a_person_is_no_key(name: str) -> None:
    assert key_id_of(name) is None


@pytest.mark.parametrize(
    ("event", "command"),
    [
        (
            {"make_key": ID, "tenant_id": "acme", "role": "tenant-admin"},
            MakeKey(make_key=ID, tenant_id="acme", role=Role.TENANT_ADMIN),
        ),
        ({"delete_key": ID}, DeleteKey(delete_key=ID)),
        ({"delete_users_of": "acme"}, DeleteUsers(delete_users_of="acme")),
    ],
)
def test_commands_of_the_users_function_are_read(event: dict[str, Any], command: object) -> None:
    assert parse_users_command(event) == command


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"make_key": ID, "tenant_id": "acme", "role": "operator"},
        {"make_key": ID, "tenant_id": "acme", "role": "viewer"},
        {"make_key": "ada@example.com", "tenant_id": "acme", "role": "tenant-admin"},
        {"make_key": ID, "role": "tenant-admin"},
        {"make_key": ID, "tenant_id": "Acme*", "role": "tenant-admin"},
        {"delete_key": "ada@example.com"},
        {"delete_key": ID, "group": "operators"},
        {"delete_users_of": ""},
    ],
)
def test_the_users_function_makes_nobody_but_keys_of_tenants(event: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_users_command(event)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield from _pool(monkeypatch)


def _pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    for _ in without_cloud(monkeypatch):
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with mock_aws():
            cognito = clients.client("cognito-idp")
            schema = [{"Name": "tenant", "AttributeDataType": "String", "Mutable": True}]
            made = cognito.create_user_pool(PoolName="p", Schema=schema, UsernameAttributes=["email"])
            pool_id = made["UserPool"]["Id"]
            for group in ("tenant-admins", "tenant-readers"):
                cognito.create_group(UserPoolId=pool_id, GroupName=group)
            yield cognito, pool_id


def test_the_user_of_a_key_belongs_to_its_tenant_and_group(pool: Any) -> None:
    cognito, pool_id = pool
    users = CognitoUsers(pool_id=pool_id)
    first = users.make_key(ID, "acme", Role.TENANT_READER)
    assert users.make_key(ID, "acme", Role.TENANT_READER) != first, "one that is there gets another secret"
    client = cognito.create_user_pool_client(UserPoolId=pool_id, ClientName="c")["UserPoolClient"]["ClientId"]
    groups = cognito.admin_list_groups_for_user(UserPoolId=pool_id, Username=user_name_of(ID))["Groups"]
    assert [group["GroupName"] for group in groups] == ["tenant-readers"]
    secret = users.make_key(ID, "acme", Role.TENANT_READER)
    assert any(map(str.isupper, secret))
    assert any(map(str.isdigit, secret))
    assert any(not each.isalnum() for each in secret)
    signed_in = cognito.initiate_auth(
        ClientId=client,
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": user_name_of(ID), "PASSWORD": secret},
    )
    assert "IdToken" in signed_in["AuthenticationResult"]
    for _ in range(2):
        users.delete_key(ID)
    assert cognito.list_users(UserPoolId=pool_id)["Users"] == []


def test_all_users_of_a_tenant_are_deleted_and_nobody_else(pool: Any) -> None:
    cognito, pool_id = pool
    users = CognitoUsers(pool_id=pool_id)
    for number in range(130):
        owner = ("acme", "acme1", "")[number % 3]
        attributes = {"email": f"u{number}@example.com"} | ({"custom:tenant": owner} if owner else {})
        cognito.admin_create_user(
            UserPoolId=pool_id,
            Username=f"u{number}@example.com",
            UserAttributes=[{"Name": name, "Value": value} for name, value in attributes.items()],
        )
    users.make_key(ID, "acme", Role.TENANT_READER)
    cognito.create_group(UserPoolId=pool_id, GroupName="operators")
    cognito.admin_add_user_to_group(UserPoolId=pool_id, Username="u0@example.com", GroupName="operators")
    deleted, after, calls = 0, None, 0
    while calls == 0 or after:
        part, after = users.delete_of_tenant("acme", after, out_of_time=lambda: True)
        deleted, calls = deleted + part, calls + 1
    assert (deleted, calls) == (44, 3), "page by page; an operator stays, whatever tenant it was of"
    assert users.delete_of_tenant("acme", None) == (0, None)
    pages = cognito.get_paginator("list_users").paginate(UserPoolId=pool_id)
    assert len([user for page in pages for user in page["Users"]]) == 131 - 44


class PoolUsers:
    """Users of a pool by tenant, a page for each of two calls."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def delete_of_tenant(self, tenant_id: str, after: str | None, out_of_time: Any) -> tuple[int, str | None]:
        out_of_time()
        return 1, None if after else "further"

    def delete_key(self, key_id: str) -> None:
        self.deleted.append(key_id)


@pytest.mark.parametrize("state", list(TenantState))
def test_users_are_deleted_in_parts_and_only_of_a_tenant_that_leaves(
    api: Api, monkeypatch: pytest.MonkeyPatch, state: TenantState
) -> None:
    users, function = PoolUsers(), load("users")
    key = api.make_key()
    api.tenants.put(tenant(state=state))
    monkeypatch.setattr(bootstrap, "pool_users", lambda: users)
    monkeypatch.setattr(bootstrap, "stored_keys", lambda: api.api_keys.keys)
    command = {"delete_users_of": "acme"}
    if state not in (TenantState.DELETING, TenantState.DELETED):
        with pytest.raises(Refused, match="its users stay"):
            function.handler(command, Context())
        assert api.api_keys.keys.get("acme", key.key_id) is not None
        return
    assert function.handler(command, Context()) == {"deleted": 1, "is_complete": False}
    assert users.deleted == []
    assert function.handler(command, Context()) == {"deleted": 1, "is_complete": True}
    assert users.deleted == [key.key_id]
    assert api.api_keys.keys.of_tenant("acme") == []
    assert api.api_keys.keys.deletion("acme") is None
