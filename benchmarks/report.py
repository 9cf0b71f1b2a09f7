"""The results of the benchmarks: tables, docs/performance.md, a picture, and a check of expectations.yaml."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import compare, kueue
from local.cloud import REPOSITORY

Result = Mapping[str, Any]
NOTES = (REPOSITORY / "benchmarks" / "notes.md").read_text


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def sheets(result: Result) -> Iterator[Sheet]:
    for slots in sorted({one["slots"] for one in result.get("designs", ())}):
        for troubled in (False, True):
            rows = [o for o in result["designs"] if (o["slots"], o["troubled"]) == (slots, troubled)]
            yield _designs(f"{slots:,} slots, {'with faults' if troubled else 'without faults'}", rows)
    if "designs" in result:
        yield _dollars(result["designs"])
    if "caps" in result:
        yield _caps(result["caps"])
    if "deadlines" in result:
        yield _deadlines(result["deadlines"])
    if "windows" in result:
        yield _windows(result["windows"])
    if "calls" in result:
        yield _calls(result["calls"])
    if "passes" in result:
        yield _passes(result["passes"])
    if "kueue" in result:
        yield _kueue(result["kueue"])
    if "latency" in result:
        yield _latency(result["latency"])
    if "cold starts" in result:
        yield _cold_starts(result["cold starts"])
        yield _layer(result["cold starts"]["layer"])
    if "storm" in result:
        yield _storm(result["storm"])


def _designs(title: str, found: Sequence[Mapping[str, Any]]) -> Sheet:
    columns = (
        "design",
        "use",
        "Jain",
        *(f"{tier}: p50 · p95 · longest" for tier in compare.SHARES),
        "over",
        "leaked",
        "doubled",
        "lost",
        "calls/start",
    )
    rows = [
        (
            one["design"],
            f"{one['use']:.1%}" + (f" ± {one['use_spread'] / 2:.1%}" if len(one["seeds"]) > 1 else ""),
            f"{one['jain']:.3f}",
            *(" · ".join(f"{wait:,.0f}" for wait in one["waits"][tier]) for tier in compare.SHARES),
            str(max(one["overshoot"], one["tier_overshoot"])),
            str(one["leaked"]),
            str(one["doubled"]),
            str(one["lost"]),
            f"{one['calls_per_start']:,.1f}",
        )
        for one in found
    ]
    return Sheet(f"Designs: {title} (wait times in seconds)", columns, rows)


def _dollars(found: Sequence[Mapping[str, Any]]) -> Sheet:
    calm = [one for one in found if not one["troubled"]]
    sizes = sorted({one["slots"] for one in calm})
    rows = []
    for design in dict.fromkeys(one["design"] for one in calm):
        usd = {one["slots"]: sum(one["usd"].values()) for one in calm if one["design"] == design}
        managed = not any(usd.values())
        rows.append((design, *("managed or server cost" if managed else f"{usd[slots]:.4f}" for slots in sizes)))
    columns = ("design", *(f"{slots:,} slots" for slots in sizes))
    return Sheet("USD per 1,000 trainings, for the scheduler only, at list prices", columns, rows)


def _caps(found: Sequence[Mapping[str, Any]]) -> Sheet:
    tiers = ("basic", "standard", "premium")
    columns = ("tenants' caps", "day", "use", *(f"{tier}: p50 · p95" for tier in tiers), "above a cap", "later")
    rows = [
        (
            trial["how"],
            str(trial["seed"]),
            f"{trial['use']:.1%}",
            *(" · ".join(f"{wait:,.0f}" for wait in trial["waits"][tier]) for tier in tiers),
            f"{trial['above_cap']:,}",
            f"{trial['later']:.1%}",
        )
        for trial in found
    ]
    return Sheet("Caps that yield, on the shipped policy (wait times in seconds)", columns, rows)


def _deadlines(found: Sequence[Mapping[str, Any]]) -> Sheet:
    rows = [
        (
            f"{trial['load']:.2f}",
            trial["how"],
            f"{trial['met']:.1%}",
            " · ".join(f"{hours:.1f}" for hours in trial["waits"]),
        )
        for trial in found
    ]
    columns = ("load", "ordered by", "deadlines met", "without one: p50 · p95 · longest wait, h")
    return Sheet("Deadlines of half of a tenant's requests", columns, rows)


def _windows(found: Sequence[Mapping[str, Any]]) -> Sheet:
    rows = [
        (
            trial["how"],
            str(trial["seed"]),
            f"{trial['morning_p95'] / 60:,.1f}",
            f"{trial['morning_max'] / 60:,.1f}",
            f"{trial['night_use']:.1%}",
            f"{trial['day_use']:.1%}",
        )
        for trial in found
    ]
    columns = (
        "long runs before 06:00",
        "week",
        "premium, 06:00 to 09:00: p95, min",
        "longest",
        "use at night",
        "by day",
    )
    return Sheet("Quotas by the hour, on five days each", columns, rows)


def _calls(found: Sequence[Mapping[str, Any]]) -> Sheet:
    operations = sorted({name for one in found for name in one["by_operation"]})
    rows = [("total", *(f"{one['scheduling']:.2f}" for one in found))]
    rows += [(name, *(f"{one['by_operation'].get(name, 0):.3f}" for one in found)) for name in operations]
    apart = sorted({name for one in found for name in one["apart"]})
    rows += [(f"not included: {name}", *(f"{one['apart'].get(name, 0):.2f}" for one in found)) for name in apart]
    columns = ("AWS calls per execution", *(f"{one['how']} ({one['executions']:,})" for one in found))
    return Sheet("Calls per execution", columns, rows)


def _passes(found: Sequence[Mapping[str, Any]]) -> Sheet:
    columns = ("waiting requests", "tenants", "calls", "items read", "KB read", "CPU ms", "spread ms", "trials")
    rows = [
        (
            f"{one['waiting']:,}",
            f"{one['tenants']:,}",
            str(one["calls"]),
            str(one["items"]),
            f"{one['kilobytes']:.1f}",
            f"{one['cpu_ms']:.2f}",
            f"{one['spread_ms']:.2f}",
            str(one["trials"]),
        )
        for one in found
    ]
    return Sheet("A pass that fills five free slots, by number of waiting requests", columns, rows)


def _kueue(found: Mapping[str, Any]) -> Sheet:
    published = kueue.KUEUE
    rows = [
        ("makespan, s (bound 66)", f"{found['makespan']:.1f}", f"{published['makespan']:.0f}"),
        ("use of quota", f"{found['use']:.1%}", f"{published['use']:.1%}"),
        *(
            (f"mean wait time of {kind}, s", f"{found['waits'][kind]:.1f}", f"{published[kind]:.1f}")
            for kind in ("large", "medium", "small")
        ),
    ]
    columns = (f"{found['workloads']:,} workloads", "Trainyard, this machine", "Kueue, published, another machine")
    return Sheet("Kueue's baseline", columns, rows)


def _latency(found: Sequence[Mapping[str, Any]]) -> Sheet:
    rows = [
        (
            one["how"],
            str(one["freed"]),
            *(f"{one[name]:.2f}" for name in ("p50", "p90", "p99", "longest")),
            f"{one['use']:.2%}",
        )
        for one in found
    ]
    columns = ("woken by", "freed slots", "p50 s", "p90 s", "p99 s", "longest s", "use of slots")
    return Sheet("From a freed slot to the next start, on the local cloud, two-minute executions", columns, rows)


def _cold_starts(found: Mapping[str, Any]) -> Sheet:
    rows = [
        (
            one["function"],
            f"{one['cpu_ms']:.0f}",
            f"{one['floor_ms']:.0f}",
            f"{one['ratio']:.2f}",
            f"{one['spread_ms']:.0f}",
            f"{one['event_ms']:.0f}" if one["event_ms"] is not None else "",
            f"{one['memory_mb']:.0f}",
            f"{one['floor_mb']:.0f}",
            ", ".join(one["services"]) or "none",
        )
        for one in found["functions"]
    ]
    columns = (
        *("function", "CPU ms", "floor ms", "ratio", "spread ms", "event alone ms"),
        *("memory MB", "floor MB", "clients built"),
    )
    return Sheet(f"Cold starts, until the first event is processed (Python {found['python']})", columns, rows)


def _layer(found: Mapping[str, Any]) -> Sheet:
    rows = [
        ("own code", f"{found['own_mb']:.2f}", f"{found['own_bytecode_mb']:.2f}", ""),
        ("whole layer", f"{found['mb']:.1f}", f"{found['bytecode_mb']:.1f}", f"{found['zipped_mb']:.1f}"),
    ]
    return Sheet("The layer, in MB", ("", "without bytecode", "bytecode", "zipped, with both"), rows)


def _storm(found: Mapping[str, Any]) -> Sheet:
    columns = ("uploads", "tenants", "data sets", "waiting", "superseded", "lost", "wrong", "dead letters")
    row = tuple(
        f"{found[name]:,}"
        for name in ("uploads", "tenants", "data_sets", "waiting", "superseded", "lost", "wrong", "dead_letters")
    )
    rate = f"{found['uploads'] / found['seconds']:.0f}"
    memory = f"{found['first_mb']:.0f} → {found['last_mb']:.0f}"
    return Sheet("Upload storm", (*columns, "uploads/s", "MB of the largest worker"), [(*row, rate, memory)])


def tables(result: Result, console: Console) -> None:
    for sheet in sheets(result):
        table = Table(title=sheet.title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for number, column in enumerate(sheet.columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
        console.print()


# --- the document -------------------------------------------------------------------------------------------


def document(result: Result) -> str:
    """Return docs/performance.md: the notes, with the tables in place of each `<!-- table: prefix -->`."""
    found = list(sheets(result))
    lines: list[str] = []
    for line in NOTES(encoding="utf-8").splitlines():
        if line.startswith("<!-- table: "):
            prefix = line.removeprefix("<!-- table: ").removesuffix(" -->")
            for sheet in found:
                if sheet.title.startswith(prefix):
                    lines += ["", f"**{sheet.title}**", "", *_markdown(sheet)]
            lines.append("")
        else:
            lines.append(line)
    seconds = result.get("seconds", {})
    took = ", ".join(f"{name} {taken} s" for name, taken in seconds.items())
    return "\n".join([*lines, "", f"Time taken on two cores: {took}."]) + "\n"


def _markdown(sheet: Sheet) -> list[str]:
    lines = [f"| {' | '.join(sheet.columns)} |", f"|{'---|' + '---:|' * (len(sheet.columns) - 1)}"]
    return lines + [f"| {' | '.join(row)} |" for row in sheet.rows]


# --- expectations -------------------------------------------------------------------------------------------


def unexpected(result: Result) -> list[str]:
    """Return the results outside of their expected ranges; only measured ones are checked."""
    path = REPOSITORY / "benchmarks" / "expectations.yaml"
    wrong: list[str] = []
    figures = _figures(result)
    for bench, ranges in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for name, bounds in ranges.items():
            if bench in result:
                worst = figures[bench, name]
                if "at_most" in bounds and worst > bounds["at_most"]:
                    wrong.append(f"{bench}, {name}: {worst:.4g}, at most {bounds['at_most']}")
                if "at_least" in bounds and worst < bounds["at_least"]:
                    wrong.append(f"{bench}, {name}: {worst:.4g}, at least {bounds['at_least']}")
    return wrong


def _figures_of_rules(result: Result) -> dict[tuple[str, str], float]:
    """Return the same for the rules that are compared with and without."""
    figures: dict[tuple[str, str], float] = {}
    if "caps" in result:
        pairs = list(zip(result["caps"][::2], result["caps"][1::2], strict=True))
        figures["caps", "least use"] = min(yields["use"] for _, yields in pairs)
        figures["caps", "least use above that of hard caps"] = min(y["use"] - hard["use"] for hard, y in pairs)
        figures["caps", "p95 of a tier, seconds longer"] = max(
            y["waits"][tier][1] - hard["waits"][tier][1] for hard, y in pairs for tier in hard["waits"]
        )
    if "deadlines" in result:
        known = [trial for trial in result["deadlines"] if trial["how"] == "deadlines"]
        figures["deadlines", "met"] = min(trial["met"] for trial in known)
    if "windows" in result:
        ways = list(zip(result["windows"][::2], result["windows"][1::2], strict=True))
        figures["windows", "morning p95, of that without the rule"] = max(
            ruled["morning_p95"] / plain["morning_p95"] for plain, ruled in ways
        )
        figures["windows", "night use"] = min(ruled["night_use"] for _, ruled in ways)
    return figures


def _figures(result: Result) -> dict[tuple[str, str], float]:
    """Return benchmark and name of each expectation → the worst result."""
    figures: dict[tuple[str, str], float] = {}
    ours = [one for one in result.get("designs", ()) if one["design"] == "trainyard"]
    if ours:
        for how, troubled in (("calm", False), ("faults", True)):
            some = [one for one in ours if one["troubled"] is troubled]
            figures["designs", f"trainyard.use.{how}"] = min(one["use"] for one in some)
            figures["designs", f"trainyard.jain.{how}"] = min(one["jain"] for one in some)
        figures["designs", "trainyard.overshoot"] = max(
            max(one["overshoot"], one["tier_overshoot"]) for one in ours
        )
        for name in ("leaked", "doubled", "lost"):
            figures["designs", f"trainyard.{name}"] = max(one[name] for one in ours)
        figures["designs", "trainyard.usd_per_1000"] = max(
            sum(one["usd"].values()) for one in ours if not one["troubled"]
        )
    figures |= _figures_of_rules(result)
    for one in result.get("calls", ()):
        figures["calls", one["how"]] = round(one["scheduling"], 3)
        figures["calls", "lists"] = max(figures.get(("calls", "lists"), 0.0), one["lists"])
    if "passes" in result:
        few, more, some, many, most = result["passes"]
        for name, key in (("calls", "calls"), ("items", "items"), ("cpu", "cpu_ms")):
            figures["passes", f"{name}, a hundred times the backlog"] = max(
                more[key] / few[key], many[key] / some[key]
            )
            figures["passes", f"{name}, a hundred times the tenants"] = most[key] / many[key]
    if "kueue" in result:
        figures["kueue", "makespan"] = result["kueue"]["makespan"]
    if "latency" in result:
        bell = result["latency"][0]
        figures |= {("latency", name): bell[name] for name in ("p50", "p99", "use")}
    if "cold starts" in result:
        figures["cold starts", "slowest ratio"] = max(o["ratio"] for o in result["cold starts"]["functions"])
        figures["cold starts", "layer zipped MB"] = result["cold starts"]["layer"]["zipped_mb"]
    if "storm" in result:
        found = result["storm"]
        figures["storm", "lost, wrong or dead"] = found["lost"] + found["wrong"] + found["dead_letters"]
        figures["storm", "memory last / first"] = found["last_mb"] / found["first_mb"]
    return figures


# --- the picture --------------------------------------------------------------------------------------------

_COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
WIDTH, PANEL, LEFT = 900, 150, 60


def picture(result: Result) -> str:
    """Return an SVG: the use of slots of each design, by size, without and with faults."""
    found = result.get("designs", ())
    groups = sorted({(one["troubled"], one["slots"]) for one in found})
    designs = list(dict.fromkeys(one["design"] for one in found))
    height = PANEL + 110
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">Use of slots while requests are waiting</text>',
    ]
    top, bottom = 60, 60 + PANEL
    for share in (0.0, 0.5, 1.0):
        level = bottom - share * PANEL
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{level:.0f}" y2="{level:.0f}" stroke="#cccccc"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{level + 4:.0f}" text-anchor="end">{share:.0%}</text>')
    for number, design in enumerate(designs):
        x = LEFT + number * 130
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{_COLOURS[number % 6]}"/>')
        parts.append(f'<text x="{x + 18}" y="43">{design}</text>')
    width = (WIDTH - LEFT - 20) / max(len(groups), 1)
    for place, (troubled, slots) in enumerate(groups):
        begin = LEFT + place * width
        for number, design in enumerate(designs):
            one = next(o for o in found if (o["design"], o["slots"], o["troubled"]) == (design, slots, troubled))
            bar = (width - 20) / len(designs)
            tall: float = min(one["use"], 1.0) * PANEL
            parts.append(
                f'<rect x="{begin + 10 + number * bar:.1f}" y="{bottom - tall:.1f}" width="{bar - 2:.1f}" '
                f'height="{tall:.1f}" fill="{_COLOURS[number % 6]}"/>'
            )
        title = f"{slots:,} slots{', faults' if troubled else ''}"
        parts.append(f'<text x="{begin + width / 2:.0f}" y="{bottom + 20}" text-anchor="middle">{title}</text>')
    assert top < bottom
    return "\n".join([*parts, "</svg>"]) + "\n"
