"""The picture of what serving costs is the one that the code draws, and what the page says about it is true."""

import re
from pathlib import Path

import pytest

from benchmarks.serving_costs import MODES, REGION, batch, picture, serverless, shared
from trainyard.contracts.shipped_prices import prices_of

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_is_drawn_from_the_shipped_prices() -> None:
    drawn = picture(prices_of(REGION), 100)
    assert drawn == (DOCS / "serving-costs.svg").read_text(encoding="utf-8"), "make serving-costs"
    assert drawn.count("<polyline") == len(MODES)


def test_a_serverless_endpoint_is_cheaper_than_a_share_up_to_the_calls_that_the_page_names() -> None:
    prices = prices_of(REGION)
    said = re.search(r"some ([\d,]+) such calls a day", (DOCS / "serving.md").read_text(encoding="utf-8"))
    assert said is not None
    crossing = next(n for n in range(100, 100_000, 100) if shared(prices, n, 100) < serverless(prices, n, 100))
    assert crossing == pytest.approx(int(said[1].replace(",", "")), rel=0.05)


def test_a_job_a_day_is_paid_by_its_seconds() -> None:
    prices = prices_of(REGION)
    assert float(batch(prices, 600_000, 100)) == pytest.approx(float(batch(prices, 0, 100) * 1001))
