"""The users of the HTTP API and the console, in the deployment's user pool."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from secrets import token_urlsafe
from typing import Any

from botocore.exceptions import ClientError

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.show import Answer
from cli.text import counted
from trainyard.adapters.aws.users import CognitoUsers
from trainyard.contracts.claims import GROUP_OF, GROUPS, TENANT_CLAIM
from trainyard.domain.api_keys import key_id_of, user_name_of
from trainyard.domain.errors import Refused
from trainyard.domain.principals import Role
from trainyard.domain.tenants import TenantState
from trainyard.persistence.api_keys import StoredKeys

OF_TENANTS = (Role.TENANT_ADMIN, Role.TENANT_READER)
STATES = {"CONFIRMED": "active", "FORCE_CHANGE_PASSWORD": "invited", "RESET_REQUIRED": "must reset the password"}
PAGE = 60
EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,63}")


def list_users(deployment: Deployment, arguments: Arguments) -> Answer:
    """List the users, with their roles; API keys are only counted."""
    if arguments.tenant is not None:
        deployment.tenant(arguments.tenant)
    roles = _roles(deployment)
    everybody = [_view(user, roles) for user in _users(deployment)]
    keys = [user for user in everybody if key_id_of(user["user"]) is not None]
    people = [user for user in everybody if key_id_of(user["user"]) is None]
    if arguments.tenant is not None:
        people = [user for user in people if user["tenant"] == arguments.tenant]
    people.sort(key=lambda user: user["user"])
    is_all = arguments.tenant is None
    return Answer(
        data=people,
        columns=("USER", "ROLE", "TENANT", "STATE", "CREATED"),
        rows=[
            (user["user"], user["role"], user["tenant"], user["state"], f"{user['created_at']:%Y-%m-%d %H:%M}")
            for user in people
        ],
        lines=[f"and {counted(len(keys), 'API key')} of tenants"] if keys and is_all else [],
    )


def create(deployment: Deployment, arguments: Arguments) -> Answer:
    """Make a user, or give one that exists another role or tenant."""
    role, email = Role(arguments.role), _email(arguments)
    tenant_id = _tenant_for(deployment, role, arguments.tenant)
    # Whoever is invited there may also choose another password by a code that is sent there.
    attributes = {"email": email, "email_verified": "true"} | ({TENANT_CLAIM: tenant_id} if tenant_id else {})
    named = [{"Name": name, "Value": value} for name, value in attributes.items()]
    password = _temporary_password()
    mail: dict[str, Any] = {"DesiredDeliveryMediums": ["EMAIL"]}
    if arguments.no_mail:
        mail = {"MessageAction": "SUPPRESS", "TemporaryPassword": password}
    try:
        _do(deployment, "admin_create_user", email, UserAttributes=named, **mail)
        is_new, former, keys = True, {}, []
    except ClientError as error:
        if error.response["Error"]["Code"] != "UsernameExistsException":
            raise
        is_new = False
        # Without a role in between: nobody has the role that was for one tenant in the other.
        former, keys = _existing(deployment, email), _keys_made_by(deployment, email)
        _leave_groups(deployment, email)
        _move(deployment, email, tenant_id)
    _add_to_group(deployment, email, GROUP_OF[role])
    of_tenant = f" of {tenant_id}" if tenant_id else ""
    line = f"{email} is {role.value}{of_tenant}"
    if not is_new:
        line += f", and was {_described(former)}; tokens that are valid now stay as they are for up to 30 minutes"
    elif not arguments.no_mail:
        line += "; Cognito sends a temporary password by e-mail, valid for seven days"
    data = {"user": email, "role": role.value, "tenant": tenant_id, "created": is_new}
    return Answer(
        data=data | {"temporary_password": password if is_new and arguments.no_mail else None},
        lines=[line, *keys],
        verbatim=_handed_over(password) if is_new and arguments.no_mail else [],
    )


def reset(deployment: Deployment, arguments: Arguments) -> Answer:
    """Give a user a temporary password, and let go of the authenticator."""
    email = _email(arguments)
    _existing(deployment, email)
    password = _temporary_password()
    _do(deployment, "admin_set_user_password", email, Password=password, Permanent=False)
    _do(deployment, "admin_user_global_sign_out", email)
    _remove_authenticator(deployment, email)
    return Answer(
        data={"user": email, "temporary_password": password},
        lines=[
            f"{email} has to choose a password, and has no authenticator any more",
            "a token that is valid now stays so for up to 30 minutes",
        ],
        verbatim=_handed_over(password),
    )


def _remove_authenticator(deployment: Deployment, email: str) -> None:
    none = {"Enabled": False, "PreferredMfa": False}
    try:
        _do(deployment, "admin_set_user_mfa_preference", email, SoftwareTokenMfaSettings=none)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidParameterException":  # there is none
            raise


def delete(deployment: Deployment, arguments: Arguments) -> Answer:
    """Delete a user, or revoke an API key; only with --yes, else say what would be deleted."""
    key_id = key_id_of(str(arguments.email))
    if key_id is not None:
        return _revoke(deployment, key_id, bool(arguments.yes))
    email = _email(arguments)
    user, keys = _existing(deployment, email), _keys_made_by(deployment, email)
    if arguments.yes:
        _do(deployment, "admin_delete_user", email)
        line = f"{email} is deleted; a token that is valid now stays so for up to 30 minutes"
    else:
        line = f"would be deleted: {email}, {_described(user)}; add --yes to do it"
    return Answer(data={"user": email, "deleted": bool(arguments.yes)}, lines=[line, *keys])


def _revoke(deployment: Deployment, key_id: str, is_asked: bool) -> Answer:
    """Revoke an API key; only if that is asked for, else say what would be revoked."""
    name = user_name_of(key_id)
    tenant_id = _existing(deployment, name)["tenant"]
    if is_asked:
        # The record first: from then on it is refused, and while its user is there this can be done again.
        StoredKeys(deployment.store).forget(tenant_id, key_id)
        CognitoUsers(pool_id=_pool(deployment)).delete_key(key_id)
        line = f"{name}, an API key of {tenant_id}, is revoked"
    else:
        line = f"would be revoked: {name}, an API key of {tenant_id}; add --yes to do it"
    return Answer(data={"user": name, "deleted": is_asked}, lines=[line])


def _described(user: dict[str, Any]) -> str:
    of_tenant = f" of {user['tenant']}" if user["tenant"] else ""
    return f"{user['role'] or 'without a role'}{of_tenant}"


def _email(arguments: Arguments) -> str:
    """Return the e-mail address that was given; raises Refused for a text that is none."""
    text = str(arguments.email).lower()  # to the pool, letters are alike in both cases
    if EMAIL.fullmatch(text) is None or not text.isprintable() or text.endswith(".invalid"):
        raise Refused(f"{text!r} is not an e-mail address")
    if key_id_of(text) is not None:
        raise Refused(f"{text} is an API key, which has neither role nor password to change")
    return text


def _tenant_for(deployment: Deployment, role: Role, tenant_id: str | None) -> str | None:
    if role in OF_TENANTS and tenant_id is None:
        raise Refused(f"{role.value}s belong to a tenant: add --tenant ID")
    if role not in OF_TENANTS and tenant_id is not None:
        raise Refused(f"{role.value}s belong to no tenant: leave --tenant out, or choose a role of tenants")
    if tenant_id is None:
        return None
    tenant = deployment.tenant(tenant_id)
    if tenant.state in (TenantState.DELETING, TenantState.DELETED):
        raise Refused(f"tenant {tenant_id} is {tenant.state.value.lower()}: its next one would get the user")
    return tenant_id


def _move(deployment: Deployment, email: str, tenant_id: str | None) -> None:
    """Let a user that exists belong to a tenant, or to none."""
    if tenant_id is not None:
        attribute = {"Name": TENANT_CLAIM, "Value": tenant_id}
        _do(deployment, "admin_update_user_attributes", email, UserAttributes=[attribute])
    elif _existing(deployment, email)["tenant"]:
        _do(deployment, "admin_delete_user_attributes", email, UserAttributeNames=[TENANT_CLAIM])


def _add_to_group(deployment: Deployment, email: str, group: str) -> None:
    _do(deployment, "admin_add_user_to_group", email, GroupName=group)


def _leave_groups(deployment: Deployment, email: str) -> None:
    for group in _do(deployment, "admin_list_groups_for_user", email)["Groups"]:
        _do(deployment, "admin_remove_user_from_group", email, GroupName=group["GroupName"])


def _keys_made_by(deployment: Deployment, email: str) -> list[str]:
    """Return lines about the API keys that a user has made, and that go on without the user."""
    tenant_id = _existing(deployment, email)["tenant"]
    keys = StoredKeys(deployment.store).of_tenant(tenant_id) if tenant_id else []
    now = datetime.now(UTC)
    names = [key.name for key in keys if key.is_valid(now) and key.created_by.endswith(f" {email}")]
    if not names:
        return []
    return [f"{counted(len(names), 'API key')} that {email} made stay valid until revoked: {', '.join(names)}"]


def _existing(deployment: Deployment, email: str) -> dict[str, Any]:
    try:
        user = _do(deployment, "admin_get_user", email)
    except ClientError as error:
        if error.response["Error"]["Code"] != "UserNotFoundException":
            raise
        raise Refused(f"there is no user {email}; `trainyard user list` shows them") from error
    groups = {group["GroupName"] for group in _do(deployment, "admin_list_groups_for_user", email)["Groups"]}
    role = next((role.value for group, role in GROUPS.items() if group in groups), None)
    return _view({**user, "Attributes": user["UserAttributes"]}, {user["Username"]: role})


def _view(user: dict[str, Any], roles: dict[str, str | None]) -> dict[str, Any]:
    attributes = {each["Name"]: each["Value"] for each in user.get("Attributes", [])}
    created_at: datetime = user["UserCreateDate"]
    return {
        "user": attributes.get("email", user["Username"]),
        "role": roles.get(user["Username"]),
        "tenant": attributes.get(TENANT_CLAIM),
        "state": STATES.get(user["UserStatus"], user["UserStatus"].lower()) if user["Enabled"] else "disabled",
        "created_at": created_at,
    }


def _users(deployment: Deployment) -> Iterator[dict[str, Any]]:
    yield from _paged(deployment, "list_users", "Users")


def _roles(deployment: Deployment) -> dict[str, str | None]:
    """Return the name of each user → its role: of several groups, the one that may do most counts."""
    roles: dict[str, str | None] = {}
    for group, role in GROUPS.items():
        for user in _paged(deployment, "list_users_in_group", "Users", GroupName=group):
            roles.setdefault(user["Username"], role.value)
    return roles


def _paged(deployment: Deployment, operation: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    pages = deployment.client("cognito-idp").get_paginator(operation)
    for page in pages.paginate(UserPoolId=_pool(deployment), PaginationConfig={"PageSize": PAGE}, **arguments):
        yield from page[key]


def _do(deployment: Deployment, operation: str, email: str, **arguments: Any) -> Any:
    call = getattr(deployment.client("cognito-idp"), operation)
    return call(UserPoolId=_pool(deployment), Username=email, **arguments)


def _pool(deployment: Deployment) -> str:
    pool = deployment.outputs.get("ApiUsers", "")
    if not pool:
        raise Refused(
            "this deployment has no user pool: deploy with HttpApi=true, or make users at the issuer ApiIssuer"
        )
    return pool


def _temporary_password() -> str:
    return f"Ty1-{token_urlsafe(12)}"  # as the pool's policy asks for


def _handed_over(password: str) -> list[str]:
    return [f"temporary password: {password}"]
