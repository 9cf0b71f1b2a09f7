"""The HTTP API: what answers calls, of one tenant and of all; promotion, roll-back, and the end of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.build import NOW
from tests.http_api import Api
from trainyard.domain.alias_events import AliasChange
from trainyard.domain.inference import EndpointUse
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.persistence.outbox import outbox_entries

OF_ACME = "/v1/tenants/acme/deployments"
CHURN = f"{OF_ACME}/churn"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch)


def call(api: Api, version: int, number: int, failed: int, tenant_id: str = "acme", hours_ago: int = 0) -> None:
    """Count calls of a version."""
    use = EndpointUse(
        tenant_id=tenant_id, data_set="churn", tier="basic", algorithm="xgboost", calls=number, failed=failed
    )
    when = datetime.now(UTC) - timedelta(hours=hours_ago)
    api.deployed_models.calls.count("shared", use, when, version)


def approve(api: Api, version: ModelVersion, is_approved: bool) -> None:
    package = api.packages.packages[version.package_arn]
    api.packages.packages[version.package_arn] = replace(package, is_approved=is_approved)


def test_a_canary_that_was_rejected_is_not_promoted(api: Api) -> None:
    api.deploy(1)
    approve(api, api.deploy(2, live=1, canary=2, canary_percent=10), False)
    assert api.post(f"{CHURN}/promote", {"version": 2})[0] == 409
    assert api.get(CHURN)[1]["canary"] == 2


def test_a_deployment_shows_versions_with_their_shares_and_calls(api: Api) -> None:
    api.deploy(1)
    api.deploy(2, live=1, canary=2, canary_percent=10)
    call(api, 1, 90, 1)
    call(api, 2, 10, 4)
    call(api, 2, 7, 0, hours_ago=1)
    call(api, 2, 500, 500, hours_ago=5)
    call(api, 2, 600, 600, tenant_id="acme1")
    status, answer = api.get(CHURN)
    assert status == 200
    assert (answer["live"], answer["canary"], answer["canary_percent"]) == (1, 2, 10)
    shown = [(each["version"], each["percent"], each["calls"], each["failed"]) for each in answer["versions"]]
    assert shown == [(1, 90, 90, 1), (2, 10, 17, 4)]
    assert api.get(OF_ACME) == (200, {"items": [answer], "next": None})


def test_a_data_set_that_was_never_deployed_has_no_deployment(api: Api) -> None:
    assert api.get(CHURN)[0] == 404
    assert api.get(OF_ACME) == (200, {"items": [], "next": None})
    assert api.post(f"{CHURN}/stop", {})[0] == 404
    assert api.post(f"{CHURN}/promote", {"version": 1})[0] == 409
    assert api.post(f"{CHURN}/roll-back", {"version": 1})[0] == 409
    assert api.get("/v1/service/deployments", "viewers") == (200, {"items": [], "next": None})
    assert not [key for key in api.store.items if key.pk.startswith("serving#")]


@pytest.mark.parametrize("name", ["a%2Fb", "-", "x" * 200, "Ünï"])
def test_a_name_that_no_data_set_can_have_is_nothing(api: Api, name: str) -> None:
    assert api.get(f"{OF_ACME}/{name}")[0] == 404
    assert api.post(f"{OF_ACME}/{name}/promote", {"version": 1})[0] == 404
    assert api.post(f"{OF_ACME}/{name}/roll-back", {"version": 1})[0] == 404
    assert api.post(f"{OF_ACME}/{name}/stop", {})[0] == 404


def test_a_canary_is_promoted_once_however_often_that_is_asked_for(api: Api) -> None:
    api.deploy(1)
    canary = api.deploy(2, live=1, canary=2, canary_percent=10)
    for _ in range(2):
        status, answer = api.post(f"{CHURN}/promote", {"version": 2})
        assert (status, answer["live"], answer["previous"], answer["canary"]) == (200, 2, 1, None)
    assert set(api.promotions.started) == {canary.package_arn}
    events = [entry for entry in outbox_entries(api.store) if entry.what == AliasChange.DEPLOYED]
    assert sorted(entry.values["version"] for entry in events) == [1, 2]


def test_what_a_promotion_needs(api: Api) -> None:
    api.deploy(1)
    in_test = api.deploy(2, live=1, testing=2)
    approve(api, in_test, False)
    status, answer = api.post(f"{CHURN}/promote", {"version": 3})
    assert (status, answer["detail"]) == (409, "version 3 of churn was never deployed")
    status, answer = api.post(f"{CHURN}/promote", {"version": 2})
    assert (status, answer["detail"]) == (409, "version 2 of churn is not approved any more: approve it first")
    approve(api, in_test, True)
    status, answer = api.post(f"{CHURN}/promote", {"version": 2})
    assert (status, answer["live"], answer["testing"]) == (200, 2, None)
    bodies: tuple[Any, ...] = (
        {},
        {"version": "2"},
        {"version": 0},
        {"version": 2.5},
        {"version": 2, "x": 1},
        None,
    )
    for body in bodies:
        assert api.post(f"{CHURN}/promote", body)[0] in (400, 415), body


def test_a_promotion_counts_although_nothing_follows_it_up(api: Api) -> None:
    api.deploy(1)
    api.deploy(2, live=1, canary=2, canary_percent=10)
    api.promotions.error = "AccessDeniedException"
    status, answer = api.post(f"{CHURN}/promote", {"version": 2})
    assert (status, answer["live"]) == (200, 2)


def test_a_version_in_test_becomes_a_canary_once_and_no_more_by_the_same_call(api: Api) -> None:
    api.deploy(1)
    in_test = api.deploy(2, live=1, testing=2)
    settings = replace(in_test.serving, canary_percent=10)
    api.deployed_models.versions.put(replace(in_test, serving=settings))
    for _ in range(2):
        status, answer = api.post(f"{CHURN}/promote", {"version": 2, "role": "testing"})
        assert (status, answer["live"], answer["canary"], answer["testing"]) == (200, 1, 2, None)
    status, answer = api.post(f"{CHURN}/promote", {"version": 2, "role": "canary"})
    assert (status, answer["live"], answer["canary"]) == (200, 2, None)


def test_what_is_not_what_the_caller_takes_it_for_is_not_promoted(api: Api) -> None:
    api.deploy(1)
    api.deploy(2, live=1, testing=2)
    status, problem = api.post(f"{CHURN}/promote", {"version": 2, "role": "canary"})
    assert (status, problem["detail"]) == (409, "version 2 of churn is in test, and no canary")
    api.deploy(2, live=1, testing=None)
    status, problem = api.post(f"{CHURN}/promote", {"version": 2})
    assert (status, problem["detail"]) == (
        409,
        "version 2 of churn is neither a canary nor in test: approve it again to deploy it",
    )
    assert api.post(f"{CHURN}/promote", {"version": 2, "role": "live"})[0] == 400
    assert api.get("/v1/tenants/acme/models/2")[1]["deployment"] == "OUT_OF_SERVICE"
    assert api.get("/v1/tenants/acme/models/1")[1]["deployment"] == "READY"


def test_a_roll_back_goes_to_the_previous_version_and_no_further(api: Api) -> None:
    api.deploy(1)
    api.deploy(2, live=2, previous=1)
    for _ in range(2):
        status, answer = api.post(f"{CHURN}/roll-back", {"version": 2})
        assert (status, answer["live"], answer["previous"]) == (200, 1, None)
    status, answer = api.post(f"{CHURN}/roll-back", {"version": 1})
    assert status == 409
    assert answer["detail"] == "churn has no earlier version to go back to; stop its deployment to end all calls"


def test_a_dry_run_stops_nothing(api: Api) -> None:
    api.deploy(1)
    api.deploy(2, live=1, canary=2, canary_percent=10, waiting=3)
    before = dict(api.store.items)
    assert api.post(f"{CHURN}/stop", {"dry_run": "no"})[0] == 400
    assert api.post(f"{CHURN}/stop", {"dry_run": True}) == (200, {"versions": [1, 2, 3], "dry_run": True})
    assert api.store.items == before
    assert api.post(f"{CHURN}/stop", {}) == (200, {"versions": [1, 2, 3], "dry_run": False})
    assert api.post(f"{CHURN}/stop", {}) == (200, {"versions": [], "dry_run": False})
    assert api.get(CHURN)[1]["live"] is None


def test_all_deployments_are_listed_page_by_page(api: Api) -> None:
    expected = []
    for tenant_id in ("acme", "acme1"):
        for data_set in ("a", "b", "c"):
            api.deploy(1, tenant_id, data_set)
            api.deploy(2, tenant_id, data_set, live=2, previous=1)
            expected.append((tenant_id, data_set))
    pages, cursor = [], ""
    while cursor is not None:
        after = f"&cursor={cursor}" if cursor else ""
        status, answer = api.get(f"/v1/service/deployments?limit=4{after}", "viewers")
        assert status == 200
        pages += [(each["tenant_id"], each["data_set"], each["live"]) for each in answer["items"]]
        cursor = answer["next"]
    assert sorted(pages) == sorted((*each, 2) for each in expected)
    assert len(pages) == len(expected)


def test_a_forgotten_alias_is_listed_no_more(api: Api) -> None:
    api.deploy(1)
    api.deployed_models.aliases.forget("acme", "churn")
    assert api.get("/v1/service/deployments", "viewers")[1]["items"] == []


def test_a_version_that_failed_says_why_without_the_account(api: Api) -> None:
    version = api.deploy(1, state=VersionState.WAITING, waiting=1)
    reason = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/shared: no capacity"
    api.deployed_models.versions.put(replace(version, reason=reason, since=NOW))
    (shown,) = api.get(CHURN)[1]["versions"]
    assert "123456789012" not in shown["reason"]
    assert (shown["state"], shown["percent"]) == ("WAITING", 0)
