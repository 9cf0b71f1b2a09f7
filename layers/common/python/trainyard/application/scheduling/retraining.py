"""Retraining: whether a data set trains again, given what asks for it and what was trained on before."""

from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from trainyard.application.ports import DataSets
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.errors import Refused, TrainyardError
from trainyard.domain.requests import Content
from trainyard.domain.retraining import Trained, Trigger
from trainyard.domain.retraining_record import LastTrigger, objection_to, unchanged_text, with_trigger
from trainyard.domain.tenants import Tenant, TrainingSettings
from trainyard.domain.unchanged import COMPARED_BYTES_MAX, basis_of, has_settings, settings_digest
from trainyard.persistence.retraining_records import put_record, record_from, record_key
from trainyard.persistence.run_history import past_key, trainings_from
from trainyard.persistence.transactions import Transactions, UnitOfWork


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
        unchanged = None if asked.is_forced else self._trained_before(asked, settings, algorithm)
        if not asked.trigger.is_automatic:
            if unchanged is not None:
                raise Refused(
                    f"{unchanged_text(unchanged)}: ask for a training with force to train all the same",
                    kind="unchanged",
                )
            return
        reason = self.transactions.run(lambda unit: self._judge(unit, asked, unchanged), now)
        if reason is None:
            return
        if asked.trigger is Trigger.EVENT and unchanged is not None and reason == unchanged_text(unchanged):
            raise Refused(f"{reason}: ask with force to train all the same", kind="unchanged")
        raise LeftOut(reason)

    def _judge(self, unit: UnitOfWork, asked: Asked, unchanged: Trained | None) -> str | None:
        """Return why a data set is not trained by itself, and keep that in its record."""
        key = record_key(asked.tenant.tenant_id, asked.data_set)
        (item,) = unit.read(key)
        record = record_from(item)
        reason = objection_to(record, asked.trigger, asked.event_id, unchanged, unit.now)
        last = LastTrigger(
            at=unit.now,
            trigger=asked.trigger_text,
            event_id=asked.event_id,
            request_id="" if reason else asked.request_id,
            left_out=reason or "",
        )
        # An event of another system that is refused counts too: it may be answered with the next one.
        counts = reason is None or asked.trigger is Trigger.EVENT
        unit.write(put_record(key, with_trigger(record, asked.trigger, last, counts=counts), item))
        return reason

    def _trained_before(self, asked: Asked, settings: TrainingSettings, algorithm: Algorithm) -> Trained | None:
        """Return the last training of a data set if it had the same data and settings, and another one is asked
        for.
        """
        (item,) = self.transactions.store.get(past_key(asked.tenant.tenant_id, asked.data_set))
        trained = trainings_from(item).trained
        if trained is None or trained.request_id == asked.request_id:
            return None
        with_settings = settings_digest(settings, algorithm)
        if not has_settings(trained, with_settings):
            return None
        data = self.data_sets.digest(asked.tenant, asked.data_set, asked.content)
        if trained.basis == basis_of(data, with_settings):
            return trained
        return trained if self._is_copy(asked.content, trained) else None

    def _is_copy(self, content: Content, trained: Trained) -> bool:
        """Tell whether an object has the bytes of the only file of a training."""
        if not 0 < content.size_bytes == trained.size_bytes <= COMPARED_BYTES_MAX:
            return False
        digest = self.data_sets.sha256_of(content)
        # A run's report has a digest over the digests of its files.
        return digest is not None and sha256(digest.encode()).hexdigest() == trained.sha256


def heard(unit: UnitOfWork, tenant_id: str, data_set: str, trigger: Trigger, event_id: str) -> None:
    """Keep that a schedule of all data sets of a tenant was heard of."""
    key = record_key(tenant_id, data_set)
    (item,) = unit.read(key)
    last = LastTrigger(at=unit.now, trigger=trigger.value, event_id=event_id)
    record = with_trigger(record_from(item), trigger, last, counts=False)
    unit.write(put_record(key, replace(record, left_out=0), item))
