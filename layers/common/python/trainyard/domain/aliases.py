"""Aliases: which version of a data set's model answers, and how that changes.

What a tenant calls is an alias, not a version. A roll-out, a canary and a roll-back change the alias alone: they
take effect with the next call, and nothing is deployed for them.

A version is deployed and tested before an alias names it. A data set whose versions are promoted has two
environments: a version answers calls in test first, and in production once it is promoted. Only one version of a
data set is deployed at a time, and none while another one is a canary, or is in test for a limited time; of those
that are approved meanwhile, the newest is deployed next. Versions are numbered as the model registry does: a
higher number is newer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from trainyard.domain.errors import Refused

ABANDONED_AFTER = timedelta(hours=2)
"""A deployment that has not ended by then has died: another one may take its place."""

WITHDRAWN_MAX = 50
"""Withdrawn versions that are remembered, the newest ones."""

SHARES = 10_000
"""Calls are distributed by their keys over so many parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """What answers calls for a data set of a tenant."""

    tenant_id: str
    data_set: str
    live: int | None = None
    """The version that answers; None while there is none."""
    previous: int | None = None
    """The version that answered before it, to which a roll-back goes."""
    canary: int | None = None
    """A newer version that answers a share of the calls."""
    canary_percent: int = 0
    testing: int | None = None
    """A version that answers the calls in the test environment."""
    test_ends_at: datetime | None = None
    """When it is promoted, unless it fails; None where somebody has to promote it."""
    deploying: int | None = None
    """The version that is being deployed."""
    deploying_since: datetime | None = None
    deploying_run: str | None = None
    """Who deploys it: nobody else can end the deployment, unless it is abandoned."""
    waiting: int | None = None
    """The version that is deployed next."""
    withdrawn: Mapping[int, datetime] = field(default_factory=dict)
    """Versions that were rolled back, or failed their test → when. Only a later approval brings them back: events
    come late, and more than once."""
    withdrawn_up_to: int = 0
    withdrawn_until: datetime | None = None
    """Of those that are not remembered one by one: all versions up to this one count as withdrawn at this time."""
    revision: str = ""
    """What it was written as, for conditions of writes; "" before that."""


class Environment(StrEnum):
    """For whom a call is answered."""

    PRODUCTION = "production"
    TEST = "test"
    """By a version that has not been promoted yet."""


class Begun(StrEnum):
    """What became of an approved version."""

    DEPLOY = "it is deployed now"
    IN_PROGRESS = "it is being deployed already"
    WAIT = "another version is being deployed, is a canary, or is in test; it is deployed after that"
    OVERTAKEN = "a newer version is live, is in test, or is being deployed"
    SERVED = "it is served already"
    WITHDRAWN = "it was withdrawn after that approval"


def begin(alias: Alias, version: int, approved_at: datetime, now: datetime, run: str) -> tuple[Alias, Begun]:
    """Return the alias with an approved version that is deployed by a run, or waits, and which of them.

    Idempotent: the same run gets the same answer, and another run does not deploy the version beside it.
    """
    of_alias = (alias.live, alias.canary, alias.testing, alias.deploying, alias.waiting)
    newest = max((v for v in of_alias if v is not None), default=0)
    verdict = (
        Begun.SERVED
        if version in (alias.live, alias.canary, alias.testing)
        else Begun.WITHDRAWN
        if _is_withdrawn(alias, version, approved_at)
        else Begun.OVERTAKEN
        if version < newest
        else None
    )
    if verdict is not None:
        return alias, verdict
    if (version, run) == (alias.deploying, alias.deploying_run):
        return alias, Begun.DEPLOY
    if is_judged(alias) or (alias.deploying is not None and not is_abandoned(alias, now)):
        if version == alias.deploying:
            return alias, Begun.IN_PROGRESS
        return replace(alias, waiting=version), Begun.WAIT
    alias = replace(alias, deploying=version, deploying_since=now, deploying_run=run, waiting=None)
    return alias, Begun.DEPLOY


def is_abandoned(alias: Alias, now: datetime) -> bool:
    """Tell whether the deployment of an alias has not ended for so long that it has died."""
    return alias.deploying_since is not None and now - alias.deploying_since > ABANDONED_AFTER


def is_judged(alias: Alias) -> bool:
    """Tell whether a version of an alias is a canary, or in test, until it has been judged."""
    return alias.canary is not None or alias.test_ends_at is not None


