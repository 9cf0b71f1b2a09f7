"""Run history: what past runs teach about the next ones, in the record's table.

pk               sk            what
past#<tenant>    <data set>    its last trainings, from which the next is estimated (…/transform: transforms);
                               the start of the last one, where the next must keep an interval to it; the last one
                               that ended with a model, and the last one if that ended without; what its last
                               tunings have found
ratios           <tier>        by how much its last runs exceeded what was expected of them
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal

from trainyard.domain.deadlines import RATIOS_KEPT
from trainyard.domain.estimates import PastRun, remembered
from trainyard.domain.executions import ExecutionRecord
from trainyard.domain.requests import RequestKind, State
from trainyard.domain.retraining import Failed, PastTrainings, Trained
from trainyard.domain.tuning import Tuned
from trainyard.domain.tuning import remembered as remembered_tunings
from trainyard.persistence.items import decimal_of, stamp, unstamp
from trainyard.persistence.store import Absent, Is, Item, Key, Put, Store, Update, listed

PAGE = 100

PastOwner = tuple[str, str, RequestKind]
"""Tenant, data set and kind, which have past runs of their own."""


def past_key(tenant_id: str, data_set: str, kind: RequestKind = RequestKind.TRAINING) -> Key:
    """Return the key of the past runs of one kind; data set names contain no slash."""
    name = data_set if kind is RequestKind.TRAINING else f"{data_set}/{kind}"
    return Key("record", (("pk", f"past#{tenant_id}"), ("sk", name)))


def pasts_of(store: Store, tenant_id: str, kind: RequestKind) -> Iterator[tuple[str, Item]]:
    """Yield data set, and what is kept of its past runs of a kind, of a tenant."""
    suffix = past_key("", "", kind).values[1][1]
    for item in listed(store, "record", f"past#{tenant_id}", page=PAGE):
        name = str(item["sk"])
        if ("/" in name) == bool(suffix) and name.endswith(suffix):
            yield name.removesuffix(suffix), item


def ratios_key(tier: str) -> Key:
    return Key("record", (("pk", "ratios"), ("sk", tier)))


def ratios_from(item: Item | None) -> list[float]:
    """Return the last runs' actual ÷ expected runtimes, oldest first."""
    return [float(ratio) for ratio in item["ratios"]] if item else []


def past_from(item: Item | None) -> tuple[PastRun, ...]:
    lines = item.get("runs", []) if item else []
    return tuple(
        PastRun(int(seconds), int(job), Decimal(usd), int(size), str(profile), *succeeded)
        for seconds, job, usd, size, profile, *succeeded in lines
    )


def last_start(item: Item | None) -> datetime | None:
    """Return when the last training of a data set was admitted; None where that is not noted."""
    return unstamp(item["admitted_at"]) if item and "admitted_at" in item else None


def note_start(tenant_id: str, data_set: str, now: datetime) -> Update:
    """Return what notes that a training of a data set was admitted. The history may change at the same time."""
    return Update(past_key(tenant_id, data_set), set={"admitted_at": stamp(now)})


def trainings_from(item: Item | None) -> PastTrainings:
    """Return how the last trainings of a data set ended."""
    trained, failed = (item or {}).get("trained"), (item or {}).get("failed")
    return PastTrainings(
        trained=Trained(
            request_id=trained["request_id"],
            at=unstamp(trained["at"]),
            basis=trained["basis"],
        )
        if trained
        else None,
        failed=Failed(request_id=failed["request_id"], at=unstamp(failed["at"]), is_of_aws=failed["is_of_aws"])
        if failed
        else None,
    )


def tunings_from(item: Item | None) -> tuple[Tuned, ...]:
    """Return what the last tunings of a data set have found, oldest first."""
    return tuple(
        Tuned(
            request_id=each["request_id"],
            at=unstamp(each["at"]),
            algorithm=each["algorithm"],
            values=tuple(json.loads(each["values"]).items()),
            score=float(each["score"]) if "score" in each else None,
            score_before=float(each["score_before"]) if "score_before" in each else None,
            metric=each["metric"],
            trials=int(each["trials"]),
            is_used=bool(each["is_used"]),
        )
        for each in (item or {}).get("tunings", ())
    )


