"""Predictions: a call for a data set is answered by the version that its alias names, and counted."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trainyard.application.ports import Tenants
from trainyard.application.serving.ports import Response
from trainyard.domain.aliases import Environment, answering
from trainyard.domain.errors import Malformed, Refused, Throttled
from trainyard.domain.inference import EndpointUse
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.serving import ASYNC_INLINE_BYTES_MAX, LIMITS, Mode
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Rows to predict for a data set of a tenant."""

    tenant_id: str
    data_set: str
    rows: bytes
    location: str
    """Of the rows in S3, for an asynchronous endpoint; "" where they are in the call."""
    content_type: str
    key: str
    """Calls with the same key are answered by the same version while there is a canary."""
    environment: Environment = Environment.PRODUCTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    version: int
    response: Response | None
    """None where the answer comes later."""
    output: str = ""
    """Where an asynchronous endpoint will write its answer …"""
    failure: str = ""
    """… or why there is none."""
    not_counted: str = ""
    """Why the call could not be written to the books: what it used counts as idle."""


class CallCounts(Protocol):
    def count(self, endpoint: str, use: EndpointUse, now: datetime, version: int | None = None) -> None:
        """Add the calls of a use to the current hour's, and to those of a version."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    tenants: Tenants
    aliases: Aliases
    versions: ModelVersions
    counts: CallCounts
    ask: Callable[[ModelVersion, bytes, str], Response]
    """Return what a version answers to rows of a content type, as JSON; raises Refused and Throttled."""
    ask_later: Callable[..., tuple[str, str]]
    """Ask an asynchronous endpoint (version, content type, body, location); return where the answer will be."""
    check: Callable[[bytes], object]
    """Raises Malformed for an answer that is no prediction, naming what is wrong."""
    clock: Callable[[], float]
    """Seconds, from any time on."""

    def predict(self, call: Call, now: datetime) -> Answered:
        """Answer a call.

        Raises Refused with a reason for the caller, Throttled when the same call may be answered later.
        """
        tenant = self.tenants.get(call.tenant_id)
        if tenant is None:
            raise Refused(f"there is no tenant {call.tenant_id!r}")
        if tenant.state is not TenantState.ACTIVE:
            raise Refused(f"tenant {call.tenant_id} is {tenant.state.value}: its models answer no calls")
        number = answering(self.aliases.get(call.tenant_id, call.data_set), call.key, call.environment)
        version = self.versions.get(call.tenant_id, call.data_set, number) if number is not None else None
        if version is None:
            where = "in test" if call.environment is Environment.TEST else "served"
            raise Refused(
                f"no model of {call.data_set!r} is {where}: approve a version of it, and wait until it is deployed"
            )
        self._check(call, version, tenant)
        began = self.clock()
        try:
            if version.serving.mode is Mode.ASYNCHRONOUS:
                output, failure = self.ask_later(
                    version, call.content_type, body=call.rows, location=call.location
                )
                error = self._count(version, tenant.tier, call, Response(b"", 0), 0, now)
                return Answered(
                    version=number or 0, response=None, output=output, failure=failure, not_counted=error
                )
            response = self.ask(version, call.rows, call.content_type)
        except (Refused, Throttled) as refusal:  # it may have kept the endpoint busy all the same
            taken = round((self.clock() - began) * 1000)
            self._count(version, tenant.tier, call, None, taken, now, is_judged=isinstance(refusal, Refused))
            raise
        try:
            self.check(response.body)
        except Malformed as malformed:
            self._count(version, tenant.tier, call, None, response.milliseconds, now)
            raise Refused(
                f"version {version.version} answered no predictions: {malformed}; roll back to an earlier version"
            ) from malformed
        error = self._count(version, tenant.tier, call, response, response.milliseconds, now)
        return Answered(version=version.version, response=response, not_counted=error)

    @staticmethod
    def _check(call: Call, version: ModelVersion, tenant: Tenant) -> None:
        """Raise Refused where the version cannot take the call, with what it takes."""
        mode = version.serving.mode
        if mode is Mode.BATCH_TRANSFORM:
            raise Refused(
                f"{call.data_set} is served in mode {mode}, which answers no calls: store the rows below "
                f"transform/{call.data_set}/, and ask for a batch transform"
            )
        is_later = mode is Mode.ASYNCHRONOUS
        if call.location and not is_later:
            raise Refused(f"{call.data_set} is served in mode {mode}, which takes no rows from S3: send them")
        if call.location and not tenant.owns(call.location):
            raise Refused(f"{call.location} is not the tenant's")
        most = ASYNC_INLINE_BYTES_MAX if is_later else LIMITS[mode].request_bytes_max
        if len(call.rows) > most:
            way_out = "put them into S3" if is_later else f"send them in parts of at most {most:,}"
            raise Refused(f"{len(call.rows):,} bytes of rows, and {mode} takes {most:,} at once: {way_out}")

    def _count(
        self,
        version: ModelVersion,
        tier: str,
        call: Call,
        response: Response | None,
        milliseconds: int,
        now: datetime,
        *,
        is_judged: bool = True,
    ) -> str:
        """Count a call; return why that failed, "" where it did not.

        `is_judged` tells whether a canary is judged by it: not where its endpoint only had no time for it.
        """
        use = EndpointUse(
            tenant_id=call.tenant_id,
            data_set=call.data_set,
            tier=tier,
            algorithm=version.algorithm,
            calls=1,
            failed=0 if response is not None else 1,
            milliseconds=milliseconds,
            bytes_in=len(call.rows),
            bytes_out=len(response.body) if response is not None else 0,
            model_bytes=version.model_bytes,
        )
        try:
            self.counts.count(version.endpoint, use, now, version.version if is_judged else None)
        except Exception as error:  # the model has answered, and the caller gets it
            return f"{type(error).__name__}: {error}"
        return ""
