"""What a tenant calls: an alias never names what was not tested, and a withdrawn version answers nothing more."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from random import Random

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW, after
from trainyard.domain.aliases import (
    ABANDONED_AFTER,
    WITHDRAWN_MAX,
    Alias,
    Begun,
    answering,
    begin,
    deployed,
    failed,
    in_use,
    next_to_deploy,
    promoted,
    rolled_back,
    stopped,
)
from trainyard.domain.errors import Conflict, Refused
from trainyard.persistence.aliases import Aliases

EMPTY = Alias(tenant_id="acme", data_set="churn")
LATE = ABANDONED_AFTER.total_seconds() + 1


RUN = "run-1"


def at(alias: Alias, version: int, seconds: float = 0, run: str = RUN) -> tuple[Alias, Begun]:
    """Begin a version that was approved just now."""
    return begin(alias, version, after(seconds), after(seconds), run)


def live(*versions: int) -> Alias:
    alias = EMPTY
    for version in versions:
        alias = deployed(at(alias, version)[0], version, RUN)
    return alias


def test_a_version_answers_once_it_is_deployed() -> None:
    alias, begun = at(EMPTY, 1)
    assert (begun, answering(alias, "any")) == (Begun.DEPLOY, None)
    alias = deployed(alias, 1, RUN, percent=10)
    assert (alias.live, alias.canary) == (1, None), "a first version has nobody to share with"
    assert deployed(alias, 1, RUN) == alias
    assert at(alias, 1) == (alias, Begun.SERVED), "approved twice"


def test_one_version_is_deployed_at_a_time_and_then_the_newest_that_waits() -> None:
    alias, _ = at(EMPTY, 1)
    assert at(alias, 1) == (alias, Begun.DEPLOY), "a step that is repeated"
    assert at(alias, 1, run="run-2") == (alias, Begun.IN_PROGRESS), "an event that comes twice"
    alias, begun = at(alias, 2)
    assert (begun, alias.deploying, alias.waiting) == (Begun.WAIT, 1, 2)
    assert next_to_deploy(alias) is None
    alias, _ = at(alias, 3)
    assert at(alias, 2)[1] is Begun.OVERTAKEN
    alias = failed(alias, 1, RUN, NOW)
    assert next_to_deploy(alias) == 3
    alias, begun = at(alias, 3)
    assert (begun, alias.deploying, alias.waiting) == (Begun.DEPLOY, 3, None)
    assert at(deployed(alias, 3, RUN), 2)[1] is Begun.OVERTAKEN, "an old version"


def test_a_deployment_that_died_gives_way_and_cannot_come_back() -> None:
    alias, _ = at(EMPTY, 1)
    assert at(alias, 2, LATE - 2)[1] is Begun.WAIT
    for version in (1, 2):
        later, begun = at(alias, version, LATE, run="run-2")
        assert (begun, later.deploying, later.deploying_run) == (Begun.DEPLOY, version, "run-2")
        with pytest.raises(Refused, match=f"version {version} is, by run-2"):
            deployed(later, 1, RUN)
        assert failed(later, 1, RUN, NOW) == later


def test_a_canary_answers_its_share_and_keeps_its_callers_as_the_share_grows() -> None:
    keys = [f"call-{number}" for number in range(20_000)]
    alias = deployed(at(live(1), 2)[0], 2, RUN, percent=10)
    first = {key for key in keys if answering(alias, key) == 2}
    assert 0.09 < len(first) / len(keys) < 0.11
    more = replace(alias, canary_percent=50)
    second = {key for key in keys if answering(more, key) == 2}
    assert 0.48 < len(second) / len(keys) < 0.52
    assert first < second
    next_canary = replace(alias, canary=3)
    both = {key for key in first if answering(next_canary, key) == 3}
    assert len(both) / len(first) < 0.2, "the same callers do not try each canary"
    done = promoted(alias, 2)
    assert {answering(done, key) for key in keys} == {2}
    assert (done.previous, promoted(done, 2)) == (1, done), "repeated"
    for other, reason in (
        (live(1), "no version is a canary"),
        (replace(alias, canary=3), "version 3 is a canary"),
    ):
        with pytest.raises(Refused, match=reason):
            promoted(other, 2)


def test_a_roll_back_drops_the_canary_or_goes_to_the_previous_version() -> None:
    alias = deployed(at(live(1, 2), 3)[0], 3, RUN, percent=10)
    alias = rolled_back(alias, 3, after(5))
    assert (alias.live, alias.canary, alias.canary_percent) == (2, None, 0)
    assert rolled_back(alias, 3, after(6)) == alias, "repeated, it does not withdraw the live version too"
    alias = rolled_back(alias, 2, after(6))
    assert (alias.live, alias.previous) == (1, None)
    assert alias.withdrawn == {3: after(5), 2: after(6)}
    with pytest.raises(Refused, match="no earlier version"):
        rolled_back(alias, 1, after(7))
    with pytest.raises(Refused, match="version 9 of churn answers no calls"):
        rolled_back(alias, 9, after(7))


def test_only_a_later_approval_brings_a_withdrawn_version_back() -> None:
    alias = rolled_back(live(1, 2), 2, after(5))
    assert begin(alias, 2, after(4), after(6), RUN) == (alias, Begun.WITHDRAWN), "a late event"
    alias, begun = begin(alias, 2, after(6), after(7), RUN)
    assert begun is Begun.DEPLOY
    for percent in (10, 100):
        again = deployed(alias, 2, RUN, percent=percent)
        assert ((again.canary if percent == 10 else again.live), again.withdrawn) == (2, {})


def test_a_withdrawn_version_that_is_not_remembered_by_itself_stays_withdrawn() -> None:
    alias = live(1, 10)
    for version in range(11, 11 + WITHDRAWN_MAX):
        alias = failed(at(alias, version)[0], version, RUN, after(version))
    alias = rolled_back(alias, 10, after(5000))
    assert len(alias.withdrawn) == WITHDRAWN_MAX
    assert 10 not in alias.withdrawn
    assert begin(alias, 70, after(1), after(6000), RUN)[1] is Begun.DEPLOY, "a newer one"
    older = replace(alias, withdrawn_until=after(9000))
    assert rolled_back(replace(older, canary=70), 70, after(7000)).withdrawn_until == after(9000)
    for version in (10, 11, 60):
        assert begin(alias, version, after(1), after(6000), RUN)[1] is Begun.WITHDRAWN
        assert begin(alias, version, after(6000), after(6000), RUN)[1] is Begun.DEPLOY


def test_what_may_answer_again_is_kept() -> None:
    alias = deployed(at(live(1, 2), 3)[0], 3, RUN, percent=10)
    assert in_use(alias) == {1, 2, 3}
    assert in_use(at(live(1, 2), 4)[0]) == {1, 2, 4}
    assert in_use(promoted(alias, 3)) == {2, 3}
    assert in_use(EMPTY) == frozenset()


def test_aliases_are_stored_by_data_set_and_removed() -> None:
    aliases = Aliases(MemoryStore(), lambda _: None)
    assert aliases.get("acme", "churn") == EMPTY
    stored = aliases.change(
        "acme", "churn", lambda a: rolled_back(replace(live(1, 2), revision=a.revision), 2, NOW), NOW
    )
    assert aliases.get("acme", "churn") == stored
    assert stored.revision
    assert aliases.change("acme", "churn", lambda a: a, NOW) == stored, "nothing is written"
    aliases.change("acme", "other", lambda a: at(a, 7)[0], NOW)
    aliases.change("acme1", "churn", lambda a: at(a, 7)[0], NOW)
    assert [alias.data_set for alias in aliases.of_tenant("acme")] == ["churn", "other"]
    aliases.forget("acme", "churn")
    assert aliases.get("acme", "churn") == EMPTY


def test_what_was_read_before_an_alias_was_made_anew_is_not_written() -> None:
    aliases = Aliases(MemoryStore(), lambda _: None)
    aliases.change("acme", "churn", lambda a: at(a, 5)[0], NOW)
    seen: list[int | None] = []

    def meanwhile(alias: Alias) -> Alias:
        if not seen:
            aliases.forget("acme", "churn")
            aliases.change("acme", "churn", lambda a: at(a, 6, run="run-2")[0], NOW)
        seen.append(alias.deploying)
        return deployed(alias, 5, RUN)

    with pytest.raises(Refused, match="version 6 is, by run-2"):
        aliases.change("acme", "churn", meanwhile, NOW)
    assert seen == [5, 6]


def test_a_change_that_others_overtake_is_made_again_and_given_up_in_the_end() -> None:
    store, rests = MemoryStore(), list[int]()
    aliases = Aliases(store, rests.append)
    others = iter([1, 2])

    def while_others_change(alias: Alias) -> Alias:
        number = next(others, None)
        if number is not None:
            Aliases(store, lambda _: None).change("acme", "churn", lambda a: replace(a, waiting=number), NOW)
        return replace(alias, live=9)

    changed = aliases.change("acme", "churn", while_others_change, NOW)
    assert (changed.live, changed.waiting, rests) == (9, 2, [1, 2])

    def always(alias: Alias) -> Alias:
        Aliases(store, lambda _: None).change(
            "acme", "churn", lambda a: replace(a, waiting=(a.waiting or 0) + 1), NOW
        )
        return replace(alias, live=10)

    with pytest.raises(Conflict, match="keeps changing"):
        aliases.change("acme", "churn", always, NOW)


# --- the protocol, with everything that goes wrong ------------------------------------------------------------


@dataclass
class World:
    """Deployers, an operator and callers of one alias, interleaved at random; deployers die and come again."""

    seed: int
    bad: frozenset[int] = frozenset({3, 5})
    """Versions that pass their test, and turn out to be bad."""
    untestable: frozenset[int] = frozenset({4})

    def __post_init__(self) -> None:
        self.draw = Random(self.seed)
        self.aliases = Aliases(MemoryStore(), lambda _: None)
        self.now = NOW
        self.approved: dict[int, datetime] = {}
        self.tested: set[int] = set()
        self.deployers: list[Iterator[None]] = []
        self.calls: Counter[int | None] = Counter()
        self.runs = count()

    def change(self, make: object) -> Alias:
        return self.aliases.change("acme", "churn", make, NOW)  # type: ignore[arg-type]

    def deployer(self, version: int) -> Iterator[None]:
        """Deploy a version as told by an event; each yield is a moment in which it may die."""
        begun, run = Begun.OVERTAKEN, f"run-{next(self.runs)}"

        def start(alias: Alias) -> Alias:
            nonlocal begun
            alias, begun = begin(alias, version, self.approved[version], self.now, run)
            return alias

        self.change(start)
        yield
        if begun is not Begun.DEPLOY:
            return
        yield
        if version in self.untestable:
            self.change(lambda alias: failed(alias, version, run, self.now))
        else:
            self.tested.add(version)
            yield
            percent = self.draw.choice([10, 100])
            try:
                self.change(lambda alias: deployed(alias, version, run, percent=percent))
            except Refused:
                return
        yield
        waits = next_to_deploy(self.aliases.get("acme", "churn"))
        if waits is not None:
            self.deployers.append(self.deployer(waits))

    def operate(self) -> None:
        """Withdraw what is bad, and promote what is not."""
        alias = self.aliases.get("acme", "churn")
        judged = alias.canary or alias.live
        with suppress(Refused):
            if judged in self.bad and (alias.canary or alias.previous):
                for _ in range(self.draw.choice([1, 2])):  # a repeated call
                    self.change(lambda a: rolled_back(a, judged, self.now))
            elif alias.canary is not None:
                self.change(lambda a: promoted(a, alias.canary or 0))

    def call(self) -> None:
        alias = self.aliases.get("acme", "churn")
        version = answering(alias, f"{self.draw.random()}")
        assert version is None or version in self.tested, f"version {version} was not tested"
        if version in alias.withdrawn:
            raise AssertionError(f"version {version} was withdrawn")
        self.calls[version] += 1

    def step(self) -> None:
        self.now += after(self.draw.uniform(0, 30)) - NOW
        what = self.draw.random()
        if what < 0.1 and len(self.approved) < 6:
            version = len(self.approved) + 1
            self.approved[version] = self.now
            self.deployers += [self.deployer(version) for _ in range(self.draw.choice([1, 1, 2]))]
        elif what < 0.15 and self.approved:  # an event that comes once more, perhaps much later
            self.deployers.append(self.deployer(self.draw.choice(list(self.approved))))
        elif what < 0.55 and self.deployers:
            chosen = self.draw.randrange(len(self.deployers))
            if self.draw.random() < 0.03:
                del self.deployers[chosen]  # it dies
            elif next(self.deployers[chosen], "ended") == "ended":
                del self.deployers[chosen]
        elif what < 0.65:
            self.operate()
        else:
            self.call()


@pytest.mark.parametrize("seed", range(60))
def test_nothing_untested_and_nothing_withdrawn_answers_whatever_dies_or_comes_twice(seed: int) -> None:
    world = World(seed)
    for _ in range(600):
        world.step()
    # At rest: what died is abandoned, and a sweep tells all approvals once more.
    for _ in range(3):
        world.now += ABANDONED_AFTER * 1.1
        world.deployers = [world.deployer(version) for version in sorted(world.approved)]
        while world.deployers:
            if next(world.deployers[0], "ended") == "ended":
                del world.deployers[0]
            world.operate()
    alias = world.aliases.get("acme", "churn")
    good = set(world.approved) - world.bad - world.untestable
    if good:
        assert alias.live in good
        assert (alias.canary, alias.deploying, alias.waiting) == (None, None, None)
    assert not {3, 5} & {alias.live, alias.canary} or not good


def test_a_stopped_alias_answers_nothing_until_a_version_is_approved_again() -> None:
    alias, begun = begin(live(1, 2), 4, after(1), after(2), "under way")
    assert begun is Begun.DEPLOY
    alias, begun = begin(alias, 5, after(1), after(2), "next")
    assert begun is Begun.WAIT
    alias = stopped(alias, after(5))
    with pytest.raises(Refused, match="not being deployed by under way"):
        deployed(alias, 4, "under way")
    assert answering(alias, "any") is None
    assert stopped(alias, after(6)) == alias
    for version in (1, 2, 3, 4, 5):  # the third was approved, and never deployed
        assert begin(alias, version, after(4), after(7), "late")[1] is Begun.WITHDRAWN
    alias, begun = begin(alias, 3, after(6), after(7), "run")
    assert begun is Begun.DEPLOY
    assert answering(deployed(alias, 3, "run"), "any") == 3


def test_what_is_approved_while_a_canary_bakes_is_deployed_after_that() -> None:
    alias = deployed(at(live(1, 2), 3)[0], 3, RUN, percent=10)
    alias, begun = begin(alias, 4, after(1), after(2), "next")
    assert begun is Begun.WAIT
    assert next_to_deploy(alias) is None
    for after_baking in (promoted(alias, 3), rolled_back(alias, 3, after(5))):
        assert next_to_deploy(after_baking) == 4
        assert begin(after_baking, 4, after(1), after(6), "next")[1] is Begun.DEPLOY


def test_stopping_what_answers_nothing_changes_nothing() -> None:
    assert stopped(EMPTY, after(5)) == EMPTY
