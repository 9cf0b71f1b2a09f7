"""New attributes and states of a request are handled everywhere."""

from dataclasses import MISSING, fields, replace
from decimal import Decimal

import pytest

from tests.build import after, content, request
from trainyard.adapters.aws.queues import DETAIL_TYPES
from trainyard.domain.newest import merged, newest, uploads_of
from trainyard.domain.queues import ProfileQueue, QueueEntry, TenantQueue, entry_of
from trainyard.domain.receipts import receipt_of
from trainyard.domain.requests import (
    ATTEMPT_FIELDS,
    PROGRESS,
    TERMINAL,
    TRANSITIONS,
    Basis,
    Cause,
    Collected,
    Estimate,
    KeyUploads,
    Outcome,
    Overrides,
    Request,
    RequestKind,
    State,
    StateChange,
    moved,
)
from trainyard.persistence.items import (
    entry_from,
    entry_item,
    estimate_from,
    estimate_item,
    queue_from,
    queue_item,
    request_from,
    request_item,
)

EVERYTHING = Request(
    request_id="1" * 32,
    tenant_id="acme",
    tier="basic",
    data_set="churn",
    content=content(sequencer="0A"),
    cause=Cause.RETRAINING,
    kind=RequestKind.TRANSFORM,
    state=State.SUCCEEDED,
    arrived_at=after(1),
    due_at=after(2),
    alone=True,
    overrides=Overrides(algorithm="linear", hyperparameters=(("max_iter", 5), ("share", 1.0))),
    uploads=(
        KeyUploads(
            key=content().key,
            event_time=after(3),
            sequenced=content(sequencer="0A"),
            bare=content(version_id=None),
        ),
    ),
    triggers=("upload", "schedule"),
    collected=Collected(3, 4, 5),
    collects=True,
    is_forced=True,
    accepts_drift=True,
    keeps_interval=True,
    basis="data.settings",
    data_bytes=4,
    algorithm="boosting",
    profile="ml.t3.medium ml.m5.large 1 30",
    attempt=5,
    failures=6,
    charge=7,
    reserved_usd=Decimal("8.5"),
    month="2026-11",
    runtime_max_seconds=9,
    expected=Estimate(
        seconds=10,
        seconds_p90=11,
        job_seconds=12,
        usd=Decimal("0.13"),
        usd_p90=Decimal("0.14"),
        basis=Basis.HISTORY,
        runs=15,
    ),
    priority=3,
    deadline=after(5000),
    latest_start=after(4000),
    risk_minutes=2,
    miss_published=True,
    history=(StateChange(after(16), State.QUEUED, "upload"), StateChange(after(17), State.RUNNING)),
    claimed_at=after(18),
    ends_by=after(19),
    selected="ml.m5.xlarge",
    ahead=("after/2026-11-28T06:00:00Z/tier/basic",),
    reason="why",
    superseded_by="2" * 32,
    supersedes="3" * 32,
    admitted_at=after(20),
    started_at=after(21),
    finished_at=after(22),
    heard_at=after(23),
    stop_asked_at=after(24),
    execution_arn="arn:execution/1",
    outcome=Outcome(
        quality=0.75,
        quality_metric="auc",
        baseline=0.5,
        problem="classification",
        rows=100,
        rows_dropped=3,
        notes="a note\nanother",
        model_package_arn="arn:package",
        model_uri="s3://model",
        report_uri="s3://report",
        trained_version_id="v1",
        trained_sha256="a" * 64,
        trained_files=2,
        predictions_uri="s3://predictions",
        model_version=3,
        input_files=4,
        cost_usd="0.05",
        cost_unknown=1,
        failed_step="Train",
        unread="too large",
    ),
)
"""A request of which every field differs from its default."""


@pytest.mark.parametrize("name", [field.name for field in fields(Request)])
def test_every_field_of_a_request_is_kept_by_the_table(name: str) -> None:
    """A field that fails here is missing from the item of a request, or from `EVERYTHING` above."""
    (field,) = (field for field in fields(Request) if field.name == name)
    value = getattr(EVERYTHING, name)
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    assert value != default, f"EVERYTHING has no value for {name}"
    assert getattr(request_from(request_item(EVERYTHING)), name) == value


