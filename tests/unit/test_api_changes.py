"""The HTTP API: what tenants ask for and change, and what is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

import pytest

from testing.memory_store import MemoryStore
from testing.service import ACCOUNT
from tests.build import after, hard, request, submission
from tests.http_api import LIMITS, Api
from trainyard.application.api.uploads import PART_BYTES_MAX, PARTS_MAX, WHOLE_BYTES_MAX, part_sizes
from trainyard.application.scheduling.enlistment import Enlisted
from trainyard.domain.aliases import Alias
from trainyard.domain.arrivals import NO_DATA_SET, RetrainingAsked, UploadArrived, retraining_id
from trainyard.domain.errors import Refused, Throttled, TrainyardError
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.policy import TenantPolicy
from trainyard.domain.requests import Content, Outcome, RequestKind, State
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.idempotency_keys import REUSED, IdempotencyKeys
from trainyard.persistence.model_versions import ModelVersions

REQUESTS = "/v1/tenants/acme/requests"
QUOTES = "/v1/tenants/acme/quotes"
UPLOADS = "/v1/tenants/acme/uploads"
MODELS = "/v1/tenants/acme/models"
PREDICTIONS = "/v1/tenants/acme/data-sets/churn/predictions"
FILE = {"data_set": "churn", "name": "a.csv", "size_bytes": 1_000_000}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


# --- bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (None, 400, "body: Field required"),
        ("", 400, "body: Field required"),
        ("{", 400, "not JSON"),
        ("[]", 400, "body"),
        ("null", 400, "body"),
        ('"x"', 400, "body"),
        ('{"data_set": NaN}', 400, "not JSON"),
        ('{"data_set": "churn", "priority": Infinity}', 400, "not JSON"),
        ("[" * 100_000, 400, "nested too deeply"),
        ('{"a":' * 100_000, 400, "nested too deeply"),
        ({"data_set": "churn", "x": "y" * 4_200_000}, 413, "4,194,304 bytes"),
        ({"data_set": "churn", "tenant_id": "acme1"}, 400, "tenant_id: Extra inputs are not permitted"),
        ({"data_set": 3}, 400, "data_set: Input should be a valid string"),
        ({"data_set": "../x"}, 400, "data_set"),
        ({"data_set": "churn\n"}, 400, "data_set"),
        ({"data_set": "churn", "priority": 10}, 400, "priority: Input should be less than or equal to 9"),
        ({"data_set": "churn", "priority": "9"}, 400, "priority: Input should be a valid integer"),
        ({"data_set": "churn", "priority": True}, 400, "priority"),
        ({"data_set": "churn", "ready_by": "2026-11-28T06:00"}, 400, "ready_by: Input should have timezone info"),
        ({"data_set": "churn", "ready_by": "2026-01-01T06:00Z"}, 409, "which has passed"),
        ({"data_set": "churn", "ready_by": "9999-12-31T23:59:59-23:59"}, 400, "must be from 2000 to 2199"),
        ({"data_set": "churn", "ready_by": "0001-01-01T00:00:00+23:59"}, 400, "must be from 2000 to 2199"),
        ({"data_set": "churn", "ready_by": 1800000000}, 400, "must be a date and time"),
        ({"data_set": "models"}, 409, "'models' is not a valid data set name"),
        ('{"data_set":' + "[" * 17 + "]" * 17 + "}", 400, "at most 16 levels"),
        ('{"data_set":' + "[" * 940 + "]" * 940 + "}", 400, "nested too deeply"),
        ({"data_set": "churn\ud800"}, 400, "data_set"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_what_is_wrong(api: Api, body: Any, status: int, reason: str) -> None:
    answered, problem = api.post(REQUESTS, body)
    assert (answered, problem["status"]) == (status, status)
    assert reason in problem["detail"]
    assert len(problem["detail"]) <= 1000
    assert not api.retrainings.asked


@pytest.mark.parametrize("kind", ["", "text/csv", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_that_is_not_json_by_its_type_is_not_read(api: Api, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    status, problem = api.post(REQUESTS, '{"data_set": "churn"}', headers=headers)
    assert (status, problem["title"]) == (415, "Unsupported media type")
    assert api.post(REQUESTS, "e30=", isBase64Encoded=True)[0] == 415
    for odd in ("application/jsonlines", "application/json+x", "text/json"):
        assert api.post(REQUESTS, '{"data_set": "churn"}', headers={"content-type": odd})[0] == 415, odd
    for same in ("APPLICATION/JSON", "application/json; charset=utf-8", " application/json ;x"):
        assert api.post(REQUESTS, '{"data_set": "churn"}', headers={"content-type": same})[0] == 202, same
    assert api.get(REQUESTS, body="[" * 100_000)[0] == 200, "a body of GET means nothing"


def test_an_answer_that_lambda_would_not_pass_on_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"predictions": ["yes"] * 800_000, "version": 3, "milliseconds": 5}
    monkeypatch.setattr(api.predictions, "ask", lambda _: answer)
    assert len(json.dumps(answer)) < 6_000_000
    status, problem = api.post(PREDICTIONS, {"rows": "a\n1\n"})
    assert (status, problem["detail"]) == (409, "The answer is too large: ask for less at once.")


# --- what is asked twice ------------------------------------------------------------------------------------


def test_what_has_not_changed_is_answered_by_its_tag_alone(api: Api) -> None:
    added = api.enlist(1)
    path = f"{REQUESTS}/{added.request_id}"
    assert api.get(path)[0] == 200
    tag = api.headers["ETag"]
    assert api.get(path, headers={"if-none-match": f'W/"x", {tag}'}) == (304, None)
    assert api.headers["ETag"] == tag
    assert api.post(f"{path}/cancel")[0] == 200
    assert "ETag" not in api.headers
    assert api.get(path, headers={"if-none-match": tag})[0] == 200
    assert api.headers["ETag"] != tag


def test_a_key_asks_once_and_for_one_thing(api: Api) -> None:
    body = {"data_set": "churn", "priority": 3}
    first = api.post(REQUESTS, body, key="k-1")
    assert first[0] == 202
    assert api.post(REQUESTS, {"priority": 3, "data_set": "churn"}, key="k-1") == first
    assert api.post(REQUESTS, body, key="k-2")[1] != first[1]
    assert api.post(REQUESTS, body)[1] != first[1]
    assert len({asked.event_id for asked in api.retrainings.asked}) == 3
    for other in ({"data_set": "churn"}, {"data_set": "other", "priority": 3}):
        status, problem = api.post(REQUESTS, other, key="k-1")
        assert (status, problem["title"]) == (422, "Key used before")
    again = api.post(f"{REQUESTS}/{api.put(1, state=State.FAILED).request_id}/retry", key="k-1")
    assert again[0] == 422
    other_body = {"data_set": "other"}
    assert api.post("/v1/tenants/acme1/requests", other_body, "operators", key="k-1")[0] == 202, "of its own"
    retried = [api.put(number, state=State.FAILED) for number in (2, 3)]
    statuses = [api.post(f"{REQUESTS}/{each.request_id}/retry", key="k-3")[0] for each in retried]
    assert statuses == [202, 422], "a key is for one request"
    for wrong in ("", "a b", "x" * 65, "é"):
        assert api.post(REQUESTS, body, key=wrong)[0] == 400, wrong


def test_a_key_is_forgotten_with_its_item_and_a_call_cut_off_names_the_same_again() -> None:
    store, now = MemoryStore(), after(0)
    keys = IdempotencyKeys(store)
    first = keys.event_id("acme", "k", "call", now)
    assert keys.event_id("acme", "k", "call", after(5)) == first
    with pytest.raises(Refused) as refusal:
        keys.event_id("acme", "k", "other", now)
    assert refusal.value.kind == REUSED
    (item,) = store.items.values()
    assert item["expires_at"] == int((now + timedelta(days=1)).timestamp())
    day_later = now + timedelta(days=1)
    with pytest.raises(Refused):
        keys.event_id("acme", "k", "other", day_later - timedelta(seconds=1))
    second = keys.event_id("acme", "k", "other", day_later)
    assert second != first, "expired, though not removed yet"
    assert keys.event_id("acme", "k", "other", day_later) == second
    store.items.clear()
    assert keys.event_id("acme", "k", "call", now) not in (first, second)


# --- trainings ----------------------------------------------------------------------------------------------


def test_a_training_is_asked_for_and_its_request_has_the_id_that_was_answered(api: Api) -> None:
    ready_by = datetime.now(UTC) + timedelta(days=1)
    body = {"data_set": "churn", "ready_by": ready_by.isoformat(), "priority": 2}
    status, answer = api.post(REQUESTS, body)
    (asked,) = api.retrainings.asked
    assert (status, asked.tenant_id, asked.data_set, asked.ready_by, asked.priority) == (
        202,
        "acme",
        "churn",
        ready_by,
        2,
    )
    assert answer == {"request_id": retraining_id("acme", "churn", asked.event_id)}
    (judgements,) = api.service.intake.receive([asked], after(0))
    assert not isinstance(judgements, Exception)
    refused = api.requests.get(answer["request_id"])
    assert refused is not None
    assert refused.state is State.REJECTED, "there is no data"
    assert api.get(f"{REQUESTS}/{answer['request_id']}")[1]["receipt"]["reason"] == (
        "retraining was requested, but there is no data"
    )


def test_a_training_on_nothing_is_refused_at_once(api: Api) -> None:
    api.storage.empty.add("void")
    status, problem = api.post("/v1/tenants/acme/requests", {"data_set": "void"}, key="k")
    assert (status, "data set void has no files yet" in problem["detail"]) == (409, True)
    assert not api.retrainings.asked
    api.storage.empty.clear()
    assert api.post("/v1/tenants/acme/requests", {"data_set": "void"}, key="k")[0] == 202


def test_trainings_that_are_asked_for_count_as_uploads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(LIMITS, uploads_per_hour=3)
    monkeypatch.setattr(type(api.service.policies), "current", lambda _: limited)
    statuses = [api.post(REQUESTS, {"data_set": "churn"})[0] for _ in range(5)]
    assert statuses == [202, 202, 202, 409, 409]
    assert api.post("/v1/tenants/acme1/requests", {"data_set": "x"}, "operators")[0] == 202, "of its own"
    assert len(api.retrainings.asked) == 4


def test_what_was_refused_for_having_no_data_set_is_not_tried_again(api: Api) -> None:
    added = api.put(1, state=State.REJECTED, data_set=NO_DATA_SET)
    status, problem = api.post(f"{REQUESTS}/{added.request_id}/retry")
    assert (status, "not a valid data set name" in problem["detail"]) == (409, True)


def test_a_request_that_cannot_be_enlisted_keeps_no_other_from_it(api: Api) -> None:
    """Whatever is wrong with it: messages of a tier come in batches, of all its tenants."""
    late = datetime.max.replace(tzinfo=timezone(-timedelta(hours=23)))
    bad = replace(submission(1), deadline=late)
    good = [submission(number, tenant_id="acme1", data_set=f"d{number}") for number in (2, 3)]
    results = api.service.enlist.enlist_batch([good[0], bad, good[1]], after(0))
    assert [isinstance(result, Exception) for result in results] == [False, True, False]
    assert [api.requests.get(each.request_id) is not None for each in (good[0], bad, good[1])] == [
        True,
        False,
        True,
    ]


def test_a_retraining_is_the_same_request_whatever_is_uploaded_before_it_is_delivered_again(api: Api) -> None:
    asked = RetrainingAsked(account_id="123456789012", event_id="e", tenant_id="acme", data_set="churn")
    ids = set()
    for number in (1, 2):
        content = replace(request(number).content, key=f"incoming/churn/{number}.csv")
        api.service.data_sets.objects = {("acme", "churn"): [content]}  # type: ignore[attr-defined]
        ((judgement,),) = api.service.intake.receive([asked], after(0))  # type: ignore[misc]
        ids.add(judgement.request_id)
    assert ids == {retraining_id("acme", "churn", "e")}


@pytest.mark.parametrize("state", [TenantState.SUSPENDED, TenantState.CREATING, TenantState.DELETING])
def test_a_tenant_that_is_not_active_asks_for_nothing(api: Api, state: TenantState) -> None:
    tenant = api.tenants.get("acme")
    assert tenant is not None
    api.tenants.put(replace(tenant, state=state))
    added = api.put(1, state=State.FAILED)
    for path, body in (
        (REQUESTS, {"data_set": "churn"}),
        (f"{REQUESTS}/{added.request_id}/retry", None),
        (UPLOADS, FILE),
        (QUOTES, FILE),
    ):
        status, problem = api.post(path, body)
        assert (status, state.value.lower() in problem["detail"].lower()) == (409, True), path
    assert not api.retrainings.asked
    assert api.get(f"{REQUESTS}/{added.request_id}")[0] == 200, "and yet sees what it has"


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", RequestKind)
def test_only_what_ended_without_a_model_is_tried_again(api: Api, state: State, kind: RequestKind) -> None:
    added = api.put(1, state=state, kind=kind)
    status, _ = api.post(f"{REQUESTS}/{added.request_id}/retry")
    may = kind is RequestKind.TRAINING and state in (
        State.FAILED,
        State.STOPPED,
        State.CANCELLED,
        State.REJECTED,
    )
    assert status == (202 if may else 409)
    assert [asked.data_set for asked in api.retrainings.asked] == ([added.data_set] if may else [])


def test_what_waits_is_cancelled_and_what_has_ended_is_not(api: Api) -> None:
    added = api.enlist(1)
    path = f"{REQUESTS}/{added.request_id}"
    status, receipt = api.post(f"{path}/cancel")
    assert (status, receipt["state"]) == (200, "CANCELLED")
    assert api.get(path)[1]["state"] == "CANCELLED"
    status, problem = api.post(f"{path}/cancel")
    assert (status, "CANCELLED already" in problem["detail"]) == (409, True)


def test_a_request_that_goes_back_to_the_queue_just_then_is_cancelled(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = api.enlist(1)
    cancel, answers = type(api.service.scheduler.completer).cancel, [False]
    monkeypatch.setattr(
        type(api.service.scheduler.completer),
        "cancel",
        lambda *given, **options: answers.pop() if answers else cancel(*given, **options),
    )
    status, cancelled = api.post(f"{REQUESTS}/{added.request_id}/cancel")
    assert (status, cancelled["state"], cancelled["history"][-1]["state"]) == (200, "CANCELLED", "CANCELLED")
    answers += [False] * 9
    status, _ = api.post(f"{REQUESTS}/{api.enlist(2).request_id}/cancel")
    assert status == 503, "it keeps changing"


def test_the_time_to_be_ready_by_is_still_to_come(api: Api) -> None:
    tenant, now = api.tenants.get("acme"), after(0)
    assert tenant is not None
    with pytest.raises(Refused, match="which has passed"):
        api.trainings.ask(tenant, "churn", now=now, ready_by=now)
    assert api.trainings.ask(tenant, "churn", now=now, ready_by=after(1))


def test_what_runs_is_stopped(api: Api) -> None:
    added = api.put(1, state=State.RUNNING, execution_arn="arn:execution/1", admitted_at=after(0), attempt=1)
    assert api.post(f"{REQUESTS}/{added.request_id}/cancel")[1]["state"] == "RUNNING"
    stored = api.requests.get(added.request_id)
    assert stored is not None
    assert stored.stop_asked_at is not None


# --- why, and quotes ----------------------------------------------------------------------------------------


def test_why_a_request_waits_names_place_and_times_and_nobody_else(api: Api) -> None:
    for number in (1, 2, 3):
        api.enlist(number, tenant_id=f"aa{number}")
    added = api.enlist(4, data_set="sales")
    status, why = api.get(f"{REQUESTS}/{added.request_id}/why")
    assert status == 200
    waiting = why["waiting"]
    assert (waiting["position"], waiting["reason"]) == (4, "it waits until other trainings have ended")
    assert waiting["expected_start"]["latest"] > waiting["expected_start"]["earliest"]
    assert why["expected"]["basis"] == "size and tier"
    assert "aa1" not in json.dumps(why)
    assert why["budget"] is None, "the tier's is the provider's business"
    ended = api.put(9, state=State.FAILED)
    status, problem = api.get(f"{REQUESTS}/{ended.request_id}/why")
    assert (status, problem["detail"]) == (409, "the request is FAILED, so it is not waiting")


@pytest.mark.parametrize("seed", range(40))
def test_a_quote_is_what_the_request_is_told_once_it_waits(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever waits: an upload right after its quote is explained as the quote says, and the quote changed
    nothing."""
    random, api = Random(seed), Api(monkeypatch)
    tenant = api.tenants.get("acme")
    assert tenant is not None
    settings = replace(
        tenant.settings,
        every_upload=random.random() < 0.3,
        priority=random.choice([0, 0, 3, 9]),
        ready_by=random.choice(["", "", "06:00 Europe/Zurich"]),
    )
    tenant = api.tenants.put(replace(tenant, settings=settings))
    for number in range(1, random.randrange(2, 25)):
        owner = random.choice(["acme", "acme", "acme1", "other"])
        size = random.choice([1_000, 50_000_000])
        key = f"incoming/d{number}/{number}.csv"
        content = replace(request(1).content, key=key, bucket=f"trainyard-t-{owner}", size_bytes=size)
        api.enlist(
            number,
            tenant_id=owner,
            data_set=random.choice(["churn", "sales", "stock"]),
            priority=random.choice([0, 0, 0, 5]),
            content=content,
            algorithm="linear",
        )
    if random.random() < 0.2:
        api.service.scheduler.tables.ledger.set_paused(True)
    file = {"data_set": random.choice(["churn", "sales", "fresh"]), "name": "a.csv"}
    size = random.choice([1_000, 50_000_000])
    before = dict(api.store.items)
    status, quote = api.post(QUOTES, {**file, "size_bytes": size}, "tenant-readers")
    assert (status, api.store.items) == (200, before)
    uploaded = upload_of_file(tenant, **file, size_bytes=size)
    api.service.intake.receive([uploaded], datetime.now(UTC))
    (sent,) = api.service.tier_queues.sent  # type: ignore[attr-defined]
    (enlisted,) = api.service.enlist.enlist_batch([sent], datetime.now(UTC))
    assert isinstance(enlisted, Enlisted)
    waiting = enlisted.waiting or enlisted.request
    why = api.get(f"{REQUESTS}/{waiting.request_id}/why")[1]
    assert quote["waiting"] == why["waiting"]
    assert quote["expected"] == why["expected"]
    assert quote["replaces"] == waiting.supersedes


