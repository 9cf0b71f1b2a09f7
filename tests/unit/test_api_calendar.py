"""The calendar of all schedules by the HTTP API: load by the hour, beside the slots."""

from dataclasses import replace

import pytest

from tests.build import tenant
from tests.http_api import Api


def test_the_calendar_has_the_load_of_all_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(monkeypatch)
    for number in range(3):
        api.tenants.put(replace(tenant(f"t{number}"), retrain_schedule="rate(2 hours)"))
    api.tenants.put(replace(tenant("odd"), retrain_schedule="cron(no)"))
    status, calendar = api.get("/v1/service/calendar?hours=6&limit=2", "viewers")
    assert status == 200
    assert [each["runs"] for each in calendar["hours"]] == [1.5] * 6
    assert (calendar["schedules"], len(calendar["next"])) == (3, 2)
    assert calendar["slots"] > 0
    assert "odd" in calendar["unreadable"][0]
    for query in ("hours=0", "hours=169", "hours=x", "of=1"):
        assert api.get(f"/v1/service/calendar?{query}", "viewers")[0] == 400
