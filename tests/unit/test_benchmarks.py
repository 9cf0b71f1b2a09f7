"""The benchmarks run and measure what they claim, and docs/performance.md contains their results."""

import json
from pathlib import Path

import pytest

from benchmarks import compare, passes, report, sweep
from benchmarks.designs.ours import Metered
from benchmarks.harness import CALM, TROUBLED, Crash, Faults, Harness
from simulation.flow import Job
from testing.memory_store import MemoryStore
from trainyard.domain.errors import OutcomeUnknown, Throttled
from trainyard.persistence.store import Key, Put, Update, Write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("troubled", [False, True], ids=["calm", "with faults"])
@pytest.mark.parametrize("design", compare.DESIGNS)
def test_each_design_does_the_work(design: str, troubled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(compare.HORIZONS, 20, 2400.0)
    found = compare.run(design, 20, troubled, seed=2)
    assert found.starts > 50
    assert 0.4 < found.use <= 1.0
    assert found.lost == 0
    if design == "trainyard":
        assert (found.overshoot, found.tier_overshoot, found.leaked, found.doubled) == (0, 0, 0, 0)


def test_the_counter_overshoots_and_the_blog_doubles_when_answers_are_lost() -> None:
    """The faults that the others are said to suffer from are there to be suffered."""
    counter, blog = (compare.run(design, 20, True, seed=1) for design in ("counter", "blog"))
    assert counter.overshoot > 0
    assert blog.doubled > 0


def test_the_page_is_what_the_result_says() -> None:
    result = json.loads((ROOT / "benchmarks/result.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert page == report.document(result), "python -m benchmarks --render"
    assert report.unexpected(result) == []


def test_what_lies_outside_of_its_range_is_told() -> None:
    result = json.loads((ROOT / "benchmarks/result.json").read_text(encoding="utf-8"))
    ours = next(one for one in result["designs"] if one["design"] == "trainyard")
    ours["leaked"] = 3
    result["calls"][0]["scheduling"] = 1.4
    assert [line.partition(":")[0] for line in report.unexpected(result)] == [
        "designs, trainyard.leaked",
        "calls, in bursts",
    ]


def test_a_call_takes_time_is_counted_and_goes_wrong_as_often_as_it_is_said_to() -> None:
    calm = Harness(faults=CALM, seed=1)
    took = calm.invoke(lambda: calm.call("dynamodb:GetItem", times=3))
    assert (round(took, 3), calm.calls["dynamodb:GetItem"]) == (0.012, 3)
    wrong = Harness(faults=Faults(throttled=0.1, unanswered=0.1, crashed=0.1), seed=1)
    found: dict[type, int] = {}
    for _ in range(3000):
        try:
            wrong.call("dynamodb:GetItem")
        except (Crash, Throttled, OutcomeUnknown) as error:
            found[type(error)] = found.get(type(error), 0) + 1
    assert {kind: 250 < count < 350 for kind, count in found.items()} == {
        Crash: True,
        Throttled: True,
        OutcomeUnknown: True,
    }


def test_a_pass_reads_no_more_of_a_thousand_waiting_requests_than_of_ten_thousand() -> None:
    some, many = (passes._measured(waiting, waiting // 10, 1) for waiting in (1_000, 10_000))
    assert (some.calls, some.items) == (many.calls, many.items)


def test_writes_are_billed_with_their_entries_in_indexes() -> None:
    """Twice in a transaction, by kilobytes; an entry whose keys change is deleted and put."""
    store = Metered(MemoryStore(), Harness(faults=CALM, seed=1))
    queue = Key("scheduler", (("pk", "tier#basic"), ("sk", "tenant#t")))
    past = Key("scheduler", (("pk", "past"), ("sk", "t")))
    run = Key("record", (("pk", "run"), ("sk", "1")))
    partition: list[float] = []
    store.written = lambda _key, units: partition.append(units)

    def units(write: Write) -> float:
        before = store.write_units
        store.transact([write])
        return store.write_units - before

    assert units(Put(past, {"text": "x" * 1500})) == 2 * 2  # in no index
    assert units(Put(queue, {"ready": "a", "n": 1})) == 2 + 1
    assert units(Update(queue, set={"ready": "b"})) == 2 + 2
    assert units(Update(queue, set={"n": 2})) == 2 + 1
    assert units(Put(run, {"tenant_id": "t", "admitted": "1", "text": "x" * 2000})) == 2 * 2 + 1
    assert units(Update(run, set={"text": "y"})) == 2 * 2  # what it was is larger; an index of keys is unchanged
    assert partition == [4, 3, 4, 3, 4, 4]


def test_the_same_token_starts_nothing_a_second_time_and_an_end_frees_what_it_took() -> None:
    harness = Harness(faults=CALM, seed=1)
    job = Job(1, 0.0, "t", "basic", 30.0)
    assert harness.start("n", "token", job) is harness.start("n", "token", job)
    harness.run_until(10)
    assert (harness.running[""], len(harness.listed(harness.agenda.now.replace(year=2025)))) == (1, 1)
    harness.run_until(40)
    assert (harness.running[""], harness.peaks["basic"]) == (0, 1)
    assert TROUBLED.events_lost > 0


def test_the_cost_of_looking_for_lost_uploads_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sweep", "--tenants", "25", "--objects", "3"])
    assert sweep.main() == 0
    assert "25 lists of objects, 75 requests read" in capsys.readouterr().out
