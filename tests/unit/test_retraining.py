"""Retraining by itself: what asks for a training, what is enough for one, and when nothing is trained."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from testing.memory_ports import MemoryCapturedInputs
from testing.service import ACCOUNT
from tests.build import NOW, after, content, model_version, policy, submission, tenant, tier
from tests.unit.test_use_cases import Harness
from trainyard.adapters.aws.storage import S3Uploads
from trainyard.application.ports import ExecutionReport
from trainyard.application.scheduling import retraining_watch
from trainyard.application.scheduling.candidates import of_alarm
from trainyard.application.scheduling.completion import End
from trainyard.application.scheduling.intake import Judgement, Verdict
from trainyard.application.scheduling.retraining_watch import GRACE, PARTS, RetrainingWatch
from trainyard.contracts.arrivals import parse_arrival, retraining_body
from trainyard.contracts.batch_manifest import parse_batch_manifest
from trainyard.contracts.policy_retraining import RetrainingEntry
from trainyard.contracts.retraining import RetrainingValues, retraining_view
from trainyard.domain.arrivals import AlarmRang, RetrainingAsked, UploadArrived
from trainyard.domain.errors import Conflict, Malformed, Refused, StartDelayed
from trainyard.domain.file_types import rows_of
from trainyard.domain.inference import EndpointUse
from trainyard.domain.policy import AlarmMapping
from trainyard.domain.requests import Cause, Collected, Content, Outcome, State
from trainyard.domain.retraining import (
    COLLECT_MAX,
    TRIGGER_LENGTH_MAX,
    BatchEnd,
    OnDrift,
    RetrainingSettings,
    Trained,
    Trigger,
    Waiting,
    is_enough,
    parse_between,
    progress,
    trigger_text,
    wait_after,
)
from trainyard.domain.retraining_record import (
    ALARM_REST,
    AUTOMATIC_MAX,
    LOOP_WINDOW,
    Judged,
    LastTrigger,
    RetrainingRecord,
    objection_to,
    with_trigger,
)
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings, TrainOn
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.retraining_records import put_record, record_from, record_key
from trainyard.persistence.retraining_settings import retraining_from, retraining_item
from trainyard.persistence.run_history import last_start, past_key, remember, trainings_from

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
TRAINED_SHA = "a" * 64


def ruled(**rules: Any) -> Tenant:
    """Return a tenant whose data sets have retraining rules."""
    settings = TrainingSettings(algorithm="linear", target="y", retraining=RetrainingSettings(**rules))
    return tenant(settings=settings)


def asked(trigger: Trigger = Trigger.SCHEDULE, event_id: str = "e1", **changes: Any) -> RetrainingAsked:
    defaults = {"account_id": ACCOUNT, "tenant_id": "acme", "data_set": "churn"}
    return RetrainingAsked(**defaults | {"trigger": trigger, "event_id": event_id} | changes)


class Service(Harness):
    """The service, with a data set "churn" of which an object is stored."""

    def __init__(self, *tenants: Tenant, **changes: Any) -> None:
        super().__init__(limits=policy(tier(quota=4, running_max_per_tenant=4), **changes), tenants=tenants)
        self.now = NOW
        self.put()

    def put(self, *contents: Content) -> None:
        self.data_sets.objects["acme", "churn"] = list(contents or (content(),))

    def at(self, moment: datetime) -> None:
        self.now = moment

    def arrive(self, arrival: Any) -> Judgement:
        (result,) = self.intake.receive([arrival], self.now)
        if isinstance(result, Exception):
            raise result
        (judgement,) = result
        return judgement

    def train(self, arrival: Any) -> str:
        """Let something arrive, and run the training that it asks for to its end; return the request's id."""
        judgement = self.arrive(arrival)
        assert judgement.verdict is Verdict.SUBMITTED, judgement
        self.work()
        assert judgement.request_id is not None
        assert self.request(judgement.request_id).state is State.RUNNING
        self.results.outcome = Outcome(
            trained_sha256=TRAINED_SHA, trained_files=1, model_package_arn="arn:package/1"
        )
        self.end(judgement.request_id, seconds=(self.now - NOW).total_seconds())
        return judgement.request_id

    def work(self) -> None:
        """Enlist what intake has sent, and start what may start."""
        for each in self.queues.sent:
            self.enlist.enlist(each, self.now)
        self.queues.sent.clear()
        self.dispatch.run_pass(self.now)

    def left_out(self, arrival: Any) -> str:
        judgement = self.arrive(arrival)
        assert judgement.verdict is Verdict.LEFT_OUT, judgement
        assert not self.queues.sent
        return str(judgement.reason)

    def kept(self) -> RetrainingRecord:
        """Return what is kept of the data set's triggers."""
        (item,) = self.store.get(record_key("acme", "churn"))
        return record_from(item)


def upload(**changes: Any) -> UploadArrived:
    return UploadArrived(account_id=ACCOUNT, content=content(**changes))


# --- rules ----------------------------------------------------------------------------------------------------


def test_an_interval_is_kept_from_start_to_start() -> None:
    rules = RetrainingSettings(interval_minutes=60)
    common: dict[str, Any] = {"quiet_period": MINUTE, "delay_max": 5 * MINUTE, "settings": rules}
    assert wait_after(NOW, **common).due_at == NOW + MINUTE, "nothing has started yet"
    assert wait_after(NOW, **common, last_start=NOW - 10 * MINUTE).due_at == NOW + 50 * MINUTE
    assert wait_after(NOW, **common, last_start=NOW - 2 * HOUR).due_at == NOW + MINUTE


def test_own_waits_take_the_place_of_the_policys() -> None:
    rules = RetrainingSettings(quiet_minutes=10, delay_max_minutes=25)
    wait: Waiting | None = None
    for minutes in (0, 9, 18, 24):
        wait = wait_after(
            NOW + minutes * MINUTE, quiet_period=MINUTE, delay_max=5 * MINUTE, settings=rules, waiting=wait
        )
    assert wait == Waiting(arrived_at=NOW, due_at=NOW + 25 * MINUTE)


