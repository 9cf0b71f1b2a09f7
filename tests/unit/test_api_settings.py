"""The HTTP API: how a tenant changes the settings of its data sets."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tests.build import NOW, after, tenant
from tests.http_api import LIMITS, Api
from trainyard.application.api.settings_changes import ChangeState, ChangeStatus
from trainyard.application.tenancy.tenants import DATA_SETS_MAX, _with_changes
from trainyard.contracts.tenants import parse_step_command
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.errors import Refused
from trainyard.domain.retraining import RetrainingSettings, Trigger
from trainyard.domain.retraining_record import LastTrigger, RetrainingRecord, with_trigger
from trainyard.domain.tenants import TenantState
from trainyard.persistence.retraining_records import ALL, put_record, record_key

SETTINGS = "/v1/tenants/acme/settings"
OWN = Algorithm(name="own", code_uri="s3://code/x")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(monkeypatch, limits=replace(LIMITS, algorithms={"own": OWN}))


def spec_of(api: Api, change_id: str) -> Any:
    """Return what the state machine's steps are given for a change."""
    payload = api.updates.payloads[change_id]
    return parse_step_command({"change": "update", "step": "Check", **payload}).tenant.to_spec()


def test_what_changes_of_one_data_set_leaves_the_others_as_they_are(api: Api) -> None:
    changes = {"target": "y", "algorithm": "linear", "hyperparameters": {"max_iter": 7}, "priority": 2}
    status, begun = api.post(SETTINGS, {"data_set": "churn", "changes": changes})
    assert status == 202
    spec = spec_of(api, begun["change_id"])
    assert (spec.settings, spec.data_sets, spec.tier) == ({}, None, None)
    given = {"target": "y", "algorithm": "linear", "priority": 2, "hyperparameters": (("max_iter", 7),)}
    assert spec.data_set_changes == {"churn": given}
    base, other = tenant().settings, replace(tenant().settings, target="other")
    after = _with_changes({"other": other, "churn": replace(base, every_upload=True)}, base, spec.data_set_changes)
    assert after["other"] == other
    assert (after["churn"].target, after["churn"].every_upload, after["churn"].priority) == ("y", True, 2)


def test_the_tenants_own_settings_and_the_removal_of_a_data_sets(api: Api) -> None:
    begun = api.post(SETTINGS, {"changes": {"ready_by": "06:00 Europe/Zurich"}})[1]
    spec = spec_of(api, begun["change_id"])
    assert (spec.settings, spec.data_set_changes) == ({"ready_by": "06:00 Europe/Zurich"}, {})
    begun = api.post(SETTINGS, {"data_set": "churn", "remove": True})[1]
    spec = spec_of(api, begun["change_id"])
    assert (spec.settings, spec.data_set_changes) == ({}, {"churn": None})
    base = tenant().settings
    assert _with_changes({"churn": base}, base, spec.data_set_changes) == {}
    assert _with_changes({}, base, spec.data_set_changes) == {}, "it has none already"


def test_a_change_is_followed_to_its_end(api: Api) -> None:
    change_id = api.post(SETTINGS, {"changes": {"priority": 1}}, key="k")[1]["change_id"]
    path = f"/v1/tenants/acme/changes/{change_id}"
    assert api.get(path) == (200, {"state": "RUNNING", "reason": None})
    assert api.post(SETTINGS, {"changes": {"priority": 1}}, key="k")[1]["change_id"] == change_id
    assert api.post(SETTINGS, {"changes": {"priority": 2}}, key="k")[0] == 422
    api.updates.statuses[change_id] = ChangeStatus(
        ChangeState.FAILED, "arn:aws:iam::123456789012:role/x is not there"
    )
    status, body = api.get(path)
    assert (status, body["state"]) == (200, "FAILED")
    assert "123456789012" not in body["reason"]
    other = api.post("/v1/tenants/acme1/settings", {"changes": {"priority": 1}}, "operators")[1]["change_id"]
    for foreign in (other, "acme", "acme-", f"{change_id}0", "acme-1-000000000000"):
        assert api.get(f"/v1/tenants/acme/changes/{foreign}")[0] == 404, foreign


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "either changes"),
        ({"changes": {}}, 400, "either changes"),
        ({"changes": {"priority": 1}, "remove": True}, 400, "either changes"),
        ({"remove": True}, 400, "data_set"),
        ({"changes": {"serving": {"mode": "real-time"}}}, 400, "serving"),
        ({"changes": {"tier": "premium"}}, 400, "tier"),
        ({"tier": "premium", "changes": {"priority": 1}}, 400, "tier"),
        ({"data_set": "../x", "changes": {"priority": 1}}, 400, "data_set"),
        ({"changes": {"target": ""}}, 400, "target"),
        ({"changes": {"split": "half"}}, 400, "split"),
        ({"changes": {"ready_by": "soon"}}, 400, "ready_by"),
        ({"changes": {"priority": 10}}, 400, "priority"),
        ({"changes": {"train_on": "nothing"}}, 400, "train_on"),
        ({"changes": {"hyperparameters": {"a": None}}}, 400, "hyperparameters"),
        ({"changes": {"algorithm": "nope"}}, 409, "nope"),
        ({"changes": {"algorithm": "own"}}, 409, "code of its own"),
    ],
)
def test_a_change_that_is_none_is_refused(api: Api, body: dict[str, Any], status: int, words: str) -> None:
    answer, problem = api.post(SETTINGS, body)
    assert (answer, words in problem["detail"]) == (status, True), problem
    assert not api.updates.payloads


