"""Run the benchmarks, print the results, and compare them with the expected ranges (make bench).

python -m benchmarks                     all of them, about a quarter of an hour on two cores
python -m benchmarks --only calls kueue  some of them; the last results of the others are kept
python -m benchmarks --render            none; regenerate docs/performance.md from the last result
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from multiprocessing import get_context
from statistics import mean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import calls, caps, cold_start, compare, deadlines, kueue, latency, passes, report, storm, windows
from local.cloud import REPOSITORY

RESULT = REPOSITORY / "benchmarks" / "result.json"
BENCHES = (
    "designs",
    "caps",
    "deadlines",
    "windows",
    "calls",
    "passes",
    "kueue",
    "latency",
    "cold starts",
    "storm",
)
SEEDS = {20: (1, 2, 3), 200: (1, 2), 2000: (1,)}
"""Slots → seeds of the designs' workloads."""
STORM = (1000, 50)
"""Uploads and tenants of the storm; `make storm` has a hundred times as many uploads."""

Bar = Callable[[float], None]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BENCHES, metavar="BENCH", help=f"only {', '.join(BENCHES)}")
    parser.add_argument("--render", action="store_true", help="write docs/performance.md from the last result")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    arguments = parser.parse_args()
    result: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    if not arguments.render:
        run(arguments.only or BENCHES, result)
        RESULT.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_docs(result)
    wrong = report.unexpected(result)
    console = Console(width=130)
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=1, sort_keys=True) + "\n")
    else:
        report.tables(result, console)
        for line in wrong:
            console.print(f"[red]unexpected[/red]: {line}")
    return int(bool(wrong))


def write_docs(result: dict[str, Any]) -> None:
    docs = REPOSITORY / "docs"
    (docs / "performance.md").write_text(report.document(result), encoding="utf-8")
    (docs / "performance.svg").write_text(report.picture(result), encoding="utf-8")


def run(names: Iterable[str], result: dict[str, Any]) -> None:
    """Run benchmarks and add their results; one after another, because some of them need two cores."""
    columns = (TextColumn("{task.description:12}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in BENCHES:
            if name in names:
                task = progress.add_task(name, total=1.0)
                began = time.monotonic()

                def show(share: float, task: Any = task) -> None:
                    progress.update(task, completed=share)

                result[name] = MEASURES[name](show)
                result.setdefault("seconds", {})[name] = round(time.monotonic() - began)
                show(1.0)


def _stepped(show: Bar, total: int) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Return a wrapper of loops that shows their progress, given the number of all steps."""
    done = 0

    def through(steps: Iterable[Any]) -> Iterable[Any]:
        nonlocal done
        for step in steps:
            yield step
            done += 1
            show(min(done / total, 1.0))

    return through


def _designs(show: Bar) -> Any:
    tasks = [
        (design, slots, troubled, seed)
        for slots, seeds in SEEDS.items()
        for troubled in (False, True)
        for design in compare.DESIGNS
        for seed in seeds
    ]
    tasks.sort(key=lambda task: (task[0] != "trainyard", -task[1]))
    trials: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    with get_context("spawn").Pool(2) as pool:
        for one in _stepped(show, len(tasks))(pool.imap_unordered(compare.run_task, tasks)):
            trials.setdefault((one["slots"], one["troubled"], one["design"]), []).append(one)
    order = {design: number for number, design in enumerate(compare.DESIGNS)}
    found = [compare.together(some) for some in trials.values()]
    return sorted(found, key=lambda one: (one["slots"], one["troubled"], order[one["design"]]))


def _caps(show: Bar) -> Any:
    return [asdict(trial) for trial in _stepped(show, 2 * len(caps.SEEDS))(caps.measure())]


def _deadlines(show: Bar) -> Any:
    return [asdict(trial) for trial in _stepped(show, 2 * len(deadlines.LOADS))(deadlines.measure())]


def _calls(show: Bar) -> Any:
    steps = calls.REQUESTS // calls.ENLISTED_AT_ONCE + 2 * calls.ALONE
    return [asdict(one) for one in calls.measure(_stepped(show, steps))]


def _passes(show: Bar) -> Any:
    return [asdict(one) for one in passes.measure(progress=_stepped(show, len(passes.SIZES)))]


def _kueue(show: Bar) -> Any:
    cohorts = kueue.run(lambda seconds: show(min(seconds / 100, 0.99)))
    waits = {kind: [wait for one in cohorts for wait in one.waits[kind]] for kind in kueue.CLASSES}
    return {
        "makespan": round(max(one.makespan for one in cohorts), 1),
        "makespans": [round(one.makespan, 1) for one in cohorts],
        "use": round(mean(one.use for one in cohorts), 3),
        "waits": {kind: round(mean(found), 1) for kind, found in waits.items()},
        "workloads": sum(map(len, waits.values())),
        "passes": sum(one.passes for one in cohorts),
    }


def _latency(show: Bar) -> Any:
    return [
        {
            "how": one.how,
            "slots": one.slots,
            "freed": len(one.gaps),
            **{f"p{share}": round(one.quantile(share / 100), 2) for share in (50, 90, 99)},
            "longest": round(one.gaps[-1], 2),
            "use": round(one.use, 4),
            "executions": one.executions,
        }
        for one in latency.measure(show)
    ]


def _cold_starts(show: Bar) -> Any:
    found = cold_start.measure(5, _stepped(show, len(cold_start.FUNCTIONS)))
    return {
        "functions": [asdict(one) | {"ratio": round(one.ratio, 2)} for one in found],
        "layer": asdict(cold_start.layer()),
        "python": sys.version.split()[0],
    }


def _windows(show: Bar) -> Any:
    return [asdict(trial) for trial in _stepped(show, 2 * len(windows.SEEDS))(windows.measure())]


def _storm(show: Bar) -> Any:
    found = storm.run(*STORM, 1, show)
    memory = {"first_mb": found.first_mb, "last_mb": found.last_mb}
    return {name: value for name, value in asdict(found).items() if name != "memory_mb"} | memory


MEASURES: dict[str, Callable[[Bar], Any]] = {
    "designs": _designs,
    "caps": _caps,
    "deadlines": _deadlines,
    "windows": _windows,
    "calls": _calls,
    "passes": _passes,
    "kueue": _kueue,
    "latency": _latency,
    "cold starts": _cold_starts,
    "storm": _storm,
}

if __name__ == "__main__":
    sys.exit(main())