def deployed(alias: Alias, version: int, run: str, *, percent: int = 100) -> Alias:
    """Return the alias with a version that passed its smoke test: as its canary, or with 100 percent as live.

    Idempotent; raises Refused for a run that is not deploying it any more: another one took its place.
    """
    if version in (alias.live, alias.canary):
        return alias
    return _in_production(_at_rest(_deployed_by(alias, version, run)), version, percent)


def deployed_for_test(alias: Alias, version: int, run: str, ends_at: datetime | None) -> Alias:
    """Return the alias with a version that passed its smoke test in the test environment.

    It takes the place of another one there. Idempotent; raises Refused as `deployed` does.
    """
    if version in (alias.live, alias.canary, alias.testing):
        return alias
    alias = _at_rest(_deployed_by(alias, version, run))
    return replace(alias, testing=version, test_ends_at=ends_at, withdrawn=_without(alias.withdrawn, version))


def failed(alias: Alias, version: int, run: str, now: datetime) -> Alias:
    """Return the alias without a version that a run could not deploy, or that failed its test. Idempotent."""
    if (version, run) != (alias.deploying, alias.deploying_run):
        return alias
    return _withdrawing(_at_rest(alias), version, now)


def postponed(alias: Alias, version: int, run: str) -> Alias:
    """Return the alias with a version waiting that a run was deploying, or a newer one. Idempotent."""
    if (version, run) != (alias.deploying, alias.deploying_run):
        return alias
    return replace(_at_rest(alias), waiting=max(version, alias.waiting or 0))


def promoted(alias: Alias, version: int) -> Alias:
    """Return the alias with a version, which is its canary, as the live one.

    Idempotent; raises Refused for any other version.
    """
    if version == alias.live:
        return alias
    if version != alias.canary:
        raise Refused(f"version {version} of {alias.data_set} is not its canary: {_roles(alias)}")
    return _with_live(alias, version)


def released(alias: Alias, version: int, *, percent: int = 100) -> Alias:
    """Return the alias with the version in test in production: as its canary, or with 100 percent as live.

    Idempotent; raises Refused for any other version, for one that is older than the live one, and while another
    one is a canary.
    """
    if version in (alias.live, alias.canary):
        return alias
    if version != alias.testing:
        raise Refused(f"version {version} of {alias.data_set} is not in test: {_roles(alias)}")
    if alias.canary is not None:
        raise Refused(f"version {alias.canary} of {alias.data_set} is a canary: promote it or roll it back first")
    if alias.live is not None and version < alias.live:
        raise Refused(f"version {alias.live} of {alias.data_set} is live, and newer than version {version}")
    return _in_production(alias, version, percent)


def rolled_back(alias: Alias, version: int, now: datetime) -> Alias:
    """Return the alias without a version: one in test, a canary, or the live one, which the previous one replaces.

    Idempotent; raises Refused where there is no previous version, and for a version that answers no calls.
    """
    if version == alias.canary:
        return _withdrawing(replace(alias, canary=None, canary_percent=0), version, now)
    if version == alias.testing:
        return _withdrawing(replace(alias, testing=None, test_ends_at=None), version, now)
    if version == alias.live:
        if alias.previous is None:
            raise Refused(
                f"{alias.data_set} has no earlier version to go back to; stop its deployment to end all calls"
            )
        return _withdrawing(replace(alias, live=alias.previous, previous=None), version, now)
    if version in alias.withdrawn:
        return alias
    raise Refused(f"version {version} of {alias.data_set} answers no calls")


def stopped(alias: Alias, now: datetime) -> Alias:
    """Return the alias without a version that answers calls, or will, until one is approved again. Idempotent.

    Older versions are withdrawn too, those as well that were never deployed.
    """
    of_alias = (alias.live, alias.canary, alias.testing, alias.deploying, alias.waiting)
    versions = [v for v in of_alias if v is not None]
    if not versions:
        return alias
    for version in versions:
        alias = _withdrawing(alias, version, now)
    return replace(
        _at_rest(alias),
        live=None,
        previous=None,
        canary=None,
        canary_percent=0,
        testing=None,
        test_ends_at=None,
        waiting=None,
        withdrawn_up_to=max(alias.withdrawn_up_to, *versions),
        withdrawn_until=now,
    )


