"""Every event that the service publishes has an example under events/, and a line in docs/events.md."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from local.deploy import load_template
from tests.build import NOW, after, request, tenant
from trainyard.adapters.aws import queues
from trainyard.contracts import model_events
from trainyard.domain.alias_events import AliasChange, AliasEvent
from trainyard.domain.aliases import Alias
from trainyard.domain.announcements import APPLICATION_SOURCE, TENANT_EVENTS
from trainyard.domain.requests import Outcome, State
from trainyard.persistence.outbox import model_entry

ROOT = Path(__file__).parents[2]
EVENTS, PAGE = ROOT / "events", ROOT / "docs/events.md"
PUBLISHED = [
    *queues.DETAIL_TYPES.values(),
    *queues.OUTBOX_EVENTS.values(),
    *model_events.DETAIL_TYPES.values(),
    *TENANT_EVENTS,
]


def example(detail_type: str) -> dict[str, Any]:
    name = detail_type.lower().replace(" ", "-")
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return event


class Bus:
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.entries += Entries
        return {"FailedEntryCount": 0, "Entries": [{}]}


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    bus = Bus()
    monkeypatch.setattr(queues, "client", lambda _: bus)
    return bus


@pytest.mark.parametrize("detail_type", PUBLISHED)
def test_each_event_has_an_example_and_is_described(detail_type: str) -> None:
    event = example(detail_type)
    assert (event["source"], event["detail-type"]) == (APPLICATION_SOURCE, detail_type)
    assert f"| `{detail_type}` |" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("state", queues.DETAIL_TYPES)
def test_an_event_of_a_request_has_what_its_example_has(state: State, bus: Bus) -> None:
    outcome = Outcome(quality=0.91, model_package_arn="arn:aws:sagemaker:us-east-1:123456789012:model-package/a/1")
    queues.EventBridgeAnnouncements(event_bus_name="b").announce(
        request(state=state, admitted_at=NOW, finished_at=after(9), outcome=outcome)
    )
    (entry,) = bus.entries
    assert entry["DetailType"] == queues.DETAIL_TYPES[state]
    detail = json.loads(entry["Detail"])
    shown = example(entry["DetailType"])["detail"]
    assert list(shown) == list(detail)
    assert shown["state"] == detail["state"]


@pytest.mark.parametrize("detail_type", TENANT_EVENTS)
def test_an_event_of_a_tenant_has_what_its_example_has(detail_type: str, bus: Bus) -> None:
    queues.EventBridgeAnnouncements(event_bus_name="b").announce_tenant(
        tenant(), detail_type.removeprefix("Tenant ")
    )
    (entry,) = bus.entries
    assert entry["DetailType"] == detail_type
    assert list(example(detail_type)["detail"]) == list(json.loads(entry["Detail"]))


@pytest.mark.parametrize("change", AliasChange)
def test_an_event_of_a_model_has_what_its_example_has(change: AliasChange, bus: Bus) -> None:
    shown = example(model_events.DETAIL_TYPES[change.value])["detail"]
    alias = Alias(tenant_id="acme", data_set="churn", live=shown.get("live"), revision="r")
    entry = model_entry(alias, AliasEvent(change, shown["version"]), shown.get("reason", ""), NOW)
    queues.EventBridgeAnnouncements(event_bus_name="b").tell(change.value, entry.item)
    (published,) = bus.entries
    assert published["DetailType"] == model_events.DETAIL_TYPES[change.value]
    assert json.loads(published["Detail"]) == shown


def test_an_event_of_a_model_names_no_account(bus: Bus) -> None:
    arn = "arn:aws:iam::123456789012:role/any"
    values = {"tenant_id": "acme", "data_set": "churn", "version": 1, "reason": f"no {arn}", "at": NOW}
    queues.EventBridgeAnnouncements(event_bus_name="b").tell(AliasChange.NOT_DEPLOYED.value, values)
    assert "123456789012" not in bus.entries[0]["Detail"]


def test_the_page_names_no_event_that_is_not_published() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    named = {line.split("`")[1] for line in lines if line.startswith("| `") and "[example]" in line}
    assert named == set(PUBLISHED)


def test_every_event_that_is_published_can_be_notified_of() -> None:
    parameter = load_template(ROOT / "template.yaml")["Parameters"]["NotificationEvents"]
    allowed = re.compile(parameter["AllowedPattern"])  # of each item of the list
    assert all(allowed.fullmatch(name) for name in PUBLISHED)
    assert not any(allowed.fullmatch(name) for name in ("", "Training Request", "Tenant Created "))
    assert set(parameter["Default"].split(",")) <= set(PUBLISHED)
