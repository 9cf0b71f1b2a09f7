"""Small generated tables that the suite uploads."""

import random

WORKS, BAD_TARGET, ONE_CLASS, NO_PATTERN = "works", "missing-column", "one-class", "low-quality"


def table(kind: str, rows: int = 200) -> bytes:
    """Return a CSV whose column "target" depends on the others, or one that fails in a known way."""
    draw = random.Random(7)  # noqa: S311 - data, no secret
    lines = []
    for _ in range(rows):
        size, weight = draw.uniform(0, 10), draw.uniform(0, 10)
        target = draw.choice("ab") if kind == NO_PATTERN else ("a" if size > weight or kind == ONE_CLASS else "b")
        lines.append(f"{size:.3f},{weight:.3f},{target}")
    head = "size,weight,label" if kind == BAD_TARGET else "size,weight,target"
    return ("\n".join([head, *lines]) + "\n").encode()
