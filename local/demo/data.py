"""The demo's data: scikit-learn's bundled data sets, and generated files with typical columns."""

import io

import numpy as np
import pandas as pd
from sklearn import datasets


def bundled(name: str) -> bytes:
    """Return one of scikit-learn's bundled sets as CSV; its last column is "target"."""
    load = {
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
        "cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
    }[name]
    return csv(load(as_frame=True).frame)


def churn(rows: int, seed: int) -> bytes:
    """Customers of a telecom: who leaves ("churned": yes or no)."""
    rng = np.random.default_rng(seed)
    months = rng.integers(1, 72, rows)
    contract = rng.choice(["monthly", "yearly", "two-year"], rows, p=[0.55, 0.25, 0.2])
    charge = rng.normal(70, 25, rows).clip(18, 140).round(2)
    calls = rng.poisson(1.5, rows)
    score = 1.4 * (contract == "monthly") - 0.04 * months + 0.012 * charge + 0.45 * calls - 1.2
    table = pd.DataFrame(
        {
            "customer_id": [f"C{number:06d}" for number in range(rows)],
            "months": months,
            "contract": contract,
            "payment": rng.choice(np.array(["card", "transfer", "invoice", None]), rows, p=[0.5, 0.3, 0.15, 0.05]),
            "monthly_charge": np.where(rng.random(rows) < 0.03, np.nan, charge),
            "support_calls": calls,
            "churned": np.where(rng.random(rows) < 1 / (1 + np.exp(-score)), "yes", "no"),
        }
    )
    return csv(table)


def sales(rows: int, seed: int, first_day: str = "2024-01-01") -> bytes:
    """Daily sales of shops: the revenue to expect."""
    rng = np.random.default_rng(seed)
    days = pd.date_range(first_day, periods=rows, freq="h")
    promotion = rng.random(rows) < 0.2
    region = rng.choice(["north", "south", "east", "west"], rows)
    base = 220 + 90 * np.sin(2 * np.pi * days.day_of_year / 365) + 60 * (days.day_of_week >= 5)
    factor = pd.Series(region).map({"north": 1.0, "south": 1.3, "east": 0.8, "west": 1.1}).to_numpy()
    revenue = base * factor * (1 + 0.35 * promotion) + rng.normal(0, 18, rows)
    table = pd.DataFrame(
        {
            "day_of_year": days.day_of_year,
            "weekday": days.day_name(),
            "region": region,
            "promotion": promotion.astype(int),
            "visitors": np.maximum(0, np.asarray(revenue / 9 + rng.normal(0, 6, rows)).round()),
            "revenue": np.asarray(revenue).round(2),
        }
    )
    return csv(table)


def fraud(rows: int, seed: int) -> bytes:
    """Card payments: which are fraud (1) and which are not (0)."""
    rng = np.random.default_rng(seed)
    amount = rng.lognormal(3.4, 1.1, rows).round(2)
    hour = rng.integers(0, 24, rows)
    abroad = rng.random(rows) < 0.08
    distance = rng.exponential(12, rows) + 220 * abroad * rng.random(rows)
    score = 0.9 * np.log1p(amount) + 2.2 * abroad + 0.008 * distance + 1.1 * (hour < 5) - 7.6
    table = pd.DataFrame(
        {
            "amount": amount,
            "hour": hour,
            "merchant": rng.choice(["grocery", "travel", "fuel", "online", "cash"], rows),
            "abroad": abroad.astype(int),
            "distance_km": distance.round(1),
            "days_since_last": rng.exponential(2.0, rows).round(2),
            "is_fraud": (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(int),
        }
    )
    return csv(table)


def csv(table: pd.DataFrame) -> bytes:
    buffer = io.StringIO()
    table.to_csv(buffer, index=False)
    return buffer.getvalue().encode()