def test_a_tenant_that_is_not_active_changes_nothing(api: Api) -> None:
    api.tenants.put(tenant(state=TenantState.SUSPENDED))
    assert api.post(SETTINGS, {"changes": {"priority": 1}})[0] == 409


def test_too_many_data_sets_with_settings_of_their_own_are_refused() -> None:
    base = tenant().settings
    full = {f"d{number}": base for number in range(DATA_SETS_MAX)}
    assert len(_with_changes(full, base, {"d0": {"priority": 1}})) == DATA_SETS_MAX
    with pytest.raises(Refused, match="at most 50 data sets"):
        _with_changes(full, base, {"another": {"priority": 1}})
    assert len(_with_changes(full, base, {"d0": None, "another": {"priority": 1}})) == DATA_SETS_MAX


def test_a_data_set_gets_a_schedule_of_its_own(api: Api) -> None:
    daily = "cron(0 3 * * ? *) Europe/Zurich"
    for text in (daily, ""):
        body = {"data_set": "churn", "changes": {"schedule": text}}
        assert api.post("/v1/tenants/acme/settings", body)[0] == 202
    sent = [payload["tenant"]["data_set_changes"] for payload in api.updates.payloads.values()]
    assert {"churn": {"schedule": daily}} in sent
    assert {"churn": {"schedule": ""}} in sent


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"data_set": "churn", "changes": {"schedule": "daily"}}, "is not a schedule: use rate(1 day)"),
        ({"data_set": "churn", "changes": {"schedule": "cron(0 3 30 2 ? *)"}}, "is never due"),
        (
            {"data_set": "churn", "changes": {"schedule": "rate(5 minutes)"}},
            "at least 60 minutes must lie between",
        ),
        ({"data_set": "churn", "changes": {"schedule": "rate(1 day) " + "x" * 300}}, "at most 256"),
        ({"changes": {"schedule": "rate(1 day)"}}, "name the one that is to have a schedule of its own"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(api: Api, body: dict[str, Any], words: str) -> None:
    status, problem = api.post("/v1/tenants/acme/settings", body)
    assert (status, words in problem["detail"]) == (400, True), problem


def asked(api: Api, data_set: str, trigger: str, at: datetime, **became: str) -> None:
    """Keep what asked a data set of acme to train by itself."""
    last = LastTrigger(at=at, trigger=trigger, event_id="e", **became)
    record = with_trigger(RetrainingRecord(), Trigger.ALARM, last)
    api.store.transact([put_record(record_key("acme", data_set), record, None)])


def test_what_trains_by_itself_is_shown_with_why_it_did_not(api: Api) -> None:
    scheduled = replace(tenant(), data_sets={"churn": replace(tenant().settings, schedule="cron(0 3 * * ? *)")})
    api.tenants.put(replace(scheduled, revision=api.tenants.get("acme").revision))  # type: ignore[union-attr]
    asked(api, "churn", "alarm: quality", NOW, left_out="nothing has changed")
    asked(api, "sales", "age", after(60), request_id="1" * 32)
    asked(api, ALL, "schedule", after(90))
    status, shown = api.get("/v1/tenants/acme/retraining")
    assert status == 200
    (schedule,) = shown["schedules"]
    assert (schedule["data_set"], schedule["kind"], schedule["due_at"][11:16]) == ("churn", "training", "03:00")
    assert [(each["data_set"], each["request_id"], each["left_out_because"]) for each in shown["triggers"]] == [
        ("sales", "1" * 32, None),
        ("churn", None, "nothing has changed"),
    ]


def test_rules_of_a_data_set_are_changed_as_a_whole(api: Api) -> None:
    rules = {"files": 10, "critical": ["age"], "between": "22:00-06:00 Europe/Zurich"}
    begun = api.post(SETTINGS, {"data_set": "churn", "changes": {"retraining": rules}})[1]
    given = spec_of(api, begun["change_id"]).data_set_changes["churn"]
    assert given == {
        "retraining": RetrainingSettings(files=10, critical=("age",), between="22:00-06:00 Europe/Zurich")
    }
    status, problem = api.post(SETTINGS, {"data_set": "churn", "changes": {"retraining": {"files": 0}}})
    assert status == 400
    assert "greater than or equal to 1" in str(problem)
