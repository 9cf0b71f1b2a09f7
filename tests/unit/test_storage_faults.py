"""Storage that is slow, endless, denied or archived affects only the executions of its own tenant."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from testing.service import ACCOUNT
from tests.build import NOW, after, content, policy, request, submission, tenant, tier
from tests.unit.test_use_cases import Harness
from trainyard.adapters.aws import storage, tenant_objects
from trainyard.adapters.aws.storage import S3DataSets
from trainyard.application.ports import InputData
from trainyard.application.scheduling.intake import Verdict
from trainyard.domain.arrivals import RetrainingAsked, UploadArrived
from trainyard.domain.errors import DataUnavailable, Malformed, Refused
from trainyard.domain.requests import Content, Request, State
from trainyard.domain.retraining import Trigger
from trainyard.domain.tenants import Tenant, TrainingSettings, TrainOn

BUCKET = "trainyard-t-acme"
WHOLE = tenant(settings=TrainingSettings(algorithm="linear", target="y", train_on=TrainOn.WHOLE_PREFIX))
TWO = policy(tier(quota=4, running_max_per_tenant=4), running_max=4)


class Broken:
    """S3 that answers the given calls with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> "Broken":
        return self

    def __getattr__(self, name: str) -> Any:
        def fail(**_: Any) -> Any:
            raise self.error

        return self if name == "get_paginator" else fail


def refused(code: str, status: int = 403) -> ClientError:
    words: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(words, "HeadObject")


@pytest.mark.parametrize(
    "error",
    [
        refused("AccessDenied"),
        refused("403"),
        refused("InvalidObjectState"),
        refused("NoSuchBucket", 404),
        refused("KMS.DisabledException", 400),
        refused("SlowDown", 503),
        refused("InternalError", 500),
        ReadTimeoutError(endpoint_url="s3"),
    ],
)
@pytest.mark.parametrize("owner", [tenant(), WHOLE])
def test_data_that_cannot_be_looked_at_gives_its_slot_back_at_once_and_fails_in_the_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception, owner: Tenant
) -> None:
    harness = Harness(limits=TWO, tenants=(owner, tenant("other")))
    for module in (storage, tenant_objects):
        monkeypatch.setattr(module, "client", Broken(error))
    broken = S3DataSets()

    class DataSets:
        def write_manifest(self, whose: Tenant, one: Request) -> InputData:
            return broken.write_manifest(whose, one) if whose.tenant_id == "acme" else InputData(one.data_bytes)

    harness.start_from(DataSets())
    harness.enlist.enlist(submission(1), NOW)
    harness.enlist.enlist(submission(2, tenant_id="other"), NOW)
    harness.dispatch.run_pass(NOW)
    assert (harness.request(submission(1).request_id).state, harness.scheduler.tables.ledger.read().used) == (
        State.QUEUED,
        1,
    )
    assert harness.request(submission(2).request_id).state is State.RUNNING
    for minute in (3, 10, 20, 40):
        harness.dispatch.run_pass(after(60 * minute))
    ended = harness.request(submission(1).request_id)
    assert (ended.state, ended.failures, harness.scheduler.tables.ledger.read().used) == (State.FAILED, 2, 1)
    assert "the data c" in str(ended.reason)
    assert len(harness.executions.by_token) == 1


def test_a_listing_without_end_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Endless:
        def __call__(self, *_: Any, **__: Any) -> "Endless":
            return self

        def get_paginator(self, _: str) -> "Endless":
            return self

        def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
            while True:
                clock[0] += 0.9
                yield {"Contents": [{"Key": "incoming/set-1/a.csv", "Size": 1}], "IsTruncated": True}

    monkeypatch.setattr(tenant_objects, "client", Endless())
    with pytest.raises(DataUnavailable, match="took more than 4 s"):
        S3DataSets(monotonic=lambda: clock[0]).write_manifest(WHOLE, request(1))
    assert clock[0] < 10


