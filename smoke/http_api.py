"""A user of the HTTP API signs in, and sees what is its tenant's."""

import gzip
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from smoke.deployed import POOLED, SILO
from smoke.place import Suite
from smoke.steps import Step, StepFailed, eventually

EMAIL = "smoke@example.com"
GROUP = "tenant-readers"
ADMIN, OPERATOR = "smoke-admin@example.com", "smoke-operator@example.com"
OF_SERVICE = (
    "",
    "/queue",
    "/running",
    "/tenants?limit=5",
    "/policy",
    "/policies",
    "/costs",
    "/budgets",
    "/health",
    "/deployments",
    "/bulk-actions",
    "/dead-letters",
)


def http_api(suite: Suite) -> list[str]:
    """Make a user of a tenant, sign in, and call the API for that tenant, for another one, and without a token."""
    outputs, users = suite.deployment.outputs, suite.deployment.client("cognito-idp")
    tokens = _signed_in(suite, EMAIL, GROUP, SILO)
    me, _ = eventually(lambda: _get(suite, "/v1/me", tokens["IdToken"]), 120, "the API to answer", every=2)
    if me[0] != 200 or (me[1]["role"], me[1]["tenant_id"]) != ("tenant-reader", SILO):
        raise StepFailed(f"the API takes the token of {EMAIL}, of {SILO} in {GROUP}, for {me}")
    expected = {SILO: 200, POOLED: 404}
    answers = {name: _get(suite, f"/v1/tenants/{name}/requests", tokens["IdToken"]) for name in expected}
    statuses = {name: answer[0] if answer else None for name, answer in answers.items()}
    if statuses != expected:
        raise StepFailed(f"the API answers the requests of {SILO}, and of another tenant, by {statuses}")
    file = {"data_set": "churn", "name": "churn.csv", "size_bytes": 1_000_000}
    quote = _get(suite, f"/v1/tenants/{SILO}/quotes", tokens["IdToken"], file)
    if quote is None or quote[0] != 200 or quote[1]["waiting"]["position"] is None:
        raise StepFailed(f"the API answers what an upload would cost by {quote}")
    sets = _get(suite, f"/v1/tenants/{SILO}/data-sets", tokens["IdToken"])
    if sets is None or sets[0] != 200 or not sets[1]["items"]:
        raise StepFailed(f"the API lists the data sets of {SILO} by {sets}: its role may not act for a tenant")
    what_ran = _check_what_ran(suite, tokens["IdToken"], answers[SILO])
    _check_console(suite, outputs)
    service = _get(suite, "/v1/service", tokens["IdToken"])
    if service is None or service[0] != 404:
        raise StepFailed(f"the API answers what concerns several tenants by {service}")
    without = _get(suite, "/v1/me", "")
    if without is None or without[0] != 401:
        raise StepFailed(f"the API answers a request without a token by {without}")
    try:
        other = [{"Name": "custom:tenant", "Value": POOLED}]
        users.update_user_attributes(AccessToken=tokens["AccessToken"], UserAttributes=other)
    except users.exceptions.NotAuthorizedException:
        shown = answers[SILO]
        assert shown is not None
        usd = (quote[1]["expected"] or {}).get("usd")
        return [
            f"{len(shown[1]['items'])} requests of the tenant shown; another tenant's, and no token, refused",
            "the console's files are served, and browsers may upload from its origin",
            what_ran,
            f"an upload of 1 MB would cost about {usd} USD; its data sets: {len(sets[1]['items'])}",
        ]
    raise StepFailed("a user can change which tenant it belongs to")


def api_keys(suite: Suite) -> list[str]:
    """Make a key of a tenant, call the API with it, and revoke it."""
    admin = _signed_in(suite, ADMIN, "tenant-admins", SILO)["IdToken"]
    keys = f"/v1/tenants/{SILO}/keys"
    made, _ = eventually(lambda: _get(suite, keys, admin, {"name": "smoke", "days": 1}), 120, "a key", every=2)
    if made[0] != 201:
        raise StepFailed(f"the API makes a key of {SILO} by {made}: see the log of the users function")
    key = made[1]
    token = _token_of(suite, key["user_name"], key["secret"])["IdToken"]
    me = _get(suite, "/v1/me", token)
    if me is None or me[0] != 200 or (me[1]["role"], me[1]["tenant_id"]) != ("tenant-reader", SILO):
        raise StepFailed(f"the API takes the token of a key of {SILO} for {me}")
    revoked = _get(suite, f"{keys}/{key['key_id']}/revoke", admin, "")
    after = _get(suite, "/v1/me", token)
    if revoked is None or revoked[0] != 204 or after is None or after[0] != 403:
        raise StepFailed(f"a key is revoked by {revoked}, and its token taken by {after} afterwards")
    return ["a key of the tenant signed in, and was refused once it was revoked"]


def api_operators(suite: Suite) -> list[str]:
    """Sign in as an operator, and read all that concerns several tenants."""
    token = _signed_in(suite, OPERATOR, "operators", None)["IdToken"]
    for path in OF_SERVICE:
        answer, _ = eventually(lambda: _get(suite, f"/v1/service{path}", token), 120, "the API to answer", every=2)  # noqa: B023
        if answer[0] != 200:
            raise StepFailed(
                f"the API answers /v1/service{path} by {answer}: see the log of the operations function"
            )
    return [f"{len(OF_SERVICE)} lists of the service shown to an operator"]