@pytest.mark.parametrize(
    ("between", "at", "due"),
    [
        ("22:00-06:00 UTC", "2026-11-21T12:00", "2026-11-21T22:00"),
        ("22:00-06:00 UTC", "2026-11-21T23:30", "2026-11-21T23:30"),
        ("22:00-06:00 UTC", "2026-11-22T05:59", "2026-11-22T05:59"),
        ("22:00-06:00 UTC", "2026-11-22T06:00", "2026-11-22T22:00"),
        ("09:00-17:00 Europe/Zurich", "2026-11-21T07:00", "2026-11-21T08:00"),
        # The clock skips 02:00 to 03:00 on 29 March.
        ("02:30-04:00 Europe/Zurich", "2026-03-29T00:00", "2026-03-29T01:30"),
    ],
)
def test_trainings_start_between_times_of_the_day(between: str, at: str, due: str) -> None:
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    rules = RetrainingSettings(between=between)
    wait = wait_after(now, quiet_period=timedelta(0), delay_max=MINUTE, settings=rules)
    assert wait.due_at == datetime.fromisoformat(due).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "22:00", "22:00-06:00 Mars/Base", "25:00-06:00", "06:00-06:00", "6:00-7:00"])
def test_what_is_no_time_of_the_day_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        parse_between(text)


def test_too_little_waits_for_more_and_is_trained_on_after_a_day_all_the_same() -> None:
    rules = RetrainingSettings(files=3)
    common: dict[str, Any] = {"quiet_period": MINUTE, "delay_max": 5 * MINUTE, "settings": rules}
    first = wait_after(NOW, **common, enough=False)
    assert first == Waiting(arrived_at=NOW, due_at=NOW + COLLECT_MAX, collects=True)
    second = wait_after(NOW + HOUR, **common, enough=False, waiting=first)
    assert second.due_at == NOW + COLLECT_MAX
    third = wait_after(NOW + 2 * HOUR, **common, enough=True, waiting=second)
    assert third == Waiting(arrived_at=NOW, due_at=NOW + 5 * MINUTE), "enough: its longest delay has passed"
    assert wait_after(NOW + 25 * HOUR, **common, enough=False, waiting=second).due_at == NOW + COLLECT_MAX


@pytest.mark.parametrize(
    ("collected", "rules", "enough"),
    [
        (Collected(2, 0, 0), {"files": 3}, False),
        (Collected(3, 0, 0), {"files": 3}, True),
        (Collected(1, 10**6, 0), {"files": 3, "megabytes": 1}, True),
        (Collected(1, 10**6 - 1, 0), {"files": 3, "megabytes": 1}, False),
        (Collected(1, 1, 99), {"rows": 100}, False),
        (Collected(1, 1, 100), {"rows": 100}, True),
        (Collected(1000, 10**9, 10**6), {"closed_by": BatchEnd.SUCCESS}, False),
        (Collected(1, 1, 0), {}, True),
    ],
)
def test_the_first_threshold_that_is_reached_is_enough(
    collected: Collected, rules: dict[str, Any], enough: bool
) -> None:
    assert is_enough(collected, RetrainingSettings(**rules)) is enough


def test_progress_names_each_threshold() -> None:
    rules = RetrainingSettings(files=10, megabytes=5, rows=1000, closed_by=BatchEnd.SUCCESS)
    told = progress(Collected(3, 1_500_000, 200), rules)
    assert told == "3 of 10 files, 1.5 of 5 MB, about 200 of 1,000 rows, no _SUCCESS yet"


EVERY_RULE = RetrainingSettings(
    files=1,
    megabytes=2,
    rows=3,
    closed_by=BatchEnd.MANIFEST,
    quiet_minutes=0,
    delay_max_minutes=5,
    interval_minutes=6,
    between="22:00-06:00 UTC",
    age_max_days=7,
    retry_hours=8,
    failed_calls_percent=10,
    captured_drift=True,
    warm_start=True,
    on_schema_change=OnDrift.TRAIN,
    on_shift=OnDrift.REFUSE,
    shift_percent=9,
    critical=("age", "income"),
)


def test_rules_are_kept_as_they_were_given() -> None:
    assert retraining_from(retraining_item(EVERY_RULE)) == EVERY_RULE
    assert len(retraining_item(EVERY_RULE)) == len(RetrainingValues.model_fields)
    assert RetrainingValues.model_validate(retraining_view(EVERY_RULE)).to_settings() == EVERY_RULE
    assert retraining_item(RetrainingSettings()) == {} == retraining_view(RetrainingSettings())
    assert RetrainingValues.model_validate({"critical": "age|income"}).critical == ("age", "income")
    assert retraining_from(None) == RetrainingSettings() == RetrainingValues().to_settings()


