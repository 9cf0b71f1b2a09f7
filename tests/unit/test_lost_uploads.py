"""An upload without an event becomes a request nevertheless."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testing.service import ACCOUNT
from tests.build import NOW, after, content, policy, tenant
from tests.unit.test_use_cases import Harness
from trainyard.adapters.aws.storage import REFUSED_TAG, S3RefusedUploads, S3Uploads
from trainyard.application.scheduling import lost_uploads
from trainyard.application.scheduling.lost_uploads import LostUploads
from trainyard.domain.arrivals import UploadArrived
from trainyard.domain.errors import Conflict
from trainyard.domain.requests import Content, State
from trainyard.domain.retraining import BatchEnd, RetrainingSettings
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings
from trainyard.persistence.young_buckets import note_looked, note_young, young_buckets

BUCKET = "trainyard-t-acme"


class MemoryUploads:
    """Objects by tenant; a page has two."""

    def __init__(self) -> None:
        self.contents: dict[str, list[Content]] = {}
        self.calls: list[tuple[str, str | None]] = []
        self.broken: set[str] = set()

    def page(self, tenant: Tenant, *, since: datetime, after: str | None) -> tuple[list[Content], str | None]:
        self.calls.append((tenant.tenant_id, after))
        if tenant.tenant_id in self.broken:
            raise PermissionError("AccessDenied")
        begin = int(after or 0)
        contents = [one for one in self.contents.get(tenant.tenant_id, []) if one.event_time >= since]
        return contents[begin : begin + 2], str(begin + 2) if begin + 2 < len(contents) else None


class MemoryPages:
    """The tenants, three a page."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    def get(self, tenant_id: str) -> Tenant | None:
        return self.harness.intake.tenants.get(tenant_id)

    def page(self, *, after: str | None = None, limit: int = 100) -> tuple[list[Tenant], str | None]:
        begin = int(after or 0)
        return list(self.harness.tenants[begin : begin + 3]), str(begin + 3) if begin + 3 < len(
            self.harness.tenants
        ) else None


def build(*tenants: str | Tenant, **limits: Any) -> tuple[Harness, LostUploads, MemoryUploads]:
    owners = tuple(each if isinstance(each, Tenant) else tenant(each) for each in tenants)
    harness, uploads = Harness(limits=policy(**limits), tenants=owners), MemoryUploads()
    lost = LostUploads(
        account_id=ACCOUNT,
        store=harness.store,
        tenants=MemoryPages(harness),
        uploads=uploads,
        scheduler=harness.scheduler,
        intake=harness.intake,
    )
    return harness, lost, uploads


def upload(name: str, number: int, **changes: Any) -> Content:
    return content(
        f"incoming/set-{number}/d.csv", bucket=f"trainyard-t-{name}", version_id=f"v{number}", **changes
    )


@pytest.mark.parametrize("has_data", [True, False])
def test_the_end_of_a_batch_whose_event_was_lost_arrives_once(has_data: bool) -> None:
    settings = TrainingSettings(
        algorithm="linear", target="y", retraining=RetrainingSettings(closed_by=BatchEnd.SUCCESS)
    )
    harness, lost, uploads = build(tenant("acme", settings=settings))
    end = content("incoming/set-1/_SUCCESS", bucket=BUCKET, version_id="v9", size_bytes=0)
    if has_data:
        harness.data_sets.objects["acme", "set-1"] = [upload("acme", 1)]
    uploads.contents["acme"] = [end]
    assert lost.run(NOW).recovered == [end]
    for sent in harness.queues.sent:
        harness.enlist.enlist(sent, NOW)
    assert lost.run(after(5)).recovered == []


def test_an_upload_of_which_no_event_told_is_sent_and_one_that_is_known_is_not() -> None:
    harness, lost, uploads = build("acme")
    told, untold = upload("acme", 1), upload("acme", 2)
    uploads.contents["acme"] = [told, untold]
    harness.receive(UploadArrived(account_id=ACCOUNT, content=told))
    harness.enlist.enlist(harness.queues.sent[0], NOW)
    sweep = lost.run(after(60))
    assert (sweep.recovered, sweep.objects) == ([untold], 2)
    assert [sent.content.key for sent in harness.queues.sent] == [told.key, untold.key]
    harness.enlist.enlist(harness.queues.sent[1], after(61))
    assert lost.run(after(120)).recovered == []


def test_the_event_of_a_found_upload_that_comes_after_all_names_the_same_request() -> None:
    harness, lost, uploads = build("acme")
    uploads.contents["acme"] = [upload("acme", 1)]
    lost.run(after(60))
    harness.receive(UploadArrived(account_id=ACCOUNT, content=replace(upload("acme", 1), sequencer="AB")))
    assert len({sent.request_id for sent in harness.queues.sent}) == 1


