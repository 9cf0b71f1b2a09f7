"""The picture of a what-if question: slots in use and waits over time, under each policy.

It is drawn for a width of 480, so that its text can be read on a telephone (375 pixels).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from simulation.flow import Run
from simulation.what_if import Outcome, stretches
from trainyard.domain.policy import Policy

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
WIDTH, HEIGHT, LEFT, RIGHT = 380, 150, 76, 24
"""Of a panel, and the margins beside it."""
TITLE, AXIS = 24, 34
"""Above a panel and below it."""
LEGEND_OF, LEGEND_LINE = 3, 22
"""Tiers in a line of the legend, and its height."""
FONT_SIZE = 14
SLOTS_STEPS, WAIT_STEPS = 200, 40
"""Intervals of time over which slots in use, and waits by arrival, are averaged."""
UNITS = ((2 * 86400, 86400, "d"), (2 * 3600, 3600, "h"), (120, 60, "min"), (0, 1, "s"))
"""From how many seconds on a unit is used, its seconds, and its name."""


@dataclass(frozen=True)
class Panel:
    """Where values up to `tallest` at times from 0 to `end` are drawn, below `top`."""

    top: float
    end: float
    tallest: float

    @property
    def bottom(self) -> float:
        return self.top + HEIGHT

    def point(self, at: float, value: float) -> str:
        return f"{LEFT + at / self.end * WIDTH:.1f},{self.bottom - value / self.tallest * HEIGHT:.1f}"

    def frame(self, title: str, tallest: str) -> Iterator[str]:
        """Yield the title, the greatest value and the axis of time."""
        yield f'<text x="{LEFT}" y="{self.top - 8}" font-weight="bold">{title}</text>'
        yield f'<text x="{LEFT - 6}" y="{self.top + 10}" text-anchor="end">{tallest}</text>'
        yield f'<text x="{LEFT - 6}" y="{self.bottom}" text-anchor="end">0</text>'
        yield f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{self.bottom}" y2="{self.bottom}" stroke="black"/>'
        _, seconds, unit = _unit(self.end)
        for share in (0.0, 0.5, 1.0):
            x, at = LEFT + share * WIDTH, f"{share * self.end / seconds:.3g} {unit}"
            yield f'<text x="{x:.0f}" y="{self.bottom + 18}" text-anchor="middle">{at}</text>'


def picture(outcomes: Mapping[str, Outcome], policies: Mapping[str, Policy]) -> str:
    """Return an SVG with two panels for each policy: slots in use by tier, and mean waits by time of arrival."""
    end = max(outcome.makespan for outcome in outcomes.values()) or 1.0
    tiers = list(dict.fromkeys(tier.name for policy in policies.values() for tier in policy.tiers))
    limits = {name: list(stretches(policies[name], outcome.begin, end)) for name, outcome in outcomes.items()}
    slots = max(policy.running_max for parts in limits.values() for policy, _, _ in parts)
    waits = {name: [_waits(_of(outcome.runs, tier), end) for tier in tiers] for name, outcome in outcomes.items()}
    longest = max((wait for lines in waits.values() for line in lines for _, wait in line), default=0.0)
    top = 8.0 + LEGEND_LINE * -(-len(tiers) // LEGEND_OF)
    parts = list(_legend(tiers))
    for name, outcome in outcomes.items():
        panel = Panel(top + TITLE, end, float(slots))
        parts += panel.frame(f"{name}: slots in use", str(slots))
        parts += _areas([_in_use(_of(outcome.runs, tier), end) for tier in tiers], panel)
        for policy, since, until in limits[name]:
            ends = f"{panel.point(since, policy.running_max)} {panel.point(until, policy.running_max)}"
            parts.append(f'<polyline points="{ends}" stroke="black" stroke-dasharray="5 4" fill="none"/>')
        panel = Panel(panel.bottom + AXIS + TITLE, end, longest or 1.0)
        parts += panel.frame(f"{name}: mean wait, by arrival", _duration(longest))
        for number, line in enumerate(waits[name]):
            points = " ".join(panel.point(at, wait) for at, wait in line)
            parts.append(f'<polyline points="{points}" stroke="{_colour(number)}" stroke-width="2" fill="none"/>')
        top = panel.bottom + AXIS
    width = LEFT + WIDTH + RIGHT
    begin = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" font-family="sans-serif" '
        f'font-size="{FONT_SIZE}">'
    )
    return "\n".join([begin, f'<rect width="{width}" height="{top}" fill="white"/>', *parts, "</svg>"])


def _legend(tiers: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(tiers):
        x, y = LEFT + number % LEGEND_OF * WIDTH / LEGEND_OF, 8 + number // LEGEND_OF * LEGEND_LINE
        yield f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{_colour(number)}"/>'
        yield f'<text x="{x + 18:.0f}" y="{y + 11}">{name}</text>'


def _areas(used: Sequence[Sequence[float]], panel: Panel) -> Iterator[str]:
    """Yield the areas of the tiers, each above those before it."""
    below = [0.0] * len(used[0])
    for number, series in enumerate(used):
        above = [low + more for low, more in zip(below, series, strict=True)]
        places = [index / (len(series) - 1) * panel.end for index in range(len(series))]
        upper = [panel.point(at, min(value, panel.tallest)) for at, value in zip(places, above, strict=True)]
        lower = [panel.point(at, min(value, panel.tallest)) for at, value in zip(places, below, strict=True)]
        yield f'<polygon points="{" ".join([*upper, *reversed(lower)])}" fill="{_colour(number)}"/>'
        below = above


def _of(runs: Sequence[Run], tier: str) -> list[Run]:
    return [run for run in runs if run.job.tier == tier]


def _in_use(runs: Sequence[Run], end: float) -> list[float]:
    """Return the mean slots in use in each step of time."""
    width = end / SLOTS_STEPS
    used = [0.0] * (SLOTS_STEPS + 1)
    for run in runs:
        for number in range(int(run.starts / width), min(int(run.ends / width), SLOTS_STEPS) + 1):
            overlap = min(run.ends, (number + 1) * width) - max(run.starts, number * width)
            used[number] += max(overlap, 0.0) / width
    return used


def _waits(runs: Sequence[Run], end: float) -> list[tuple[float, float]]:
    """Return time → the mean wait of those that arrived around it, in seconds; not where none did."""
    width, waited = end / WAIT_STEPS, dict[int, list[float]]()
    for run in runs:
        waited.setdefault(min(int(run.job.arrives / width), WAIT_STEPS - 1), []).append(run.waited)
    return [((number + 0.5) * width, fmean(waits)) for number, waits in sorted(waited.items())]


def _unit(seconds: float) -> tuple[int, int, str]:
    return next(unit for unit in UNITS if seconds >= unit[0])


def _duration(seconds: float) -> str:
    _, divisor, unit = _unit(seconds)
    return f"{seconds / divisor:.3g} {unit}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