def _signed_in(suite: Suite, email: str, group: str, tenant_id: str | None) -> Any:
    """Make a user, or give the one of an earlier run another password, and return its tokens."""
    users, pool = suite.deployment.client("cognito-idp"), suite.deployment.outputs["ApiUsers"]
    attributes = {"email": email} | ({"custom:tenant": tenant_id} if tenant_id else {})
    password = f"Aa1-{secrets.token_urlsafe(24)}"
    named = [{"Name": name, "Value": text} for name, text in attributes.items()]
    with suppress(users.exceptions.UsernameExistsException):  # of an earlier run
        users.admin_create_user(UserPoolId=pool, Username=email, UserAttributes=named, MessageAction="SUPPRESS")
    users.admin_set_user_password(UserPoolId=pool, Username=email, Password=password, Permanent=True)
    users.admin_add_user_to_group(UserPoolId=pool, Username=email, GroupName=group)
    return _token_of(suite, email, password)


def _token_of(suite: Suite, name: str, password: str) -> Any:
    return suite.deployment.client("cognito-idp").initiate_auth(
        ClientId=suite.deployment.outputs["ApiClient"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": name, "PASSWORD": password},
    )["AuthenticationResult"]


def _check_what_ran(suite: Suite, token: str, requests: tuple[int, Any] | None) -> str:
    """Read what a request of the tenant ran and printed, its events and its statement; return what was read."""
    assert requests is not None
    for path in ("statement", "events", "bulk-actions", "deployments", "keys", "algorithms"):
        answer = _get(suite, f"/v1/tenants/{SILO}/{path}", token)
        if answer is None or answer[0] != 200:
            raise StepFailed(f"the API answers {path} of {SILO} by {answer}")
    ended = [each["request_id"] for each in requests[1]["items"] if each["state"] == "SUCCEEDED"]
    if not ended:
        return "its statement and events are shown; no request has succeeded yet, whose steps could be"
    path = f"/v1/tenants/{SILO}/requests/{ended[0]}"
    attempts = _get(suite, f"{path}/attempts", token)
    if attempts is None or attempts[0] != 200 or not attempts[1]["items"][-1]["steps"]:
        raise StepFailed(f"the API answers what request {ended[0]} ran by {attempts}")
    log = _get(suite, f"{path}/logs?step=Train", token)
    if log is None or log[0] != 200:
        raise StepFailed(f"the API answers what request {ended[0]} printed by {log}")
    steps = attempts[1]["items"][-1]["steps"]
    return f"of request {ended[0][:8]}, {len(steps)} steps and {len(log[1]['items'])} lines of its training shown"


def _check_console(suite: Suite, outputs: Any) -> None:
    """Fetch the console and one of its files, and ask as a browser does whether files may be put from it."""
    for address, kind in (
        (outputs["ConsoleAddress"], "text/html"),
        (f"{outputs['ConsoleAddress']}/main.js", "text/javascript"),
    ):
        request = urllib.request.Request(address, headers={"Accept-Encoding": "gzip"})  # noqa: S310 - of our own API
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - of our own API
            if kind not in response.headers["Content-Type"] or b"<" not in gzip.decompress(response.read()):
                raise StepFailed(f"{address} is answered with {dict(response.headers)}")
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(outputs["ConsoleAddress"]))
    bucket = suite.deployment.tenant(SILO).bucket
    url = suite.deployment.client("s3").generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "x"})
    headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    preflight = urllib.request.Request(url, headers=headers, method="OPTIONS")  # noqa: S310 - of our own bucket
    try:
        with urllib.request.urlopen(preflight, timeout=60) as response:  # noqa: S310 - of our own bucket
            allowed = response.headers.get("Access-Control-Allow-Origin")
    except urllib.error.HTTPError as error:
        allowed = f"status {error.code}"
    if allowed not in (origin, "*"):
        raise StepFailed(f"browsers may not upload from {origin} to {bucket}: {allowed}; `tenant repair {SILO}`")


def _get(suite: Suite, path: str, token: str, body: Any = None) -> tuple[int, Any] | None:
    """Return status and body of an answer to a GET, or to a POST of a body; None while there is none.

    With "", nothing is posted.
    """
    address = f"{suite.deployment.outputs['ApiAddress']}{path}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    sent = None
    if body == "":
        sent = b""
    elif body is not None:
        sent, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(address, sent, headers)  # noqa: S310 - of our own API
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - of our own API
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except urllib.error.URLError:  # the name of a new API takes a moment
        return None


STEPS: Sequence[Step[Suite]] = (
    Step(
        name="http-api",
        does="sign in as a user of a tenant, and call the HTTP API for it, for another one, and without a token",
        means="the authorizer does not take the pool's tokens, passes groups in another form, or the client may "
        "not read the tenant: the log of the api function says what a token lacks.",
        run=http_api,
        minutes=5,
        jobs=0,
    ),
    Step(
        name="api-keys",
        does="make an API key of a tenant, sign in with it, and revoke it",
        means="the users function may not change the user pool, or the pool's password policy refuses the secret.",
        run=api_keys,
        minutes=3,
        jobs=0,
    ),
    Step(
        name="api-operators",
        does="sign in as an operator, and read all lists of the service",
        means="the operations function lacks a right: its log names the call and the resource.",
        run=api_operators,
        minutes=3,
        jobs=0,
    ),
)
