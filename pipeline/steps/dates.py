"""Dates as they are written in tables, and the numbers that say what a model can learn from one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

FORMATS = (
    "ISO8601",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%y",
    "%m/%d/%Y",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%y",
    "%d/%m/%Y",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
DATES_SHARE_MIN = 0.99
"""Of a column's texts must be dates of one format."""

SAMPLE = 200
EPOCH = pd.Timestamp("2000-01-01")


def best_format(texts: Sequence[str], counts: np.ndarray, *, day_first: bool) -> tuple[str, bool]:
    """Return the format in which the texts are dates ("": they are none), and whether another fits as well.

    `counts` says how many rows have each text.
    """
    if not any(character.isdigit() for text in texts[:SAMPLE] for character in text):
        return "", False
    formats = [name for name in FORMATS if _share(texts[:SAMPLE], counts[:SAMPLE], name) >= 0.5]
    fits = [name for name in formats if _share(texts, counts, name) >= DATES_SHARE_MIN]
    if not fits:
        return "", False
    shares = {name: _share(texts, counts, name) for name in fits}
    best = [name for name in fits if shares[name] == max(shares.values())]
    day = [name for name in best if name.startswith("%d")]
    month = [name for name in best if name.startswith("%m")]
    if day and month:
        return (day if day_first else month)[0], True
    return best[0], False


def _share(texts: Sequence[str], counts: np.ndarray, date_format: str) -> float:
    return float(counts[~np.isnat(_parsed(texts, date_format).to_numpy())].sum() / max(counts.sum(), 1))


def _parsed(texts: Sequence[str], date_format: str) -> pd.DatetimeIndex:
    dates = pd.to_datetime(pd.Series(texts, dtype=object), format=date_format, errors="coerce", utc=True)
    return pd.DatetimeIndex(dates).tz_localize(None)


def parts_of(texts: Sequence[str], date_format: str) -> dict[str, np.ndarray]:
    """Return the parts of each date that repeat, and the days since a fixed day, which show a trend."""
    dates = _parsed(texts, date_format)
    days = (dates - EPOCH).to_numpy() / np.timedelta64(1, "D")
    return {
        "year": dates.year.to_numpy(dtype=np.float64),
        "month": dates.month.to_numpy(dtype=np.float64),
        "day": dates.day.to_numpy(dtype=np.float64),
        "weekday": dates.day_of_week.to_numpy(dtype=np.float64),
        "hour": dates.hour.to_numpy(dtype=np.float64),
        "days": np.asarray(days, dtype=np.float64),
    }
