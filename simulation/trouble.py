"""Faults: every call of a port may fail, as drawn from the seed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from simulation.clock import Agenda
from trainyard.domain.errors import Conflict, OutcomeUnknown, Throttled


class Crash(BaseException):
    """The caller is killed: no handler of the use cases sees this, as with a killed Lambda function."""


KINDS = (
    ("throttled", 4),
    ("timed out before", 3),
    ("timed out after", 3),
    ("crashed before", 2),
    ("crashed after", 2),
    ("others went first", 6),
    ("stalled", 2),
    ("conflict", 4),
)
_NAMES = [name for name, _ in KINDS]
_WEIGHTS = [weight for _, weight in KINDS]


@dataclass
class Trouble:
    agenda: Agenda
    random: Random
    share: float
    """The share of calls with a fault."""
    others: Callable[[], None] = lambda: None
    """Runs due actions in the middle of a call."""
    log: Callable[[str], None] = lambda _: None
    lost: Callable[[str], None] = lambda _: None
    """Called for each call that took effect, but whose response was lost."""
    active: bool = True
    calls: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call, possibly with a fault."""
        self.calls += 1
        self.agenda.pass_time(0.005)
        if not self.active or self.random.random() >= self.share:
            return call()
        (kind,) = self.random.choices(_NAMES, _WEIGHTS)
        if kind == "conflict" and name != "store.transact":
            kind = "throttled"
        self.counts[kind] += 1
        self.log(f"{name}: {kind}")
        return self._strike(kind, name, call)

    def _strike(self, kind: str, name: str, call: Callable[[], Any]) -> Any:
        match kind:
            case "throttled":
                raise Throttled("simulated")
            case "timed out before":
                raise OutcomeUnknown("simulated, without effect")
            case "timed out after":
                call()
                self.lost(name)
                raise OutcomeUnknown("simulated, with effect")
            case "crashed before":
                raise Crash
            case "crashed after":
                call()
                self.lost(name)
                raise Crash
            case "others went first":
                self.others()
            case "stalled":
                self.agenda.pass_time(self.random.uniform(1, 40))
            case "conflict":
                raise Conflict("simulated: another transaction is under way")
        return call()

    def strikes(self, what: str, probability: float) -> bool:
        """Tell whether another fault happens, and count it."""
        struck = self.active and self.random.random() < probability
        if struck:
            self.counts[what] += 1
            self.log(what)
        return struck


class Troubled:
    """A port whose calls may have faults."""

    def __init__(self, port: Any, name: str, trouble: Trouble) -> None:
        self._port, self._name, self._trouble = port, name, trouble

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._port, method)
        name = f"{self._name}.{method}"
        return lambda *given, **named: self._trouble.around(name, lambda: inner(*given, **named))