def _tuned_item(tuned: Tuned) -> Item:
    item: Item = {
        "request_id": tuned.request_id,
        "at": stamp(tuned.at),
        "algorithm": tuned.algorithm,
        "values": json.dumps(dict(tuned.values)),  # DynamoDB knows no 1.0 beside 1
        "metric": tuned.metric,
        "trials": tuned.trials,
        "is_used": tuned.is_used,
    }
    scores = {"score": tuned.score, "score_before": tuned.score_before}
    return item | {name: decimal_of(score) for name, score in scores.items() if score is not None}


def keep_tunings(key: Key, tunings: Sequence[Tuned], item: Item | None) -> Update:
    """Return what replaces the tunings in the history of a data set, which was read as `item`."""
    lines = [_tuned_item(each) for each in remembered_tunings(tunings)]
    return Update(key, set={"tunings": lines, "revision": revision(item) + 1}, when=(unmoved(item),))


def remember(
    key: Key,
    runs: Sequence[PastRun],
    item: Item | None,
    last: Trained | Failed | None = None,
    tuned: Sequence[Tuned] = (),
) -> Update:
    """Return what adds runs to the history of a data set, which was read as `item`, how its last training ended,
    and what tunings have found; what else it says stays.
    """
    change: Item = {}
    if last is not None:
        change["trained" if isinstance(last, Trained) else "failed"] = asdict(last) | {"at": stamp(last.at)}
    remove = ("failed",) if isinstance(last, Trained) else ()
    if tuned:
        change["tunings"] = [_tuned_item(each) for each in remembered_tunings((*tunings_from(item), *tuned))]
    if not runs and not tuned:
        return Update(key, set=change, remove=remove)
    past = past_from(item)
    for run in runs:
        past = remembered(past, run)
    lines = [
        [r.seconds, r.job_seconds, r.usd, r.data_bytes, r.profile, *([] if r.succeeded else [False])] for r in past
    ]
    change |= {"runs": lines} if runs else {}
    change["revision"] = revision(item) + 1
    return Update(key, set=change, remove=remove, when=(unmoved(item),))


def keep_ratio(tier: str, seconds: float, expected_seconds: int, item: Item | None) -> Put:
    """Return what adds one run to those of a tier, which were read as `item`."""
    return _with_ratios(tier, [Decimal(str(seconds)) / expected_seconds], item)


def _with_ratios(tier: str, ratios: Sequence[Decimal], item: Item | None) -> Put:
    before = [Decimal(str(ratio)) for ratio in ratios_from(item)]
    last = [ratio.quantize(Decimal("0.001")) for ratio in (*before, *ratios)][-RATIOS_KEPT:]
    return Put(ratios_key(tier), {"ratios": last})


def keep_ratios(executions: Sequence[ExecutionRecord], items: Mapping[Key, Item | None]) -> Iterator[Put]:
    """Yield what keeps by how much runs of each tier exceeded what was expected of them.

    Without a condition: of two transactions at once, one may drop a few of many samples.
    """
    for tier in sorted({execution.tier for execution in executions}):
        # Deadlines are those of trainings.
        trained = [e for e in executions if e.tier == tier and e.kind is RequestKind.TRAINING]
        ended = [e for e in trained if e.state is State.SUCCEEDED]
        ratios = [Decimal(e.seconds) / e.expected_seconds for e in ended if e.expected_seconds]
        if ratios:
            yield _with_ratios(tier, ratios, items.get(ratios_key(tier)))


def revision(item: Item | None) -> int:
    return int(item.get("revision", 0)) if item else 0


def unmoved(item: Item | None) -> Is | Absent:
    """Return the condition that an item is still as it was read."""
    return Is("revision", revision(item)) if item and "revision" in item else Absent("revision")
