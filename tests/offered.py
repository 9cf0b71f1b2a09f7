"""Print what the shipped algorithms offer a tuning, as JSON: their defaults, and the ranges that are searched."""

import json

from trainyard.domain.algorithms import BUILT_IN
from trainyard.domain.requests import Tuning
from trainyard.domain.tenants import TrainingSettings
from trainyard.domain.tuning import ranges_of, ranges_text


def offered() -> dict[str, dict[str, object]]:
    """Return algorithm → its defaults, and its ranges as a training job takes them."""
    settings = TrainingSettings(algorithm="", target="")
    return {
        each.name: {
            "defaults": each.chosen({}),
            "search": json.loads(ranges_text(ranges_of(Tuning(), each, settings))),
        }
        for each in BUILT_IN
    }


if __name__ == "__main__":
    print(json.dumps(offered()))