def upload_of_file(tenant: Tenant, data_set: str, name: str, size_bytes: int) -> UploadArrived:
    content = Content(
        bucket=tenant.bucket,
        key=f"{tenant.root}incoming/{data_set}/{name}",
        version_id="v",
        etag="e",
        sequencer="",
        size_bytes=size_bytes,
        event_time=datetime.now(UTC),
    )
    return UploadArrived(account_id=ACCOUNT, content=content)


def test_a_quote_of_what_a_newer_upload_supersedes_is_that_of_the_newer_one(api: Api) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    content = replace(request(1).content, key="incoming/churn/b.csv", event_time=later, sequencer="")
    newer = api.enlist(1, data_set="churn", content=content, algorithm="linear")
    api.enlist(2, tenant_id="aa1")
    quote = api.post(QUOTES, FILE)[1]
    why = api.get(f"{REQUESTS}/{newer.request_id}/why")[1]
    assert (quote["waiting"], quote["replaces"]) == (why["waiting"], None)


def test_nothing_is_promised_of_what_is_paused(api: Api) -> None:
    api.service.scheduler.tables.ledger.set_paused(True)
    waiting = api.post(QUOTES, FILE)[1]["waiting"]
    assert (waiting["position"], waiting["expected_start"], waiting["expected_end"]) == (
        None,
        {"earliest": None, "latest": None},
        None,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size_bytes": 0}, "empty"),
        ({"size_bytes": 10**15}, "at most"),
        ({"name": "_SUCCESS"}, "markers"),
        ({"name": "b/../a.csv"}, "segment"),
        ({"name": "x" * 250 + ".csv", "data_set": "y" * 63}, None),
    ],
)
def test_a_quote_and_an_address_are_refused_as_the_upload_would_be(
    api: Api, change: dict[str, Any], reason: str | None
) -> None:
    for path in (QUOTES, UPLOADS):
        status, answer = api.post(path, {**FILE, **change})
        if reason is None:
            assert status in (200, 201)
        else:
            assert status == 409
            assert reason in answer["detail"] or "no part of a name" in answer["detail"], path