@pytest.mark.parametrize("name", RetrainingValues.model_fields)
def test_a_rule_that_is_null_is_none(name: str) -> None:
    """Its limits must not be checked on null: pydantic answers that with an error that is no ValidationError."""
    assert RetrainingValues.model_validate({name: None}) == RetrainingValues()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"files": 0}, "greater than or equal to 1"),
        ({"megabytes": 0}, "greater than or equal to 1"),
        ({"rows": -5}, "greater than or equal to 1"),
        ({"interval_minutes": 0}, "greater than or equal to 1"),
        ({"closed_by": "DONE"}, "_SUCCESS"),
        ({"between": "all day"}, "is not a time of the day such as"),
        ({"quiet_minutes": 10, "delay_max_minutes": 5}, "a training never waits for so long"),
        ({"wait": 5}, "Extra inputs"),
        ({"shift_percent": 0}, "greater than or equal to 1"),
        ({"on_shift": "wait"}, "'refuse' or 'train'"),
        ({"critical": ["a"] * 9}, "at most 8"),
        ({"critical": ["x" * 60] * 3}, "more than 150 characters in all"),
        ({"critical": ""}, "at least 1 character"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RetrainingValues.model_validate(rules)


@pytest.mark.parametrize(
    ("first", "size", "rows"),
    [
        (b"a,b\n1,2\n3,4\n", 12, 3),
        (b"a,b\n1,2\n3,4", 11, 3),
        (b"a,b\n1,2\n3,4\n", 1200, 300),
        (b"", 0, 0),
        (b"PAR1\n\n\n", 7, 0),
        (b"\x1f\x8b\n\n", 4, 0),
        (b"a\0b\n", 4, 0),
    ],
)
def test_rows_are_counted_by_lines_or_estimated_from_the_first_ones(first: bytes, size: int, rows: int) -> None:
    assert rows_of(first, size) == rows


def test_a_trigger_is_kept_short_and_printable() -> None:
    assert trigger_text(Trigger.ALARM, "quality\n\x1b[31m of churn") == "alarm: quality [31m of churn"
    assert len(trigger_text(Trigger.EVENT, "x" * 999)) == TRIGGER_LENGTH_MAX
    assert trigger_text(Trigger.EVENT, "\n\t ") == "event"


# --- the queue ------------------------------------------------------------------------------------------------


def test_uploads_are_collected_until_they_are_enough_and_trained_on_once() -> None:
    service = Service(ruled(files=3))
    for number in range(3):
        service.at(after(600 * number))
        service.arrive(upload(key=f"incoming/churn/{number}.csv", version_id=f"v{number}", size_bytes=10))
        service.work()
        states = sorted(request.state for request in service.requests())
        expected = [State.QUEUED] if number < 2 else [State.RUNNING]
        assert [state for state in states if state is not State.SUPERSEDED] == expected
    (trained,) = [request for request in service.requests() if request.state is State.RUNNING]
    assert (trained.collected, trained.collects) == (Collected(3, 30, 0), False)
    assert trained.content.key == "incoming/churn/2.csv"
    assert len(service.executions.by_token) == 1


def test_an_upload_that_comes_twice_is_collected_once() -> None:
    service = Service(ruled(files=3))
    for _ in range(5):
        service.arrive(upload())
        service.work()
    (waiting,) = service.requests()
    assert (waiting.state, waiting.collected.files) == (State.QUEUED, 1)


def test_a_thousand_uploads_in_a_burst_train_twice_at_most_on_the_newest_content() -> None:
    """They come within ten minutes, while the first training runs."""
    service = Service(ruled(interval_minutes=30))
    for number in range(1000):
        service.at(after(0.6 * number))
        key = f"incoming/churn/{number % 7}.csv"
        service.arrive(upload(key=key, version_id=f"v{number}", etag=f"{number:032x}", event_time=service.now))
        service.work()
    running = [request for request in service.requests() if request.state is State.RUNNING]
    assert len(running) == 1
    service.end(running[0].request_id, seconds=900)
    service.at(after(1799))
    service.work()
    (waiting,) = [request for request in service.requests() if request.state is State.QUEUED]
    service.at(after(1800))
    service.work()
    last = service.request(waiting.request_id)
    assert (last.state, last.content.etag, len(service.executions.by_token)) == (State.RUNNING, f"{999:032x}", 2)
    assert running[0].collected.files + last.collected.files == 1000, "it says for how many uploads it stands"


def test_an_interval_holds_between_the_starts_of_trainings() -> None:
    service = Service(ruled(interval_minutes=60))
    service.train(upload())
    (item,) = service.store.get(past_key("acme", "churn"))
    assert last_start(item) == NOW
    service.at(after(600))
    again = service.arrive(upload(version_id="v2", etag="2" * 32)).request_id
    service.work()
    assert again is not None
    assert (service.request(again).state, service.request(again).due_at) == (State.QUEUED, NOW + HOUR)
    service.at(NOW + HOUR)
    service.work()
    assert service.request(again).state is State.RUNNING


def test_a_person_who_asks_does_not_wait_for_the_interval_or_the_night() -> None:
    service = Service(ruled(interval_minutes=600, between="01:00-02:00 UTC"))
    service.put(content(etag="1" * 32))
    judgement = service.arrive(asked(Trigger.PERSON))
    service.work()
    assert service.request(str(judgement.request_id)).state is State.RUNNING


def test_requests_without_an_interval_leave_no_start_behind() -> None:
    """An admission writes no more than it must."""
    service = Service(ruled())
    service.arrive(upload())
    service.work()
    (item,) = service.store.get(past_key("acme", "churn"))
    assert item is None


def test_what_asks_while_uploads_are_collected_lets_them_start() -> None:
    service = Service(ruled(files=10))
    first = service.arrive(upload())
    service.work()
    assert service.request(str(first.request_id)).collects
    service.put(content(version_id=None, event_time=after(-5)))
    service.at(after(60))
    service.arrive(asked(Trigger.SCHEDULE))
    service.work()
    (running,) = [request for request in service.requests() if request.state is State.RUNNING]
    assert (running.triggers, running.collected.files) == (("upload", "schedule"), 1)


def test_all_triggers_of_a_request_are_named_once() -> None:
    service = Service(ruled(), quiet_period=5 * MINUTE)
    service.put(content(etag="9" * 32))
    alarms = policy().alarms
    assert alarms == ()
    for number, each in enumerate(
        (asked(Trigger.AGE, "e1"), asked(Trigger.ALARM, "e2", detail="quality"), asked(Trigger.AGE, "e3"))
    ):
        service.at(after(number))
        service.arrive(each)
        service.work()
    (waiting,) = [request for request in service.requests() if request.state is State.QUEUED]
    assert waiting.triggers == ("age", "alarm: quality")


def test_a_retry_does_not_wait_until_there_is_enough_again() -> None:
    """Uploads of the next batch are collected while a training runs that fails and comes back."""
    service = Service(ruled(files=2))
    for number in range(2):
        service.arrive(upload(key=f"incoming/churn/{number}.csv", version_id=f"v{number}"))
        service.work()
    (running,) = [request for request in service.requests() if request.state is State.RUNNING]
    service.at(after(60))
    service.arrive(upload(key="incoming/churn/next.csv", version_id="v9", event_time=after(50)))
    service.work()
    service.scheduler.completer.requeue(
        service.request(running.request_id), service.limits, after(90), due_at=after(120), reason="no capacity"
    )
    (waiting,) = [request for request in service.requests() if request.state is State.QUEUED]
    assert (waiting.due_at, waiting.collects, waiting.collected.files) == (after(120), False, 3)


# --- nothing has changed --------------------------------------------------------------------------------------


def test_a_schedule_trains_nothing_when_neither_data_nor_settings_have_changed() -> None:
    service = Service(ruled())
    first = service.train(asked(event_id="e1"))
    service.at(after(3600))
    reason = service.left_out(asked(event_id="e2"))
    assert reason == (
        f"neither its data nor its settings have changed since request {first[:8]} trained on them "
        f"({NOW:%Y-%m-%d %H:%M} UTC)"
    )
    record = service.kept()
    assert record.last is not None
    assert (record.last.left_out, record.last.request_id, record.left_out) == (reason, "", 1)
    service.put(content(etag="1" * 32, version_id="v2"))
    service.train(asked(event_id="e3"))
    assert service.kept().left_out == 0


def test_another_setting_is_a_change() -> None:
    service = Service(ruled())
    service.train(asked(event_id="e1"))
    changed = replace(ruled(), settings=replace(ruled().settings, split="random"))
    service.intake.tenants.put(changed)  # type: ignore[attr-defined]
    assert service.arrive(asked(event_id="e2")).verdict is Verdict.SUBMITTED


def refused(service: Service, arrival: Any) -> str:
    """Let something arrive that is refused when its turn comes; return the reason."""
    judgement = service.arrive(arrival)
    assert judgement.verdict is Verdict.SUBMITTED, judgement
    before = len(service.executions.by_token)
    service.work()
    request = service.request(str(judgement.request_id))
    assert (request.state, len(service.executions.by_token)) == (State.REJECTED, before), request
    assert service.scheduler.tables.ledger.read().used == 0
    return str(request.reason)


def test_the_same_content_uploaded_again_is_refused_with_the_way_out() -> None:
    service = Service(ruled())
    service.train(upload())
    assert "ask for a training with force" in refused(service, upload(version_id="v2"))


def test_an_upload_that_takes_another_one_back_is_the_newest() -> None:
    """A is trained, B waits, and A is uploaded again: nothing is trained, and B does not become the model."""
    service = Service(ruled(), quiet_period=MINUTE)
    service.at(after(-600))
    service.arrive(upload())
    service.work()
    service.at(after(-500))
    service.work()
    (first,) = service.requests()
    service.end(first.request_id, seconds=-400)
    service.at(NOW)
    service.arrive(upload(key="incoming/churn/b.csv", version_id="v2", etag="b" * 32, event_time=after(1)))
    service.work()
    back = service.arrive(upload(version_id="v3", event_time=after(2)))
    service.work()
    service.at(after(90))
    service.work()
    states = sorted(request.state.value for request in service.requests())
    assert states == ["REJECTED", "SUCCEEDED", "SUPERSEDED"]
    assert service.request(str(back.request_id)).state is State.REJECTED


def test_what_would_be_the_newest_model_again_is_trained_while_another_training_runs() -> None:
    service = Service(ruled())
    service.train(upload())
    other = service.arrive(upload(version_id="v2", etag="b" * 32))
    service.work()
    assert service.request(str(other.request_id)).state is State.RUNNING
    back = service.arrive(upload(version_id="v3"))
    service.work()
    assert service.request(str(back.request_id)).state is State.RUNNING


def test_a_data_set_of_all_its_objects_is_unchanged_if_all_are() -> None:
    whole = tenant(settings=TrainingSettings(algorithm="linear", target="y", train_on=TrainOn.WHOLE_PREFIX))
    service = Service(whole)
    service.put(content(etag="1" * 32), content(key="incoming/churn/b.csv", etag="2" * 32))
    service.train(asked(event_id="e1"))
    service.left_out(asked(event_id="e2"))
    service.put(content(key="incoming/churn/b.csv", etag="2" * 32))
    assert service.arrive(asked(event_id="e3")).verdict is Verdict.SUBMITTED, "one was deleted"


def test_an_event_that_comes_again_after_its_training_is_no_copy_of_itself() -> None:
    service = Service(ruled())
    service.train(upload())
    assert service.arrive(upload()).verdict is Verdict.SUBMITTED
    service.work()
    assert len(service.executions.by_token) == 1


def test_a_training_that_is_forced_or_asked_for_with_other_settings_is_trained() -> None:
    service = Service(ruled())
    service.train(asked(event_id="e1"))
    forced = asked(Trigger.PERSON, "e2", is_forced=True)
    assert service.arrive(forced).verdict is Verdict.SUBMITTED
    service.queues.sent.clear()
    assert "since request" in refused(service, asked(Trigger.PERSON, "e3"))


def test_a_training_that_failed_is_no_reason_to_leave_one_out() -> None:
    service = Service(ruled())
    judgement = service.arrive(asked(event_id="e1"))
    service.work()
    service.end(str(judgement.request_id), "Failed")
    assert service.arrive(asked(event_id="e2")).verdict is Verdict.SUBMITTED


# --- the record -----------------------------------------------------------------------------------------------


def test_a_flapping_alarm_is_counted_and_not_obeyed() -> None:
    service = Service(ruled())
    for number in range(50):
        service.at(after(60 * number))
        service.put(content(etag=f"{number:032x}", version_id=f"v{number}"))
        judgement = service.arrive(asked(Trigger.ALARM, f"e{number}", detail="quality"))
        assert judgement.verdict is (Verdict.SUBMITTED if number == 0 else Verdict.LEFT_OUT)
    record = service.kept()
    assert (record.left_out, record.alarm_at) == (49, NOW)
    service.at(NOW + ALARM_REST)
    assert service.arrive(asked(Trigger.ALARM, "later", detail="quality")).verdict is Verdict.SUBMITTED


def test_an_alarm_that_is_delivered_again_is_obeyed_again() -> None:
    """Its message may come back because a queue did not take its request."""
    service = Service(ruled())
    alarm = asked(Trigger.ALARM, "e1", detail="quality")
    ids = {service.arrive(alarm).request_id for _ in range(3)}
    service.at(after(30))
    ids.add(service.arrive(alarm).request_id)
    assert len(ids) == 1
    assert len(service.kept().asked) == 1


def test_a_system_that_answers_each_training_with_the_next_is_stopped() -> None:
    service = Service(ruled(), retraining_sources={"com.example.loop": ("acme",)})
    verdicts = []
    for number in range(AUTOMATIC_MAX + 5):
        service.at(after(600 * number))
        event = asked(Trigger.EVENT, f"e{number}", source="com.example.loop", is_forced=True)
        verdicts.append(service.arrive(event).verdict)
    assert verdicts == [Verdict.SUBMITTED] * AUTOMATIC_MAX + [Verdict.LEFT_OUT] * 5
    last = service.kept().last
    assert last is not None
    assert last.left_out.endswith("is taken for a loop")
    service.at(NOW + LOOP_WINDOW + HOUR)
    event = asked(Trigger.EVENT, "next day", source="com.example.loop", is_forced=True)
    assert service.arrive(event).verdict is Verdict.SUBMITTED


def test_a_system_is_told_that_nothing_has_changed_but_not_forever() -> None:
    service = Service(ruled(), retraining_sources={"crm": ("acme",)})
    service.train(upload())
    results = [service.arrive(asked(Trigger.EVENT, f"e{n}", source="crm")) for n in range(AUTOMATIC_MAX + 3)]
    assert [result.verdict for result in results] == [Verdict.REJECTED] * AUTOMATIC_MAX + [Verdict.LEFT_OUT] * 3
    assert results[0].kind == "unchanged"


def test_a_record_is_kept_as_it_is() -> None:
    last = LastTrigger(at=NOW, trigger="alarm: x", event_id="e 2", request_id="r", left_out="why")
    record = RetrainingRecord(
        last=last,
        asked=(Judged(NOW, "e 1", True, False), Judged(after(1), "e 2", False, True)),
        left_out=3,
        alarm_at=NOW,
        schedule="rate(1 day)",
        schedule_at=after(5),
        revision=4,
    )
    put = put_record(record_key("acme", "churn"), record, None)
    assert record_from(put.item) == replace(record, revision=5)
    assert record_from(put_record(put.key, RetrainingRecord(), None).item) == RetrainingRecord(revision=1)
    assert record_from(None) == RetrainingRecord()


def test_two_triggers_at_once_both_count() -> None:
    """The record is written only if it is as it was read."""
    service = Service(ruled())
    key = record_key("acme", "churn")
    first = with_trigger(RetrainingRecord(), Trigger.AGE, LastTrigger(at=NOW, trigger="age", event_id="e1"))
    service.store.transact([put_record(key, first, None)])
    for item in (None, {"revision": 7}):
        with pytest.raises(Conflict):
            service.store.transact([put_record(key, first, item)])


def test_what_is_left_out_says_why() -> None:
    trained = Trained(request_id="0123456789", at=NOW)
    record = RetrainingRecord(alarm_at=NOW)
    assert objection_to(record, Trigger.AGE, "e", None, NOW) is None
    assert "012345678" not in str(objection_to(record, Trigger.AGE, "e", trained, NOW))
    assert "6 hours later" in str(objection_to(record, Trigger.ALARM, "e", None, after(60)))


# --- how trainings ended --------------------------------------------------------------------------------------


def test_the_end_of_a_training_is_kept_for_its_data_set() -> None:
    service = Service(ruled())
    first = service.train(upload())
    (item,) = service.store.get(past_key("acme", "churn"))
    past = trainings_from(item)
    assert past.trained is not None
    assert past.failed is None
    assert (past.trained.request_id, past.trained.at) == (first, NOW)
    assert past.trained.basis == service.request(first).basis != ""
    judgement = service.arrive(upload(version_id="v2", etag="2" * 32))
    service.work()
    service.end(str(judgement.request_id), "Failed")
    (item,) = service.store.get(past_key("acme", "churn"))
    past = trainings_from(item)
    assert past.failed is not None
    assert past.trained is not None
    assert (past.failed.request_id, past.trained.request_id) == (judgement.request_id, first)
    service.train(upload(version_id="v3", etag="3" * 32))
    (item,) = service.store.get(past_key("acme", "churn"))
    assert trainings_from(item).failed is None


def test_a_history_keeps_what_else_is_noted_of_a_data_set() -> None:
    key = past_key("acme", "churn")
    update = remember(key, (), None, Trained(request_id="r", at=NOW))
    assert (update.when, update.remove) == ((), ("failed",)), "nothing that another transaction writes"


# --- what asks ------------------------------------------------------------------------------------------------


def test_a_batch_is_complete_with_its_marker() -> None:
    service = Service(ruled(closed_by=BatchEnd.SUCCESS))
    for number in range(5):
        service.arrive(upload(key=f"incoming/churn/day/{number}.csv", version_id=f"v{number}"))
        service.work()
    assert not service.executions.by_token
    service.put(content(key="incoming/churn/day/4.csv", version_id="v4"))
    judgement = service.arrive(upload(key="incoming/churn/day/_SUCCESS", version_id="v9", size_bytes=0))
    assert judgement.verdict is Verdict.SUBMITTED
    service.work()
    (running,) = [request for request in service.requests() if request.state is State.RUNNING]
    assert (running.triggers, running.collected.files) == (("upload", "batch complete"), 5)


def test_a_marker_means_nothing_where_no_rule_says_so() -> None:
    service = Service(ruled(closed_by=BatchEnd.MANIFEST))
    assert service.arrive(upload(key="incoming/churn/_SUCCESS", size_bytes=0)).verdict is Verdict.IGNORED
    service = Service(ruled())
    assert service.arrive(upload(key="incoming/churn/_manifest.json")).verdict is Verdict.IGNORED


def test_a_manifest_that_names_missing_files_is_refused_with_their_names() -> None:
    service = Service(ruled(closed_by=BatchEnd.MANIFEST))
    service.put(content(key="incoming/churn/day/0.csv"))
    names = tuple(f"{number}.csv" for number in range(9))
    service.data_sets.manifests["e" * 32] = names
    manifest = upload(key="incoming/churn/day/_manifest.json", etag="e" * 32)
    judgement = service.arrive(manifest)
    assert (judgement.verdict, judgement.kind) == (Verdict.REJECTED, "manifest")
    assert "8 of the 9 files" in str(judgement.reason)
    assert "'day/5.csv' and 3 more" in str(judgement.reason)
    service.put(*(content(key=f"incoming/churn/day/{name}") for name in names))
    again = upload(key="incoming/churn/day/_manifest.json", etag="e" * 32, version_id="v2")
    assert service.arrive(again).verdict is Verdict.SUBMITTED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"files": []}',
        b'{"files": [1]}',
        b'{"files": ["../other/a.csv"]}',
        b'{"files": ["/etc/passwd"]}',
        b'{"files": ["_SUCCESS"]}',
        b'{"files": ["a\\u0000.csv"]}',
        b"\xff\xfe",
        json.dumps({"files": ["a" * 2000]}).encode(),
        json.dumps({"files": [f"{n}.csv" for n in range(10_001)]}).encode(),
    ],
)
def test_a_manifest_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="manifest"):
        parse_batch_manifest(body)


