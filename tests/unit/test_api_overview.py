"""The HTTP API for operators: tiers, queue, what runs, what ended, and the tenants."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from tests.build import NOW, policy, tenant, tier
from tests.http_api import LIMITS, Api
from trainyard.application.api.overview import Overview
from trainyard.application.scheduling.dispatch import PassRecord
from trainyard.application.scheduling.explain import Explain, Upcoming
from trainyard.application.scheduling.pauses import Pausable
from trainyard.contracts.api_overview import queue_of
from trainyard.contracts.decisions import encode_pass
from trainyard.contracts.policy_file import parse_policy
from trainyard.domain.admission import decide
from trainyard.domain.errors import Conflict, Throttled
from trainyard.domain.policy import Policy
from trainyard.domain.queues import QueueEntry
from trainyard.domain.requests import State
from trainyard.domain.scheduling import Reason
from trainyard.domain.windows import Once, Window
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.api.service import POLICIES_MAX, WHAT_IFS_MAX
from trainyard.persistence.policies import Policies
from trainyard.persistence.tenant_queues import TenantQueues


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def get(api: Api, path: str) -> tuple[int, Any]:
    return api.get(path, "viewers")


def test_tiers_show_slots_and_what_waits(api: Api) -> None:
    for number, tenant_id in enumerate(("acme", "acme", "acme1"), start=1):
        api.enlist(number, tenant_id=tenant_id, data_set=f"d{number}")
    api.admit()
    api.service.scheduler.operations.set_tenant_paused("basic", "acme1", True, NOW)
    _, service = get(api, "/v1/service")
    (tier,) = service["tiers"]
    assert (service["used"], tier["name"], tier["quota"], tier["used"], tier["waiting"]) == (1, "basic", 1, 1, 2)
    assert (tier["paused_tenants"], tier["paused"], tier["closed"]) == (["acme1"], False, False)
    assert service["throttled_to"] is None
    (running,) = get(api, "/v1/service/running")[1]["items"]
    assert running["state"] in ("ADMITTED", "RUNNING")
    assert running["admitted_at"] is not None
    _, queue = get(api, "/v1/service/queue?limit=1")
    (first,) = queue["items"]
    assert (first["tenant_id"], first["position"], first["reason"]) == ("acme", 1, Reason.TENANT_CAP.value)
    assert "running_max" in first["would_unblock"]
    (only,) = get(api, "/v1/service/queue")[1]["items"]
    assert only["request_id"] == first["request_id"], "those of a paused tenant are not next"
    assert get(api, "/v1/service/queue?limit=51")[0] == 400


def test_which_limits_change_next_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    night = Once(now + timedelta(hours=1), now + timedelta(hours=2))
    windows = (Window(name="night", when=night, tiers={"basic": {"quota": 9}}, limits={"running_max": 12}),)
    limits = replace(LIMITS, windows=windows)
    _, service = get(Api(monkeypatch, limits=limits), "/v1/service")
    assert datetime.fromisoformat(service["limits_change_at"]) == night.begins
    assert service["limits_change"] == [f"running_max {LIMITS.running_max} → 12", "basic quota 1 → 9"]
    assert service["windows_open"] == []
    _, service = get(Api(monkeypatch), "/v1/service")
    assert (service["limits_change_at"], service["limits_change"]) == (None, [])


def test_the_queue_says_what_runs_take_and_by_when_they_must_start() -> None:
    entry = QueueEntry(
        request_id="0" * 32,
        data_set="a",
        profile="small",
        arrived_at=NOW,
        due_at=NOW,
        usd_p90=Decimal("0.25"),
        seconds_p90=720,
        latest_start=NOW + timedelta(hours=2),
    )
    upcoming = Upcoming(
        tier="basic",
        position=1,
        tenant_id="acme",
        entry=entry,
        reason=Reason.TENANT_CAP,
        earliest=NOW,
        latest=NOW,
    )
    unknown = replace(upcoming, entry=replace(entry, usd_p90=None, seconds_p90=0, latest_start=None))
    first, second = queue_of([upcoming, unknown]).items
    assert (first.seconds_p90, first.usd_p90, first.start_by) == (720, "0.25", NOW + timedelta(hours=2))
    assert (second.seconds_p90, second.usd_p90, second.start_by) == (None, None, None)


def test_what_ended_is_listed_by_tier_state_and_day_in_pages(api: Api) -> None:
    for number in range(25):
        api.put(number, state=State.FAILED, finished_at=NOW + timedelta(minutes=number), reason="bad data")
    api.put(99, state=State.FAILED, finished_at=NOW + timedelta(days=1))
    api.put(98, state=State.SUCCEEDED, finished_at=NOW)
    api.put(97, state=State.FAILED, finished_at=NOW, tier="other")
    listed: list[str] = []
    query = "tier=basic&state=FAILED&day=2026-11-21&limit=10"
    following: str | None = ""
    while following is not None:
        _, page = get(api, f"/v1/service/ended?{query}{following}")
        listed += [item["request_id"] for item in page["items"]]
        following = f"&cursor={page['next']}" if page["next"] else None
    assert [int(name, 16) for name in listed] == list(range(24, -1, -1))
    assert get(api, "/v1/service/ended?tier=basic&state=FAILED")[1]["items"] == [], "today"
    for wrong, named in (
        ("state=FAILED", "tier"),
        ("tier=basic", "state"),
        ("tier=basic&state=RUNNING", "state: RUNNING is not final"),
        ("tier=BASIC&state=FAILED", "tier"),
        ("tier=basic&state=FAILED&day=2026-13-01", "day"),
        ("tier=basic&state=FAILED&tenant=acme", "tenant: no such parameter"),
    ):
        status, problem = get(api, f"/v1/service/ended?{wrong}")
        assert (status, named in problem["detail"]) == (400, True), wrong


def test_sagemakers_limit_is_shown_while_it_holds(api: Api) -> None:
    ledger = api.service.scheduler.tables.ledger
    for until, expected in ((timedelta(minutes=-1), None), (timedelta(minutes=1), 1)):
        ledger.throttle(datetime.now(UTC) + until)
        assert get(api, "/v1/service")[1]["throttled_to"] == expected


def test_tenants_are_listed_in_pages(api: Api) -> None:
    for number in range(20):
        api.tenants.put(tenant(f"t{number:02d}"))
    for limit in (2, 5, 100):
        listed: list[str] = []
        following: str | None = ""
        while following is not None:
            page = get(api, f"/v1/service/tenants?limit={limit}{following}")[1]
            assert len(page["items"]) <= limit
            listed += [each["tenant_id"] for each in page["items"]]
            following = f"&cursor={page['next']}" if page["next"] else None
        assert len(listed) == len(set(listed)) == 22
    assert get(api, "/v1/service/tenants?limit=1")[0] == 400


def test_tenants_are_listed_with_with_their_settings_and_a_tenant_sees_its_own(api: Api) -> None:
    _, page = get(api, "/v1/service/tenants")
    assert sorted(each["tenant_id"] for each in page["items"]) == ["acme", "acme1"], "without those deleted"
    status, own = api.get("/v1/tenants/acme")
    assert (status, own) == (200, next(each for each in page["items"] if each["tenant_id"] == "acme"))
    assert own["settings"]["algorithm"] == "linear"
    assert not {"role_arn", "bucket", "kms_key"} & set(own), "what it is made of is the provider's business"
    api.put(1)
    api.put(2)
    cursor = api.get("/v1/tenants/acme/requests?limit=1")[1]["next"]
    status, problem = get(api, f"/v1/service/tenants?cursor={cursor}")
    assert (status, problem["detail"]) == (400, "cursor: it is not one that this list has given")


@pytest.mark.parametrize("what", Pausable)
def test_what_is_paused_starts_nothing_until_it_is_resumed(api: Api, what: Pausable) -> None:
    api.enlist(1)
    named = {} if what is Pausable.ALL else {"name": "basic" if what is Pausable.TIER else "acme"}
    whole = " ".join([what.value, *named.values()])
    for _ in range(2):
        assert api.post("/v1/service/pause", {"what": what, **named, "reason": "why"}, "operators") == (204, None)
    note = api.service.scheduler.tables.book.noted(f"pause of {whole}")
    assert note is not None
    assert (note["paused"], note["by"], note["why"]) == (True, "operator s", "why")
    service = get(api, "/v1/service")[1]
    (tier,) = service["tiers"]
    assert service["paused"] is (what is Pausable.ALL)
    assert tier["paused"] is (what is not Pausable.TENANT)
    assert tier["paused_tenants"] == (["acme"] if what is Pausable.TENANT else [])
    api.admit()
    assert get(api, "/v1/service/running")[1]["items"] == []
    rung = len(api.service.bell.rings)  # type: ignore[attr-defined]
    assert api.post("/v1/service/resume", {"what": what, **named}, "operators") == (204, None)
    assert len(api.service.bell.rings) == rung + 1  # type: ignore[attr-defined]
    api.admit()
    assert len(get(api, "/v1/service/running")[1]["items"]) == 1
    note = api.service.scheduler.tables.book.noted(f"pause of {whole}")
    assert note is not None
    assert note["paused"] is False


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({}, 400, "what: Field required"),
        ({"what": "everything"}, 400, "what"),
        ({"what": "all", "name": "basic"}, 409, "`all` has none"),
        ({"what": "tier"}, 409, "needs its name"),
        ({"what": "tier", "name": "gold"}, 409, "there is no tier 'gold'; the policy has basic"),
        ({"what": "tenant", "name": "nobody"}, 409, "there is no tenant 'nobody'"),
        ({"what": "tenant", "name": ""}, 400, "name"),
        ({"what": "all", "reason": "a\nb"}, 400, "reason"),
        ({"what": "all", "reason": "x" * 201}, 400, "reason"),
        ({"what": "all", "by": "me"}, 400, "by: Extra inputs are not permitted"),
    ],
)
def test_a_pause_of_nothing_is_refused(api: Api, body: dict[str, Any], status: int, reason: str) -> None:
    before = dict(api.store.items)
    answered, problem = api.post("/v1/service/pause", body, "operators")
    assert (answered, reason in problem["detail"]) == (status, True), problem
    assert api.store.items == before


def test_an_operator_puts_a_waiting_request_first_once(api: Api) -> None:
    waiting = [api.enlist(number).request_id for number in range(1, 4)]
    path = f"/v1/service/requests/{waiting[2]}/expedite"
    rung = len(api.service.bell.rings)  # type: ignore[attr-defined]
    status, answer = api.post(path, {"reason": "an audit at noon"}, "operators")
    assert status == 200
    assert (answer["request_id"], answer["tenant_id"], answer["tier"]) == (waiting[2], "acme", "basic")
    assert (answer["by"], answer["why"]) == ("operator s", "an audit at noon")
    assert len(api.service.bell.rings) == rung + 1  # type: ignore[attr-defined]
    assert api.post(path, {"reason": "again"}, "operators") == (200, answer), "it is first already"
    assert "audit" not in str(api.get(f"/v1/tenants/acme/requests/{waiting[2]}")), "the provider's business"
    api.admit(policy(tier(quota=1), running_max=1))
    assert [each["request_id"] for each in get(api, "/v1/service/running")[1]["items"]] == [waiting[2]]
    status, problem = api.post(path, {"reason": "again"}, "operators")
    assert (status, "only what waits can be expedited" in problem["detail"]) == (409, True)


@pytest.mark.parametrize("reason", [None, "", "a\nb", "x" * 201, 7])
def test_a_request_is_expedited_with_a_reason_alone(api: Api, reason: Any) -> None:
    path, before = f"/v1/service/requests/{api.enlist(1).request_id}/expedite", dict(api.store.items)
    body = {} if reason is None else {"reason": reason}
    status, problem = api.post(path, body, "operators")
    assert (status, "reason" in problem["detail"]) == (400, True), problem
    assert api.store.items == before


def test_what_does_not_exist_or_cannot_start_is_not_expedited(api: Api) -> None:
    for missing in ("f" * 32, "x"):
        assert api.post(f"/v1/service/requests/{missing}/expedite", {"reason": "x"}, "operators")[0] == 404
    path = f"/v1/service/requests/{api.enlist(1).request_id}/expedite"
    for group in ("viewers", "tenant-admins"):
        assert api.post(path, {"reason": "x"}, group)[0] == 404
    assert api.post("/v1/service/pause", {"what": "tenant", "name": "acme"}, "operators")[0] == 204
    status, problem = api.post(path, {"reason": "x"}, "operators")
    assert (status, "cannot go, whatever its place" in problem["detail"]) == (409, True), problem


POLICY = """
running_max: 3
quiet_period_seconds: 0
delay_max_seconds: 0
start_retry_delay_seconds: 1
tiers:
  basic:
    quota: 2
    running_max_per_tenant: 1
    runtime_max_minutes: 5
    quality_min: 0.5
    instances: [{data_mb_max: 1, processing: ml.t3.medium, training: ml.m5.large}]
