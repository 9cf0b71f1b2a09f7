"""Retraining: whether a data set trains again, given what asks for it and what was trained on before."""

from dataclasses import dataclass, replace
from datetime import datetime

from trainyard.application.ports import DataSets
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.errors import Refused, TrainyardError
from trainyard.domain.requests import Content
from trainyard.domain.retraining import Trained, Trigger
from trainyard.domain.retraining_record import LastTrigger, objection_to, unchanged_text, with_trigger
from trainyard.domain.tenants import Tenant, TrainingSettings
from trainyard.domain.tuning import tuned_values, used, with_tuned
from trainyard.domain.unchanged import basis_of, settings_digest
from trainyard.persistence.retraining_records import put_record, record_from, record_key
from trainyard.persistence.run_history import past_key, trainings_from, tunings_from
from trainyard.persistence.transactions import Transactions, UnitOfWork

FORCE = "ask for a training with force to train all the same"


class LeftOut(TrainyardError):
    """Nothing is trained, and nobody waits for an answer: the reason is kept in the record of the data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A training that something asks for, before it is a request."""

    tenant: Tenant
    data_set: str
    content: Content
    """The newest object."""
    request_id: str
    trigger: Trigger
    trigger_text: str
    event_id: str
    is_forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingGate:
    """Lets a training become a request, or says why not."""

    transactions: Transactions
    data_sets: DataSets

    def check(self, asked: Asked, settings: TrainingSettings, algorithm: Algorithm, now: datetime) -> None:
        """Return if a training is to be a request; `settings` and `algorithm` are what it would train with.

        Raises Refused where whoever asked for it is told, and LeftOut where nobody waits for an answer.
        """
        if not asked.trigger.is_automatic:
            return  # whoever asked is told when its turn comes: until then, something newer may become part of it
        unchanged = None if asked.is_forced else self._trained_before(asked, settings, algorithm)
        reason = self.transactions.run(lambda unit: self._judge(unit, asked, unchanged), now)
        if reason is None:
            return
        if asked.trigger is Trigger.EVENT and unchanged is not None and reason == unchanged_text(unchanged):
            raise Refused(f"{reason}: {FORCE}", kind="unchanged")
        raise LeftOut(reason)

    def note_refused(self, asked: Asked, reason: str, now: datetime) -> None:
        """Keep that a trigger was heard of, and was refused before it could be judged."""
        if asked.trigger.is_automatic:
            self.transactions.run(lambda unit: self._keep(unit, asked, reason), now)

    def _judge(self, unit: UnitOfWork, asked: Asked, unchanged: Trained | None) -> str | None:
        """Return why a data set is not trained by itself, and keep that in its record."""
        (item,) = unit.read(record_key(asked.tenant.tenant_id, asked.data_set))
        reason = objection_to(record_from(item), asked.trigger, asked.event_id, unchanged, unit.now)
        self._keep(unit, asked, reason)
        return reason

    def _keep(self, unit: UnitOfWork, asked: Asked, reason: str | None) -> None:
        key = record_key(asked.tenant.tenant_id, asked.data_set)
        (item,) = unit.read(key)
        last = LastTrigger(
            at=unit.now,
            trigger=asked.trigger_text,
            event_id=asked.event_id,
            request_id="" if reason else asked.request_id,
            left_out=reason or "",
        )
        unit.write(put_record(key, with_trigger(record_from(item), asked.trigger, last), item))

    def _trained_before(self, asked: Asked, settings: TrainingSettings, algorithm: Algorithm) -> Trained | None:
        """Return the last training of a data set if it had the same data and settings, and another one is asked
        for.
        """
        (item,) = self.transactions.store.get(past_key(asked.tenant.tenant_id, asked.data_set))
        trained = trainings_from(item).trained
        if trained is None or trained.request_id == asked.request_id:
            return None
        settings = with_tuned(settings, tuned_values(used(tunings_from(item), algorithm.name), algorithm))
        with_settings = settings_digest(settings, algorithm)
        if trained.basis.partition(".")[2] != with_settings:
            return None
        data = self.data_sets.digest(asked.tenant, asked.data_set, asked.content)
        return trained if trained.basis == basis_of(data, with_settings) else None


def heard(unit: UnitOfWork, tenant_id: str, data_set: str, trigger: Trigger, event_id: str) -> None:
    """Keep that a schedule of all data sets of a tenant was heard of."""
    key = record_key(tenant_id, data_set)
    (item,) = unit.read(key)
    last = LastTrigger(at=unit.now, trigger=trigger.value, event_id=event_id)
    record = replace(record_from(item), last=last, schedule_at=unit.now)
    unit.write(put_record(key, record, item))