def test_a_manifest_lists_each_file_once() -> None:
    assert parse_batch_manifest(b'{"files": ["a.csv", "b/c.csv", "a.csv"], "rows": 5}') == ("a.csv", "b/c.csv")


@pytest.mark.parametrize(
    ("source", "allowed", "is_accepted"),
    [
        ("trainyard", {}, True),
        ("crm", {"crm": ("acme",)}, True),
        ("crm", {"crm": ("*",)}, True),
        ("crm", {"crm": ("globex",)}, False),
        ("crm", {"CRM": ("acme",)}, False),
        ("crm", {}, False),
    ],
)
def test_only_systems_that_are_allowed_ask_for_a_tenant(
    source: str, allowed: dict[str, Sequence[str]], is_accepted: bool
) -> None:
    service = Service(ruled(), retraining_sources=allowed)
    for data_set in ("churn", None):
        event = asked(Trigger.EVENT, f"e{data_set}", source=source, data_set=data_set)
        if is_accepted:
            assert service.arrive(event).verdict in (Verdict.SUBMITTED, Verdict.SPREAD)
        else:
            with pytest.raises(Malformed, match="may not ask for tenant acme"):
                service.arrive(event)


def test_a_tenants_own_account_asks_for_that_tenant_alone() -> None:
    owned = replace(ruled(), account_id="999999999999")
    service = Service(owned, tenant("globex"))
    event = asked(Trigger.PERSON, "e1", account_id="999999999999", source="trainyard")
    judgement = service.arrive(event)
    assert judgement.verdict is Verdict.SUBMITTED
    assert service.queues.sent[0].triggers == ("event",), "whatever it says about itself"
    with pytest.raises(Malformed, match="not that of tenant globex"):
        service.arrive(replace(event, tenant_id="globex"))
    with pytest.raises(Malformed, match="not that of tenant acme"):
        Service(ruled()).arrive(event)


