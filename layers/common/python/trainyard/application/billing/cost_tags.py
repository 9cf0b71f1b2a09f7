"""Cost allocation tags: without them the bill does not show which tenant a job belongs to.

A tag can be activated only after it was used, up to a day later, and only by the account that pays. So it is tried
every day until all are active; where this account may not, the payer's command is kept and shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from trainyard.persistence.book import Book
from trainyard.persistence.items import stamp

COST_TAGS = ("trainyard:tenant", "trainyard:tier", "trainyard:request", "trainyard:dataset", "trainyard:stage")
"""On every job (pipeline/author.py)."""


class TagState(StrEnum):
    ACTIVE = "active"
    ACTIVATED = "activated just now"
    UNUSED = "not seen on the bill yet: up to a day after its first job"
    REFUSED = "this account may not activate it: the payer must"
    FAILED = "could not be asked for"


class CostTags(Protocol):
    def states(self, names: Sequence[str]) -> Mapping[str, bool]:
        """Return tag → whether it is active, for the tags that the bill has seen; raises TagsRefused."""
        ...

    def activate(self, names: Sequence[str]) -> Mapping[str, str]:
        """Activate tags; return tag → why not, of those that were refused. Raises TagsRefused."""
        ...


class TagsRefused(Exception):
    """This account is not allowed to manage cost allocation tags; the message is AWS's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagActivation:
    book: Book
    tags: CostTags

    def run_daily(self, now: datetime) -> dict[str, TagState]:
        """Run once a day; return an empty result if it was already done today."""
        note = self.book.noted("cost tags")
        done_today = note is not None and note["at"][:10] == stamp(now)[:10]
        return {} if done_today else self.run(now)

    def run(self, now: datetime) -> dict[str, TagState]:
        """Activate the tags that can be activated, and record the state of all. Idempotent."""
        states, why = self._try()
        self.book.note(
            "cost tags",
            {"at": stamp(now), "states": {name: state.value for name, state in states.items()}, "why": why},
        )
        return states

    def _try(self) -> tuple[dict[str, TagState], str]:
        try:
            by_name = self.tags.states(COST_TAGS)
            waiting = [name for name in COST_TAGS if by_name.get(name) is False]
            refused = self.tags.activate(waiting) if waiting else {}
        except TagsRefused as error:
            return dict.fromkeys(COST_TAGS, TagState.REFUSED), str(error)
        except Exception as error:  # tried again tomorrow
            return dict.fromkeys(COST_TAGS, TagState.FAILED), f"{type(error).__name__}: {error}"
        states: dict[str, TagState] = {}
        for name in COST_TAGS:
            if name not in by_name:
                states[name] = TagState.UNUSED
            elif by_name[name]:
                states[name] = TagState.ACTIVE
            else:
                states[name] = TagState.REFUSED if name in refused else TagState.ACTIVATED
        return states, "; ".join(f"{name}: {reason}" for name, reason in refused.items())


def payers_command(names: Sequence[str] = COST_TAGS) -> str:
    """Return the command with which the paying account activates tags."""
    wanted = " ".join(f"TagKey={name},Status=Active" for name in names)
    return f"aws ce update-cost-allocation-tags-status --cost-allocation-tags-status {wanted}"