def test_every_field_of_an_entry_is_kept_by_its_own_item_and_by_that_of_its_queue() -> None:
    head = replace(entry_of(replace(EVERYTHING, alone=True)), job_seconds=7, usd_p90=Decimal("0.5"), is_short=True)
    defaults = {f.name: f.default for f in fields(QueueEntry) if f.default is not MISSING}
    assert not [name for name, default in defaults.items() if getattr(head, name) == default]
    behind = tuple(replace(head, request_id=f"{number:032x}") for number in range(3))
    queue = TenantQueue(
        tenant_id="acme",
        tier="basic",
        profiles={head.profile: ProfileQueue(waiting=4, head=head, behind=behind)},
    )
    assert queue_from(queue_item(queue)) == queue
    assert entry_from(entry_item(head)) == head


def test_every_field_of_an_estimate_is_kept() -> None:
    expected = Estimate(
        seconds=1,
        seconds_p90=2,
        job_seconds=3,
        usd=Decimal(4),
        usd_p90=Decimal(5),
        basis=Basis.HISTORY,
        runs=6,
        is_short=True,
    )
    assert estimate_from(estimate_item(expected)) == expected


def test_a_request_of_defaults_is_kept_as_it_is() -> None:
    assert request_from(request_item(request())) == request()


def test_the_uploads_of_a_request_are_kept_and_the_content_to_train_on_is_stored_once() -> None:
    """A request is billed by the kilobyte, several times in its life."""
    events = content(sequencer="0A", etag="a" * 32), content(etag="b" * 32, event_time=after(2))
    earlier, later = content("incoming/churn/a.csv", etag="c" * 32), content("incoming/churn/b.csv", etag="d" * 32)
    for contents in ([events[0]], [events[1]], [*events], [earlier, later], [later, *events, earlier]):
        uploads = merged((), ())
        for single in contents:
            uploads = merged(uploads, uploads_of(single))
        trained_on = newest(uploads)
        several = request(content=trained_on, uploads=uploads)
        item = request_item(several)
        assert request_from(item) == several
        assert str(item).count(trained_on.etag) == 1, item


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_receipt(state: State) -> None:
    assert receipt_of(request(state=state, reason="why"))["message"]


@pytest.mark.parametrize("state", [state for state in State if state is not State.ADMITTED])
def test_every_state_has_an_event(state: State) -> None:
    """But ADMITTED: an admission is announced by its start."""
    assert DETAIL_TYPES[state]


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_progress(state: State) -> None:
    assert PROGRESS[state] in range(4)


LASTING = {
    *("request_id", "tenant_id", "tier", "data_set", "content", "cause", "state", "arrived_at", "due_at", "alone"),
    *("uploads", "data_bytes", "algorithm", "profile", "attempt", "failures", "month", "expected", "history"),
    *(
        "reason",
        "priority",
        "deadline",
        "latest_start",
        "superseded_by",
        "supersedes",
        "finished_at",
        "stop_asked_at",
        "outcome",
    ),
    *("risk_minutes", "miss_published", "kind", "overrides"),
    *("triggers", "collected", "collects", "keeps_interval", "is_forced", "accepts_drift"),
}
"""Fields that stay when a request goes back to its queue, or are set anew then."""


def test_every_field_of_a_request_lasts_or_belongs_to_one_attempt() -> None:
    assert {field.name for field in fields(Request)} == LASTING | set(ATTEMPT_FIELDS)
    assert not LASTING & set(ATTEMPT_FIELDS)


def test_a_request_that_waits_again_has_lost_what_belonged_to_its_attempt() -> None:
    again = moved(replace(EVERYTHING, state=State.RUNNING), State.QUEUED, after(30), "capacity")
    kept = {name for name in ATTEMPT_FIELDS if getattr(again, name) == getattr(EVERYTHING, name)}
    assert (again.state, kept) == (State.QUEUED, set())
    assert again.history[-1] == StateChange(after(30), State.QUEUED, "capacity")


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_transitions(state: State) -> None:
    assert (TRANSITIONS[state] == frozenset()) == (state in TERMINAL)
    with pytest.raises(AssertionError, match=f"no request goes from {state}"):
        moved(request(state=state), state, after(1))
