"""Users and API keys: made, changed and deleted, by the command line, the HTTP API, and with their tenant."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_api import PASSWORD, get, post, user
from tests.e2e.test_tenants import WINE
from trainyard.domain.requests import State

Capture = pytest.CaptureFixture[str]


def signed_in(harness: Harness, name: str, password: str) -> Any:
    """Sign in as a program or a person does."""
    return harness.cloud.client("cognito-idp").initiate_auth(
        ClientId=harness.outputs["ApiClient"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": name, "PASSWORD": password},
    )


def token_of(harness: Harness, name: str, password: str) -> str:
    return str(signed_in(harness, name, password)["AuthenticationResult"]["IdToken"])


def printed(harness: Harness, capsys: Capture, *command: str) -> Any:
    capsys.readouterr()
    assert harness.run("user", *command, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_program_trains_with_a_key_until_it_is_revoked(harness: Harness) -> None:
    harness.put(harness.create("keyholder"), "incoming/wine/wine.csv", WINE)
    harness.ended("keyholder")
    admin = user(harness, "keyholder-admin", "tenant-admins", "keyholder")["IdToken"]
    keys = "/v1/tenants/keyholder/keys"
    status, made = post(harness, keys, admin, {"name": "nightly", "role": "tenant-admin", "days": 1})
    assert status == 201, made
    token = token_of(harness, made["user_name"], made["secret"])
    assert get(harness, "/v1/me", token)[1]["tenant_id"] == "keyholder"
    status, asked = post(harness, "/v1/tenants/keyholder/requests", token, {"data_set": "wine"})
    assert status == 202
    eventually(lambda: get(harness, f"/v1/tenants/keyholder/requests/{asked['request_id']}", token)[0] == 200)
    status, problem = post(harness, "/v1/tenants/keyholder/requests", token, {"data_set": "void"})
    assert (status, "data set void has no files" in problem["detail"]) == (409, True)
    assert post(harness, keys, token, {"name": "another"})[0] == 409
    assert get(harness, "/v1/service", token)[0] == 404
    (shown,) = get(harness, keys, admin)[1]["items"]
    assert (shown["key_id"], "secret" in shown) == (made["key_id"], False)
    assert shown["last_used_at"] is not None
    _, second = post(harness, keys, admin, {"name": "leaked"})
    assert harness.run("user", "delete", second["user_name"]) == 0
    assert len(get(harness, keys, admin)[1]["items"]) == 2
    assert harness.run("user", "delete", second["user_name"], "--yes") == 0
    assert [each["key_id"] for each in get(harness, keys, admin)[1]["items"]] == [made["key_id"]]
    assert post(harness, f"{keys}/{made['key_id']}/revoke", admin) == (204, None)
    assert get(harness, "/v1/me", token)[0] == 403
    with pytest.raises(Exception, match=r"NotAuthorized|UserNotFound"):
        signed_in(harness, made["user_name"], made["secret"])
    assert harness.ended("keyholder", 2)[-1].state is not State.FAILED


def test_users_and_keys_of_a_tenant_are_deleted_with_it(harness: Harness) -> None:
    harness.create("leaves")
    harness.create("leaves1")
    user(harness, "leaver", "tenant-admins", "leaves")
    stays = user(harness, "stayer", "tenant-admins", "leaves1")
    admin = token_of(harness, "leaver@example.com", PASSWORD)
    status, made = post(harness, "/v1/tenants/leaves/keys", admin, {"name": "nightly"})
    assert status == 201, made
    key = token_of(harness, made["user_name"], made["secret"])
    assert harness.run("tenant", "delete", "leaves", "--yes") == 0
    for name, password in (("leaver@example.com", PASSWORD), (made["user_name"], made["secret"])):
        with pytest.raises(Exception, match=r"NotAuthorized|UserNotFound"):
            signed_in(harness, name, password)
    assert token_of(harness, "stayer@example.com", PASSWORD)
    # The next tenant of that name is none of the former one's.
    harness.create("leaves")
    assert get(harness, "/v1/tenants/leaves", key)[0] == 403
    status, problem = get(harness, "/v1/tenants/leaves", admin)
    assert (status, "older than the tenant" in problem["detail"]) == (403, True)
    user(harness, "leaver", "tenant-admins", "leaves")
    assert get(harness, "/v1/tenants/leaves", token_of(harness, "leaver@example.com", PASSWORD))[0] == 200
    assert get(harness, "/v1/tenants/leaves1", stays["IdToken"])[0] == 200


def test_operators_make_change_reset_and_delete_users(harness: Harness, capsys: Capture) -> None:
    harness.create("staffed")
    email = "grace@example.com"
    made = printed(harness, capsys, "create", email, "--role", "tenant-reader", "--tenant", "staffed", "--no-mail")
    assert (made["created"], made["role"], made["tenant"]) == (True, "tenant-reader", "staffed")
    challenge = signed_in(harness, email, made["temporary_password"])
    assert challenge["ChallengeName"] == "NEW_PASSWORD_REQUIRED"
    (shown,) = printed(harness, capsys, "list", "--tenant", "staffed")
    assert (shown["user"], shown["role"], shown["state"]) == (email, "tenant-reader", "invited")
    harness.cloud.client("cognito-idp").admin_set_user_password(
        UserPoolId=harness.outputs["ApiUsers"], Username=email, Password=PASSWORD, Permanent=True
    )
    changed = printed(harness, capsys, "create", email, "--role", "operator")
    assert (changed["created"], changed["temporary_password"]) == (False, None)
    me = get(harness, "/v1/me", token_of(harness, email, PASSWORD))[1]
    assert (me["role"], me["tenant_id"]) == ("operator", None)
    assert printed(harness, capsys, "list", "--tenant", "staffed") == []
    reset = printed(harness, capsys, "reset", email)
    assert signed_in(harness, email, reset["temporary_password"])["ChallengeName"] == "NEW_PASSWORD_REQUIRED"
    assert printed(harness, capsys, "delete", email)["deleted"] is False
    assert email in [each["user"] for each in printed(harness, capsys, "list")]
    assert printed(harness, capsys, "delete", email, "--yes")["deleted"] is True
    assert email not in [each["user"] for each in printed(harness, capsys, "list")]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("create", "ada@example.com", "--role", "tenant-admin"), "belong to a tenant: add --tenant"),
        (("create", "ada@example.com", "--role", "viewer", "--tenant", "x"), "viewers belong to no tenant"),
        (("create", "ada@example.com", "--role", "tenant-admin", "--tenant", "absent"), "absent"),
        (("create", "ada", "--role", "viewer"), "'ada' is not an e-mail address"),
        (("create", "x@keys.invalid", "--role", "viewer"), "'x@keys.invalid' is not an e-mail address"),
        (("list", "--tenant", "absent"), "there is no tenant 'absent'"),
        (("reset", "nobody@example.com"), "there is no user nobody@example.com; `trainyard user list` shows"),
        (("delete", "key-0123456789abcdef@keys.invalid"), "there is no user key-0123456789abcdef@keys.invalid"),
    ],
)
def test_what_cannot_be_done_to_users_says_why(
    harness: Harness, capsys: Capture, command: tuple[str, ...], reason: str
) -> None:
    capsys.readouterr()
    assert harness.run("user", *command) == 1
    assert reason in capsys.readouterr().err