def test_an_event_says_who_asks_and_only_ours_say_why() -> None:
    envelope = {
        "id": "e1",
        "account": ACCOUNT,
        "time": "2026-11-21T12:00:00Z",
        "source": "crm",
        "detail-type": "Retraining Requested",
        "detail": {
            "tenant_id": "acme",
            "data_set": "churn",
            "reason": "drift",
            "trigger": "person",
            "force": True,
        },
    }
    other = parse_arrival(json.dumps(envelope))
    ours = parse_arrival(json.dumps(envelope | {"source": "trainyard"}))
    assert isinstance(other, RetrainingAsked)
    assert isinstance(ours, RetrainingAsked)
    assert (other.trigger, other.detail, other.is_forced) == (Trigger.EVENT, "crm drift", True)
    assert (ours.trigger, ours.detail) == (Trigger.PERSON, "drift")
    again = parse_arrival(retraining_body(replace(other, data_set="churn"), NOW))
    assert isinstance(again, RetrainingAsked)
    assert (again.trigger, again.detail, again.is_forced) == (Trigger.EVENT, "crm drift", True)


@pytest.mark.parametrize(
    "detail",
    [
        {"tenant_id": "acme", "schema_version": 2},
        {"tenant_id": "acme", "trigger": "whim"},
        {"tenant_id": "acme", "force": "yes"},
        {"tenant_id": "acme", "data_set": "x" * 64},
        {},
    ],
)
def test_an_event_of_another_schema_is_a_dead_letter_with_a_reason(detail: dict[str, Any]) -> None:
    envelope = {
        "id": "e1",
        "account": ACCOUNT,
        "time": "2026-11-21T12:00:00Z",
        "source": "trainyard",
        "detail-type": "Retraining Requested",
        "detail": detail,
    }
    with pytest.raises(Malformed, match="detail"):
        parse_arrival(json.dumps(envelope))


