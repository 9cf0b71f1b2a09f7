"""`algorithm rollout`: move tenants to another version of their algorithm, a share at a time.

A tenant's place in the order is a hash of its name, so that a larger share always includes a smaller one. Before
more tenants are moved, those that have trained on the version are compared with what they had before.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from cli.arguments import Arguments
from cli.codes import DONE, REFUSED
from cli.deployment import Deployment
from cli.machines import run
from cli.show import Answer
from cli.text import counted, say
from trainyard.contracts.tenants import tenant_view
from trainyard.domain.algorithms import family_of
from trainyard.domain.errors import Refused, TrainyardError
from trainyard.domain.failures import cause_of
from trainyard.domain.requests import Request, RequestKind, State
from trainyard.domain.tenants import Change, Tenant, TenantState

NAMED_MAX = 20
"""Tenants that are named in a list; the others are counted."""

LOOKED_AT = 200
"""A tenant's last requests, among which its trainings before and after the change are looked for."""

LOWER_IS_BETTER = frozenset({"mae", "rmse"})
"""Metrics of errors; of all others a higher value is better (pipeline/steps/baseline.py)."""


class Verdict(StrEnum):
    """On a data set that has trained on the version."""

    AS_GOOD = "as good"
    WORSE = "worse"
    FAILED = "failed"
    NEW = "nothing to compare with"


@dataclass(frozen=True)
class Comparison:
    """A data set's first judgement of the version, beside the model that it had before."""

    tenant: str
    data_set: str
    verdict: Verdict
    instead_of: str = ""
    """The version that it had before."""
    metric: str = ""
    before: float | None = None
    after: float | None = None
    reason: str = ""


