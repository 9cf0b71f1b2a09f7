"""The HTTP API over HTTP: tokens of the deployment's user pool, and those that are none."""

import base64
import json
import time
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
from trainyard.domain.requests import State

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
    return _answered(harness, path, token)


def post(harness: Harness, path: str, token: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Send a body as JSON; names of headers have underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = json.dumps(body).encode() if body is not None else b""
    return _answered(harness, path, token, sent, {"Content-Type": "application/json", **named})


def _answered(
    harness: Harness,
    path: str,
    token: str | None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    authorization = {"Authorization": f"Bearer {token}"} if token is not None else {}
    address = f"{harness.outputs['ApiAddress']}{path}"
    request = urllib.request.Request(address, body, {**authorization, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=40) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def put(url: str, body: bytes) -> Any:
    """Put a file at a presigned address; return the headers of the answer."""
    request = urllib.request.Request(url, body, {"Content-Type": ""}, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.headers


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


@pytest.mark.thorough
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
    written = {name: value for name, value in written.items() if name != "written_at"}
    assert (status, shown["receipt"], shown["state"]) == (200, written, "SUCCEEDED")
    assert get(harness, path.format("caller1", foreign.request_id), operator)[0] == 200
    (books,) = harness.deployment.book.totals(month_of(datetime.now(UTC)), "caller")
    _, costs = get(harness, "/v1/tenants/caller/costs", token)
    assert (costs["total"]["runs"], Decimal(costs["total"]["usd"])) == (1, books.usd)
    status, statement = get(harness, "/v1/tenants/caller/statement", token)
    assert (status, own.data_set in statement["page"]) == (200, True)
    of_all = get(harness, "/v1/service/costs?by=tenant", operator)[1]
    assert Decimal({row["name"]: row for row in of_all["items"]}["caller"]["usd"]) == books.usd
    status, health = get(harness, "/v1/service/health", operator)
    assert (status, [each for each in health["items"] if each["result"] == "unknown"]) == (200, [])
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
def test_a_tenant_does_all_by_the_api(harness: Harness) -> None:
    """From a file to predictions: no credentials of AWS, no command line."""
    harness.create("selfserve", tier="standard")
    harness.create("bystander")
    token = user(harness, "self", "tenant-admins", "selfserve")["IdToken"]
    operator = user(harness, "watching", "operators")["IdToken"]
    root = "/v1/tenants/selfserve"
    file = {"data_set": "wine", "name": "wine.csv", "size_bytes": len(WINE)}
    # 1. What it would cost, and where to put it.
    status, quote = post(harness, f"{root}/quotes", token, file)
    assert (status, quote["waiting"]["position"]) == (200, 1)
    assert Decimal(quote["expected"]["usd"]) > 0
    status, upload = post(harness, f"{root}/uploads", token, file)
    assert (status, upload["upload_id"]) == (201, None)
    put(upload["url"], WINE)
    # 2. It is trained on.
    (trained,) = harness.ended("selfserve")
    assert trained.state is State.SUCCEEDED
    assert get(harness, f"{root}/data-sets", token)[1]["items"][0]["name"] == "wine"
    # 3. Its model is approved, and answers.
    model = eventually(lambda: get(harness, f"{root}/models", token)[1]["items"])[0]
    assert (model["request_id"], model["status"]) == (trained.request_id, "pending")
    assert model["quality"] > model["baseline"]
    files = get(harness, f"{root}/models/{model['version']}/files", token)[1]
    with urllib.request.urlopen(files["card"], timeout=30) as card:
        assert b"<html" in card.read().lower()
    with urllib.request.urlopen(files["model"], timeout=30) as archive:
        assert archive.read(2) == b"\x1f\x8b", "gzip"
    decision = {"decision": "approve", "reason": "looks good"}
    status, model = post(harness, f"{root}/models/{model['version']}/decision", token, decision)
    assert (status, model["status"]) == (200, "approved")

    def is_live() -> bool:
        return bool(get(harness, f"{root}/models/{model['version']}", token)[1]["role"] == "live")

    eventually(is_live, 60)
    header, *lines = WINE.decode().splitlines()
    rows = {"rows": "\n".join([header, *lines[:3]]) + "\n"}
    status, answer = post(harness, f"{root}/data-sets/wine/predictions", token, rows)
    assert (status, len(answer["predictions"]), answer["version"]) == (200, 3, model["version"])
    status, problem = post(harness, f"{root}/data-sets/other/predictions", token, rows)
    assert (status, "no model of 'other'" in problem["detail"]) == (409, True)
    # 4. It is trained again, once for one key, and what waits is cancelled.
    linear = {"algorithm": "linear", "hyperparameters": {"max_iter": 321}}
    body = {"data_set": "wine", "overrides": linear}
    asked = [post(harness, f"{root}/requests", token, body, Idempotency_Key="again") for _ in range(2)]
    assert asked[0] == asked[1]
    assert asked[0][0] == 202
    again = harness.ended("selfserve", 2)
    assert {request.request_id for request in again} == {trained.request_id, asked[0][1]["request_id"]}
    check_what_ran(harness, f"{root}/requests/{asked[0][1]['request_id']}", token, linear)
    impossible = {"data_set": "wine", "overrides": {"hyperparameters": {"max_iter": 0}}}
    assert post(harness, f"{root}/requests", token, impossible)[0] == 409
    paused = {"what": "tenant", "name": "selfserve"}
    assert post(harness, "/v1/service/pause", token, paused)[0] == 404
    assert post(harness, "/v1/service/pause", operator, {**paused, "reason": "a test"}) == (204, None)
    try:
        request_id = post(harness, f"{root}/requests", token, {"data_set": "wine"})[1]["request_id"]
        path = f"{root}/requests/{request_id}"
        eventually(lambda: get(harness, path, token)[0] == 200)
        tiers = {tier["name"]: tier for tier in get(harness, "/v1/service", operator)[1]["tiers"]}
        assert tiers["standard"]["paused_tenants"] == ["selfserve"]
        assert get(harness, "/v1/service", token)[0] == 404
        status, why = get(harness, f"{path}/why", token)
        assert (status, why["waiting"]["reason"]) == (200, "the provider has paused trainings")
        expedite = f"/v1/service/requests/{request_id}/expedite"
        assert post(harness, expedite, token, {"reason": "a test"})[0] == 404
        assert post(harness, expedite, operator, {"reason": "a test"})[0] == 409, (
            "it cannot go, whatever its place"
        )
        action = {"action": "cancel", "filter": {"state": "QUEUED"}}
        expected = eventually(lambda: post(harness, f"{root}/bulk-actions", token, action | {"dry_run": True})[1])
        assert expected["request_ids"] == [request_id]
        status, bulk = post(harness, f"{root}/bulk-actions", token, action)
        assert (status, bulk["total"]) == (202, 1)
        assert post(harness, "/v1/service/halt", token, paused)[0] == 404
        stops = post(harness, "/v1/service/halt", operator, paused | {"dry_run": True})
        assert (stops[0], stops[1]["total"]) == (200, 0)

        def is_done() -> dict[str, Any] | None:
            action = get(harness, f"{root}/bulk-actions/{bulk['id']}", token)[1]
            return dict(action) if action["state"] == "DONE" else None

        assert eventually(is_done)["failed"] == 0
        assert get(harness, path, token)[1]["state"] == "CANCELLED"
    finally:
        assert post(harness, "/v1/service/resume", operator, paused) == (204, None)
    policy = get(harness, "/v1/service/policy", operator)[1]
    text = policy["text"].replace("quiet_period_seconds: 0", "quiet_period_seconds: 300")
    text = text.replace("delay_max_seconds: 0", "delay_max_seconds: 300")
    checked = post(harness, "/v1/service/policy/check", operator, {"text": text})[1]
    assert (checked["from_version"], "+quiet_period_seconds: 300" in checked["diff"]) == (policy["version"], True)
    change = {"text": text, "after": policy["version"], "note": "no hurry"}
    status, applied = post(harness, "/v1/service/policy", operator, change)
    assert (status, applied["version"], applied["note"]) == (200, policy["version"] + 1, "no hurry"), applied
    check_expedite(harness, root, token, operator)
    assert post(harness, "/v1/service/policy", operator, change) == (200, applied), "it is in force already"
    second = change | {"text": policy["text"] + "# of another operator\n"}
    assert post(harness, "/v1/service/policy", operator, second)[0] == 409, "the second operator is told"
    back = {"text": policy["text"], "after": applied["version"]}
    assert post(harness, "/v1/service/policy", operator, back)[0] == 200
    assert post(harness, "/v1/service/policy", token, back)[0] == 404, "no tenant may"
    check_settings(harness, root, token)
    check_dead_letters(harness, operator)
    check_events(harness, f"{root}/events", token, trained.request_id)
    for path in ("/v1/service/queue", "/v1/service/running", "/v1/service/tenants"):
        assert get(harness, path, operator)[0] == 200
    day = f"{datetime.now(UTC):%Y-%m-%d}"

    def has_ended() -> bool:
        _, ended = get(harness, f"/v1/service/ended?tier=standard&state=CANCELLED&day={day}", operator)
        return request_id in [item["request_id"] for item in ended["items"]]

    eventually(has_ended)
    (receipt,) = [harness.receipt(r) for r in harness.requests("selfserve") if r.request_id == request_id]
    assert receipt["state"] == "CANCELLED"
    # 5. In parts, and never into another tenant's bucket.
    large = {**file, "size_bytes": 70 * 1024**2}
    status, upload = post(harness, f"{root}/uploads", token, large)
    assert (status, len(upload["parts"])) == (201, 5)
    last = upload["parts"][4]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        put(last["url"], b"more or less than was said")
    tag = put(last["url"], b"x" * last["size_bytes"])["ETag"]
    named = {"data_set": "wine", "name": "wine.csv"}
    address = f"{root}/uploads/{upload['upload_id']}"
    wrong = {**named, "parts": [{"number": 1, "etag": "0" * 32}]}
    assert post(harness, f"{address}/complete", token, wrong)[0] == 409
    for _ in range(2):
        assert post(harness, f"{address}/abort", token, named)[0] == 204
    parts = [{"number": 5, "etag": tag}]
    status, problem = post(harness, f"{address}/complete", token, {**named, "parts": parts})
    assert (status, problem["detail"]) == (409, "there is no such upload: it was completed or discarded")
    for method, foreign in (("uploads", file), ("requests", {"data_set": "wine"})):
        assert post(harness, f"/v1/tenants/bystander/{method}", token, foreign)[0] == 404


def check_expedite(harness: Harness, root: str, token: str, operator: str) -> None:
    """While the files of a data set wait for newer ones, put the request of one first, and cancel it."""
    file = {"data_set": "wine", "name": "newer.csv", "size_bytes": len(WINE)}
    put(post(harness, f"{root}/uploads", token, file)[1]["url"], WINE)
    waiting = eventually(lambda: get(harness, f"{root}/requests?state=QUEUED", token)[1]["items"])
    request_id = waiting[0]["request_id"]
    path = f"{root}/requests/{request_id}"
    expedite = f"/v1/service/requests/{request_id}/expedite"
    status, answer = post(harness, expedite, operator, {"reason": "a test"})
    assert (status, answer.get("why")) == (200, "a test"), answer
    assert post(harness, f"{path}/cancel", token, None)[0] in (200, 202, 204)


def check_settings(harness: Harness, root: str, token: str) -> None:
    """Check that a tenant changes how one of its data sets is trained on."""
    for body, own in (
        ({"data_set": "wine", "changes": {"priority": 4}}, {"wine"}),
        ({"data_set": "wine", "remove": True}, set()),
    ):
        status, begun = post(harness, f"{root}/settings", token, body)
        assert status == 202, begun
        path = f"{root}/changes/{begun['change_id']}"
        eventually(lambda: get(harness, path, token)[1]["state"] == "DONE", 60)  # noqa: B023
        assert set(get(harness, root, token)[1]["data_sets"]) == own
    assert get(harness, f"{root}/changes/selfserve-000000000000", token)[0] == 404


def check_events(harness: Harness, path: str, token: str, request_id: str) -> None:
    """Check that what has happened is told by a cursor, from the first upload on."""
    events: list[dict[str, Any]] = []
    cursor = ""
    while len([each for each in events if each["type"] == "Training Request Succeeded"]) < 2:
        _, page = get(harness, f"{path}?limit=3{cursor}", token)
        events += page["items"]
        cursor = f"&cursor={page['next']}" if page["next"] else ""
        time.sleep(0 if page["items"] else 1)
        assert len(events) < 100
    of_request = [each["type"] for each in events if each["detail"].get("request_id") == request_id]
    assert set(of_request) >= {f"Training Request {what}" for what in ("Queued", "Started", "Succeeded")}
    assert all(events.count(each) == 1 for each in events)


def check_dead_letters(harness: Harness, operator: str) -> None:
    """Check that a dead letter is shown with its reason, sent back where it came from, and deleted."""
    sqs, path = harness.cloud.client("sqs"), "/v1/service/dead-letters/trainyard-uploads-dlq"
    url = sqs.get_queue_url(QueueName="trainyard-uploads-dlq")["QueueUrl"]
    reason = {"reason": {"DataType": "String", "StringValue": "a letter by hand"}}

    def shown() -> list[str]:
        queues = {each["queue"]: each for each in get(harness, "/v1/service/dead-letters", operator)[1]["items"]}
        time.sleep(1)  # so many calls are allowed
        return [group["reason"] for group in queues["trainyard-uploads-dlq"]["groups"]]

    for what in ("redrive", "drop"):
        sqs.send_message(QueueUrl=url, MessageBody='{"by": "hand"}', MessageAttributes=reason)
        eventually(lambda: "a letter by hand" in shown())
        (letter,) = get(harness, f"{path}?reason=by%20hand", operator)[1]["items"]
        assert letter["body"] == '{"by": "hand"}'
        status, done = post(harness, f"{path}/{what}", operator, {"reason": "a letter by hand"})
        assert (status, done["letters"]) == (200, 1)
    # Intake cannot read it either: it comes back, with another reason.
    eventually(lambda: [reason for reason in shown() if "by hand" not in reason], 60)
    assert post(harness, f"{path}/drop", operator, {"all": True})[0] == 200


def check_what_ran(harness: Harness, path: str, token: str, overrides: dict[str, Any]) -> None:
    """Check that a request ran with overrides, and that its steps and what they printed are shown."""
    shown = get(harness, path, token)[1]
    wanted = overrides | {"tuning": None}
    assert (shown["algorithm"], shown["overrides"], shown["state"]) == ("linear", wanted, "SUCCEEDED")
    (attempt,) = get(harness, f"{path}/attempts", token)[1]["items"]
    steps = {step["name"]: step for step in attempt["steps"]}
    assert (attempt["state"], attempt["unknown_steps"]) == ("SUCCEEDED", 0)
    assert Decimal(attempt["usd"]) == sum(Decimal(step["usd"]) for step in attempt["steps"])
    training = steps["Train"]
    assert (training["has_log"], training["instance_count"], training["status"]) == (True, 1, "Succeeded")
    lines, cursor = [], ""
    while True:
        status, page = get(harness, f"{path}/logs?step=Train&limit=3{cursor}", token)
        assert status == 200, page
        lines += page["items"]
        if not page["items"]:
            break
        cursor = f"&cursor={page['next']}"
    whole = get(harness, f"{path}/logs?step=Train&limit=1000", token)[1]["items"]
    assert lines == whole, "page by page, every line comes once"
    assert any("LogisticRegression" in line["text"] for line in lines), lines
    assert get(harness, f"{path}/logs?step=Nope", token)[0] == 409


def test_a_page_of_another_origin_may_call_the_api_if_it_is_named(harness: Harness) -> None:
    token = user(harness, "portal", "operators")["IdToken"]

    def asked(origin: str, path: str, method: str = "OPTIONS", **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(f"{harness.outputs['ApiAddress']}{path}", method=method)
        for name, value in ({"Origin": origin} | headers).items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.headers
        except urllib.error.HTTPError as error:
            return error.code, error.headers

    preflight = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    for path in ("/v1/me", "/v1/service", "/v1/service/pause", "/v1/tenants/acme/requests"):
        status, headers = asked("https://portal.example.com", path, **preflight)
        assert (status, headers["Access-Control-Allow-Origin"]) == (204, "https://portal.example.com"), path
        assert "idempotency-key" in headers["Access-Control-Allow-Headers"]
        assert headers["Access-Control-Allow-Credentials"] is None
        _, headers = asked("https://evil.example.com", path, **preflight)
        assert headers["Access-Control-Allow-Origin"] is None, path
    bearer = {"Authorization": f"Bearer {token}"}
    status, headers = asked("https://portal.example.com", "/v1/service", "GET", **bearer)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://portal.example.com")
    assert "etag" in headers["Access-Control-Expose-Headers"].lower()
    assert asked("https://portal.example.com", "/v1/service", "GET")[0] == 401


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
