"""What the shipped algorithms reached on tables that come with libraries."""

import json
from functools import cache
from pathlib import Path

from trainyard.domain.algorithms import BUILT_IN, Algorithm, TypicalQuality

SHIPPED = Path(__file__).parent.parent / "typical_quality.json"
"""`make tables` writes it, and a test checks it."""


def typical_quality_of(algorithm: Algorithm) -> tuple[TypicalQuality, ...]:
    """Return examples of what an algorithm reaches.

    Those that come with the code are of the shipped algorithms as they are shipped.
    """
    if algorithm.typical_quality or algorithm not in BUILT_IN:
        return algorithm.typical_quality
    return shipped_quality()[algorithm.name]


@cache
def shipped_quality() -> dict[str, tuple[TypicalQuality, ...]]:
    """Return the name of each shipped algorithm → what it reached on each table."""
    tables = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return {name: tuple(TypicalQuality(**each) for each in rows) for name, rows in tables.items()}