def alarm(name: str) -> AlarmRang:
    return AlarmRang(account_id=ACCOUNT, event_id="a1", name=name)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("quality/acme/churn", ("acme", "churn")),
        ("quality/a-b-c/x.y_z-1", ("a-b-c", "x.y_z-1")),
        ("quality/acme/churn/more", None),
        ("Quality/acme/churn", None),
        ("quality/ACME/churn", None),
        ("churn of acme (hourly) is worse?", ("acme", "churn")),
        ("acme is late", ("acme", "")),
        ("anything else", None),
    ],
)
def test_alarms_ask_for_the_data_sets_that_the_policy_maps_them_to(
    name: str, target: tuple[str, str] | None
) -> None:
    mapped = policy(
        alarms=(
            AlarmMapping(name="quality/{tenant}/{data_set}"),
            AlarmMapping(name="churn of acme (hourly) is worse?", tenant_id="acme", data_set="churn"),
            AlarmMapping(name="{tenant} is late"),
        )
    )
    asks = [(each.tenant_id, each.data_set or "") for each in of_alarm(alarm(name), mapped)]
    assert asks == ([target] if target else [])


def test_an_alarm_of_no_data_set_is_ignored_and_one_of_no_tenant_is_a_dead_letter() -> None:
    service = Service(ruled(), alarms=(AlarmMapping(name="quality/{tenant}/{data_set}"),))
    (nothing,) = service.intake.receive([alarm("cpu")], NOW)
    assert nothing == []
    with pytest.raises(Malformed, match="no tenant 'globex'"):
        service.arrive(alarm("quality/globex/churn"))
    assert service.arrive(alarm("quality/acme/churn")).verdict is Verdict.SUBMITTED
    (other,) = service.intake.receive([replace(alarm("quality/acme/churn"), account_id="1" * 12)], NOW)
    assert isinstance(other, Malformed)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sources": {"aws.s3": ["acme"]}}, "is the source of other events"),
        ({"sources": {"trainyard": ["acme"]}}, "is the source of other events"),
        ({"sources": {"crm": ["ACME"]}}, "not a valid tenant id"),
        ({"sources": {"crm": []}}, "at least 1"),
        ({"alarms": [{"name": "quality"}]}, "name the tenant"),
        ({"alarms": [{"name": "{tenant}", "tenant": "acme"}]}, "name the tenant"),
        ({"alarms": [{"name": "{tenant}-{data_set}"}]}, "a character that no name contains"),
        ({"alarms": [{"name": "{tenant}/{tenant}"}]}, "once each"),
        ({"alarms": [{"name": "{tenant}/{model}"}]}, "only {tenant} and {data_set}"),
        ({"alarms": [{"name": "{tenant}/{data_set}", "data_set": "churn"}]}, "leave out data_set"),
        ({"alarms": [{"name": "x", "tenant": "acme", "data_set": "models/"}]}, "not a valid data set"),
    ],
)
def test_a_policy_that_maps_nothing_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RetrainingEntry.model_validate(values)


# --- the watch ------------------------------------------------------------------------------------------------


CAPTURED = MemoryCapturedInputs()


def watch(service: Service, *tenants: Tenant, captured: MemoryCapturedInputs = CAPTURED) -> RetrainingWatch:
    class All:
        def all(self) -> Sequence[Tenant]:
            return tenants

    return RetrainingWatch(
        account_id=ACCOUNT,
        store=service.store,
        tenants=All(),
        retrainings=service.retrainings,
        models=service.models,
        calls=InferenceBook(store=service.store, retention=timedelta(days=1)),
        captured=captured,
    )


def due(service: Service, *tenants: Tenant) -> list[tuple[str | None, str, str]]:
    with patch.object(retraining_watch, "PARTS", 1):
        watched = watch(service, *tenants).run(service.now)
    assert watched.failed == {}
    return [(each.data_set, each.trigger.value, each.event_id) for each in watched.asked]


def quiet(service: Service) -> Service:
    """Return the service, with what the watch asks for kept, and not arriving."""
    service.retrainings.arrive = lambda _: None
    return service


