"""The policy in force, its history, and how another one is put in force."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Protocol

from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.policy import Policy
from trainyard.domain.resources import ResourceProfile, tier_slots
from trainyard.domain.windows import Window
from trainyard.persistence.items import stamp, unstamp
from trainyard.persistence.ledger import LEDGER, name_policy
from trainyard.persistence.store import Absent, Is, Item, Key, Put, Store, Write, listed

IN_FORCE = Key("scheduler", (("pk", "policy"), ("sk", "policy")))
KEPT = Key("scheduler", (("pk", "policy-values"), ("sk", "values")))
"""The compiled policy in force: {of: digest of the text, values: see `CompiledPolicy`}. Under a key of its own, so
that whoever may write it need not have permission to write the policy (template.yaml)."""
_OVERTAKEN = "another policy was applied meanwhile: review it, then apply yours again"
TRIES = 5
"""Of a write that meets others of the ledger, which passes and ends of runs write all the time."""
KEPT_BYTES_MAX = 350_000
TEXT_BYTES_MAX = 300_000
"""An item takes 400 KB (DynamoDB developer guide, "Service quotas")."""


class Overtaken(Conflict):
    """Another policy was put in force than the one that this one was compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One entry of the history."""

    version: int
    applied_at: datetime | None
    """None for the policy that the code ships with."""
    note: str
    text: str
    by: str = ""
    """Who applied it; empty where it was not a person."""


class CompiledPolicy(Protocol):
    """A checked policy in a form that is read faster than its text is checked."""

    def digest(self, text: str) -> str:
        """Return under what a text is kept: another one for another text, and for another form."""
        ...

    def kept(self, text: str) -> bytes:
        """Return what is kept of a text; raises Refused."""
        ...

    def read(self, compiled: bytes, version: int) -> Policy:
        """Return the policy; raises whatever, when what was kept is damaged."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """A policy is its text; each version is kept, and the ledger names the one that admissions rest on."""

    store: Store
    deployed: str
    """The text that the code ships with: version 0."""
    parse: Callable[[str, int], Policy]
    """Of a text and its version; raises Refused."""
    form: CompiledPolicy | None = None
    """How what was read of the text in force is kept; None to read the text each time."""
    keeps: bool = False
    """Whether this one writes what is kept, or only reads it."""
    running_max: int
    """The deployment's own limit, which no policy can exceed."""
    backoff: Callable[[int], None] = lambda _: None
    """Waits before a further try of a write that met another one."""
    _read: dict[int, Policy] = field(default_factory=dict)
    """The version that was read last; a version never changes."""

    def current(self) -> Policy:
        """Return the policy in force, as it is now."""
        version = self.in_force()
        if version.version not in self._read:
            policy = self._capped(self._policy(version))
            self._read.clear()
            self._read[version.version] = policy
        return self._read[version.version]

    def last_read(self) -> Policy:
        """Return the policy that was last read; for callers that are notified when it is no longer in force."""
        return next(iter(self._read.values()), None) or self.current()

    def at(self, version: int) -> Policy:
        """Return a version that the ledger names; if it no longer exists, the one in force."""
        return self._read.get(version) or self.current()

    def in_force(self) -> PolicyVersion:
        (item,) = self.store.get(IN_FORCE)
        return _version(item) if item else self._shipped()

    def _policy(self, version: PolicyVersion) -> Policy:
        if self.form is None:
            return self.parse(version.text, version.version)
        digest = self.form.digest(version.text)
        with suppress(Exception):  # a damaged form counts as missing
            (item,) = self.store.get(KEPT)
            if item is not None and item["of"] == digest:
                return self.form.read(bytes(item["values"]), version.version)
        policy = self.parse(version.text, version.version)
        if self.keeps:
            with suppress(Exception):  # the next read stores it
                compiled = self.form.kept(version.text)
                if len(compiled) <= KEPT_BYTES_MAX:
                    self.store.transact([Put(KEPT, {"of": digest, "values": compiled})])
        return policy

    def check(self, text: str) -> Policy:
        """Return the policy that `apply` would put in force; raises Refused when it is invalid."""
        check_size(text)
        policy = self._capped(self.parse(text, self.in_force().version + 1))
        self._check_tiers(policy)
        _check_prices(policy)
        return policy

    def apply(self, text: str, now: datetime, *, note: str = "", by: str = "", after: int | None = None) -> Policy:
        """Put a policy in force as a whole; raises Refused when it is invalid, Conflict when overtaken.

        `after` is the version that somebody compared it with: with another one in force, it is overtaken too.
        """
        policy = self.check(text)
        if after is not None and policy.version != after + 1:
            raise Overtaken(_OVERTAKEN)
        item: Item = {"text": text, "version": policy.version, "applied_at": stamp(now), "note": note, "by": by}
        before = policy.version - 1
        overtaken = (Is("version", before),) if before else (Absent("version"),)
        writes: list[Write] = [
            Put(IN_FORCE, item, overtaken),
            Put(_history_key(policy.version), item, (Absent("pk"),)),
            name_policy(policy.version),
        ]
        for number in range(TRIES):
            try:
                self.store.transact(writes)
                return policy
            except Conflict as conflict:
                if conflict.failed:
                    raise Overtaken(_OVERTAKEN) from conflict
                if number == TRIES - 1:
                    raise
                self.backoff(number)
        raise AssertionError("the last try returns or raises")

    def rollback(self, version: int, now: datetime, *, by: str = "", after: int | None = None) -> Policy:
        """Put an earlier version in force again, as a new version; raises Refused when there is none."""
        earlier = self.version(version)
        return self.apply(earlier.text, now, note=f"rolled back to version {version}", by=by, after=after)

    def version(self, version: int) -> PolicyVersion:
        """Return one version; raises Refused when there is none."""
        if version == 0:
            return self._shipped()
        (item,) = self.store.get(_history_key(version))
        if item is None:
            raise Refused(f"there is no policy version {version}; `trainyard policy history` shows them")
        return _version(item)

    def history(self) -> list[PolicyVersion]:
        """Return all versions, newest first."""
        items = listed(
            self.store, "scheduler", "policy", above="version#", below="version#~", page=20, newest_first=True
        )
        return [*map(_version, items), self._shipped()]

    def _check_tiers(self, wanted: Policy) -> None:
        """Raise Refused when the policy removes a tier in which requests wait or run, naming them."""
        (ledger,) = self.store.get(LEDGER)
        for tier in self.current().tiers:
            if wanted.tier(tier.name) is None:
                running = int((ledger or {}).get(f"used/{tier_slots(tier.name)}", 0))
                waiting = list(islice(listed(self.store, "ready", f"tier#{tier.name}", page=5), 5))
                if running or waiting:
                    tenants = ", ".join(sorted({item["tenant_id"] for item in waiting})) or "none"
                    raise Refused(
                        f"tiers.{tier.name} is in use: {running} of its requests run, and requests of these "
                        f"tenants wait: {tenants}; let them end, or stop them (`trainyard requests` lists them)"
                    )

    def _capped(self, policy: Policy) -> Policy:
        windows = tuple(self._capped_window(window) for window in policy.windows)
        return replace(policy, running_max=min(policy.running_max, self.running_max), windows=windows)

    def _capped_window(self, window: Window) -> Window:
        own = window.limits.get("running_max")
        capped = {} if own is None else {"running_max": min(own, self.running_max)}
        return replace(window, limits={**window.limits, **capped})

    def _shipped(self) -> PolicyVersion:
        return PolicyVersion(version=0, applied_at=None, note="as deployed", text=self.deployed)