def without_previous(alias: Alias, version: int) -> Alias:
    """Return the alias without its previous version, whose endpoint is not kept any longer. Idempotent."""
    return replace(alias, previous=None) if alias.previous == version else alias


def not_waiting(alias: Alias, version: int) -> Alias:
    """Return the alias without a version that waits, and cannot be deployed any more. Idempotent."""
    return replace(alias, waiting=None) if alias.waiting == version else alias


def next_to_deploy(alias: Alias) -> int | None:
    """Return the version to deploy next, once none is being deployed, and none is being judged."""
    return alias.waiting if alias.deploying is None and not is_judged(alias) else None


def answering(alias: Alias, call_key: str, environment: Environment = Environment.PRODUCTION) -> int | None:
    """Return the version that answers a call: the same one for each call with the same key.

    The canary answers its share of the keys; as the share grows, those that it answered before stay with it. Each
    canary has other keys.
    """
    if environment is Environment.TEST:
        return alias.testing
    if alias.canary is None:
        return alias.live
    digest = sha256(f"{alias.tenant_id}/{alias.data_set}/{alias.canary}/{call_key}".encode()).digest()
    part = int.from_bytes(digest[:8], "big") % SHARES
    return alias.canary if part < alias.canary_percent * SHARES // 100 else alias.live


def percent_of(alias: Alias, version: int) -> int:
    """Return the share of the calls in production that a version answers."""
    if version not in (alias.live, alias.canary):
        return 0
    return alias.canary_percent if version == alias.canary else 100 - alias.canary_percent


def in_use(alias: Alias) -> frozenset[int]:
    """Return the versions whose models must be kept."""
    versions = (alias.live, alias.previous, alias.canary, alias.testing, alias.deploying)
    return frozenset(version for version in versions if version is not None)


def _deployed_by(alias: Alias, version: int, run: str) -> Alias:
    if (version, run) != (alias.deploying, alias.deploying_run):
        raise Refused(f"version {version} of {alias.data_set} is not being deployed by {run}: {_deploying(alias)}")
    return alias


def _in_production(alias: Alias, version: int, percent: int) -> Alias:
    if alias.testing is not None and alias.testing <= version:  # nobody needs to try what is older
        alias = replace(alias, testing=None, test_ends_at=None)
    if percent >= 100 or alias.live is None:
        return _with_live(alias, version)
    return replace(alias, canary=version, canary_percent=percent, withdrawn=_without(alias.withdrawn, version))


def _at_rest(alias: Alias) -> Alias:
    return replace(alias, deploying=None, deploying_since=None, deploying_run=None)


def _with_live(alias: Alias, version: int) -> Alias:
    return replace(
        alias,
        live=version,
        previous=alias.live,
        canary=None,
        canary_percent=0,
        withdrawn=_without(alias.withdrawn, version),
    )


def _withdrawing(alias: Alias, version: int, now: datetime) -> Alias:
    """Return the alias with one more withdrawn version; the lowest ones are remembered together."""
    withdrawn = dict(sorted({**alias.withdrawn, version: now}.items()))
    while len(withdrawn) > WITHDRAWN_MAX:
        lowest = min(withdrawn)
        at = withdrawn.pop(lowest)
        until = max(at, alias.withdrawn_until or at)
        alias = replace(alias, withdrawn_up_to=max(lowest, alias.withdrawn_up_to), withdrawn_until=until)
    return replace(alias, withdrawn=withdrawn)


def _is_withdrawn(alias: Alias, version: int, approved_at: datetime) -> bool:
    """Tell whether a version was withdrawn after it was approved."""
    if version in alias.withdrawn:
        return approved_at <= alias.withdrawn[version]
    until = alias.withdrawn_until
    return version <= alias.withdrawn_up_to and until is not None and approved_at <= until


def _without(withdrawn: Mapping[int, datetime], version: int) -> Mapping[int, datetime]:
    return {other: at for other, at in withdrawn.items() if other != version}


def _roles(alias: Alias) -> str:
    versions = {"a canary": alias.canary, "in test": alias.testing}
    return ", ".join(
        f"{'no version' if version is None else f'version {version}'} is {role}"
        for role, version in versions.items()
    )


def _deploying(alias: Alias) -> str:
    if alias.deploying is None:
        return "none is"
    return f"version {alias.deploying} is, by {alias.deploying_run}"