def test_a_model_that_is_too_old_is_asked_for_once() -> None:
    owner = ruled(age_max_days=7)
    service = quiet(Service(owner))
    first = service.train(upload())
    service.at(NOW + timedelta(days=7) - MINUTE)
    assert due(service, owner) == []
    service.at(NOW + timedelta(days=7))
    assert due(service, owner) == [("churn", "age", f"age {first} 1")]
    service.arrive(service.retrainings.asked[-1])
    assert due(service, owner) == [], "it was judged: nothing has changed"
    last = service.kept().last
    assert last is not None
    assert last.left_out.startswith("neither its data")
    service.at(NOW + timedelta(days=14))
    assert due(service, owner) == [("churn", "age", f"age {first} 2")]


def test_a_failure_of_aws_is_tried_again_after_some_hours_and_one_of_the_data_is_not() -> None:
    owner = ruled(retry_hours=6)
    for failure, expected in (("CapacityError: no capacity", True), ("the data has no rows", False)):
        service = quiet(Service(owner))
        judgement = service.arrive(upload())
        service.work()
        request_id = str(judgement.request_id)
        for attempt in range(1, 4):
            if service.request(request_id).state is not State.RUNNING:
                break
            service.reports.report = ExecutionReport(failed_step="Train", failure=failure)
            service.end(request_id, "Failed", attempt, seconds=attempt * 4000)
            service.at(after(attempt * 4000 + 3000))
            service.dispatch.run_pass(service.now)
        assert service.request(request_id).state is State.FAILED
        service.at(service.now + 6 * HOUR)
        assert due(service, owner) == ([("churn", "failure", f"failure {request_id}")] if expected else [])


def test_a_live_version_that_fails_its_calls_asks_once_a_day() -> None:
    owner = ruled(failed_calls_percent=20)
    service = quiet(Service(owner))
    first = service.train(upload())
    book = InferenceBook(store=service.store, retention=timedelta(days=1))
    live = model_version(first)

    def answered(calls: int, failed: int) -> None:
        use = EndpointUse(
            tenant_id="acme", data_set="churn", tier="basic", algorithm="linear", calls=calls, failed=failed
        )
        book.count(live.endpoint, use, service.now, live.version)

    answered(20, 20)
    assert due(service, owner) == [], "no version is live"
    service.models.put(live)
    assert due(service, ruled()) == [], "no rule"
    assert due(service, owner) == [("churn", "endpoint quality", f"quality 1 {NOW:%Y-%m-%d}")]
    answered(80, 0)
    assert due(service, owner) == [], "20 of 100 are as many as may fail"
    answered(1, 1)
    assert len(due(service, owner)) == 1
    service.arrive(service.retrainings.asked[-1])
    assert due(service, owner) == [], "it was judged today"
    service.at(NOW + timedelta(days=1))
    assert due(service, owner) == [], "nobody has called for a day"
    answered(11, 9)
    assert due(service, owner) == [], "so few failed calls say nothing"
    answered(1, 1)
    assert len(due(service, owner)) == 1


def test_a_schedule_without_an_event_is_made_up_for_once() -> None:
    """An outage of a day: hourly times have passed, and one training makes up for all of them."""
    owner = replace(
        ruled(), data_sets={"churn": replace(ruled().settings, schedule="cron(0 * * * ? *) within 0 minutes")}
    )
    service = quiet(Service(owner))
    assert due(service, owner) == [], "from now on it is watched"
    service.at(NOW + HOUR + GRACE - MINUTE)
    assert due(service, owner) == [], "its event may still come"
    service.at(NOW + 25 * HOUR)
    (missed,) = due(service, owner)
    assert missed == ("churn", "missed schedule", "missed 2026-11-21T13:00")
    service.arrive(service.retrainings.asked[-1])
    assert due(service, owner) == []
    assert service.queues.sent[0].triggers == ("missed schedule",)


def test_a_schedule_that_was_heard_of_is_not_made_up_for() -> None:
    owner = replace(ruled(), data_sets={"churn": replace(ruled().settings, schedule="cron(0 * * * ? *)")})
    service = quiet(Service(owner))
    due(service, owner)
    for hours in range(1, 5):
        service.at(NOW + hours * HOUR + 10 * MINUTE)
        service.arrive(asked(Trigger.SCHEDULE, f"e{hours}"))
        assert due(service, owner) == []
    service.at(NOW + 5 * HOUR + 14 * MINUTE)
    assert due(service, owner) == []


def test_a_tenants_schedule_is_made_up_for_all_its_data_sets() -> None:
    owner = replace(ruled(), retrain_schedule="cron(0 3 * * ? *) within 0 minutes")
    service = quiet(Service(owner))
    due(service, owner)
    service.at(datetime(2026, 11, 22, 4, tzinfo=UTC))
    assert due(service, owner) == [(None, "missed schedule", "missed 2026-11-22T03:00")]
    assert service.arrive(service.retrainings.asked[-1]).verdict is Verdict.SPREAD
    assert due(service, owner) == []


def test_a_schedule_that_changes_is_watched_anew() -> None:
    owner = replace(ruled(), retrain_schedule="cron(0 3 * * ? *)")
    service = quiet(Service(owner))
    due(service, owner)
    service.at(NOW + timedelta(days=3))
    changed = replace(owner, retrain_schedule="cron(0 4 * * ? *)")
    assert due(service, changed) == [], "whether it should have been heard of is not known"
    service.at(NOW + timedelta(days=4))
    assert len(due(service, changed)) == 1


def test_tenants_that_are_suspended_or_have_no_rules_are_not_watched() -> None:
    service = quiet(Service(ruled()))
    suspended = replace(ruled(age_max_days=1), state=TenantState.SUSPENDED)
    assert sum(watch(service, suspended, ruled()).run(NOW, part=part).tenants for part in range(PARTS)) == 0


def test_a_watch_that_runs_out_of_time_begins_with_others_the_next_hour() -> None:
    service = quiet(Service(ruled()))
    owners = [replace(ruled(age_max_days=1), tenant_id=f"t{number}") for number in range(10)]
    looked_at: set[int] = set()
    for hour in range(40):
        budget = [3]

        def out_of_time(budget: list[int] = budget) -> bool:
            budget[0] -= 1
            return budget[0] < 0

        watcher = watch(service, *owners)
        now = NOW + hour * HOUR
        first = int(now.timestamp()) // 3600 * 37 % len(owners)
        with patch.object(retraining_watch, "PARTS", 1):
            assert watcher.run(now, out_of_time=out_of_time).tenants == 3
        looked_at |= {(first + number) % len(owners) for number in range(3)}
    assert looked_at == set(range(10))