def rollout(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show what a share would move and how the version does so far; with --yes, move it."""
    version = deployment.policies.current().algorithm(arguments.name).name
    family = family_of(version)
    users = [tenant for tenant in deployment.tenants.all() if _is_movable(tenant) and family in _families(tenant)]
    if not users:
        raise Refused(
            f"no tenant uses {family}: a rollout moves tenants from another version of the same algorithm"
        )
    movers, on_version = _movers(users, version, arguments.from_version, arguments.share)
    active = [tenant for tenant in on_version if tenant.state is TenantState.ACTIVE]
    comparisons = [c for tenant in active for c in _compared(deployment, tenant, version, arguments.margin)]
    objection = _objection(comparisons, active, arguments)
    stops = bool(movers) and objection is not None and not arguments.force
    refused = [] if stops or not arguments.yes else _move(deployment, movers, version, arguments.from_version)
    if arguments.yes and not stops:
        movers = [tenant for tenant in movers if tenant.tenant_id not in dict(refused)]
    shown = [c for c in comparisons if c.verdict in (Verdict.WORSE, Verdict.FAILED)]
    return Answer(
        data={
            "version": version,
            "tenants": len(users),
            "on_version": sorted(tenant.tenant_id for tenant in on_version),
            "moved" if arguments.yes and not stops else "would_move": [tenant.tenant_id for tenant in movers],
            "not_moved": dict(refused),
            "stopped": objection if stops else None,
            "comparisons": [vars(comparison) for comparison in comparisons],
        },
        columns=("TENANT", "DATA SET", "VERDICT", "METRIC", "BEFORE", "AFTER", "REASON") if shown else (),
        rows=[
            (c.tenant, c.data_set, c.verdict.value, c.metric, _number(c.before), _number(c.after), c.reason)
            for c in shown
        ],
        below="REASON",
        alarms=[
            *([f"stopped: {objection} (--force goes on{_way_back(comparisons, version)})"] if stops else []),
            *(f"{name} was not moved: {reason}" for name, reason in refused),
        ],
        lines=_lines(version, users, on_version, movers, comparisons, arguments, stops=stops),
        code=REFUSED if stops or refused else DONE,
    )


def _is_movable(tenant: Tenant) -> bool:
    return tenant.state in (TenantState.ACTIVE, TenantState.SUSPENDED)


def _families(tenant: Tenant) -> set[str]:
    return {family_of(settings.algorithm) for settings in (tenant.settings, *tenant.data_sets.values())}


def _movers(
    users: Sequence[Tenant], version: str, from_version: str | None, share: float
) -> tuple[list[Tenant], list[Tenant]]:
    """Return which tenants a share in percent would move, and which are on the version already."""
    family = family_of(version)
    order = sorted(users, key=lambda tenant: hashlib.sha256(f"{family} {tenant.tenant_id}".encode()).digest())
    on_version = [tenant for tenant in order if not _others(tenant, version, None)]
    first = order[: math.ceil(len(order) * share / 100)]
    return [tenant for tenant in first if _others(tenant, version, from_version)], on_version


def _others(tenant: Tenant, version: str, from_version: str | None) -> list[str]:
    """Return the other versions of the algorithm that a tenant's settings name; of one only, if it is given."""
    chosen = [settings.algorithm for settings in (tenant.settings, *tenant.data_sets.values())]
    return [name for name in chosen if _is_moved(name, version, from_version)]


def _is_moved(algorithm: str, version: str, from_version: str | None) -> bool:
    is_other = family_of(algorithm) == family_of(version) and algorithm != version
    return is_other and from_version in (None, algorithm)


# --- judging --------------------------------------------------------------------------------------------------


def _compared(deployment: Deployment, tenant: Tenant, version: str, margin: float) -> Iterator[Comparison]:
    """Yield a comparison for each data set of a tenant that has trained on the version."""
    requests = deployment.scheduler.tables.requests.recent_of_tenant(tenant.tenant_id, limit=LOOKED_AT)
    for data_set in dict.fromkeys(request.data_set for request in requests):
        of_data_set = [request for request in requests if request.data_set == data_set]
        comparison = compare(of_data_set, version, margin)
        if comparison is not None:
            yield comparison


def compare(requests: Sequence[Request], version: str, margin: float) -> Comparison | None:
    """Judge a version by the requests of one data set, newest first; None before it has trained or failed.

    It is compared with the last model of another version before. `margin` is by how much a quality may fall. What
    failed for AWS's sake or before the training does not count.
    """
    trainings = [request for request in requests if request.kind is RequestKind.TRAINING]
    judged = [request for request in trainings if request.state is State.SUCCEEDED or _failed_by_itself(request)]
    place = next((number for number, request in enumerate(judged) if request.algorithm == version), None)
    if place is None:
        return None
    mine, family = judged[place], family_of(version)
    earlier = next(
        (
            request
            for request in judged[place:]
            if request.state is State.SUCCEEDED
            and request.algorithm != version
            and family_of(request.algorithm) == family
        ),
        None,
    )
    comparison = Comparison(
        mine.tenant_id, mine.data_set, Verdict.NEW, instead_of=earlier.algorithm if earlier else ""
    )
    if mine.state is State.FAILED:
        verdict = Verdict.FAILED if earlier else Verdict.NEW
        return replace(comparison, verdict=verdict, reason=mine.reason or "")
    now, then = mine.outcome, earlier.outcome if earlier else None
    if now is None or then is None or now.quality is None or then.quality is None:
        return comparison
    if now.quality_metric != then.quality_metric:
        return replace(comparison, reason=f"judged by {now.quality_metric}, before by {then.quality_metric}")
    metric = now.quality_metric or ""
    gain = (then.quality - now.quality) if metric in LOWER_IS_BETTER else (now.quality - then.quality)
    allowed = margin * abs(then.quality) if metric in LOWER_IS_BETTER else margin
    verdict = Verdict.WORSE if gain < -allowed else Verdict.AS_GOOD
    return replace(comparison, verdict=verdict, metric=metric, before=then.quality, after=now.quality)


def _failed_by_itself(request: Request) -> bool:
    """Tell whether a request failed in a step that shows something of the algorithm."""
    step = request.outcome.failed_step if request.outcome else None
    return (
        request.state is State.FAILED
        and step not in (None, "Preprocess")
        and not cause_of(request.reason or "").passes
    )


def _objection(
    comparisons: Sequence[Comparison], on_version: Sequence[Tenant], arguments: Arguments
) -> str | None:
    """Return why no more tenants should be moved; None when nothing speaks against it."""
    if not on_version:
        return None
    counted_ones = [c for c in comparisons if c.verdict is not Verdict.NEW]
    bad = [c for c in counted_ones if c.verdict is not Verdict.AS_GOOD]
    if bad and len(bad) > len(counted_ones) * arguments.worse_max / 100:
        return (
            f"{len(bad)} of {counted(len(counted_ones), 'data set')} that can be compared failed or got worse; at "
            f"most {arguments.worse_max:g} % may"
        )
    if not counted_ones and not arguments.unjudged:
        return (
            f"none of the {counted(len(on_version), 'tenant')} on the version has a training to compare yet: wait "
            "for their next uploads, ask for some with `trainyard retrain TENANT`, or add --unjudged"
        )
    return None


def _way_back(comparisons: Sequence[Comparison], version: str) -> str:
    before = next((c.instead_of for c in comparisons if c.verdict in (Verdict.WORSE, Verdict.FAILED)), "")
    command = f"trainyard algorithm rollout {before} --from {version} --share 100 --yes --force"
    return f"; `{command}` goes back" if before else ""


# --- moving ---------------------------------------------------------------------------------------------------


def _move(
    deployment: Deployment, movers: Sequence[Tenant], version: str, from_version: str | None
) -> list[tuple[str, str]]:
    """Move tenants to the version, one after another; return those that could not be moved, and why.

    Each is read anew first: others may have changed it since the rollout began.
    """
    refused = []
    for number, mover in enumerate(movers, start=1):
        say(f"{number} of {len(movers)}: {mover.tenant_id}")
        try:
            tenant = deployment.tenant(mover.tenant_id)
            if _is_movable(tenant) and _others(tenant, version, from_version):
                run(deployment, Change.UPDATE, {"tenant": _changes(tenant, version, from_version)}, quiet=True)
            else:
                refused.append((tenant.tenant_id, "somebody changed it meanwhile"))
        except (TrainyardError, ClientError, BotoCoreError) as error:
            refused.append((mover.tenant_id, str(error)))
    return refused


def _changes(tenant: Tenant, version: str, from_version: str | None) -> dict[str, Any]:
    """Return the update that moves a tenant: an update has all data sets with settings of their own, or none."""
    view = tenant_view(tenant)

    def moved(settings: dict[str, Any]) -> dict[str, Any]:
        is_moved = _is_moved(settings["algorithm"], version, from_version)
        return settings | {"algorithm": version} if is_moved else settings

    changes = {"name": tenant.tenant_id, "algorithm": moved(view["settings"])["algorithm"]}
    data_sets = {name: moved(settings) for name, settings in view["data_sets"].items()}
    return changes | ({"data_sets": data_sets} if data_sets else {})


# --- telling --------------------------------------------------------------------------------------------------


def _lines(
    version: str,
    users: Sequence[Tenant],
    on_version: Sequence[Tenant],
    movers: Sequence[Tenant],
    comparisons: Sequence[Comparison],
    arguments: Arguments,
    *,
    stops: bool,
) -> list[str]:
    verdicts = [
        f"{_count(comparisons, verdict)} {verdict.value}" for verdict in Verdict if _count(comparisons, verdict)
    ]
    done = "moved" if arguments.yes and not stops else "would be moved"
    return [
        f"{version}: {len(on_version)} of {counted(len(users), 'tenant')} had it before this command",
        *([f"their data sets: {', '.join(verdicts)}"] if verdicts else []),
        f"{counted(len(movers), 'tenant')} {done}: {_named(tenant.tenant_id for tenant in movers)}",
        *([] if arguments.yes or stops or not movers else ["nothing was changed; add --yes to move them"]),
    ]


def _count(comparisons: Sequence[Comparison], verdict: Verdict) -> int:
    return sum(comparison.verdict is verdict for comparison in comparisons)


def _named(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NAMED_MAX} more" if len(every) > NAMED_MAX else ""
    return (", ".join(every[:NAMED_MAX]) or "none") + more


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