def check_size(text: str) -> None:
    """Raise Refused for a text that is too long to be kept."""
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Refused(f"the policy has {len(text.encode()):,} bytes, at most {TEXT_BYTES_MAX:,} fit")


def _history_key(version: int) -> Key:
    return Key("scheduler", (("pk", "policy"), ("sk", f"version#{version:08d}")))


def _version(item: Item) -> PolicyVersion:
    return PolicyVersion(
        version=int(item["version"]),
        applied_at=unstamp(item["applied_at"]),
        note=item["note"],
        text=item["text"],
        by=item.get("by", ""),
    )


def _check_prices(policy: Policy) -> None:
    """Raise Refused when the price of one of several types is unknown that SageMaker may select.

    Only when a policy is applied: one that is in force must not become invalid with a new price table.
    """
    if not policy.prices.hourly:
        return  # nothing is known of this Region
    for where, instances in (
        *((f"tiers.{tier.name}", tier.instances) for tier in policy.tiers),
        *((f"algorithms.{name}", algorithm.instances) for name, algorithm in policy.algorithms.items()),
    ):
        for number, choice in enumerate(instances):
            unknown = ResourceProfile.of(choice).unpriced(policy.prices)
            if unknown and len(choice.training_instance_types) > 1:
                raise Refused(
                    f"{where}.instances.{number}.training: no price of {', '.join(unknown)} is known in "
                    f"{policy.prices.region}, so what a run may cost cannot be reserved; leave it out "
                    "(`trainyard prices show` lists what is known)"
                )
