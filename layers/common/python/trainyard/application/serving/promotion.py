"""Promotion: a version in test comes into production, a canary answers all calls, or either is given up.

    in test ──▶ canary, with the share that its settings say ──▶ live

A version is judged by the calls that it was asked to answer since it came to where it is: a canary beside the
live version, which is asked at the same time; a version in test by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from trainyard.domain import canaries
from trainyard.domain.aliases import Alias, promoted, released
from trainyard.domain.canaries import Calls
from trainyard.domain.model_versions import ModelVersion
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


class CallsOfVersions(Protocol):
    def calls_of(self, version: ModelVersion, since: datetime, now: datetime) -> Calls:
        """Return the calls that a version has answered, from the hour of a time on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoter:
    aliases: Aliases
    versions: ModelVersions
    calls: CallsOfVersions

    def note_calls_before(self, version: ModelVersion, alias: Alias, now: datetime) -> None:
        """Store what a version, and the live one beside it, were asked before: it is judged by later calls.

        Raises Refused where the version was removed with its tenant.
        """
        own, live = self._calls_beside(version, alias, now)
        self.versions.replace(replace(version, calls_before=own, live_calls_before=live, beside=alias.live))

    def objection_to(self, version: ModelVersion, alias: Alias, now: datetime) -> str | None:
        """Return why a version that is a canary, or in test, must be given up; None while it does well."""
        own, live = self._calls_beside(version, alias, now)
        own -= version.calls_before
        if alias.testing == version.version:
            return canaries.objection_in_test(own)
        live_before = version.live_calls_before if alias.live == version.beside else Calls()
        return canaries.objection_to(own, live - live_before)

    def release(self, version: ModelVersion, now: datetime) -> Alias:
        """Let the version in test answer its share of the calls in production.

        Idempotent; raises Refused for any other version, and while another one is a canary.
        """
        number, percent = version.version, version.serving.canary_percent or 100
        alias = self.aliases.get(version.tenant_id, version.data_set)
        if alias.testing == number:
            released(alias, number, percent=percent)  # nothing is stored of a version that cannot be
            self.note_calls_before(replace(version, since=now), alias, now)
        return self._change(version, lambda alias: released(alias, number, percent=percent), now)

    def promote(self, version: ModelVersion, now: datetime) -> Alias:
        """Let a canary answer all calls. Idempotent; raises Refused for any other version."""
        return self._change(version, lambda alias: promoted(alias, version.version), now)

    def _change(self, version: ModelVersion, make: Callable[[Alias], Alias], now: datetime) -> Alias:
        return self.aliases.change(version.tenant_id, version.data_set, make, now)

    def _calls_beside(self, version: ModelVersion, alias: Alias, now: datetime) -> tuple[Calls, Calls]:
        """Return the calls of a version and of the live one, from the hour in which it came to where it is on."""
        live = self.versions.get(version.tenant_id, version.data_set, alias.live) if alias.live else None
        return (
            self.calls.calls_of(version, version.since, now),
            self.calls.calls_of(live, version.since, now) if live else Calls(),
        )
