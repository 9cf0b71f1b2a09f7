"""Health: checks of a deployment by what its own tables and queues say."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainyard.domain.findings import BAD, GOOD, UNKNOWN, WARNING, Finding
from trainyard.domain.requests import State
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.items import unstamp
from trainyard.persistence.store import Store
from trainyard.persistence.tables import Tables
from trainyard.persistence.young_buckets import young_buckets

STUCK = timedelta(minutes=10)
"""A start without an answer, or a run beyond its latest end, for so long needs a person."""

SCANNED_WITHIN = timedelta(minutes=20)
"""Four times the interval in which intake scans new buckets (template.yaml)."""

NAMED_MAX = 5


def of_requests(tables: Tables, now: datetime) -> Iterator[Finding]:
    """Yield the requests that hold a slot and are stuck."""
    held = tables.held()
    silent = [
        request.request_id[:8]
        for request in held
        if request.state is State.ADMITTED and request.admitted_at and request.admitted_at < now - STUCK
    ]
    overdue = [request.request_id[:8] for request in held if request.ends_by and request.ends_by < now - STUCK]
    for ids, text in (
        (silent, "starts without an answer from SageMaker"),
        (overdue, "runs beyond their latest end"),
    ):
        if ids:
            names = ", ".join(ids[:NAMED_MAX])
            yield Finding("requests", BAD, f"{len(ids)} {text}: {names}", f"trainyard why {ids[0]}")
    if not silent and not overdue:
        yield Finding("requests", GOOD, f"{len(held)} hold a slot, none is stuck")


def of_tenants(tenants: Iterable[Tenant]) -> Iterator[Finding]:
    """Yield the tenants whose change has not come to its end."""
    changing = [
        tenant
        for tenant in tenants
        if tenant.state not in (TenantState.ACTIVE, TenantState.SUSPENDED, TenantState.DELETED)
    ]
    for tenant in changing[:NAMED_MAX]:
        name = tenant.tenant_id
        yield Finding("tenants", WARNING, f"{name} is {tenant.state.value}", f"trainyard tenant show {name}")
    if not changing:
        yield Finding("tenants", GOOD, "no change of a tenant is unfinished")


def of_new_buckets(store: Store, now: datetime) -> Iterator[Finding]:
    """Yield whether new buckets are scanned, whose first uploads may have caused no event."""
    buckets = young_buckets(store, now)
    late = [b.tenant_id for b in buckets if b.looked and unstamp(b.looked) < now - SCANNED_WITHIN]
    if late:
        yield Finding(
            "new buckets",
            WARNING,
            f"{_counted(len(late), 'bucket')} not scanned for {SCANNED_WITHIN.seconds // 60} minutes: "
            f"{', '.join(late[:NAMED_MAX])}",
            "UploadSweepsFailed in docs/operations.md; the log of the intake function has the error",
        )
    else:
        many = _counted(len(buckets), "new bucket")
        yield Finding("new buckets", GOOD, f"{many}, scanned every 5 minutes for uploads without an event")


def of_letters(counts: Mapping[str, int]) -> Iterator[Finding]:
    """Yield the dead-letter queues that have letters."""
    letters = {name: count for name, count in counts.items() if count}
    for name, count in letters.items():
        yield Finding("dead letters", BAD, f"{count} in {name}", f"trainyard dlq show {name}")
    if not letters:
        yield Finding("dead letters", GOOD, "none")


def of_alarms(alarms: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Yield the alarms that are in force, by name and since when."""
    for name, since in alarms:
        yield Finding("alarms", BAD, f"{name} is in force since {since}", "docs/operations.md says what to do")
    if not alarms:
        yield Finding("alarms", GOOD, "none is in force")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The checks that need no more than the rights of a function."""

    tables: Tables
    tenants: Callable[[], Iterable[Tenant]]
    letters: Callable[[], Mapping[str, int]]
    """Returns dead-letter queue → its number of letters."""
    alarms: Callable[[], Sequence[tuple[str, str]]]

    def findings(self, now: datetime) -> list[Finding]:
        """Return what all checks found; one that could not be made is unknown, and the others go on."""
        checks: dict[str, Callable[[], Iterable[Finding]]] = {
            "requests": lambda: of_requests(self.tables, now),
            "tenants": lambda: of_tenants(self.tenants()),
            "new buckets": lambda: of_new_buckets(self.tables.store, now),
            "dead letters": lambda: of_letters(self.letters()),
            "alarms": lambda: of_alarms(self.alarms()),
        }
        findings: list[Finding] = []
        for name, check in checks.items():
            try:
                findings += check()
            except Exception as error:  # whatever it is, it must not hide what the others find
                words = f"it could not be checked: {type(error).__name__}"
                findings.append(Finding(name, UNKNOWN, words, "try again; the log of the function has the error"))
        return findings


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