"""


BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(9))}}}\n" for n in range(1, 12)
)
BOMB = f"{POLICY}{BOMB}tiers: *a11\n"
"""A policy whose tiers have 9 to the power of 11 parts, in a thousand characters."""


@pytest.fixture
def with_policies(api: Api, monkeypatch: pytest.MonkeyPatch) -> Policies:
    """The API over policies that are parsed, as in production."""
    policies = Policies(
        store=api.store,
        deployed=POLICY,
        parse=lambda text, version: parse_policy(text, version, "us-east-1"),
        running_max=10,
    )
    explain = Explain(policies=policies, scheduler=api.service.scheduler)
    monkeypatch.setattr(bootstrap, "overview", lambda: Overview(explain=explain))
    changes = replace(bootstrap.policy_changes(), policies=policies)
    monkeypatch.setattr(bootstrap, "policy_changes", lambda: changes)
    return policies


def test_the_policy_is_shown_with_its_history(api: Api, with_policies: Policies) -> None:
    shown = get(api, "/v1/service/policy")[1]
    assert (shown["version"], shown["applied_at"], shown["text"]) == (0, None, POLICY)
    with_policies.apply(POLICY.replace("quota: 2", "quota: 3"), NOW, note="more", by="ada")
    shown = get(api, "/v1/service/policy")[1]
    assert (shown["version"], shown["by"], shown["note"]) == (1, "ada", "more")
    items = get(api, "/v1/service/policies")[1]["items"]
    assert [(item["version"], "text" in item) for item in items] == [(1, False), (0, False)]
    assert get(api, "/v1/service/policies/1") == (200, shown)
    for absent in ("2", "x", "-1", "1.0", "²", "9" * 9, "01x"):
        assert get(api, f"/v1/service/policies/{absent}")[0] == 404, absent


@pytest.mark.parametrize("path", ["/v1/service/policy/check", "/v1/service/policy/what-if"])
def test_another_policy_is_checked_and_compared_and_not_put_in_force(
    api: Api, with_policies: Policies, path: str
) -> None:
    before = dict(api.store.items)
    status, checked = api.post(path, {"text": POLICY.replace("quota: 2", "quota: 3")}, "viewers")
    assert (status, checked["from_version"]) == (200, 0)
    assert {"-    quota: 2", "+    quota: 3"} <= set(checked["diff"])
    assert api.post(path, {"text": POLICY}, "viewers")[1]["diff"] == []
    for text, reason in (
        (POLICY.replace("quota: 2", "quota: -1"), "tiers.basic.quota"),
        (POLICY.replace("quota: 2", "qouta: 2"), "qouta"),
        ("x: [", "not YAML"),
        ("a: &a [*a]", ""),
        ("x: " + "[" * 5000, ""),
        ("[" * 100_000 + "]" * 100_000, "nested in more than 20 levels"),
        ("- " * 20_000, "nested in more than 20 levels"),
        ("a: " + "{a: " * 30 + "}" * 30, "nested in more than 20 levels"),
        (POLICY + "".join(f"  t{number}: {number}\n" for number in range(2000)), "and 1980 more"),
        (BOMB, ""),
        (BOMB.replace("tiers", "windows"), ""),
        (BOMB.replace("tiers", "tenants"), ""),
    ):
        status, problem = api.post(path, {"text": text}, "viewers")
        assert (status, reason in problem["detail"]) == (409, True), problem
    assert api.post(path, {"text": "x" * 300_001}, "viewers")[0] == 400
    assert api.store.items == before
    assert with_policies.in_force().version == 0


def test_a_policy_shows_what_it_would_change_for_those_that_are_next(api: Api, with_policies: Policies) -> None:
    path = "/v1/service/policy/what-if"
    api.enlist(1, data_set="first")
    api.admit()
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (2, 3)]
    before = dict(api.store.items)
    higher = POLICY.replace("per_tenant: 1", "per_tenant: 2")
    _, changed = api.post(path, {"text": higher}, "viewers")
    assert [item["request_id"] for item in changed["items"]] == [request.request_id for request in waiting]
    first, second = changed["items"]
    assert (first["now"]["reason"], first["other"]["reason"]) == (Reason.ABOVE_CAP, Reason.SLOT_FREE)
    assert first["other"]["latest_start"] < first["now"]["latest_start"], "it would start at once"
    assert second["other"]["latest_start"] < second["now"]["latest_start"]
    assert changed["tiers"] == [{"name": "basic", "quota": 2, "other_quota": 2}]
    assert (changed["slots"], changed["other_slots"], changed["from_version"]) == (3, 3, 0)
    other_tier = POLICY.partition("tiers:")[2].replace("basic", "other").replace("quota: 2", "quota: 1")
    further = api.post(path, {"text": POLICY + other_tier}, "viewers")
    assert further[1]["tiers"] == [
        {"name": "basic", "quota": 2, "other_quota": 2},
        {"name": "other", "quota": None, "other_quota": 1},
    ]
    status, problem = api.post(path, {"text": POLICY.replace("basic", "other")}, "viewers")
    assert (status, "tiers.basic is in use" in problem["detail"]) == (409, True), "as it would not be applied"
    same = api.post(path, {"text": POLICY}, "viewers")[1]
    assert (same["diff"], [item["now"] == item["other"] for item in same["items"]]) == ([], [True, True])
    assert [
        item["now"]["position"] for item in api.post(f"{path}?limit=1", {"text": POLICY}, "viewers")[1]["items"]
    ] == [1]
    assert api.store.items == before


def test_an_operator_puts_a_policy_in_force_and_a_second_one_is_told(api: Api, with_policies: Policies) -> None:
    path = "/v1/service/policy"
    higher = {"text": POLICY.replace("quota: 2", "quota: 3"), "after": 0, "note": "more slots"}
    status, applied = api.post(path, higher, "operators")
    assert (status, applied["version"], applied["note"]) == (200, 1, "more slots")
    assert applied["by"].startswith("operator ")
    assert with_policies.current().tier("basic").quota == 3  # type: ignore[union-attr]
    assert api.service.bell.rings, "what may start now starts"  # type: ignore[attr-defined]
    assert api.post(path, higher, "operators")[1] == applied, "a call whose answer was lost"
    before = dict(api.store.items)
    status, problem = api.post(path, {"text": POLICY, "after": 0}, "operators")
    assert (status, problem["detail"][:33]) == (409, "another policy was applied meanwh")
    assert api.store.items == before


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("quota: 2", "quota: -1", "tiers.basic.quota"),
        ("ml.m5.large", "ml.p3.2xlarge", "jobs may not run on ml.p3.2xlarge"),
        ("runtime_max_minutes: 5", "runtime_max_minutes: 61", "at most 60 minutes"),
        ("  basic:", "  other:", "removes the tier of acme"),
        ("  basic:", "  queueless:", "there is no queue for tier queueless"),
    ],
)
def test_a_policy_that_would_hurt_is_not_put_in_force(
    api: Api, with_policies: Policies, old: str, new: str, reason: str
) -> None:
    before = dict(api.store.items)
    text = POLICY.replace(old, new)
    status, problem = api.post("/v1/service/policy", {"text": text, "after": 0, "force": True}, "operators")
    assert (status, reason in problem["detail"]) == (409, True), problem
    assert api.store.items == before


def test_a_policy_without_an_algorithm_that_is_used_needs_force(api: Api, with_policies: Policies) -> None:
    settings = replace(tenant().settings, algorithm="mine")
    api.tenants.put(replace(tenant("user"), settings=settings))
    path, body = "/v1/service/policy", {"text": POLICY.replace("quota: 2", "quota: 3"), "after": 0}
    status, problem = api.post(path, body, "operators")
    assert (status, "no algorithm mine, used by user" in problem["detail"]) == (409, True), problem
    assert api.post(path, body | {"force": True}, "operators")[0] == 200


def test_a_policy_is_put_in_force_although_the_ledger_is_written_meanwhile(
    api: Api, with_policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    transact, met = api.store.transact, [Conflict("a pass was writing")] * 2

    def contended(writes: Any) -> None:
        if met:
            raise met.pop()
        transact(writes)

    monkeypatch.setattr(api.store, "transact", contended)
    monkeypatch.setattr(api.service.bell, "ring", lambda: (_ for _ in ()).throw(Throttled("not now")))
    status, applied = api.post(
        "/v1/service/policy", {"text": POLICY.replace("quota: 2", "quota: 3"), "after": 0}, "operators"
    )
    assert (status, applied["version"]) == (200, 1)
    met[:] = [Conflict("a pass was writing")] * 9
    status, _ = api.post("/v1/service/policy", {"text": POLICY, "after": 1}, "operators")
    assert (status, with_policies.in_force().version) == (503, 1), "it can be tried again"
    met[:] = [Conflict("its version is another one", failed=(0,))]
    status, problem = api.post("/v1/service/policy", {"text": POLICY, "after": 1}, "operators")
    assert (status, "another policy was applied" in problem["detail"]) == (409, True), "at the very same time"


def test_another_policy_is_compared_for_those_too_that_passes_skip(
    api: Api, with_policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/v1/service/policy/what-if"
    skipped = api.enlist(1)
    api.service.scheduler.operations.set_tenant_paused("basic", "acme", True, NOW)
    assert get(api, "/v1/service/queue")[1]["items"] == []
    (item,) = api.post(path, {"text": POLICY}, "viewers")[1]["items"]
    assert (item["request_id"], item["now"]["reason"]) == (skipped.request_id, Reason.TENANT_PAUSED)
    api.service.scheduler.operations.set_tenant_paused("basic", "acme", False, NOW)
    # One that was paused between the two reads is in both, and shown once.
    monkeypatch.setattr(TenantQueues, "set_aside", lambda self, tier, limit: [self.get(tier, "acme")])
    assert len(api.post(path, {"text": POLICY}, "viewers")[1]["items"]) == 1


def test_what_is_paused_is_shown_with_who_paused_it_and_why(api: Api) -> None:
    api.enlist(1)
    for body in ({"what": "tenant", "name": "acme", "reason": "asked us to"}, {"what": "tier", "name": "basic"}):
        assert api.post("/v1/service/pause", body, "operators")[0] == 204
    tier_pause, tenant_pause = get(api, "/v1/service")[1]["pauses"]
    assert (tier_pause["what"], tier_pause["name"], tier_pause["reason"]) == ("tier", "basic", "")
    assert (tenant_pause["what"], tenant_pause["name"], tenant_pause["reason"]) == (
        "tenant",
        "acme",
        "asked us to",
    )
    assert tenant_pause["by"].startswith("operator ")
    assert datetime.fromisoformat(tenant_pause["since"]) > datetime.now(UTC) - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("path", "most"), [("/v1/service/policy", POLICIES_MAX), ("/v1/service/policy/what-if", WHAT_IFS_MAX)]
)
def test_what_takes_long_may_be_asked_for_less_often(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str, most: int
) -> None:
    limits: dict[str, int] = {}

    def admit(caller: str, *, limit: int, now: datetime) -> int:
        limits[caller.partition("#")[0]] = limit
        return 0

    monkeypatch.setattr(bootstrap, "call_limits", lambda: SimpleNamespace(admit=admit))
    api.post(path, {"text": "x", **({"after": 0} if path.endswith("policy") else {})}, "operators")
    assert limits[path.rpartition("/")[2]] == most


def test_what_passes_have_decided_about_a_request_is_shown(api: Api) -> None:
    waiting = [api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    admitter = api.service.scheduler.admitter
    # Two slots open one after the other: after both passes, one request waits still.
    for seconds, limits in enumerate((LIMITS, wider(2)), start=1):
        at = datetime.now(UTC) - timedelta(seconds=10 - seconds)
        read_set = admitter.read(limits, at)
        plan = decide(read_set.snapshot, limits, at)
        record = PassRecord(
            at=at,
            engine_version=5,
            policy=limits,
            snapshot=read_set.snapshot,
            admissions_max=10,
            plan=plan,
        )
        admitter.commit(plan, read_set, limits, at, record=encode_pass(record))
    states = {each.request_id: api.requests.get(each.request_id).state for each in waiting}  # type: ignore[union-attr]
    (left,) = [request_id for request_id, state in states.items() if state is State.QUEUED]
    status, body = api.get(f"/v1/service/requests/{left}/passes", "viewers")
    assert status == 200
    assert [(each["engine_version"], each["reason"] != "") for each in body["items"]] == [(5, True)] * 2
    assert body["items"][0]["at"] > body["items"][1]["at"]
    for wrong in ("0" * 32, "x", "%2e%2e"):
        assert api.get(f"/v1/service/requests/{wrong}/passes", "viewers")[0] == 404


def wider(quota: int) -> Policy:
    tier = replace(LIMITS.tiers[0], quota=quota, running_max_per_tenant=quota, running_ceiling_per_tenant=quota)
    return replace(LIMITS, tiers=(tier,))
