"""The HTTP API in the demo: a user of each tenant and an operator, and what they see."""

import json
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OPERATOR = "operator"
SECONDS_MAX = 30


@dataclass(frozen=True)
class Login:
    """A user of the API."""

    name: str
    """Of the tenant, or OPERATOR."""
    email: str
    password: str
    token: str


@dataclass(frozen=True)
class Seen:
    """What a user sees of a tenant: the ids of its requests, or None where there seems to be no such tenant."""

    by: str
    tenant: str
    requests: frozenset[str] | None


def logins(deployment: Any, tenants: Iterable[str]) -> list[Login]:
    """Make a user for each tenant, who may change what is its own, and an operator."""
    password = f"Demo-{secrets.token_urlsafe(12)}-1a"
    users = [(OPERATOR, "operators"), *((name, "tenant-admins") for name in tenants)]
    return [_login(deployment, name, group, password) for name, group in users]


def _login(deployment: Any, name: str, group: str, password: str) -> Login:
    users, pool, email = deployment.client("cognito-idp"), deployment.outputs["ApiUsers"], f"{name}@example.com"
    attributes = {"email": email} | ({} if name == OPERATOR else {"custom:tenant": name})
    named = [{"Name": key, "Value": value} for key, value in attributes.items()]
    users.admin_create_user(UserPoolId=pool, Username=email, UserAttributes=named, MessageAction="SUPPRESS")
    users.admin_set_user_password(UserPoolId=pool, Username=email, Password=password, Permanent=True)
    users.admin_add_user_to_group(UserPoolId=pool, Username=email, GroupName=group)
    answer = users.initiate_auth(
        ClientId=deployment.outputs["ApiClient"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": email, "PASSWORD": password},
    )
    return Login(name, email, password, answer["AuthenticationResult"]["IdToken"])


def seen(deployment: Any, users: Iterable[Login], tenants: Iterable[str]) -> list[Seen]:
    """Let each user list the requests of each tenant."""
    address, names = deployment.outputs["ApiAddress"], list(tenants)
    return [Seen(user.name, name, _requests(address, user, name)) for user in users for name in names]


def _requests(address: str, user: Login, tenant: str) -> frozenset[str] | None:
    ids: set[str] = set()
    cursor: str | None = None
    while True:
        query = urllib.parse.urlencode({"limit": 100} | ({"cursor": cursor} if cursor else {}))
        url = f"{address}/v1/tenants/{tenant}/requests?{query}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {user.token}"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
                page = json.loads(response.read())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        ids |= {item["request_id"] for item in page["items"]}
        cursor = page["next"]
        if cursor is None:
            return frozenset(ids)
