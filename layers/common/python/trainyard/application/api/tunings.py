"""What tunings of a data set have found, and with which of it trainings begin."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainyard.domain.errors import Conflict, Refused
from trainyard.domain.tuning import Tuned
from trainyard.persistence.run_history import keep_tunings, past_key, tunings_from
from trainyard.persistence.store import Store

TRIES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunings:
    store: Store

    def of(self, tenant_id: str, data_set: str) -> tuple[Tuned, ...]:
        """Return what the last tunings of a data set have found, oldest first."""
        (item,) = self.store.get(past_key(tenant_id, data_set))
        return tunings_from(item)

    def use(self, tenant_id: str, data_set: str, request_id: str | None) -> tuple[Tuned, ...]:
        """Let trainings begin with the values of one tuning, or with those of none; return all as they are now.

        Raises Refused for a request that is none of the data set's last tunings, and Conflict. Idempotent.
        """
        key = past_key(tenant_id, data_set)
        for _ in range(TRIES_MAX):
            (item,) = self.store.get(key)
            before = tunings_from(item)
            after = _using(before, request_id)
            if after == before:
                return after
            try:
                self.store.transact([keep_tunings(key, after, item)])
            except Conflict:
                continue
            return after
        raise Conflict("the history of the data set keeps changing: try again")


def _using(tunings: Sequence[Tuned], request_id: str | None) -> tuple[Tuned, ...]:
    chosen = next((each for each in tunings if each.request_id == request_id), None)
    if request_id is not None and chosen is None:
        last = ", ".join(each.request_id[:8] for each in tunings) or "none"
        raise Refused(f"{request_id[:8]} is none of the data set's last tunings: {last}")
    # Those with other algorithms are another matter.
    return tuple(
        replace(each, is_used=each is chosen) if chosen is None or each.algorithm == chosen.algorithm else each
        for each in tunings
    )