def test_uploads_above_the_limit_are_found_again_once_the_hour_is_over() -> None:
    harness, lost, uploads = build("acme", uploads_per_hour=2)
    uploads.contents["acme"] = [upload("acme", number) for number in range(5)]
    for one in uploads.contents["acme"]:
        harness.receive(UploadArrived(account_id=ACCOUNT, content=one))
    keys: set[str] = set()
    for hour in range(4):
        for number in range(2):
            lost.run(after(3600 * hour + 300 * number))
        for sent in harness.queues.sent:
            harness.enlist.enlist(sent, after(3600 * hour))
        keys |= {sent.content.key for sent in harness.queues.sent}
        harness.queues.sent.clear()
        if hour == 0:
            assert len(keys) == 2
    assert len(keys) == 5


def test_a_look_ends_where_the_tenants_limit_is_reached_and_goes_on_there() -> None:
    _, lost, uploads = build("acme", uploads_per_hour=2)
    uploads.contents["acme"] = [upload("acme", number) for number in range(9)]
    lost.run(NOW)
    assert [place for _, place in uploads.calls] == [None, "2"], "two are taken, the page behind them is put off"
    uploads.calls.clear()
    lost.run(after(300))
    assert [place for _, place in uploads.calls] == [None], (
        "by now its bucket is young: looked at from its beginning"
    )
    uploads.calls.clear()
    note_looked(lost.store, young_buckets(lost.store, after(301))[0], "6", after(301))
    lost.run(after(600))
    assert [place for _, place in uploads.calls] == ["6"]


@pytest.mark.parametrize("looked_before", [False, True])
def test_of_two_looks_at_once_the_slower_does_not_say_where_the_next_begins(looked_before: bool) -> None:
    _, lost, _ = build("acme")
    note_young(lost.store, "acme", NOW)
    if looked_before:
        note_looked(lost.store, young_buckets(lost.store, NOW)[0], "2", NOW)
    (bucket,) = young_buckets(lost.store, after(1))
    note_looked(lost.store, bucket, "6", after(2))
    with pytest.raises(Conflict):
        note_looked(lost.store, bucket, "4", after(3))
    assert young_buckets(lost.store, after(4))[0].after == "6"


def test_time_is_looked_at_between_the_pages_of_one_tenant() -> None:
    _, lost, uploads = build("acme")
    uploads.contents["acme"] = [upload("acme", number) for number in range(9)]
    left = iter([False, False])
    lost.run(NOW, out_of_time=lambda: next(left, True))
    assert [place for _, place in uploads.calls] == [None, "2"]
    uploads.calls.clear()
    lost.run(after(1))
    assert uploads.calls[0] == ("acme", "4")


def test_where_a_tenants_look_ended_is_not_where_the_next_tenants_begins() -> None:
    _, lost, uploads = build("a", "b")
    uploads.contents["a"] = [upload("a", number) for number in range(9)]
    uploads.contents["b"] = [upload("b", number) for number in range(9)]
    left = iter([False, False])
    lost.run(NOW, out_of_time=lambda: next(left, True))
    note_young(lost.store, "a", NOW)
    uploads.calls.clear()
    lost.run(after(1))
    assert next(place for name, place in uploads.calls if name == "b") is None


@pytest.mark.parametrize("minute", [0, 5])
def test_many_young_buckets_do_not_keep_the_others_from_their_turn(minute: int) -> None:
    _, lost, uploads = build("a", "b", "c", "old")
    for name in ("a", "b", "c"):
        note_young(lost.store, name, NOW)
    seen: set[str] = set()
    for run in range(4):
        left = iter([False, False, False])
        lost.run(NOW + timedelta(minutes=minute + 5 * run), out_of_time=lambda: next(left, True))  # noqa: B023
        seen |= {name for name, _ in uploads.calls}
    assert seen == {"a", "b", "c", "old"}


def test_a_found_upload_that_is_not_welcome_is_refused_once_with_its_receipt() -> None:
    harness, lost, uploads = build("acme")
    uploads.contents["acme"] = [upload("acme", 1, size_bytes=0)]
    assert len(lost.run(after(60)).recovered) == 1
    (refused,) = harness.requests()
    assert refused.state is State.REJECTED
    assert lost.run(after(120)).recovered == []


def test_what_was_copied_to_a_tenants_place_before_its_uploads_were_watched_there_is_no_upload() -> None:
    harness, lost, uploads = build()
    moved = tenant(watched_from=after(100))
    harness.tenants, harness.intake.tenants._tenants["acme"] = (moved,), moved  # type: ignore[attr-defined]
    uploads.contents["acme"] = [upload("acme", 1, event_time=after(99)), upload("acme", 2, event_time=after(101))]
    assert [found.key for found in lost.run(after(200)).recovered] == ["incoming/set-2/d.csv"]


def test_what_is_older_than_a_request_is_kept_is_left_alone() -> None:
    _, lost, uploads = build("acme")
    uploads.contents["acme"] = [upload("acme", 1, event_time=NOW - timedelta(days=31))]
    assert lost.run(NOW).recovered == []


