"""What tuning gains on rows that no trial has seen: tuning_gain.py STEPS DRAWS TRIALS.

Each data set is split at random as often as DRAWS says. On the rows to train on, TRIALS trials are measured as in
a tuning, the first with the defaults; the best one's model and that of the defaults predict the other rows. Prints
a table: the mean quality of both, how often the best values would be used, and of those how often their model was
better or worse than that of the defaults, and by how much at worst.
"""

import json
import sys
import warnings
from functools import partial
from typing import Any

sys.path.insert(0, sys.argv[1])

import numpy as np
import pandas as pd
import sklearn.datasets as bundled

from train import fit
from trial import Score, answers_of, default_metric, validated, values_at

SEARCHES: dict[str, dict[str, Any]] = json.loads(sys.argv[4])
"""Algorithm → what the catalogue offers: its defaults, and the ranges to search."""

CLEAR_GAIN = float(sys.argv[5])
"""By how much the score must be better for the values to be used; of metrics that are 1 at best."""

SAME = 0.001
"""A difference in quality that is none."""


def data_sets() -> dict[str, tuple[str, pd.DataFrame, pd.Series]]:
    """Return name → kind of problem, features and target."""
    loaded = {
        "cancer": ("classification", bundled.load_breast_cancer(as_frame=True)),
        "wine": ("classification", bundled.load_wine(as_frame=True)),
        "diabetes": ("regression", bundled.load_diabetes(as_frame=True)),
    }
    found = {name: (problem, part.data, part.target) for name, (problem, part) in loaded.items()}
    made = {
        "classes": (
            "classification",
            bundled.make_classification(800, 20, n_informative=6, flip_y=0.1, random_state=1),
        ),
        "friedman": ("regression", bundled.make_friedman1(600, noise=2, random_state=1)),
        "wide": ("regression", bundled.make_regression(200, 80, n_informative=5, noise=60, random_state=1)),
    }
    for name, (problem, (features, target)) in made.items():
        table = pd.DataFrame(features, columns=[f"c{number}" for number in range(features.shape[1])])
        found[name] = problem, table, pd.Series(target)
    return found


def compared(
    algorithm: str, problem: str, features: pd.DataFrame, target: pd.Series, draw: int, trials: int
) -> tuple[str, float, float, bool]:
    """Return the metric, the quality of the defaults and of the best trial on rows that were held out of both, and
    whether the best values would be used.
    """
    drawn = np.random.default_rng(draw)
    is_test = drawn.random(len(target)) < 0.25
    rows, values = features[~is_test].reset_index(drop=True), target[~is_test].reset_index(drop=True)
    folds = drawn.permutation(len(values)) % 5
    offered, metric = SEARCHES[algorithm], default_metric(problem, target)

    def trained(chosen: dict[str, Any], x: pd.DataFrame, y: pd.Series) -> Any:
        return fit(algorithm, problem, chosen, x, y)[0]

    def score(chosen: dict[str, Any]) -> Score:
        return validated(partial(trained, chosen), rows, values, folds, problem, "auto")

    candidates = [offered["defaults"]]
    for _ in range(trials - 1):
        positions = {f"position_{number}": drawn.random() for number in range(1, 5)}
        candidates.append(offered["defaults"] | values_at(offered["search"], positions))
    scores = [score(chosen) for chosen in candidates]
    number = int(np.argmax([each.mean for each in scores]))
    best, score_of_best = candidates[number], scores[number]
    is_used = score_of_best.mean - scores[0].mean >= max(CLEAR_GAIN, score_of_best.error)

    def quality(chosen: dict[str, Any]) -> float:
        return answers_of(trained(chosen, rows, values), features[is_test], target[is_test], metric).score()

    return metric, quality(offered["defaults"]), quality(best), is_used


def main() -> None:
    draws, trials = int(sys.argv[2]), int(sys.argv[3])
    print(f"{trials} trials, {draws} draws")
    titles = ("defaults", "tuned", "used", "better", "worse", "at worst")
    print(f"{'data':10} {'algorithm':18} {'metric':18}", *(f"{title:>8}" for title in titles))
    for name, (problem, features, target) in data_sets().items():
        for algorithm in SEARCHES:
            drawn = [compared(algorithm, problem, features, target, draw, trials) for draw in range(draws)]
            gains = np.array([tuned - before for _, before, tuned, is_used in drawn if is_used] or [0.0])
            means = [np.mean([each[number] for each in drawn]) for number in (1, 2)]
            counts = sum(each[3] for each in drawn), (gains > SAME).sum(), (gains < -SAME).sum()
            print(
                f"{name:10} {algorithm:18} {drawn[0][0]:18}",
                *(f"{mean:8.3f}" for mean in means),
                *(f"{count:8d}" for count in counts),
                f"{gains.min():+8.3f}",
                flush=True,
            )


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
