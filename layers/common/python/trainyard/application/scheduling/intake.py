"""Intake: finds the tenant of an arrival, accepts or refuses it, and sends it to its tier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from trainyard.application.ports import DataSets, Retrainings, Tenants, TierQueues
from trainyard.application.scheduling.candidates import Candidate, Candidates, NoData, data_set_or_none, of_alarm
from trainyard.application.scheduling.notifications import Notifier
from trainyard.application.scheduling.retraining import Asked, LeftOut, RetrainingGate, heard
from trainyard.application.scheduling.scheduler import Scheduler
from trainyard.application.scheduling.transforms import Models, RowsToPredict
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.arrivals import (
    AlarmRang,
    RetrainingAsked,
    TransformAsked,
    UploadArrived,
    check_transform,
    check_welcome,
    data_set_of,
    is_incoming,
)
from trainyard.domain.deadlines import next_ready_by
from trainyard.domain.errors import Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.domain.policy import Policy
from trainyard.domain.requests import Cause, Content, Overrides, RequestKind, Submission, rejected
from trainyard.domain.retraining import Trigger, trigger_text
from trainyard.domain.schedules import scheduled_by_themselves
from trainyard.domain.tenants import Tenant, TrainOn
from trainyard.persistence.arrival_limits import ArrivalLimits
from trainyard.persistence.policies import Policies
from trainyard.persistence.retraining_records import ALL

REFUSED_DAYS = 7
"""After this many days the lifecycle rules delete refused objects (deployment_names.py, template.yaml)."""

NEVER_TRAINED_ON = frozenset(
    {
        "data set name",
        "empty",
        "format",
        "key characters",
        "key length",
        "key segments",
        "no data set",
        "too large",
    }
)
"""Refusals because of the object itself, which then expires. Objects refused because of the tenant's state or the
policy are kept, since both may change."""


class RefusedUploads(Protocol):
    def let_expire(self, content: Content) -> None:
        """Let storage remove a refused object after a while (docs/tenants.md); one that has gone is no error."""
        ...


Arrival = UploadArrived | RetrainingAsked | TransformAsked | AlarmRang
Owners = Mapping[int, Tenant | Exception | None]


class Verdict(StrEnum):
    SUBMITTED = "SUBMITTED"
    """Sent to the queue of its tier."""
    REJECTED = "REJECTED"
    """Refused; record and receipt say why."""
    IGNORED = "IGNORED"
    """No data: outside `incoming/`, where a receipt would be an arrival too, or a marker of the tool that wrote
    the data. Counted, and nothing written."""
    DEFERRED = "DEFERRED"
    """Above the tenant's hourly limit of uploads: it is picked up later."""
    LEFT_OUT = "LEFT_OUT"
    """A training that nobody waits for, and that is not needed, or was asked for too often."""
    SPREAD = "SPREAD"
    """A retraining of all data sets was split into one message per data set."""
    UNSENT = "UNSENT"
    """The tier queue did not accept it: the arrival must be delivered again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of one request of an arrival."""

    verdict: Verdict
    tenant_id: str
    tier: str
    request_id: str | None = None
    reason: str | None = None
    kind: str | None = None
    """Of the refusal, in a word or two."""
    ignored_as: str | None = None
    """Why it is no data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    account_id: str
    tenants: Tenants
    policies: Policies
    data_sets: DataSets
    tier_queues: TierQueues
    retrainings: Retrainings
    rows: RowsToPredict
    models: Models
    scheduler: Scheduler
    notifier: Notifier
    arrival_limits: ArrivalLimits
    refused_uploads: RefusedUploads

    @property
    def candidates(self) -> Candidates:
        return Candidates(
            account_id=self.account_id,
            tenants=self.tenants,
            data_sets=self.data_sets,
            rows=self.rows,
            models=self.models,
        )

    @property
    def gate(self) -> RetrainingGate:
        return RetrainingGate(transactions=self.scheduler.tables.transactions, data_sets=self.data_sets)

    def receive(self, arrivals: Sequence[Arrival], now: datetime) -> list[list[Judgement] | Exception]:
        """Turn arrivals into requests on the tier queues, or refuse them with a reason; each stands alone.

        Returns the results in the order of the arrivals, an error where one must be delivered again; Malformed
        when it has no tenant. Idempotent: the same arrival names the same requests.
        """
        # 1. Read the policy and the owners of the uploads, once for all.
        policy = self.policies.current()
        uploads = {n: arrival for n, arrival in enumerate(arrivals) if isinstance(arrival, UploadArrived)}
        owners = self._owners(uploads)
        # 2. Defer uploads above a tenant's hourly limit; they are picked up later.
        results = self._deferred(uploads, owners, policy, now)
        uploads = {number: upload for number, upload in uploads.items() if number not in results}
        # 3. Uploads together; then each retraining by itself, since it may look at many data sets.
        results |= self._take(uploads, owners, policy, now)
        for number, arrival in enumerate(arrivals):
            if number not in results:
                results |= self._take({number: arrival}, owners, policy, now)
        return [results[number] for number in range(len(arrivals))]

    def _owners(self, uploads: Mapping[int, UploadArrived]) -> dict[int, Tenant | Exception | None]:
        """Return whose each upload is, asked together, or one by one where that fails."""
        places = {number: (upload.content.bucket, upload.content.key) for number, upload in uploads.items()}
        try:
            return dict(zip(places, self.tenants.owners_of(list(places.values())), strict=True))
        except (Throttled, OutcomeUnknown):
            raise  # for one as for all
        except Exception:
            owners: dict[int, Tenant | Exception | None] = {}
            for number, place in places.items():
                try:
                    (owners[number],) = self.tenants.owners_of([place])
                except Exception as error:  # one failing upload must not affect the others
                    owners[number] = error
            return owners

    def _deferred(
        self, uploads: Mapping[int, UploadArrived], owners: Owners, policy: Policy, now: datetime
    ) -> dict[int, list[Judgement] | Exception]:
        """Count each tenant's uploads, and return what becomes of those above its limit."""
        of_tenants: dict[str, list[tuple[int, Tenant]]] = {}
        for number, upload in uploads.items():
            owner = owners.get(number)
            if isinstance(owner, Tenant) and is_incoming(owner, upload.content.key):
                of_tenants.setdefault(owner.tenant_id, []).append((number, owner))
        deferred: dict[int, list[Judgement] | Exception] = {}
        for tenant_id, numbered in of_tenants.items():
            limit = policy.uploads_per_hour_of(tenant_id)
            try:
                if self.arrival_limits.admit(tenant_id, len(numbered), limit=limit, now=now):
                    continue
            except Exception as error:  # one failing tenant must not affect the others
                deferred |= {number: error for number, _ in numbered}
                continue
            for number, tenant in numbered:
                judgement = Judgement(verdict=Verdict.DEFERRED, tenant_id=tenant_id, tier=tenant.tier)
                deferred[number] = [judgement]
        return deferred

    def _take(
        self, arrivals: Mapping[int, Arrival], owners: Owners, policy: Policy, now: datetime
    ) -> dict[int, list[Judgement] | Exception]:
        # 1. Accept each arrival, or refuse it with a reason.
        judged: dict[int, list[Judgement | Submission] | Exception] = {}
        for number, arrival in arrivals.items():
            try:
                judged[number] = self._judge(arrival, owners.get(number), policy, now)
            except Exception as error:  # one failing arrival must not affect the others
                judged[number] = error
        # 2. Send the accepted ones to the tier queues; once each, however often they have arrived.
        results = (
            judgement
            for judgements in judged.values()
            if not isinstance(judgements, Exception)
            for judgement in judgements
        )
        welcome = {judgement.request_id: judgement for judgement in results if isinstance(judgement, Submission)}
        unsent = self.tier_queues.send(list(welcome.values())) if welcome else {}
        return {
            number: judgements
            if isinstance(judgements, Exception)
            else [_told(judgement, unsent) for judgement in judgements]
            for number, judgements in judged.items()
        }

    def _judge(
        self, arrival: Arrival, owner: Tenant | Exception | None, policy: Policy, now: datetime
    ) -> list[Judgement | Submission]:
        """Return the accepted requests of an arrival, and the judgements of the rest; raises Malformed."""
        if isinstance(owner, Exception):
            raise owner
        # 1. An upload or an alarm of another account belongs to no tenant.
        if isinstance(arrival, UploadArrived | AlarmRang) and arrival.account_id != self.account_id:
            raise Malformed(f"the event is of account {arrival.account_id}, not {self.account_id}")
        if isinstance(arrival, AlarmRang):
            return self._judge_alarm(arrival, policy, now)
        if isinstance(arrival, RetrainingAsked) and arrival.account_id != self.account_id:
            arrival = replace(arrival, trigger=Trigger.EVENT)  # whatever it says it is
        if isinstance(arrival, RetrainingAsked | TransformAsked):
            self._count_foreign(arrival, policy, now)
        # 2. Split a retraining of all data sets into one message each, whatever their number.
        if isinstance(arrival, RetrainingAsked) and arrival.data_set is None:
            spread = self._spread(arrival, policy, now)
            if spread is not None:
                return [spread]
        # 3. What is to be trained on?
        try:
            candidates = list(self.candidates.of(arrival, owner, policy, now))
        except NoData as no_data:
            tenant, kind = no_data.tenant, no_data.kind
            return [
                Judgement(verdict=Verdict.IGNORED, tenant_id=tenant.tenant_id, tier=tenant.tier, ignored_as=kind)
            ]
        # 4. Is it accepted?
        judged: list[Judgement | Submission] = []
        for candidate in candidates:
            try:
                judged.append(self._accept(candidate, policy, now))
            except Refused as refusal:
                if candidate.data_set is not None and refusal.kind != "unchanged":
                    self.gate.note_refused(self._asked(candidate, candidate.data_set), str(refusal), now)
                judged.append(self._reject(candidate, refusal, now))
            except LeftOut as reason:
                tenant = candidate.tenant
                judged.append(
                    Judgement(
                        verdict=Verdict.LEFT_OUT,
                        tenant_id=tenant.tenant_id,
                        tier=tenant.tier,
                        reason=str(reason),
                    )
                )
        return judged

    def _count_foreign(self, asked: RetrainingAsked | TransformAsked, policy: Policy, now: datetime) -> None:
        """Count what other systems and accounts ask for among a tenant's uploads; raises Malformed if too many."""
        if asked.source == APPLICATION_SOURCE and asked.account_id == self.account_id:
            return
        tenant = self.candidates.tenant_of(asked, policy)
        limit = policy.uploads_per_hour_of(tenant.tenant_id)
        if not self.arrival_limits.count(tenant.tenant_id, 1, limit=limit, now=now):
            raise Malformed(f"tenant {tenant.tenant_id} has asked for more than {limit:,} trainings in an hour")

    def _judge_alarm(self, alarm: AlarmRang, policy: Policy, now: datetime) -> list[Judgement | Submission]:
        """Judge what an alarm asks for; raises Malformed only if that is nothing that there is."""
        judged: list[Judgement | Submission] = []
        wrong: list[Malformed] = []
        for asked in of_alarm(alarm, policy):
            try:
                judged += self._judge(asked, None, policy, now)
            except Malformed as error:  # a mapping that fits by chance must not affect the others
                wrong.append(error)
        if wrong and not judged:
            raise wrong[0]
        return judged

    def _spread(self, asked: RetrainingAsked, policy: Policy, now: datetime) -> Judgement | None:
        """Ask for each of a tenant's data sets by itself; None when it has none. Idempotent: each is named by the
        event that asked for all. Raises Malformed for more than can be asked for at once.
        """
        tenant = self.candidates.tenant_of(asked, policy)
        names = self.data_sets.names(tenant)
        by_schedule = asked.trigger in (Trigger.SCHEDULE, Trigger.MISSED)
        if by_schedule:
            self.gate.transactions.run(
                lambda unit: heard(unit, tenant.tenant_id, ALL, asked.trigger, asked.event_id), now
            )
        if not names:
            return None
        # The tenant's schedule is not for data sets that have one of their own.
        own = scheduled_by_themselves(tenant, now) if by_schedule else frozenset()
        self.retrainings.ask([replace(asked, data_set=name) for name in names if name not in own])
        return Judgement(verdict=Verdict.SPREAD, tenant_id=tenant.tenant_id, tier=tenant.tier)

    def _accept(self, candidate: Candidate, policy: Policy, now: datetime) -> Submission:
        """Return the request to submit; raises Refused."""
        if candidate.refusal:
            raise candidate.refusal
        if candidate.kind is RequestKind.TRANSFORM:
            return self._accept_transform(candidate, policy)
        submission = accepted_training(
            candidate.tenant,
            candidate.content,
            candidate.request_id,
            candidate.cause,
            policy,
            now,
            overrides=candidate.overrides,
        )
        text = trigger_text(candidate.trigger, candidate.trigger_detail)
        settings = candidate.tenant.settings_for(submission.data_set, candidate.overrides)
        self.gate.check(
            self._asked(candidate, submission.data_set), settings, policy.algorithm(settings.algorithm), now
        )
        return replace(
            submission,
            triggers=(text,),
            rows=candidate.row_count,
            is_forced=candidate.is_forced,
            accepts_drift=candidate.accepts_drift,
            priority=submission.priority if candidate.priority is None else candidate.priority,
            deadline=candidate.ready_by or submission.deadline,
        )

    def _asked(self, candidate: Candidate, data_set: str) -> Asked:
        return Asked(
            tenant=candidate.tenant,
            data_set=data_set,
            content=candidate.content,
            request_id=candidate.request_id,
            trigger=candidate.trigger,
            trigger_text=trigger_text(candidate.trigger, candidate.trigger_detail),
            event_id=candidate.revision,
            # Who asks for other settings wants another model.
            is_forced=candidate.is_forced or candidate.overrides is not None,
        )

    def _accept_transform(self, candidate: Candidate, policy: Policy) -> Submission:
        tenant, data_set, rows, version = candidate.tenant, candidate.data_set, candidate.rows, candidate.version
        assert data_set is not None, "its event names it"
        assert rows is not None, "otherwise it was refused"
        assert version is not None, "otherwise it was refused"
        check_transform(tenant, data_set, rows.size_bytes, policy)
        name, settings = candidate.request_id, tenant.settings_for(data_set)
        # Its instances are chosen by the size of all its objects.
        content = replace(candidate.content, size_bytes=rows.size_bytes, etag=name)
        self.rows.plan(tenant, data_set, content, rows, version)
        return Submission(
            request_id=name,
            tenant_id=tenant.tenant_id,
            tier=tenant.tier,
            data_set=data_set,
            content=content,
            cause=candidate.cause,
            kind=candidate.kind,
            algorithm=settings.algorithm,
            alone=True,
            priority=settings.priority if candidate.priority is None else candidate.priority,
        )

    def _reject(self, candidate: Candidate, refusal: Refused, now: datetime) -> Judgement:
        if candidate.kind is RequestKind.TRANSFORM:
            # The same rows may be accepted later; and a schedule is refused once a day for the same reason.
            candidate = replace(candidate, revision=f"refused on {now:%Y-%m-%d}: {refusal}")
        tenant, expires = candidate.tenant, _expires(candidate, refusal)
        reason = f"{refusal}; the object is removed after {REFUSED_DAYS} days" if expires else str(refusal)
        request = rejected(
            candidate.request_id,
            kind=candidate.kind,
            tenant_id=tenant.tenant_id,
            tier=tenant.tier,
            data_set=candidate.data_set or data_set_or_none(tenant, candidate.content.key),
            content=candidate.content,
            cause=candidate.cause,
            at=now,
            reason=reason,
            overrides=candidate.overrides,
        )
        added = self.scheduler.tables.requests.add_rejected(request)
        self.notifier.notify(request, now, tenant, announce=added)
        if expires:
            self.refused_uploads.let_expire(candidate.content)
        return Judgement(
            verdict=Verdict.REJECTED,
            tenant_id=tenant.tenant_id,
            tier=tenant.tier,
            request_id=request.request_id,
            reason=reason,
            kind=refusal.kind,
        )