def test_all_tenants_are_looked_at_in_turn_and_all_their_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_uploads, "PAGES_A_RUN", 2)
    names = [f"t{number}" for number in range(7)]
    harness, lost, uploads = build(*names)
    for name in names:
        uploads.contents[name] = [upload(name, number) for number in range(9)]
    found: list[Content] = []
    for run in range(40):
        found += lost.run(after(300 * run)).recovered
        for sent in harness.queues.sent:
            harness.enlist.enlist(sent, after(300 * run))
        harness.queues.sent.clear()
    assert len(found) == len({(one.bucket, one.key) for one in found}) == 63


def test_a_run_without_time_goes_on_where_it_ended() -> None:
    _, lost, uploads = build("a", "b", "c", "d")

    def time_for(count: int) -> Callable[[], bool]:
        left = iter([False] * count)
        return lambda: next(left, True)

    for expected in ("a", "b", "c", "d", "a"):
        uploads.calls.clear()
        lost.run(NOW, out_of_time=time_for(1))
        assert [name for name, _ in uploads.calls] == [expected]


def test_a_tenant_whose_storage_fails_holds_up_no_other() -> None:
    _, lost, uploads = build("a", "b", "c")
    uploads.broken = {"b"}
    sweep = lost.run(NOW)
    assert [name for name, _ in uploads.calls] == ["a", "b", "c"]
    assert list(sweep.failed) == ["b"]


def test_a_young_bucket_is_looked_at_in_each_run_for_an_hour() -> None:
    _, lost, uploads = build("a", "b", "c", "d", "e")
    lost.run(NOW)
    note_young(lost.store, "a", NOW)
    for seconds, looked in ((300, ["a", "d", "e"]), (600, ["a", "b", "c"]), (3700, ["d", "e"])):
        uploads.calls.clear()
        lost.run(after(seconds))
        assert sorted(name for name, _ in uploads.calls) == looked


def test_a_tenant_that_is_suspended_or_going_is_left_alone() -> None:
    _, lost, uploads = build()
    lost.tenants.harness.tenants = tuple(  # type: ignore[attr-defined]
        tenant(f"t{number}", state=state)
        for number, state in enumerate((TenantState.SUSPENDED, TenantState.DELETING, TenantState.DELETED))
    )
    lost.run(NOW)
    assert uploads.calls == []


# --- S3 -----------------------------------------------------------------------------------------------------


def all_of(owner: Tenant, since: datetime) -> list[Content]:
    found: list[Content] = []
    after: str | None = None
    while True:
        contents, after = S3Uploads().page(owner, since=since, after=after)
        found += contents
        if after is None:
            return found


def test_of_a_key_what_lies_there_now_counts_and_markers_do_not(s3: Any) -> None:
    since = datetime.now(UTC) - timedelta(minutes=1)
    s3.put_object(Bucket=BUCKET, Key="incoming/a/d.csv", Body=b"old")
    version = s3.put_object(Bucket=BUCKET, Key="incoming/a/d.csv", Body=b"newer")["VersionId"]
    for key in ("incoming/a/_SUCCESS", "models/x", "receipts/a/b.json"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    s3.put_object(Bucket=BUCKET, Key="incoming/gone/d.csv", Body=b"x")
    s3.delete_object(Bucket=BUCKET, Key="incoming/gone/d.csv")
    (found,) = all_of(tenant(), since)
    assert (found.key, found.version_id, found.size_bytes) == ("incoming/a/d.csv", version, 5)
    assert all_of(tenant(), datetime.now(UTC) + timedelta(minutes=1)) == []


def test_where_every_upload_is_trained_on_every_version_counts(s3: Any) -> None:
    for body in (b"1", b"22"):
        s3.put_object(Bucket=BUCKET, Key="incoming/a/d.csv", Body=body)
    eager = tenant(settings=replace(tenant().settings, every_upload=True))
    assert len(all_of(eager, datetime.now(UTC) - timedelta(minutes=1))) == 2


def test_what_is_refused_is_tagged_beside_the_tenants_own_tags_version_by_version(s3: Any) -> None:
    key = "incoming/a/d.csv"
    own = [{"Key": f"mine-{number}", "Value": "x"} for number in range(10)]
    tagging = "&".join(f"{tag['Key']}=x" for tag in own)
    refused = s3.put_object(Bucket=BUCKET, Key=key, Body=b"", Tagging="mine=1")["VersionId"]
    full = s3.put_object(Bucket=BUCKET, Key=key, Body=b"", Tagging=tagging)["VersionId"]
    newest = s3.put_object(Bucket=BUCKET, Key=key, Body=b"good")["VersionId"]

    def tags(version: str) -> list[dict[str, str]]:
        return list(s3.get_object_tagging(Bucket=BUCKET, Key=key, VersionId=version)["TagSet"])

    for version in (refused, full, full, "gone"):
        S3RefusedUploads().let_expire(content(key, bucket=BUCKET, version_id=version))
    assert tags(refused) == [{"Key": "mine", "Value": "1"}, REFUSED_TAG]
    assert tags(full) == [*own[:9], REFUSED_TAG]
    assert tags(newest) == []