def test_a_budget_is_the_tenants_own(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = replace(LIMITS, tenants={"acme": TenantPolicy(budget=hard("5"))})
    api = Api(monkeypatch, limits=limits)
    month = f"{datetime.now(UTC):%Y-%m}"
    assert api.get("/v1/tenants/acme/budget") == (
        200,
        {"budget": {"month": month, "limit_usd": "5", "spent_usd": "0", "reserved_usd": "0"}},
    )
    added = api.enlist(1)
    assert api.get(f"{REQUESTS}/{added.request_id}/why")[1]["budget"]["limit_usd"] == "5"
    assert api.get("/v1/tenants/acme1/budget", "viewers") == (200, {"budget": None})


# --- uploads ------------------------------------------------------------------------------------------------


def test_a_file_is_put_at_one_address_and_a_large_one_in_parts(api: Api) -> None:
    status, upload = api.post(UPLOADS, FILE)
    assert (status, upload["url"], upload["parts"]) == (
        201,
        "https://trainyard-t-acme/incoming/churn/a.csv?1000000",
        [],
    )
    status, upload = api.post(UPLOADS, {**FILE, "size_bytes": WHOLE_BYTES_MAX + 1})
    assert status == 201
    assert (upload["url"], len(upload["parts"]), upload["upload_id"]) == (None, 5, "acme.0")
    assert sum(part["size_bytes"] for part in upload["parts"]) == WHOLE_BYTES_MAX + 1
    path, named = f"{UPLOADS}/acme.0", {"data_set": "churn", "name": "a.csv"}
    parts = [{"number": part["number"], "etag": f'"{part["number"]}"'} for part in upload["parts"]]
    assert api.post(f"{path}/complete", {**named, "name": "b.csv", "parts": parts})[0] == 409
    assert api.post(f"{path}/complete", {**named, "parts": []})[0] == 400
    assert api.post(f"{path}/complete", {**named, "parts": parts}) == (204, None)
    ((key, completed),) = api.storage.completed
    assert (key, len(completed), completed[0].etag) == ("incoming/churn/a.csv", 5, '"1"')
    assert api.post(f"{path}/complete", {**named, "parts": parts})[0] == 409
    for _ in range(2):
        assert api.post(f"{path}/abort", named) == (204, None)


@pytest.mark.parametrize("size", [WHOLE_BYTES_MAX + 1, 16 * 1024**2 * 100, 16 * 1024**2 * 100 + 1, 10**12 // 3])
def test_parts_are_as_large_as_s3_takes_them_and_few(size: int) -> None:
    sizes = part_sizes(size)
    assert sum(sizes) == size
    assert len(sizes) <= PARTS_MAX
    assert len(set(sizes[:-1])) <= 1
    assert all(5 * 1024**2 <= part <= PART_BYTES_MAX for part in sizes[:-1])
    with pytest.raises(Refused, match="at most"):
        part_sizes(PART_BYTES_MAX * PARTS_MAX + 1)


@pytest.mark.parametrize("upload_id", ["x" * 1025, "a%01", "%C3%A9", "a%0A"])
def test_what_cannot_be_an_upload_is_not_looked_for(api: Api, upload_id: str) -> None:
    for what, body in (
        ("complete", {"data_set": "churn", "name": "a.csv", "parts": [{"number": 1, "etag": "e"}]}),
        ("abort", {"data_set": "churn", "name": "a.csv"}),
    ):
        assert api.post(f"{UPLOADS}/{upload_id}/{what}", body)[0] == 404


def test_data_sets_with_settings_are_listed_before_they_have_data(api: Api) -> None:
    tenant = api.tenants.get("acme")
    assert tenant is not None
    api.tenants.put(replace(tenant, data_sets={"sales": tenant.settings}))
    assert api.get("/v1/tenants/acme/data-sets")[1]["items"] == [
        {"name": "churn", "has_own_settings": False},
        {"name": "sales", "has_own_settings": True},
    ]


def test_data_sets_are_listed(api: Api) -> None:
    status, listed = api.get("/v1/tenants/acme/data-sets")
    assert (status, [each["name"] for each in listed["items"]]) == (200, ["churn"])
    assert listed["items"][0]["has_own_settings"] is False
    assert api.get("/v1/tenants/acme/data-sets?x=1")[1]["detail"] == "x: no such parameter; this call takes none"


# --- models -------------------------------------------------------------------------------------------------


def test_models_are_listed_newest_first_in_pages_without_those_deleted(api: Api) -> None:
    trained = api.put(1, state=State.SUCCEEDED, outcome=Outcome(quality=0.9, quality_metric="auc", rows=7))
    for version in range(1, 26):
        api.register(version, request_id=trained.request_id if version == 25 else "")
    group = api.packages.packages.copy()
    del api.packages.packages[next(arn for arn, package in group.items() if package.version == 13)]
    listed: list[int] = []
    query, models = "?limit=10", []
    while query:
        status, page = api.get(f"{MODELS}{query}")
        assert status == 200
        models += page["items"]
        listed += [model["version"] for model in page["items"]]
        query = f"?limit=10&cursor={page['next']}" if page["next"] else ""
    assert listed == [version for version in range(25, 0, -1) if version != 13]
    newest = models[0]
    assert (newest["quality"], newest["quality_metric"], newest["rows"], newest["status"]) == (
        0.9,
        "auc",
        7,
        "pending",
    )
    assert (models[1]["quality"], models[1]["algorithm"]) == (None, None)
    assert api.get(f"{MODELS}/25")[1] == newest
    for wrong in ("0", "26", "-1", "1.0", "x", "9" * 10, "²"):
        assert api.get(f"{MODELS}/{wrong}")[0] == 404, wrong
    api.put(2)
    other = api.get(f"{REQUESTS}?limit=1")[1]["next"]
    assert other is not None
    assert api.get(f"{MODELS}?cursor={other}")[1]["detail"] == "cursor: it is not one that this list has given"


def test_a_model_of_another_tenant_in_the_group_is_not_shown(api: Api) -> None:
    own, foreign = api.register(1), api.register(2)
    api.packages.packages[foreign.arn] = replace(foreign, tenant_id="acme1")
    assert [model["version"] for model in api.get(MODELS)[1]["items"]] == [own.version]
    assert api.get(f"{MODELS}/2")[0] == 404
    assert api.post(f"{MODELS}/2/decision", {"decision": "approve"})[0] == 404


def test_the_files_of_a_model_are_fetched_from_its_tenants_bucket_alone(api: Api) -> None:
    package = api.register(1)
    status, files = api.get(f"{MODELS}/1/files")
    where = "https://trainyard-t-acme/models/churn/1"
    assert (status, files["model"], files["card"]) == (200, f"{where}/model.tar.gz", f"{where}/card.html")
    for elsewhere in ("s3://trainyard-t-acme1/models/churn/1/model.tar.gz", "s3://other/model.tar.gz"):
        api.packages.packages[package.arn] = replace(package, model_uri=elsewhere)
        status, problem = api.get(f"{MODELS}/1/files")
        assert (status, problem["detail"]) == (
            409,
            "the files of version 1 are not where the tenant's data is",
        )
    tenant = api.tenants.get("acme")
    assert tenant is not None
    api.tenants.put(replace(tenant, state=TenantState.SUSPENDED))
    api.packages.packages[package.arn] = package
    assert api.get(f"{MODELS}/1/files")[0] == 409
    assert api.get(f"{MODELS}/1")[0] == 200


def test_a_tenant_without_models_has_an_empty_list(api: Api) -> None:
    assert api.get(MODELS) == (200, {"items": [], "next": None})


def test_why_a_model_is_not_deployed_is_said_without_the_account(api: Api) -> None:
    package = api.register(1)
    reason = "User: arn:aws:sts::123456789012:assumed-role/x is not authorized"
    ModelVersions(api.store).put(
        ModelVersion(
            tenant_id="acme",
            data_set="churn",
            version=1,
            package_arn=package.arn,
            request_id=package.request_id,
            model_uri=package.model_uri,
            state=VersionState.FAILED,
            since=after(0),
            approved_at=after(0),
            endpoint="",
            target="",
            reason=reason,
        )
    )
    model = api.get(f"{MODELS}/1")[1]
    assert (model["deployment"], "123456789012" in model["deployment_reason"]) == ("FAILED", False)


def test_a_model_says_what_it_does(api: Api) -> None:
    for version in range(1, 6):
        api.register(version)
    aliases = Aliases(api.store, lambda _: None)

    def change(alias: Alias) -> Alias:
        return replace(alias, live=4, previous=3, canary=5, canary_percent=20, testing=2)

    aliases.change("acme", "churn", change, after(0))
    assert [(m["version"], m["role"], m["percent"]) for m in api.get(MODELS)[1]["items"]] == [
        (5, "canary", 20),
        (4, "live", 80),
        (3, "previous", 0),
        (2, "testing", 0),
        (1, None, 0),
    ]


def test_a_model_is_approved_and_rejected_with_who_did_and_why(api: Api) -> None:
    api.register(1)
    path = f"{MODELS}/1/decision"
    status, model = api.post(path, {"decision": "approve", "reason": "better"})
    assert (status, model["status"], model["comment"]) == (200, "approved", "approved by tenant-admin s: better")
    model = api.post(path, {"decision": "reject"}, "operators")[1]
    assert (model["status"], model["comment"]) == ("rejected", "rejected by operator s")
    for body in ({"decision": "maybe"}, {"decision": "approve", "reason": "x" * 401}, {}):
        assert api.post(path, body)[0] == 400, body
    status, problem = api.post(path, {"decision": "approve", "reason": "a\nb"})
    assert (status, problem["detail"]) == (409, "a reason is one line of at most 400 printable characters")


def test_rows_are_predicted_by_the_function_that_may(api: Api) -> None:
    status, answer = api.post(PREDICTIONS, {"rows": "a\n1\n", "key": "k"})
    assert (status, answer["predictions"], answer["version"]) == (200, ["yes"], 3)
    assert api.predictions.asked == [
        {
            "tenant_id": "acme",
            "data_set": "churn",
            "rows": "a\n1\n",
            "content_type": "text/csv",
            "environment": "production",
            "key": "k",
        }
    ]
    for body in ({"rows": ""}, {"rows": 1}, {"rows": "a", "content_type": "text/html"}, {"input": "s3://x/y"}):
        assert api.post(PREDICTIONS, body)[0] == 400, body
    assert api.post("/v1/tenants/acme/data-sets/..%2f/predictions", {"rows": "a"})[0] == 404
    asked = len(api.counted)
    assert api.post(PREDICTIONS, {"rows": "a"})[0] == 200
    assert [update.key.pk for update in api.counted[asked:]] == ["calls#tenant#acme", "calls#predictions#acme"]
    assert [next(iter(update.when)).value for update in api.counted[asked:]] == [99, 19]  # type: ignore[union-attr]
    for error, expected in (
        (Refused("no model of 'churn' is served"), 409),
        (Throttled("slow"), 503),
        (TrainyardError("secret"), 500),
    ):
        api.predictions.error = error
        status, problem = api.post(PREDICTIONS, {"rows": "a\n1\n"})
        assert status == expected
        assert (str(error) in problem["detail"]) == (expected == 409)