def test_a_data_set_of_more_objects_than_a_run_takes_is_refused(monkeypatch: pytest.MonkeyPatch, s3: Any) -> None:
    monkeypatch.setattr(tenant_objects, "OBJECTS_MAX", 5)
    for number in range(6):
        s3.put_object(Bucket=BUCKET, Key=f"incoming/set-1/{number}.csv", Body=b"x")
    with pytest.raises(Refused, match="more than 5 objects under incoming/set-1/"):
        S3DataSets().write_manifest(WHOLE, request(1))
    with pytest.raises(Refused, match="more than 5 objects"):
        S3DataSets().content_of(WHOLE, "set-1")


def test_more_data_sets_than_can_be_asked_for_at_once_are_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    monkeypatch.setattr(storage, "DATA_SETS_MAX", 2)
    for number in range(3):
        s3.put_object(Bucket=BUCKET, Key=f"incoming/set-{number}/a.csv", Body=b"x")
    with pytest.raises(Malformed, match="more than 2 data sets"):
        S3DataSets().names(tenant())


def test_markers_are_in_no_manifest_and_are_never_the_newest(s3: Any) -> None:
    for name in ("a.csv", "_SUCCESS", "_committed_1", ".a.csv.crc", "b/.DS_Store", "../c.csv", "d//e.csv"):
        s3.put_object(Bucket=BUCKET, Key=f"incoming/set-1/{name}", Body=b"12345")
    assert S3DataSets().write_manifest(WHOLE, request(1)).size_bytes == 5
    key = f"reports/set-1/{request(1).request_id}/input.manifest"
    assert b'"a.csv"]' in s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    found = S3DataSets().content_of(tenant(), "set-1")
    assert found is not None
    assert found.key == "incoming/set-1/a.csv"


# --- what is checked is what is read --------------------------------------------------------------------------


def test_what_was_refused_as_too_large_is_not_trained_on(s3: Any) -> None:
    limits = policy(tier(instances=(replace(tier().instances[0], data_mb_max=1),)))
    harness = Harness(limits=limits)

    def upload(size: int, second: int) -> Verdict:
        key = "incoming/churn/data.csv"
        version = s3.put_object(Bucket=BUCKET, Key=key, Body=b"x" * size)["VersionId"]
        sequencer = f"{second:016X}"
        one = content(key, version_id=version, size_bytes=size, sequencer=sequencer, event_time=after(second))
        return harness.receive(UploadArrived(account_id=ACCOUNT, content=one))[0].verdict

    assert upload(1000, 1) is Verdict.SUBMITTED
    harness.enlist.enlist(harness.queues.sent[0], after(1))
    assert upload(5 * 1024 * 1024, 2) is Verdict.REJECTED
    harness.start_from(S3DataSets())
    harness.dispatch.run_pass(after(60))
    assert harness.executions.by_token == {}
    (failed,) = [r for r in harness.requests() if r.state is State.FAILED]
    assert "5,242,880 bytes in all" in str(failed.reason)


def test_a_run_is_told_the_size_of_what_was_looked_up_last(s3: Any) -> None:
    harness = Harness()
    s3.put_object(Bucket=BUCKET, Key="incoming/churn/data.csv", Body=b"x" * 700)
    one = replace(submission(1), data_set="churn")
    harness.enlist.enlist(one, NOW)
    harness.start_from(S3DataSets())
    harness.dispatch.run_pass(NOW)
    ((_, parameters),) = harness.executions.by_token.values()
    assert parameters["InputBytes"] == "700"


def test_an_object_that_has_gone_costs_no_job(s3: Any) -> None:
    harness = Harness()
    harness.start_from(S3DataSets())
    harness.enlist.enlist(replace(submission(1), data_set="churn"), NOW)
    harness.dispatch.run_pass(NOW)
    assert harness.executions.by_token == {}
    assert "no data left" in str(harness.request(submission(1).request_id).reason)


