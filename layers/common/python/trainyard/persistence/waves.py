"""Waves, in the record's table.

    pk                    sk          what
    waves                 <id>        a wave; ids rise with time
    waves-unfinished      <family>    stands for the wave of an algorithm that has not ended: {wave_id}
    wave-members#<id>     <tenant>    a tenant that it moves, or has moved

Each is written on condition that it is as it was read: the timer and an operator may change a wave at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from trainyard.domain.errors import Refused
from trainyard.domain.waves import UNFINISHED, Judged, Member, MemberState, Verdict, Wave, WaveState
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.store import Absent, Cursor, Delete, Is, Item, Key, Put, Store, Write, listed

PAGE = 100


def wave_key(wave_id: str) -> Key:
    return Key("record", (("pk", "waves"), ("sk", wave_id)))


def unfinished_key(family: str) -> Key:
    return Key("record", (("pk", "waves-unfinished"), ("sk", family)))


def member_key(wave_id: str, tenant_id: str) -> Key:
    return Key("record", (("pk", f"wave-members#{wave_id}"), ("sk", tenant_id)))


@dataclass(frozen=True, slots=True)
class Waves:
    store: Store

    def add(self, wave: Wave) -> None:
        """Store a new wave; raises Refused while another one of its algorithm has not ended."""
        (item,) = self.store.get(unfinished_key(wave.family))
        if item is not None:
            raise Refused(
                f"wave {item['wave_id']} of {wave.family} has not ended: wait for it, or let it go back "
                f"(trainyard wave back {item['wave_id']} --yes)"
            )
        self.store.transact(
            [
                Put(wave_key(wave.wave_id), _item(wave), (Absent("pk"),)),
                Put(unfinished_key(wave.family), {"wave_id": wave.wave_id}, (Absent("pk"),)),
            ]
        )

    def get(self, wave_id: str) -> Wave | None:
        (item,) = self.store.get(wave_key(wave_id))
        return _wave_from(item) if item else None

    def page(self, *, limit: int, after: Cursor | None = None) -> tuple[list[Wave], Cursor | None]:
        """Return at most `limit` waves, newest first, and where the next ones begin.

        Raises Malformed for a cursor of another list.
        """
        page = self.store.query("record", "waves", limit=limit, newest_first=True, after=after)
        return [_wave_from(item) for item in page.items], page.cursor

    def unfinished(self) -> list[Wave]:
        items = listed(self.store, "record", "waves-unfinished", page=PAGE)
        waves = [self.get(item["wave_id"]) for item in items]
        return [wave for wave in waves if wave is not None]

    def change(self, wave: Wave) -> Wave:
        """Store a wave that was read before, and return it; raises Conflict where it has changed since."""
        changed = replace(wave, revision=wave.revision + 1)
        writes: list[Write] = [Put(wave_key(wave.wave_id), _item(changed), (Is("revision", wave.revision),))]
        if wave.state not in UNFINISHED:
            writes.append(Delete(unfinished_key(wave.family)))
        self.store.transact(writes)
        return changed

    def reopen(self, wave: Wave) -> Wave:
        """Store a wave that had ended as one that has not; raises Refused while another one of its algorithm has
        not ended, and Conflict where it has changed since.
        """
        (item,) = self.store.get(unfinished_key(wave.family))
        if item is not None:
            raise Refused(f"wave {item['wave_id']} of {wave.family} has not ended: let it end first")
        changed = replace(wave, revision=wave.revision + 1)
        self.store.transact(
            [
                Put(wave_key(wave.wave_id), _item(changed), (Is("revision", wave.revision),)),
                Put(unfinished_key(wave.family), {"wave_id": wave.wave_id}, (Absent("pk"),)),
            ]
        )
        return changed

    def members(self, wave_id: str) -> Iterator[Member]:
        """Yield the tenants of a wave, by their names."""
        for item in listed(self.store, "record", f"wave-members#{wave_id}", page=PAGE):
            yield _member_from(item)

    def put_member(self, wave: Wave, member: Member) -> Member:
        """Store a tenant of a wave, and return it; raises Conflict where another run has stored it since it was
        read, or where it is there although it is new.
        """
        changed = replace(member, revision=member.revision + 1)
        condition = Is("revision", member.revision) if member.revision else Absent("pk")
        key = member_key(wave.wave_id, member.tenant_id)
        self.store.transact([Put(key, _member_item(changed), (condition,))])
        return changed


def _item(wave: Wave) -> Item:
    return {
        "wave_id": wave.wave_id,
        "version": wave.version,
        "state": wave.state.value,
        "stages": [str(each) for each in wave.stages],
        "stage": wave.stage,
        "tier": wave.tier,
        "tag": wave.tag,
        "from_version": wave.from_version,
        "margin": str(wave.margin),
        "segment_loss_max": str(wave.segment_loss_max),
        "worse_percent": str(wave.worse_percent),
        "stage_hours": wave.stage_hours,
        "soak_hours": wave.soak_hours,
        "begun_at": stamp(wave.begun_at),
        "begun_by": wave.begun_by,
        "stage_since": stamp(wave.stage_since),
        "is_waved_on": wave.is_waved_on,
        "reason": wave.reason,
        "revision": wave.revision,
    }


def _wave_from(item: Item) -> Wave:
    return Wave(
        wave_id=item["wave_id"],
        version=item["version"],
        state=WaveState(item["state"]),
        stages=tuple(float(each) for each in item["stages"]),
        stage=int(item["stage"]),
        tier=item["tier"],
        tag=item["tag"],
        from_version=item["from_version"],
        margin=float(item["margin"]),
        segment_loss_max=float(item["segment_loss_max"]),
        worse_percent=float(item["worse_percent"]),
        stage_hours=int(item["stage_hours"]),
        soak_hours=int(item["soak_hours"]),
        begun_at=unstamp(item["begun_at"]),
        begun_by=item["begun_by"],
        stage_since=unstamp(item["stage_since"]),
        is_waved_on=bool(item["is_waved_on"]),
        reason=item["reason"],
        revision=int(item["revision"]),
    )


def _member_item(member: Member) -> Item:
    return {
        "tenant_id": member.tenant_id,
        "stage": member.stage,
        "state": member.state.value,
        "since": stamp(member.since),
        "before": dict(member.before),
        "data_sets": list(member.data_sets),
        "judged": [_judged_item(each) for each in member.judged],
        "tries": member.tries,
        "run": member.run,
        "reason": member.reason,
        "revision": member.revision,
    }


def _judged_item(judged: Judged) -> dict[str, Any]:
    return {
        "data_set": judged.data_set,
        "verdict": judged.verdict.value,
        "request_id": judged.request_id,
        "metric": judged.metric,
        "gain": "" if judged.gain is None else repr(judged.gain),
        "reason": judged.reason,
    }


def _member_from(item: Item) -> Member:
    return Member(
        tenant_id=item["tenant_id"],
        stage=int(item["stage"]),
        state=MemberState(item["state"]),
        since=unstamp(item["since"]),
        before=dict(item["before"]),
        data_sets=tuple(item["data_sets"]),
        judged=tuple(_judged_from(each) for each in item["judged"]),
        tries=int(item["tries"]),
        run=item["run"],
        reason=item["reason"],
        revision=int(item["revision"]),
    )


def _judged_from(values: dict[str, Any]) -> Judged:
    return Judged(
        data_set=values["data_set"],
        verdict=Verdict(values["verdict"]),
        request_id=values["request_id"],
        metric=values["metric"],
        gain=float(values["gain"]) if values["gain"] else None,
        reason=values["reason"],
    )