def accepted_training(
    tenant: Tenant,
    content: Content,
    request_id: str,
    cause: Cause,
    policy: Policy,
    now: datetime,
    *,
    overrides: Overrides | None = None,
) -> Submission:
    """Return what is submitted for an object that is to be trained on; raises Refused."""
    data_set = data_set_of(tenant, content.key)
    check_welcome(tenant, content, policy, overrides)
    settings = tenant.settings_for(data_set, overrides)
    return Submission(
        request_id=request_id,
        tenant_id=tenant.tenant_id,
        tier=tenant.tier,
        data_set=data_set,
        content=content,
        cause=cause,
        algorithm=settings.algorithm,
        alone=overrides is not None or (cause is Cause.UPLOAD and settings.every_upload),
        overrides=overrides,
        priority=settings.priority,
        deadline=next_ready_by(settings.ready_by, now) if settings.ready_by else None,
    )


def _told(judged: Judgement | Submission, unsent: Mapping[str, str]) -> Judgement:
    if isinstance(judged, Judgement):
        return judged
    return Judgement(
        verdict=Verdict.UNSENT if judged.request_id in unsent else Verdict.SUBMITTED,
        tenant_id=judged.tenant_id,
        tier=judged.tier,
        request_id=judged.request_id,
        reason=unsent.get(judged.request_id),
    )


def check_sent(judgements: Sequence[Judgement]) -> None:
    """Raise Throttled when a tier queue did not take a request: the arrival must be delivered again."""
    for judgement in judgements:
        if judgement.verdict is Verdict.UNSENT:
            raise Throttled(f"the queue of tier {judgement.tier} did not accept a request: {judgement.reason}")


def _expires(candidate: Candidate, refusal: Refused) -> bool:
    """Tell whether a refused object expires: only an upload that no run would ever read.

    A run of a data set that is trained on as a whole reads every object of it, refused or not.
    """
    data_set = data_set_or_none(candidate.tenant, candidate.content.key)
    whole = candidate.tenant.settings_for(data_set).train_on is TrainOn.WHOLE_PREFIX
    return candidate.cause is Cause.UPLOAD and refusal.kind in NEVER_TRAINED_ON and not whole