def test_one_tenant_that_fails_does_not_keep_the_others_from_being_watched() -> None:
    owner = ruled(age_max_days=1)
    service = quiet(Service(owner))
    service.train(upload())
    service.at(NOW + timedelta(days=2))
    broken = replace(owner, tenant_id="broken", retrain_schedule="rate(1 day)")

    class Store:
        def __getattr__(self, name: str) -> Any:
            return getattr(service.store, name)

        def query(self, index: str, partition: str, **arguments: Any) -> Any:
            if "broken" in partition:
                raise RuntimeError("no")
            return service.store.query(index, partition, **arguments)

    with patch.object(retraining_watch, "PARTS", 1):
        watched = replace(watch(service, broken, owner), store=Store()).run(service.now)
    assert list(watched.failed) == ["broken"]
    assert len(watched.asked) == 1


def test_uploads_that_are_trained_on_one_by_one_keep_no_interval() -> None:
    service = Service(ruled(interval_minutes=60))
    service.enlist.enlist(replace(submission(1, alone=True), data_set="churn", cause=Cause.UPLOAD), NOW)
    assert not service.request(submission(1).request_id).keeps_interval


def test_each_tenant_is_looked_at_once_an_hour() -> None:
    service = quiet(Service(ruled()))
    owners = [replace(ruled(age_max_days=1), tenant_id=f"t{number}") for number in range(100)]
    watcher = watch(service, *owners)
    by_run = [watcher.run(NOW + number * 5 * MINUTE).tenants for number in range(12)]
    assert sum(by_run) == 100
    assert max(by_run) < 20


def test_an_event_that_was_refused_as_a_loop_is_not_obeyed_when_it_comes_again() -> None:
    service = Service(ruled(), retraining_sources={"loop": ("acme",)})
    events = [asked(Trigger.EVENT, f"e{n}", source="loop", is_forced=True) for n in range(AUTOMATIC_MAX + 1)]
    verdicts = [service.arrive(event).verdict for event in (*events, events[-1], events[0])]
    assert verdicts[-3:] == [Verdict.LEFT_OUT, Verdict.LEFT_OUT, Verdict.SUBMITTED]
    for number in range(500):
        service.arrive(asked(Trigger.EVENT, f"more {number}", source="loop", is_forced=True))
    assert len(service.kept().asked) == AUTOMATIC_MAX
    assert service.arrive(asked(Trigger.AGE, "age 1")).verdict is Verdict.SUBMITTED, "it is no part of that loop"


def test_events_of_other_systems_count_among_a_tenants_uploads() -> None:
    service = Service(ruled(), retraining_sources={"crm": ("acme",)}, uploads_per_hour=3)
    for number in range(3):
        service.arrive(asked(Trigger.EVENT, f"e{number}", source="crm", is_forced=True))
    with pytest.raises(Malformed, match="more than 3 trainings in an hour"):
        service.arrive(asked(Trigger.EVENT, "e9", source="crm", data_set=None))
    assert service.arrive(asked(Trigger.SCHEDULE, "s")).verdict is Verdict.SUBMITTED


def test_a_schedule_that_is_refused_was_heard_of() -> None:
    owner = replace(ruled(), data_sets={"churn": replace(ruled().settings, schedule="cron(0 * * * ? *)")})
    service = quiet(Service(owner))
    due(service, owner)
    service.data_sets.objects.clear()
    service.at(NOW + HOUR)
    assert service.arrive(asked(Trigger.SCHEDULE, "e1")).verdict is Verdict.REJECTED
    last = service.kept().last
    assert last is not None
    assert last.left_out == "retraining was requested, but there is no data"
    service.at(NOW + HOUR + GRACE + 20 * MINUTE)
    assert due(service, owner) == []


def test_a_mapping_that_fits_an_alarm_by_chance_does_not_affect_the_others() -> None:
    mappings = (AlarmMapping(name="{tenant}/{data_set}"), AlarmMapping(name="quality/churn", tenant_id="acme"))
    for alarms in (mappings, mappings[::-1]):
        service = Service(ruled(), alarms=alarms)
        assert service.arrive(alarm("quality/churn")).verdict is Verdict.SPREAD


def test_the_end_of_a_batch_is_found_by_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, key = ruled(closed_by=BatchEnd.SUCCESS), "incoming/churn/_SUCCESS"
    version = {"Key": key, "IsLatest": True, "VersionId": "v", "LastModified": NOW}
    assert S3Uploads()._counts(owner, version, "incoming/", NOW)
    assert not S3Uploads()._counts(ruled(), version, "incoming/", NOW)


def test_a_person_who_asks_starts_what_waits_for_its_rules() -> None:
    service = Service(ruled(interval_minutes=600))
    service.train(upload())
    service.at(after(60))
    service.put(content(version_id="v2", etag="2" * 32))
    waiting = service.arrive(upload(version_id="v2", etag="2" * 32))
    service.work()
    assert service.request(str(waiting.request_id)).state is State.QUEUED
    service.arrive(asked(Trigger.PERSON, "p"))
    service.work()
    assert [each.state for each in service.requests() if each.triggers == ("upload", "person")] == [State.RUNNING]


def test_a_start_that_came_to_nothing_is_no_training() -> None:
    service = Service(ruled(interval_minutes=600))
    service.arrive(upload())
    service.executions.faults = [(StartDelayed("no quota"), False)]
    service.work()
    service.at(after(30))
    comer = service.arrive(upload(version_id="v2", etag="2" * 32, event_time=after(20)))
    service.work()
    assert service.request(str(comer.request_id)).due_at < after(600)


def test_what_was_forced_is_so_after_a_merge_and_drift_is_accepted_for_what_was_seen_alone() -> None:
    service = Service(ruled(), quiet_period=MINUTE)
    service.arrive(asked(Trigger.PERSON, "p", is_forced=True, accepts_drift=True))
    service.work()
    comer = service.arrive(upload(version_id="v2", etag="2" * 32, event_time=after(20)))
    service.work()
    merged = service.request(str(comer.request_id))
    assert (merged.state, merged.is_forced, merged.accepts_drift) == (State.QUEUED, True, False)


def test_two_ends_of_a_data_set_leave_the_one_with_a_model() -> None:
    service = Service(ruled())
    for number in (1, 2):
        service.enlist.enlist(submission(number, alone=True, data_set="churn"), NOW)
    service.dispatch.run_pass(NOW)
    ends = [
        End(request=service.request(submission(number).request_id), state=state, reason="no")
        for number, state in ((1, State.SUCCEEDED), (2, State.FAILED))
    ]
    service.scheduler.completer.finish(ends, service.limits, after(60))
    (item,) = service.store.get(past_key("acme", "churn"))
    past = trainings_from(item)
    assert past.trained is not None
    assert past.trained.request_id == submission(1).request_id