# --- many data sets -------------------------------------------------------------------------------------------


def test_a_retraining_of_a_thousand_data_sets_is_asked_for_one_by_one() -> None:
    """So that it does not matter how many fit into one invocation."""
    harness = Harness()
    harness.retrainings.arrive = lambda _: None
    names = [f"set-{number}" for number in range(1000)]
    harness.data_sets.objects = {("acme", name): [content(f"incoming/{name}/d.csv")] for name in names}
    looked: list[str] = []
    look = harness.data_sets.content_of

    def content_of(owner: Tenant, data_set: str) -> Content | None:
        looked.append(data_set)
        return look(owner, data_set)

    harness.data_sets.content_of = content_of  # type: ignore[method-assign, assignment]
    asked = RetrainingAsked(account_id=ACCOUNT, event_id="e1", tenant_id="acme", data_set=None)
    assert [judgement.verdict for judgement in harness.receive(asked)] == [Verdict.SPREAD]
    assert (looked, len(harness.retrainings.asked)) == ([], 1000)
    for one in harness.retrainings.asked * 2:
        harness.receive(one)
    assert len({sent.request_id for sent in harness.queues.sent}) == 1000, "asked for again, they are the same"


@pytest.mark.parametrize(
    ("is_scheduled", "own", "expected"),
    [
        (True, {"b"}, ["a", "c"]),
        (True, {"a", "b", "c"}, []),
        (True, {"b", "ended", "to come"}, ["a", "c"]),
        (False, {"b"}, ["a", "b", "c"]),
    ],
)
def test_the_tenants_schedule_is_not_for_data_sets_with_one_of_their_own(
    is_scheduled: bool, own: set[str], expected: list[str]
) -> None:
    daily = replace(tenant().settings, schedule="rate(1 day)")
    others = {"ended": "rate(1 day) until 2026-01-01", "to come": "rate(1 day) from 2099-01-01"}
    data_sets = {name: replace(daily, schedule=others.get(name, daily.schedule)) for name in own}
    # One that has ended, or not begun, leaves its data set to the tenant's schedule.
    data_sets |= {name: data_sets[other] for name, other in zip("ac", others, strict=True) if other in own}
    harness = Harness(tenants=(tenant(data_sets=data_sets),))
    harness.retrainings.arrive = lambda _: None
    harness.data_sets.objects = {("acme", name): [content(f"incoming/{name}/d.csv")] for name in "abc"}
    asked = RetrainingAsked(
        account_id=ACCOUNT,
        event_id="e1",
        tenant_id="acme",
        data_set=None,
        trigger=Trigger.SCHEDULE if is_scheduled else Trigger.EVENT,
    )
    assert [judgement.verdict for judgement in harness.receive(asked)] == [Verdict.SPREAD]
    assert [each.data_set for each in harness.retrainings.asked] == expected


def test_a_retraining_of_a_tenant_without_data_is_told_so() -> None:
    harness = Harness()
    asked = RetrainingAsked(account_id=ACCOUNT, event_id="e1", tenant_id="acme", data_set=None)
    (judgement,) = harness.receive(asked)
    assert (judgement.verdict, judgement.kind) == (Verdict.REJECTED, "no data")


# --- forged messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"data_set": "../../x"},
        {"data_set": "incoming"},
        {"content": content("incoming/../code/preprocess.py")},
        {"content": content("incoming/churn/../../code/preprocess.py")},
        {"content": content("models/churn/x.csv")},
        {"content": content("incoming/churn/_SUCCESS")},
    ],
)
def test_a_message_that_intake_cannot_have_sent_is_not_enlisted(changes: dict[str, Any]) -> None:
    harness = Harness()
    with pytest.raises(Malformed):
        harness.enlist.enlist(submission(1, **changes), NOW)
    assert harness.scheduler.tables.requests.get(submission(1).request_id) is None
