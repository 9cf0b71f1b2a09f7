"""Pictures of a model card, as SVG texts: no file, no script and no font from elsewhere."""

from collections.abc import Sequence
from html import escape
from typing import Any

BLUE, GREY, RED, INK = "#3366aa", "#bbbbbb", "#cc4455", "#222222"
WIDTH, LEFT, ROW = 720, 240, 22
LABEL_MAX = 32
OTHERS = "(others)"
"""The classes that have no row of their own in a matrix."""


def label(text: Any) -> str:
    """Return a text that fits beside a bar, escaped."""
    written = "".join(character if character.isprintable() else "�" for character in str(text))
    return escape(written if len(written) <= LABEL_MAX else written[: LABEL_MAX - 1] + "…")


def figure(value: float) -> str:
    return f"{value:.4g}"


def _svg(height: float, parts: Sequence[str], title: str, width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif" font-size="13" fill="{INK}">{"".join(parts)}</svg>'
    )


def bars(rows: Sequence[tuple[str, float, str]], title: str) -> str:
    """Draw a horizontal bar per row: its label, its value (negative ones have none) and its colour."""
    largest = max([value for _, value, _ in rows] + [0.0]) or 1.0
    parts = []
    for number, (name, value, colour) in enumerate(rows):
        y = number * ROW
        length = max(value, 0.0) / largest * (WIDTH - LEFT - 80)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{label(name)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="{ROW - 6}" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 15}">{figure(value)}</text>')
    return _svg(len(rows) * ROW, parts, title)


def interval(metric: str, value: float, baseline: float, bounds: Sequence[float] | None) -> str:
    """Draw the model's metric with its interval, beside the baseline, on one axis."""
    values = [value, baseline, *(bounds or ())]
    low, high = min(values), max(values)
    low, high = low - 0.1 * (high - low or 1), high + 0.1 * (high - low or 1)

    def x(number: float) -> float:
        return 40 + (number - low) / (high - low) * (WIDTH - 80)

    parts = [f'<line x1="40" y1="50" x2="{WIDTH - 40}" y2="50" stroke="{GREY}"/>']
    if bounds:
        width = max(x(bounds[1]) - x(bounds[0]), 1)
        parts.append(
            f'<rect x="{x(bounds[0]):.1f}" y="44" width="{width:.1f}" height="12" fill="{BLUE}" opacity="0.3"/>'
        )
    for number, name, colour, y in ((baseline, "baseline", RED, 82), (value, metric, BLUE, 28)):
        parts.append(f'<circle cx="{x(number):.1f}" cy="50" r="6" fill="{colour}"/>')
        anchor = "start" if x(number) < WIDTH / 4 else "end" if x(number) > WIDTH * 3 / 4 else "middle"
        parts.append(
            f'<text x="{x(number):.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}">'
            f"{label(name)} {figure(number)}</text>"
        )
    return _svg(96, parts, f"{metric} beside its baseline")


def matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw a confusion matrix: a row per true class, a column per prediction, shaded by the share of the row."""
    cell = 46 if len(classes) <= 10 else 26
    shorts = [label(str(name)[:14]) for name in classes]
    top, side = 34 + round(6.2 * min(max(len(str(name)) for name in classes), 14)), LEFT
    parts = [
        f'<text x="{side}" y="14" font-weight="bold">predicted →</text>',
        f'<text x="{side - 8}" y="{top - 8}" text-anchor="end" font-weight="bold">true ↓</text>',
    ]
    for number, name in enumerate(classes):
        x, y = side + number * cell + cell / 2, top + number * cell + cell / 2 + 4
        parts.append(f'<text transform="translate({x + 4:.0f} {top - 8}) rotate(-55)">{shorts[number]}</text>')
        parts.append(f'<text x="{side - 8}" y="{y:.0f}" text-anchor="end">{label(name)}</text>')
    for row, cells in enumerate(counts):
        total = sum(cells) or 1
        for column, count in enumerate(cells):
            x, y, share = side + column * cell, top + row * cell, count / total
            colour = GREY if classes[row] == classes[column] == OTHERS else BLUE if row == column else RED
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{colour}" '
                f'fill-opacity="{0.06 + 0.84 * share:.3f}"/>'
            )
            ink = "#ffffff" if share > 0.5 else INK
            size = 13 if cell > 30 else 9
            parts.append(
                f'<text x="{x + cell / 2:.0f}" y="{y + cell / 2 + 4:.0f}" text-anchor="middle" fill="{ink}" '
                f'font-size="{size}">{count}</text>'
            )
    height = top + len(classes) * cell + 4
    return _svg(height, parts, "confusion matrix", max(WIDTH, side + len(classes) * cell + 90))


def scatter(pairs: Sequence[Sequence[float]]) -> str:
    """Draw predictions over true values; on the line, a prediction is right."""
    flat = [value for pair in pairs for value in pair]
    low, high = min(flat), max(flat)
    span = (high - low) or 1.0
    size, margin = 360, 60

    def place(value: float) -> float:
        return (value - low) / span * (size - 20) + 10

    parts = [
        f'<rect x="{margin}" y="0" width="{size}" height="{size}" fill="none" stroke="{GREY}"/>',
        f'<line x1="{margin + 10}" y1="{size - 10}" x2="{margin + size - 10}" y2="10" stroke="{RED}"/>',
        f'<text x="{margin}" y="{size + 18}">true value, {figure(low)} to {figure(high)} →</text>',
        f'<text transform="translate({margin - 10} {size}) rotate(-90)">predicted →</text>',
    ]
    parts += [
        f'<circle cx="{margin + place(true):.1f}" cy="{size - place(said):.1f}" r="3" fill="{BLUE}" '
        'fill-opacity="0.5"/>'
        for true, said in pairs
    ]
    return _svg(size + 26, parts, "predicted over true values", size + margin + 10)


def histogram(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Draw how often residuals lie between two edges."""
    largest, height, margin = max(counts, default=0) or 1, 160, 40
    width = (WIDTH - 2 * margin) / len(counts)
    parts = []
    for number, count in enumerate(counts):
        tall = count / largest * height
        parts.append(
            f'<rect x="{margin + number * width:.1f}" y="{height - tall:.1f}" width="{width - 2:.1f}" '
            f'height="{tall:.1f}" fill="{BLUE}"/>'
        )
    parts.append(f'<line x1="{margin}" y1="{height}" x2="{WIDTH - margin}" y2="{height}" stroke="{GREY}"/>')
    for share, anchor in ((0, "start"), (len(counts) // 2, "middle"), (len(counts), "end")):
        parts.append(
            f'<text x="{margin + share * width:.1f}" y="{height + 18}" text-anchor="{anchor}">'
            f"{figure(edges[share])}</text>"
        )
    return _svg(height + 26, parts, "histogram of residuals")
