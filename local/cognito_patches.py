"""Cognito as AWS has it.

MiniStack lets a client read and write attributes that its settings do not name, and cannot delete attributes.
"""

from typing import Any

Answer = dict[str, Any]


def keep_attributes_to_their_clients() -> None:
    """Leave attributes out of a client's tokens that it may not read, and refuse to write those that it may not.

    Without a list, a client may read and write standard attributes, and no custom ones (API reference,
    UserPoolClientType). Refused is what the documentation calls an unauthorized attribute.
    """
    from ministack.core.responses import error_response_json
    from ministack.services import cognito

    token, update = cognito._fake_token, cognito._update_user_attributes

    def fake_token(sub: str, pool_id: str, client_id: str, *rest: Any, **options: Any) -> Any:
        readable = _client(cognito, pool_id, client_id).get("ReadAttributes") or []
        attributes = options.get("user_attrs")
        if attributes:
            options["user_attrs"] = {name: text for name, text in attributes.items() if _allows(readable, name)}
        return token(sub, pool_id, client_id, *rest, **options)

    def update_user_attributes(data: Answer) -> Any:
        claims = cognito._token_claims(data.get("AccessToken", ""))
        pool_id = str(claims.get("iss", "")).rpartition("/")[2]
        writable = _client(cognito, pool_id, str(claims.get("client_id", ""))).get("WriteAttributes") or []
        if not all(_allows(writable, attribute["Name"]) for attribute in data.get("UserAttributes", [])):
            words = "A client attempted to write unauthorized attribute"
            return error_response_json("NotAuthorizedException", words, 400)
        return update(data)

    cognito._fake_token = fake_token
    cognito._update_user_attributes = update_user_attributes


def delete_attributes() -> None:
    """Answer AdminDeleteUserAttributes."""
    from ministack.core.responses import json_response
    from ministack.services import cognito

    dispatch = cognito._dispatch_idp

    def delete(data: Answer) -> Any:
        pool, error = cognito._resolve_pool(data.get("UserPoolId"))
        if error:
            return error
        user, error = cognito._resolve_user(pool, data.get("Username"))
        if error:
            return error
        names = data.get("UserAttributeNames", [])
        user["Attributes"] = [each for each in user.get("Attributes", []) if each["Name"] not in names]
        return json_response({})

    async def dispatch_idp(action: str, data: Answer) -> Any:
        return delete(data) if action == "AdminDeleteUserAttributes" else await dispatch(action, data)

    cognito._dispatch_idp = dispatch_idp


def _client(cognito: Any, pool_id: str, client_id: str) -> Answer:
    pool = cognito._user_pools.get(pool_id) or {}
    return dict(pool.get("_clients", {}).get(client_id) or {})


def _allows(names: list[str], name: str) -> bool:
    return name in names or name == "sub" if names else not name.startswith("custom:")
