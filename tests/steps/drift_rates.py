"""How often drift is found that is there, and that is not: drift_rates.py STEPS DRAWS.

Each data set is split at random, or drawn twice; the second part is compared with the first as it is, where
nothing may have moved, and with drift planted in one of its columns. Prints a line of JSON for each data set.
"""

import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations

sys.path.insert(0, sys.argv[1])

import numpy as np
import pandas as pd
import sklearn.datasets as bundled
from scipy.stats import ks_2samp

from column_statistics import statistics_of
from drift import Drift, Rules, compare
from schema import Column, Findings

Draw = Callable[[np.random.Generator], tuple[pd.DataFrame, pd.DataFrame]]
"""Two parts of a data set, the last column of which is predicted."""

ROWS = 600


WIDE = 12
"""Columns of a table of which changes are planted in the first ones only."""


def halves(table: pd.DataFrame) -> Draw:
    def draw(random: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
        order = random.permutation(len(table))
        return table.iloc[order[::2]].reset_index(drop=True), table.iloc[order[1::2]].reset_index(drop=True)

    return draw


def twice(make: Callable[[np.random.Generator, int], dict[str, np.ndarray]]) -> Draw:
    def draw(random: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
        return pd.DataFrame(make(random, ROWS)), pd.DataFrame(make(random, ROWS))

    return draw


def heavy_tails(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {"a": random.lognormal(0, 3, rows), "b": random.standard_cauchy(rows), "y": random.normal(0, 1, rows)}


def categories(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    names = np.array([f"category {number}" for number in range(200)])
    shares = 1 / np.arange(1, 201)
    return {
        "plan": random.choice(["a", "b", "c"], rows, p=[0.7, 0.25, 0.05]),
        "city": random.choice(names, rows, p=shares / shares.sum()),
        "size": random.normal(10, 2, rows),
        "y": random.choice(["yes", "no"], rows, p=[0.9, 0.1]),
    }


def gaps(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    values = random.normal(0, 1, rows)
    values[random.random(rows) < 0.3] = np.nan
    rare = random.exponential(1, rows)
    rare[random.random(rows) < 0.9] = np.nan
    return {"half": values, "rare": rare, "z": random.uniform(0, 1, rows), "y": random.normal(0, 1, rows)}


def counts(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {
        "zeros": random.poisson(0.2, rows).astype(float),
        "calls": random.poisson(4, rows).astype(float),
        "flag": (random.random(rows) < 0.02).astype(float),
        "y": random.poisson(1, rows).astype(float),
    }


def wide(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {f"c{number}": random.normal(number, 1 + number, rows) for number in range(40)} | {
        "y": random.normal(0, 1, rows)
    }


DATA_SETS: dict[str, Draw] = {
    **{
        f"scikit-learn: {name}": halves(getattr(bundled, f"load_{name}")(as_frame=True).frame)
        for name in ("iris", "wine", "breast_cancer", "diabetes", "digits")
    },
    "heavy tails": twice(heavy_tails),
    "categories": twice(categories),
    "gaps": twice(gaps),
    "counts": twice(counts),
    "forty columns": twice(wide),
}


def compared(first: pd.DataFrame, second: pd.DataFrame) -> Drift:
    target = first.columns[-1]
    columns = [
        Column(name, "number" if pd.api.types.is_numeric_dtype(first[name]) else "category")
        for name in first.columns[:-1]
    ]
    problem = "regression" if first[target].nunique() > 10 else "classification"
    before = json.loads(json.dumps(statistics_of(first[first.columns[:-1]], columns, first[target], problem)))
    return compare(before, second, Findings(columns=columns), list(second.columns), second[target])


def planted(table: pd.DataFrame, random: np.random.Generator) -> Iterator[tuple[str, set[str], pd.DataFrame]]:
    """Yield kind of drift, columns that it is in, and the table with it."""
    names = list(table.columns[:-1])[:WIDE]
    numbers = [name for name in names if pd.api.types.is_numeric_dtype(table[name]) and table[name].nunique() > 5]
    texts = [name for name in names if name not in numbers and not pd.api.types.is_numeric_dtype(table[name])]
    rows = random.random(len(table))
    if numbers:
        name = str(random.choice(numbers))
        middle = table[name].quantile([0.25, 0.75])
        spread = (middle.iloc[1] - middle.iloc[0]) / 1.35 or table[name].std()
        yield "shift", {name}, table.assign(**{name: table[name] + 1.5 * spread})
        yield "scale", {name}, table.assign(**{name: table[name] * 1000})
        filled = [name for name in numbers if table[name].isna().mean() < 0.1]
        name = str(random.choice(filled))
        yield "missing burst", {name}, table.assign(**{name: table[name].mask(rows < 0.25)})
    if texts:
        name = str(random.choice(texts))
        yield "new category", {name}, table.assign(**{name: table[name].mask(rows < 0.15, "unheard of")})
    # Of two columns that are alike, neither moves when they change places.
    pairs = [pair for pair in combinations(numbers, 2) if _differ(table, *pair)]
    if pairs:
        first, second = pairs[random.integers(len(pairs))]
        yield "swapped columns", {first, second}, table.assign(**{first: table[second], second: table[first]})


def _differ(table: pd.DataFrame, first: str, second: str) -> bool:
    return float(ks_2samp(table[first].dropna(), table[second].dropna()).statistic) > 0.4


def rates(name: str, draw: Draw, draws: int) -> dict[str, object]:
    random = np.random.default_rng(sum(name.encode()))
    alarms, columns, tried, found = 0, 0, Counter[str](), Counter[str]()
    first, second = draw(random)
    for _ in range(draws):
        first, second = draw(random)
        drift = compared(first, second)
        targets = [drift.target] if drift.target else []
        alarms += any(each.band == "shifted" for each in [*drift.columns, *targets])
        columns = len(drift.columns)
        for kind, where, moved in planted(second, random):
            report = compared(first, moved)
            tried[kind] += 1
            found[kind] += bool(where & {each.name for each in report.shifted})
            assert not report.has_shifted(Rules(shift_percent=100)) or columns <= len(where)
    return {
        "data_set": name,
        "rows": len(first),
        "columns": columns,
        "draws": draws,
        "alarms": alarms,
        "found": {kind: [found[kind], tried[kind]] for kind in tried},
    }


def main() -> None:
    warnings.simplefilter("ignore")
    for name, draw in DATA_SETS.items():
        print(json.dumps(rates(name, draw, int(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
