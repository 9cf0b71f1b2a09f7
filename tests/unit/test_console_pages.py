"""The console's pages in a browser, over memory: what is hostile, empty, large, slow, offline or in the way."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from testing.browser import CHROMIUM, MISSING, NARROW, Visit, chromium
from tests.build import NOW, job, step, tenant
from tests.console_server import ConsoleServer, serving
from tests.http_api import NOT_MOVED, Api
from trainyard.application.api.settings_changes import ChangeState, ChangeStatus
from trainyard.application.api.uploads import Upload
from trainyard.application.ports import ExecutionReport
from trainyard.domain.aliases import Alias
from trainyard.domain.bulk_actions import BulkState
from trainyard.domain.dead_letters import Letter
from trainyard.domain.executions import StepRecord
from trainyard.domain.requests import Outcome, Overrides, Request, State, Tuning
from trainyard.domain.retraining import Trigger
from trainyard.domain.retraining_record import LastTrigger, RetrainingRecord, with_trigger
from trainyard.domain.tenants import Tenant
from trainyard.domain.waves import Judged, Member, MemberState, Verdict, WaveState
from trainyard.persistence.retraining_records import put_record, record_key

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>'\"&amp;{{7*7}} javascript:alert(3)"
OF_TENANT = {
    "requests": "Requests",
    "data-sets": "Data sets",
    "models": "Models",
    "deployments": "Deployments",
    "costs": "Costs",
    "keys": "Keys",
}
OF_SERVICE = {
    "overview": "Overview",
    "queue": "Queue",
    "activity": "Activity",
    "failures": "Failures",
    "deployments": "Deployments",
    "tenants": "Tenants",
    "waves": "Waves",
    "costs": "All costs",
    "dead-letters": "Dead letters",
    "policy": "Policy",
}
HEADERS_OF_STORAGE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag",
    "ETag": '"1"',
}
REQUESTS_MAX = 15
"""Until a page shows what it is about, before its data: files, and who is signed in."""
SECONDS_TO_SHOW_MAX, ROWS_MAX, CALLS_MAX, ELEMENTS_MAX = 20, 1_000, 60, 25_000
"""Of a page, whatever is stored."""
NAME_OF = """(element) =>
  element.getAttribute("aria-label") || element.labels?.[0]?.innerText || element.innerText.trim()"""
COMPARE = "Compare with the one in force"
SHIFT_MAX = 0.05
"""A page with less than 0.1 counts as stable (web.dev/cls)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsoleServer]:
    for name in ("USERS_CLIENT", "URL_SUFFIX"):
        monkeypatch.setenv(f"TRAINYARD_{name}", "example.com")
    monkeypatch.setenv("TRAINYARD_ISSUER", "")
    api = Api(monkeypatch)
    # What begins is done at once.
    api.bulk_starts.carry_out = api.bulk_work.run
    with serving(ConsoleServer(api, "operators")) as server:
        yield server


def recent(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def fill(api: Api, requests: int = 3) -> None:
    """Requests of acme: one of each kind, and more that succeeded."""
    for number in range(requests):
        state = (State.SUCCEEDED, State.FAILED, State.STOPPED)[number % 3]
        reason = "data.csv has no column 'target' to predict" if state is State.FAILED else None
        added = api.put(number, state=state, finished_at=recent(number % 50 / 10), reason=reason)
        at = recent(10 + number % 50)
        api.store.transact(
            [api.requests.put(replace(added, arrived_at=at, admitted_at=at + timedelta(minutes=2)))]
        )


@pytest.mark.parametrize(("group", "pages"), [("operators", OF_SERVICE), ("tenant-admins", OF_TENANT)])
def test_each_page_says_that_there_is_nothing_and_is_stable_and_light(
    browser: Browser, server: ConsoleServer, group: str, pages: dict[str, str]
) -> None:
    server.group = group
    server.api.storage.names = {}
    for name, heading in pages.items():
        for width in (1440, NARROW):
            with Visit(browser, server.address, width=width, token="t") as visit:
                visit.go(f"/{name}" if group == "operators" else f"/t/acme/{name}", heading)
                expect(visit.page.locator("main")).to_contain_text(
                    re.compile("There (is|are) no|Nothing|version 0|0 of|acme|trainyard-uploads-dlq")
                )
                asked = [answer.url.removeprefix(server.address) for answer in visit.answers]
                first = [url for url in asked if not url.startswith("/v1/") or url == "/v1/me"]
                assert len(first) <= REQUESTS_MAX, first
                assert visit.layout_shift() <= SHIFT_MAX, name
                assert (visit.overflow(), visit.clipped()) == (0, []), (name, width)


def test_stored_text_that_is_hostile_to_html_is_shown_as_text(browser: Browser, server: ConsoleServer) -> None:
    added = server.api.put(1, state=State.FAILED, reason=HOSTILE, finished_at=recent(1))
    hostile = replace(added, content=replace(added.content, key=f"incoming/churn/{HOSTILE}.csv"))
    server.api.store.transact([server.api.requests.put(hostile)])
    for path, heading in (
        ("/t/acme/requests", "Requests"),
        (f"/t/acme/requests/{added.request_id}", f"Request {added.request_id[:8]}"),
        ("/failures", "Failures"),
    ):
        with Visit(browser, server.address, token="t") as visit:
            visit.go(path, heading)
            expect(visit.page.locator("main")).to_contain_text("<img src=x onerror=alert(1)>")
            assert visit.page.locator("main img, main script").count() == 0
            assert visit.overflow() == 0


def test_rows_stay_where_they_are_while_somebody_points_at_them(browser: Browser, server: ConsoleServer) -> None:
    fill(server.api, 3)
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        row = visit.page.locator("tbody tr").nth(1)
        row.hover()
        before = row.bounding_box()
        newer = server.api.put(77, state=State.FAILED, reason="new", finished_at=recent(0))
        pause = visit.page.get_by_role("button", name="Pause updates")
        for _ in range(2):  # pausing and resuming loads at once
            pause.or_(visit.page.get_by_role("button", name="Resume updates")).evaluate("button => button.click()")
        visit.page.wait_for_timeout(500)
        assert visit.page.locator("tbody tr").count() == 3
        assert row.bounding_box() == before
        visit.page.mouse.move(5, 5)
        expect(visit.page.locator("tbody tr")).to_have_count(4)
        expect(visit.page.locator("tbody")).to_contain_text(newer.request_id[:8])


def test_filters_are_in_the_address_and_more_pages_follow(browser: Browser, server: ConsoleServer) -> None:
    fill(server.api, 90)
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        rows = visit.page.locator("tbody tr")
        expect(rows).to_have_count(25)
        visit.page.get_by_role("button", name="Show more").click()
        expect(rows).to_have_count(50)
        visit.page.get_by_label("State").select_option("FAILED")
        expect(visit.page).to_have_url(re.compile(r"#/t/acme/requests\?state=FAILED$"))
        expect(visit.page.locator("tbody .badge", has_text="Succeeded")).to_have_count(0)
        visit.page.reload()
        visit.loaded("Requests")
        expect(visit.page.get_by_label("State")).to_have_value("FAILED")
        expect(visit.page.locator("tbody .badge", has_text="Succeeded")).to_have_count(0)
        assert rows.count() > 20


def test_several_requests_are_cancelled_after_their_number_is_confirmed(
    browser: Browser, server: ConsoleServer
) -> None:
    waiting = [server.api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        visit.page.get_by_label("Select all requests that can be cancelled").check()
        visit.page.get_by_label(re.compile("Select request")).last.uncheck()
        visit.page.get_by_role("button", name="Cancel 2 requests").click()
        dialog = visit.page.get_by_role("dialog")
        expect(dialog).to_contain_text("Cancel 2 requests?")
        visit.page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        assert [server.api.requests.get(each.request_id).state for each in waiting] == [State.QUEUED] * 3  # type: ignore[union-attr]
        visit.page.get_by_role("button", name="Cancel 2 requests").click()
        dialog.get_by_role("button", name="Cancel 2 requests").click()
        expect(visit.page.locator("main")).to_contain_text("2 requests cancelled")
        states = [server.api.requests.get(each.request_id).state for each in waiting]  # type: ignore[union-attr]
        assert states == [State.QUEUED, State.CANCELLED, State.CANCELLED]


def test_a_console_without_a_connection_keeps_what_it_shows_and_goes_on(
    browser: Browser, server: ConsoleServer
) -> None:
    fill(server.api)
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        visit.context.set_offline(True)
        visit.page.get_by_role("button", name="Pause updates").click()
        visit.page.get_by_role("button", name="Resume updates").click()
        expect(visit.page.locator(".banners")).to_contain_text("There is no connection to the service")
        assert visit.page.locator("tbody tr").count() == 3
        visit.context.set_offline(False)
        expect(visit.page.locator(".banners")).to_be_hidden()
        visit.forgive("ERR_INTERNET_DISCONNECTED")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_fails_is_tried_again(browser: Browser, server: ConsoleServer, status: int) -> None:
    fill(server.api)
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        server.status = status
        visit.page.get_by_role("button", name="Pause updates").click()
        visit.page.get_by_role("button", name="Resume updates").click()
        expect(visit.page.locator(".banners p")).to_be_visible()
        assert visit.page.locator("tbody tr").count() == 3
        server.status = None
        expect(visit.page.locator(".banners")).to_be_hidden(timeout=25_000)
        visit.forgive(f"status of {status}")


def test_whose_session_has_ended_signs_in_again(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/models", "Models")
        server.status = 401
        visit.page.get_by_role("button", name="Pause updates").click()
        visit.page.get_by_role("button", name="Resume updates").click()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in")
        expect(visit.page.get_by_label("E-mail address")).to_be_focused()
        assert visit.page.evaluate("sessionStorage.getItem('trainyard.session')") is None
        assert visit.page.url.endswith("#/t/acme/models"), "where the user comes back to"
        visit.forgive("status of 401")


def test_what_is_not_there_or_not_ones_own_is_said(browser: Browser, server: ConsoleServer) -> None:
    server.group = "tenant-readers"
    with Visit(browser, server.address, token="t") as visit:
        for path in (
            "/overview",
            "/nonsense",
            "/t/acme/nonsense",
            "/toString",
            "/t/acme1/requests",
            "/t/%E0%A4%A/requests",
        ):
            visit.page.goto(f"{server.address}/console#{path}")
            expect(visit.page.get_by_role("heading", level=1)).to_have_text("Page not found")
            assert "Page not found" in visit.page.title()
            expect(visit.page.locator("nav a").first).to_have_attribute("href", "#/t/acme/requests")
        visit.page.goto(f"{server.address}/console#/t/acme/models/999")
        expect(visit.page.locator(".banners")).to_contain_text("nothing that you may see")
        visit.forgive("status of 404")


def test_all_that_filters_select_are_acted_on_after_their_number_is_confirmed(
    browser: Browser, server: ConsoleServer
) -> None:
    waiting = [server.api.enlist(number, data_set=f"d{number}") for number in range(1, 31)]
    failed = server.api.put(99, state=State.FAILED, data_set="x", finished_at=recent(1))
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        dialog = visit.page.get_by_role("dialog")
        visit.page.get_by_label("State").select_option("SUCCEEDED")
        expect(visit.page.get_by_role("button", name="Cancel all")).to_be_hidden()
        visit.page.get_by_label("State").select_option("FAILED")
        visit.page.get_by_role("button", name="Try all again").click()
        dialog.get_by_role("button", name="Start 1 training").click()
        expect(visit.page.locator("main")).to_contain_text("1 training requested.")
        assert [asked.data_set for asked in server.api.retrainings.asked] == [failed.data_set]
        visit.page.get_by_label("State").select_option("QUEUED")
        visit.page.get_by_role("button", name="Cancel all").click()
        expect(dialog).to_contain_text("Filter: state is Waiting.")
        assert len(server.api.requests.active(State.QUEUED)) == len(waiting)
        dialog.get_by_role("button", name="Cancel 30 requests").click()
        expect(visit.page.locator("main")).to_contain_text("30 requests cancelled.")
        assert server.api.requests.active(State.QUEUED) == []
        visit.page.get_by_role("button", name="Cancel all").click()
        expect(visit.page.locator("main")).to_contain_text("None of these requests waits or runs.")


def test_a_bulk_action_is_shown_on_the_next_visit_and_can_be_stopped(
    browser: Browser, server: ConsoleServer
) -> None:
    waiting = [server.api.enlist(number, data_set=f"d{number}") for number in (1, 2, 3)]
    server.api.bulk_action("acme", [each.request_id for each in waiting], done=1, state=BulkState.RUNNING)
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        expect(visit.page.locator("main")).to_contain_text("Cancelling 3 requests: 1 done")
        assert visit.violations() == []
        visit.page.get_by_role("button", name="Stop", exact=True).click()
        expect(visit.page.locator("main")).to_contain_text("1 request cancelled; 2 requests not changed.")
        visit.page.reload()
        visit.loaded("Requests")
        expect(visit.page.locator(".bulk progress")).to_have_count(0)


def run_of(api: Api, number: int, lines: int = 3) -> Request:
    """A request that ran twice, and what its training printed the second time."""
    added = api.put(
        number, state=State.RUNNING, attempt=2, execution_arn="arn:execution/2", admitted_at=recent(20)
    )
    bad = StepRecord(
        step=step(status="Failed", failure=HOSTILE, job=job(status="Failed")), seconds=60, cost_usd=None
    )
    api.record(replace(added, attempt=1), state=State.FAILED, steps=(bad,), unknown=1)
    running = job(status="InProgress", metrics=(("validation:accuracy", 0.91234),))
    api.reports.report = ExecutionReport(steps=(step(status="Executing", job=running),))
    api.logs.lines[running.arn] = [f"line {number} {HOSTILE}" for number in range(lines)]
    return added


def test_a_request_with_a_model_shows_how_good_it_is_against_its_baseline(
    browser: Browser, server: ConsoleServer
) -> None:
    outcome = Outcome(quality=0.912, quality_metric="roc_auc", baseline=0.5, rows=200, notes="a note")
    own = Overrides(algorithm="linear", hyperparameters=(("max_iter", 7),))
    added = server.api.put(
        1, state=State.SUCCEEDED, finished_at=recent(1), outcome=outcome, overrides=own, algorithm="linear"
    )
    with Visit(browser, server.address, token="t") as visit:
        visit.go(f"/t/acme/requests/{added.request_id}", f"Request {added.request_id[:8]}")
        main = visit.page.locator("main")
        expect(main).to_contain_text("0.912")
        expect(main).to_contain_text("baseline 0.500")
        expect(main).to_contain_text("max_iter = 7")
        visit.go("/t/acme/requests", "Requests")
        expect(visit.page.locator("tbody")).to_contain_text("linear, max_iter=7")


def test_a_tuning_is_asked_for_and_shows_what_it_has_found(browser: Browser, server: ConsoleServer) -> None:
    outcome = Outcome(
        quality=0.9,
        quality_metric="roc_auc",
        tuned='{"regularization":0.25}',
        tuned_score=0.8754,
        tuned_before=0.8,
        tuned_metric="roc_auc",
    )
    added = server.api.put(
        1,
        state=State.SUCCEEDED,
        finished_at=recent(1),
        outcome=outcome,
        overrides=Overrides(tuning=Tuning(trials=7)),
        algorithm="linear",
    )
    with Visit(browser, server.address, token="t") as visit:
        visit.go(f"/t/acme/requests/{added.request_id}", f"Request {added.request_id[:8]}")
        main = visit.page.locator("main")
        for words in ("Best trial (roc_auc)", "0.875", "0.800 with the values of before", "regularization = 0.25"):
            expect(main).to_contain_text(words)
        expect(main).to_contain_text("tuning with 7 trials")
        visit.go("/t/acme/requests", "Requests")
        expect(visit.page.locator("tbody")).to_contain_text("7 trials")
        visit.go("/t/acme/data-sets", "Data sets")
        visit.page.get_by_role("button", name="Train churn again").click()
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_label("Tuning").select_option("10")
        dialog.get_by_role("button", name="Train").click()
        expect(dialog.get_by_role("alert")).to_contain_text("tier basic offers no tuning")
        visit.forgive("409")
        assert visit.violations() == []
    assert server.api.retrainings.asked == []


def test_the_result_of_a_bulk_action_is_there_for_whoever_comes_back(
    browser: Browser, server: ConsoleServer
) -> None:
    server.api.bulk_action(
        "acme", ["0" * 32] * 3, done=3, failed=1, state=BulkState.DONE, ended_at=recent(2), created_at=recent(3)
    )
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        expect(visit.page.locator("main")).to_contain_text("2 requests cancelled, 1 failed.")


def test_the_focus_stays_where_it_is_useful(browser: Browser, server: ConsoleServer) -> None:
    for number in (1, 2):
        server.api.enlist(number, data_set=f"d{number}")
    added = run_of(server.api, 9)
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/requests", "Requests")
        button = visit.page.get_by_role("button", name="Cancel all")
        button.click()
        visit.page.get_by_role("dialog").get_by_role("button", name="Go back").click()
        expect(button).to_be_focused()
        visit.go(f"/t/acme/requests/{added.request_id}", f"Request {added.request_id[:8]}")
        show = visit.page.get_by_role("button", name="Log of Train, attempt 2")
        show.click()
        expect(visit.page.locator("pre.log")).to_be_focused()
        visit.page.get_by_role("button", name="Close the log").click()
        expect(show).to_be_focused()


def test_steps_and_what_they_print_are_shown_as_text_and_followed(browser: Browser, server: ConsoleServer) -> None:
    added = run_of(server.api, 1, lines=700)
    with Visit(browser, server.address, token="t") as visit:
        visit.go(f"/t/acme/requests/{added.request_id}", f"Request {added.request_id[:8]}")
        main = visit.page.locator("main")
        expect(main).to_contain_text("Attempt 1 Failed")
        expect(main).to_contain_text("validation:accuracy 0.9123")
        visit.page.get_by_role("button", name="Log of Train, attempt 2").click()
        log = visit.page.locator("pre.log")
        expect(log.locator("span")).to_have_count(500)
        visit.page.get_by_role("button", name="Show more lines").click()
        expect(log.locator("span")).to_have_count(700)
        expect(main).to_contain_text("New lines appear while the step runs.")
        server.api.logs.lines[job().arn].append("the last one")
        for name in ("Pause updates", "Resume updates"):
            visit.page.get_by_role("button", name=name).click()
        expect(log).to_contain_text("the last one")
        expect(log.locator("span")).to_have_count(701)
        assert main.locator("img, script").count() == 0
        visit.page.get_by_role("button", name="Close the log").click()
        expect(log).to_be_hidden()
        assert visit.overflow() == 0


def test_a_training_is_asked_for_with_another_algorithm(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/data-sets", "Data sets")
        visit.page.get_by_role("button", name="Train churn again").click()
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_label("Algorithm").select_option("linear")
        typed = dialog.get_by_label("Hyperparameters")
        for wrong, words in (
            ("max_iter", "“max_iter” is not name=value"),
            ("max_iter=1, max_iter=2", "max_iter is given twice"),
            ("max_iter=0", "0 is out of bounds"),
        ):
            typed.fill(wrong)
            dialog.get_by_role("button", name="Train").click()
            expect(dialog.get_by_role("alert")).to_contain_text(words)
            expect(typed).to_have_value(wrong)
        visit.forgive("409")
        assert visit.violations() == []
        typed.fill("regularization = 0.5, max_iter=200")
        dialog.get_by_role("button", name="Train").click()
        expect(visit.page.locator(".notice")).to_contain_text("Training requested.")
        expect(visit.page.get_by_role("button", name="Train churn again")).to_be_focused()
    (asked,) = server.api.retrainings.asked
    assert asked.overrides == Overrides(
        algorithm="linear", hyperparameters=(("max_iter", 200), ("regularization", 0.5))
    )


def test_settings_of_a_data_set_are_changed_and_the_change_is_followed(
    browser: Browser, server: ConsoleServer
) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/data-sets", "Data sets")
        dialog, notice = visit.page.get_by_role("dialog"), visit.page.locator(".notice")
        visit.page.get_by_role("button", name="Settings of churn").click()
        assert visit.violations() == []
        dialog.get_by_role("button", name="Change").click()
        expect(dialog).to_have_count(0)
        assert server.api.updates.payloads == {}, "nothing was changed"
        visit.page.get_by_role("button", name="Settings of churn").click()
        dialog.get_by_label("Hyperparameters").fill("max_iter=9")
        dialog.get_by_label("Priority").fill("3")
        dialog.get_by_role("button", name="Change").click()
        expect(notice).to_contain_text("The settings of churn are being changed")
        ((name, payload),) = server.api.updates.payloads.items()
        changes = {"hyperparameters": {"max_iter": 9}, "priority": 3}
        assert payload["tenant"] == {"name": "acme", "data_set_changes": {"churn": changes}}
        server.api.updates.statuses[name] = ChangeStatus(ChangeState.FAILED, "the role is not there")
        expect(notice).to_contain_text("The settings of churn were not changed: the role is not there")


def test_what_trains_by_itself_is_shown_and_rules_are_changed(browser: Browser, server: ConsoleServer) -> None:
    scheduled = replace(tenant(), data_sets={"churn": replace(tenant().settings, schedule="cron(0 3 * * ? *)")})
    server.api.tenants.put(replace(scheduled, revision=server.api.tenants.get("acme").revision))  # type: ignore[union-attr]
    last = LastTrigger(at=NOW, trigger="alarm: <b>quality</b>", event_id="e", left_out="nothing has changed")
    record = with_trigger(RetrainingRecord(), Trigger.ALARM, last)
    server.api.store.transact([put_record(record_key("acme", "churn"), record, None)])
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/data-sets", "Data sets")
        row = visit.page.get_by_role("table", name="What asks data sets to train by themselves").locator(
            "tbody tr"
        )
        expect(row).to_have_count(1)
        for words in ("cron(0 3 * * ? *)", "alarm: <b>quality</b>", "not trained: nothing has changed"):
            expect(row).to_contain_text(words)
        assert visit.violations() == []
        visit.page.get_by_role("button", name="Settings of churn").click()
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_label("When it trains").fill("files=10, between=22:00-06:00 UTC")
        dialog.get_by_role("button", name="Change").click()
        expect(visit.page.locator(".notice")).to_contain_text("are being changed")
        ((_, payload),) = server.api.updates.payloads.items()
        rules = {"files": 10, "between": "22:00-06:00 UTC"}
        assert payload["tenant"]["data_set_changes"] == {"churn": {"retraining": rules}}


def test_what_is_wrong_with_the_service_is_on_the_overview(browser: Browser, server: ConsoleServer) -> None:
    server.api.alarms = [("NoPassesAlarm", "2026-11-29 20:00 UTC")]
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/overview", "Overview")
        row = visit.page.locator("tr", has_text="NoPassesAlarm is in force since")
        expect(row).to_contain_text("docs/operations.md")
        expect(visit.page.locator("tr", has_text="hold a slot, none is stuck")).to_contain_text("ok")


def test_dead_letters_are_read_sent_back_and_deleted(browser: Browser, server: ConsoleServer) -> None:
    uploads, _, undelivered, _ = server.api.dead_letters
    uploads.letters = [
        Letter(str(number), "r", HOSTILE, f"no tenant 'a{number}'", recent(number)) for number in (1, 2)
    ]
    undelivered.letters = [Letter("9", "r", "{}", "no permissions", recent(9))]
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/dead-letters", "Dead letters")
        main, dialog = visit.page.locator("main"), visit.page.get_by_role("dialog")
        visit.page.get_by_role("button", name=re.compile("Show: trainyard-uploads-dlq")).click()
        visit.page.locator("details").first.click()
        expect(visit.page.locator("pre.log").first).to_contain_text("<img src=x onerror=alert(1)>")
        assert main.locator("img, script").count() == 0
        assert visit.overflow() == 0
        expect(visit.page.get_by_role("button", name=re.compile("Send back: .*undelivered"))).to_have_count(0)
        visit.page.get_by_role("button", name=re.compile("Send back: trainyard-uploads-dlq")).click()
        dialog.get_by_role("button", name="Send 2 letters back").click()
        expect(main).to_contain_text("2 letters sent back. Those that fail again come back here; about 0 remain")
        assert len(uploads.sent_back) == 2
        visit.page.get_by_role("button", name=re.compile("Delete: trainyard-undelivered-dlq")).click()
        dialog.get_by_role("button", name="Go back").click()
        assert len(undelivered.letters) == 1
        visit.page.get_by_role("button", name=re.compile("Delete: trainyard-undelivered-dlq")).click()
        dialog.get_by_role("button", name="Delete 1 letter").click()
        expect(main).to_contain_text("1 letter deleted")
        assert undelivered.letters == []


def test_deployments_are_promoted_rolled_back_and_stopped(browser: Browser, server: ConsoleServer) -> None:
    api = server.api
    api.deploy(1)
    api.deploy(2, live=1, canary=2, canary_percent=10)
    api.deploy(1, "acme1", "theirs")

    def alias() -> Alias:
        return api.deployed_models.aliases.get("acme", "churn")

    with Visit(browser, server.address, token="t") as visit:
        visit.go("/deployments", "Deployments")
        main, dialog, button = visit.page.locator("main"), visit.page.get_by_role("dialog"), visit.page.get_by_role
        expect(visit.page.locator("tbody tr")).to_have_count(2)
        expect(visit.page.locator("tr", has_text="acme/churn")).to_contain_text("version 1, 90 %")
        expect(visit.page.locator("tr", has_text="acme/churn")).to_contain_text("canary, 10 % of calls")
        assert visit.violations() == []
        visit.page.get_by_role("link", name="acme", exact=True).click()
        visit.loaded("Deployments")
        expect(visit.page.locator("tbody tr")).to_have_count(1)
        button("button", name="Promote: acme/churn, version 2").click()
        dialog.get_by_role("button", name="Go back").click()
        assert alias().canary == 2
        button("button", name="Promote: acme/churn, version 2").click()
        dialog.get_by_role("button", name="Promote").click()
        expect(main).to_contain_text("Version 2 of churn was promoted.")
        assert (alias().live, alias().previous) == (2, 1)
        button("button", name="Roll back: acme/churn, version 2").click()
        dialog.get_by_role("button", name="Roll back").click()
        expect(main).to_contain_text("Version 2 of churn is out of service.")
        assert (alias().live, alias().previous) == (1, None)
        expect(button("button", name="Roll back: acme/churn")).to_have_count(0)
        button("button", name="Stop: acme/churn").click()
        expect(dialog).to_contain_text("Stop 1 version of churn?")
        dialog.get_by_role("button", name="Stop").click()
        expect(main).to_contain_text("churn is out of service.")
        assert alias().live is None


def test_a_key_is_made_shown_once_and_revoked(browser: Browser, server: ConsoleServer) -> None:
    server.group = "tenant-admins"
    keys = server.api.api_keys.keys
    server.api.make_key(name="<b>old</b>", expires_at=recent(5))
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/keys", "Keys")
        main, dialog, button = visit.page.locator("main"), visit.page.get_by_role("dialog"), visit.page.get_by_role
        expect(visit.page.locator("tr", has_text="<b>old</b>")).to_contain_text("expired")
        button("button", name="Make a key").click()
        dialog.get_by_label("Name").fill("nightly upload")
        dialog.get_by_label("May").select_option("tenant-admin")
        dialog.get_by_label("Valid for days").fill("30")
        assert visit.violations() == []
        dialog.get_by_role("button", name="Make").click()
        expect(main).to_contain_text("The key nightly upload is made.")
        (made,) = (key for key in keys.of_tenant("acme") if key.name == "nightly upload")
        expect(main).to_contain_text(server.api.key_users.secrets[made.key_id])
        assert visit.violations() == []
        assert visit.overflow() == 0
        button("button", name="I have kept it").click()
        expect(main).not_to_contain_text(server.api.key_users.secrets[made.key_id])
        button("button", name="Revoke nightly upload").click()
        dialog.get_by_role("button", name="Revoke").click()
        expect(main).to_contain_text("The key nightly upload is revoked.")
        assert keys.get("acme", made.key_id) is None
        assert made.key_id not in server.api.key_users.secrets


def test_a_promotion_that_is_refused_says_why(browser: Browser, server: ConsoleServer) -> None:
    server.api.deploy(1)
    package = server.api.packages.packages[server.api.deploy(2, live=1, testing=2).package_arn]
    server.api.packages.packages[package.arn] = replace(package, is_approved=False)
    server.group = "tenant-admins"
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/deployments", "Deployments")
        visit.page.get_by_role("button", name="Promote: acme/churn, version 2").click()
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_role("button", name="Promote").click()
        expect(dialog.get_by_role("alert")).to_contain_text("version 2 of churn is not approved any more")
        visit.forgive("status of 409")


def test_a_statement_is_kept_as_a_file_and_operators_see_all_costs(
    browser: Browser, server: ConsoleServer
) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    for number, tenant_id in enumerate(("acme", "acme1"), start=1):
        added = server.api.put(number, tenant_id=tenant_id, attempt=1, state=State.SUCCEEDED)
        server.api.record(added, cost=f"{number}.5", month=month, admitted_at=recent(1))
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/costs", "Costs")
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name="Download the statement").click()
        assert download.value.suggested_filename == f"acme-{month}.html"
        assert "1.50 USD" in download.value.path().read_text(encoding="utf-8")
        visit.go("/costs", "All costs")
        expect(visit.page.locator("tbody tr").first).to_contain_text("acme1")
        expect(visit.page.locator("tr.total")).to_contain_text("$4.00")
        visit.page.get_by_label("By").select_option("tier")
        expect(visit.page.locator("tbody tr").first).to_contain_text("basic")
        expect(visit.page).to_have_url(re.compile("by=tier"))


def test_an_operator_halts_the_service(browser: Browser, server: ConsoleServer) -> None:
    server.api.enlist(1)
    server.api.admit()
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/overview", "Overview")
        dialog = visit.page.get_by_role("dialog")
        visit.page.get_by_role("button", name="Halt the service").click()
        expect(dialog).to_contain_text("The service is paused, and 1 run stopped")
        dialog.get_by_role("button", name="Go back").click()
        assert not server.api.service.scheduler.tables.ledger.read().paused
        visit.page.get_by_role("button", name="Halt the service").click()
        dialog.get_by_label("Reason").fill("a bad release")
        dialog.get_by_role("button", name="Halt the service").click()
        expect(visit.page.locator("main")).to_contain_text("halted: a bad release")
        assert visit.page.get_by_role("button", name="Resume the service").is_visible()
    (held,) = server.api.service.scheduler.tables.held()
    assert held.stop_asked_at is not None


def test_who_only_reads_is_offered_nothing_that_changes(browser: Browser, server: ConsoleServer) -> None:
    request = f"/t/acme/requests/{server.api.enlist(1).request_id}"
    server.api.deploy(2, live=1, canary=2, canary_percent=10)
    server.api.deploy(1, live=1, canary=2, canary_percent=10)
    for group, paths in (
        (
            "tenant-readers",
            (
                "/t/acme/requests",
                request,
                "/t/acme/data-sets",
                "/t/acme/models/1",
                "/t/acme/deployments",
                "/t/acme/keys",
            ),
        ),
        ("viewers", ("/overview", "/t/acme/requests", "/costs", "/dead-letters", "/deployments", "/waves")),
    ):
        server.group = group
        for path in paths:
            with Visit(browser, server.address, token="t") as visit:
                visit.page.goto(f"{server.address}/console#{path}")
                expect(visit.page.locator(".live")).to_contain_text("Updated")
                offered = visit.page.locator("main button:visible").all_inner_texts()
                harmless = {
                    "Pause updates",
                    "Get the files",
                    "Show more",
                    "Show",
                    "Tenants",
                    "Download the statement",
                    "",
                }
                assert set(offered) <= harmless, (group, path)


def test_an_operator_pauses_with_a_reason_and_resumes(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/overview", "Overview")
        visit.page.get_by_role("button", name="Pause tier basic", exact=True).click()
        visit.page.get_by_label("Reason").fill("a look at the quota")
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("tbody").first).to_contain_text("paused")
        expect(visit.page.locator("main")).to_contain_text("a look at the quota")
        assert server.api.service.scheduler.tables.ledger.read().paused_tiers == {"basic"}
        visit.page.get_by_role("button", name="Resume tier basic", exact=True).click()
        visit.page.get_by_role("dialog").get_by_role("button", name="Resume tier basic").click()
        expect(visit.page.locator("tbody").first).not_to_contain_text("paused")


def test_an_operator_expedites_a_waiting_request(browser: Browser, server: ConsoleServer) -> None:
    waiting = server.api.enlist(77).request_id
    with Visit(browser, server.address, token="t") as visit:
        visit.go(f"/t/acme/requests/{waiting}", f"Request {waiting[:8]}")
        visit.page.get_by_role("button", name="Expedite").click()
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("an audit at <b>noon</b>")
        dialog.get_by_role("button", name="Expedite").click()
        expect(visit.page.locator("main")).to_contain_text("an audit at <b>noon</b>")
    (expedited,) = server.api.service.scheduler.tables.ledger.read().expedited
    assert (expedited.request_id, expedited.why) == (waiting, "an audit at <b>noon</b>")


def test_what_has_moved_is_drawn_beside_the_last_training(browser: Browser, server: ConsoleServer) -> None:
    fill(server.api, 1)
    (request,) = server.api.requests.of_tenant("acme")
    moved = {"counts": [1, 9], "missing": 10}
    column = {"name": HOSTILE, "kind": "number", "index": 0.7, "band": "shifted", "before": moved, "now": moved}
    report = NOT_MOVED | {"columns": [column], "absent": ["age"], "swapped": [["a", "b"]]}
    server.api.results.default = json.dumps(report).encode()
    for width in (1440, NARROW):
        with Visit(browser, server.address, width=width, token="t") as visit:
            visit.go(f"/t/acme/requests/{request.request_id}", f"Request {request.request_id[:8]}")
            main = visit.page.locator("main")
            expect(main).to_contain_text("Columns that are not there any more: age")
            expect(main).to_contain_text("a and b")
            expect(visit.page.get_by_role("img", name="before: 1, 9 rows by bin")).to_be_visible()
            expect(visit.page.get_by_role("table", name="Columns, those")).to_contain_text("50 % → 50 %")
            assert main.locator("img, script").count() == 0
            assert (visit.overflow(), visit.clipped(), visit.violations()) == (0, [], [])


def test_an_operator_begins_a_wave_follows_it_and_sends_it_back(browser: Browser, server: ConsoleServer) -> None:
    waves = server.api.wave_commands.waves
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/waves", "Waves")
        visit.page.get_by_label("Version").fill("linear@2")
        visit.page.get_by_role("button", name="Show whom it would move").click()
        dialog = visit.page.get_by_role("dialog")
        expect(dialog).to_contain_text("1 %: 1 tenant")
        assert waves.unfinished() == [], "it was only asked about"
        dialog.get_by_role("button", name="Begin the wave").click()
        expect(visit.page.get_by_role("status")).to_contain_text("The wave has begun")
        (wave,) = waves.unfinished()
        waves.put_member(wave, replace(worse_of("acme1"), reason=HOSTILE))
        visit.page.get_by_role("button", name="Tenants: linear@2").click()
        members = visit.page.get_by_role("table", name="Tenants of the wave")
        expect(members).to_contain_text("worse")
        expect(members).to_contain_text("−0.300")
        visit.page.get_by_role("button", name="Pause: linear@2").click()
        visit.page.get_by_role("dialog").get_by_label("Reason").fill("a look at <b>acme1</b>")
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("main")).to_contain_text("a look at <b>acme1</b>")
        visit.page.get_by_role("button", name="Go back: linear@2").click()
        visit.page.get_by_role("dialog").get_by_role("button", name="Go back", exact=True).last.click()
        expect(visit.page.get_by_role("status")).to_contain_text("going back")
        assert waves.unfinished()[0].state is WaveState.GOING_BACK
        assert visit.overflow() == 0


def worse_of(tenant_id: str) -> Member:
    judged = Judged(data_set="churn", verdict=Verdict.WORSE, request_id="1", metric="r2", gain=-0.3)
    return Member(
        tenant_id=tenant_id,
        stage=0,
        state=MemberState.MOVED,
        since=NOW,
        before={"": "linear"},
        data_sets=("churn",),
        judged=(judged,),
    )


def test_many_tenants_are_shown_in_pages(browser: Browser, server: ConsoleServer) -> None:
    from tests.build import tenant

    for number in range(300):
        server.api.tenants.put(tenant(f"t{number:04}"))
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/tenants", "Tenants")
        first = visit.page.locator("tbody tr").count()
        assert 1 < first <= 100
        visit.page.get_by_role("button", name="Show more").click()
        expect(visit.page.locator("tbody tr").nth(first + 1)).to_be_visible()
        visit.page.get_by_label("Tenant", exact=True).fill("t0299")
        visit.page.keyboard.press("Enter")
        expect(visit.page).to_have_url(re.compile("#/t/t0299/requests"))


def test_the_keyboard_reaches_what_the_mouse_does(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/overview", "Overview")
        visit.page.keyboard.press("Tab")
        expect(visit.page.get_by_role("link", name="Skip to content")).to_be_focused()
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("main")).to_be_focused()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Overview")
        visit.page.get_by_role("link", name="Overview", exact=True).focus()
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.press("Enter")
        visit.loaded("Queue")
        expect(visit.page.get_by_role("heading", level=1)).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, server: ConsoleServer, theme: str) -> None:
    api = server.api
    fill(api, 6)
    waiting = api.enlist(50)
    api.deploy(1)
    api.deploy(2, live=1, canary=2, canary_percent=10, waiting=3)
    api.make_key()
    ran = run_of(api, 60)
    api.wave("20261130-060000-a1b2c3", reason="2 of 9 data sets failed or got worse", tag="pilot")
    api.dead_letters[0].letters = [Letter("1", "r", "{}", "no tenant 'a'", recent(5))]
    paths: dict[str, Any] = {f"/{name}": heading for name, heading in OF_SERVICE.items()}
    paths |= {f"/t/acme/{name}": heading for name, heading in OF_TENANT.items()}
    paths |= {
        "/t/acme/models/1": "Model version 1",
        f"/t/acme/requests/{waiting.request_id}": f"Request {waiting.request_id[:8]}",
        f"/t/acme/requests/{ran.request_id}": f"Request {ran.request_id[:8]}",
    }
    for width in (1440, NARROW):
        with Visit(browser, server.address, width=width, theme=theme, token="t") as visit:
            for path, heading in paths.items():
                visit.go(path, heading)
                if show := visit.page.get_by_role("button", name=re.compile("Log of|Show: ")).all():
                    show[0].click()
                    visit.page.locator(".log, details").first.wait_for()
                assert visit.violations() == [], (path, width)
                assert (visit.overflow(), visit.clipped()) == (0, []), (path, width)


def test_a_screen_reader_is_given_structure_names_and_news(browser: Browser, server: ConsoleServer) -> None:
    """By the accessibility tree, which is what a screen reader reads."""
    api = server.api
    fill(api, 6)
    waiting = api.enlist(50)
    api.deploy(1)
    api.deploy(2, live=1, canary=2, canary_percent=10)
    api.make_key()
    api.dead_letters[0].letters = [Letter("1", "r", "{}", "no tenant 'a'", recent(5))]
    paths = {f"/{name}": heading for name, heading in OF_SERVICE.items()}
    paths |= {f"/t/acme/{name}": heading for name, heading in OF_TENANT.items()}
    paths |= {f"/t/acme/requests/{waiting.request_id}": f"Request {waiting.request_id[:8]}"}
    with Visit(browser, server.address, token="t") as visit:
        page = visit.page
        for path, heading in paths.items():
            visit.go(path, heading)
            for landmark in ("banner", "navigation", "main"):
                expect(page.get_by_role(landmark)).to_have_count(1)
            levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((each) => +each.tagName[1])")
            assert levels.count(1) == 1, path
            assert all(after - before <= 1 for before, after in pairwise(levels)), (path, levels)
            for table in page.get_by_role("table").all():
                columns, rows = table.get_by_role("columnheader"), table.get_by_role("row")
                assert all(columns.all_inner_texts()), path
                assert table.get_by_role("rowheader").count() == rows.count() - 1, path
            names = [each.evaluate(NAME_OF) for each in page.get_by_role("main").get_by_role("button").all()]
            assert "" not in names, path
            assert len(set(names)) == len(names), (path, names)
            expect(page.get_by_role("navigation").locator("[aria-current=page]")).to_have_count(1)
        # What an action came to is put where it is read out: into a part that was there before.
        visit.go("/t/acme/keys", "Keys")
        news = page.get_by_role("main").locator("[role=status]:not(.banners)").first
        assert news.inner_text() == ""
        news.evaluate("(element) => { window.news = element; }")
        page.get_by_role("button", name="Revoke nightly").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(news).to_contain_text("The key nightly is revoked.")
        assert news.evaluate("(element) => element === window.news && element.isConnected")


def test_what_is_cut_off_or_overlaps_is_found(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/overview", "Overview")
        assert visit.clipped() == []
        visit.page.evaluate("""() => {
          const place = (text, left, top) => { const each = document.createElement("p"); each.textContent = text;
            Object.assign(each.style, { position: "absolute", left: `${left}px`, top: `${top}px` });
            document.querySelector("main").append(each); };
          place("one above", 300, 1200); place("the other", 305, 1202); place("beyond the edge", 1410, 1300);
        }""")
        assert set(visit.clipped()) == {"one above", "beyond the edge"}
        assert visit.overflow() > 0
        assert not visit.is_blank()
        visit.page.evaluate("document.querySelector('main').replaceChildren(document.createElement('h1'))")
        assert visit.is_blank()


def test_characters_that_deceive_are_shown_as_codes(browser: Browser, server: ConsoleServer) -> None:
    added = server.api.put(1, state=State.FAILED, reason="read report\u202evsc.exe", finished_at=recent(1))
    with Visit(browser, server.address, token="t") as visit:
        visit.go(f"/t/acme/requests/{added.request_id}", f"Request {added.request_id[:8]}")
        expect(visit.page.locator("main")).to_contain_text("report\\u{202e}vsc.exe")


def test_two_quick_clicks_ask_for_one_training(browser: Browser, server: ConsoleServer) -> None:
    added = server.api.put(1, state=State.FAILED, reason="bad data", finished_at=recent(1))
    with Visit(browser, server.address, token="t") as visit:
        visit.go(f"/t/acme/requests/{added.request_id}", f"Request {added.request_id[:8]}")
        visit.page.get_by_role("button", name="Try again").dblclick()
        expect(visit.page.locator("main")).to_contain_text("Training requested.")
        assert len(server.api.retrainings.asked) == len(server.keys) == 1
        visit.page.wait_for_timeout(200)
        expect(visit.page.get_by_role("link", name=re.compile("Request [0-9a-f]{8}"))).to_be_visible()


def test_what_was_not_answered_is_asked_for_again_with_the_same_key(
    browser: Browser, server: ConsoleServer
) -> None:
    server.api.storage.names = {"acme": ["churn"]}
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/t/acme/data-sets", "Data sets")

        dialog = visit.page.get_by_role("dialog")
        again = visit.page.get_by_role("button", name="Train churn again")
        train = dialog.get_by_role("button", name="Train", exact=True)
        server.status = 503
        again.click()
        train.click()
        expect(dialog.get_by_role("alert").locator(".banner")).to_be_visible()
        server.status = None
        train.click()
        expect(visit.page.locator(".notice")).to_contain_text("Training requested.")
        assert len(server.keys) == 2
        assert len(set(server.keys)) == 1
        again.click()
        train.click()
        expect(dialog).to_have_count(0)
        expect(visit.page.locator(".notice")).to_contain_text("Training requested.")
        assert len(set(server.keys)) == 2, "another training that the user asks for"
        visit.forgive("status of 503")


def test_the_page_that_was_chosen_last_is_shown(browser: Browser, server: ConsoleServer) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    with Visit(browser, server.address, token="t") as visit:
        visit.go("/overview", "Overview")
        visit.context.route("**/views/activity.js", hold)
        visit.page.get_by_role("link", name="Activity").click()
        visit.page.get_by_role("link", name="Queue").click()
        visit.loaded("Queue")
        assert len(held) == 1
        held[0].continue_()
        visit.page.wait_for_timeout(500)
        visit.loaded("Queue")
        assert visit.page.locator(".live").count() == 1


def test_a_page_of_another_version_is_loaded_again(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.page.clock.install()
        visit.go("/overview", "Overview")
        visit.page.evaluate("window.isOld = true")
        vars(server.console)["_version"] = lambda: "another"
        visit.page.clock.fast_forward(61_000)
        visit.page.get_by_role("link", name="Queue").click()
        visit.loaded("Queue")
        assert visit.page.evaluate("window.isOld === undefined")


def test_who_has_no_role_is_told_and_can_sign_out(browser: Browser, server: ConsoleServer) -> None:
    server.group = "nobody"
    with Visit(browser, server.address, token="t") as visit:
        visit.page.goto(f"{server.address}/console")
        expect(visit.page.locator("main")).to_contain_text("group")
        visit.page.get_by_role("button", name="Sign out").click()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in")
        visit.forgive("status of 403")


def test_a_policy_that_was_changed_is_kept_until_it_is_discarded(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.go("/policy", "Policy")
        text = visit.page.get_by_label("Policy (YAML)")
        before = text.input_value()
        text.fill("running_max: [")
        visit.page.get_by_role("button", name="Compare").click()
        expect(visit.page.locator("main")).to_contain_text("The policy is valid.")
        visit.page.get_by_role("link", name="Queue").click()
        visit.loaded("Queue")
        visit.page.get_by_role("link", name="Policy").click()
        visit.loaded("Policy")
        expect(text).to_have_value("running_max: [")
        visit.page.get_by_role("button", name="Discard my changes").click()
        visit.page.get_by_role("dialog").get_by_role("button", name="Discard").click()
        expect(text).to_have_value(before)


def test_an_operator_applies_what_was_compared_and_a_second_one_is_told(
    browser: Browser, server: ConsoleServer
) -> None:
    policies = server.api.service.policies
    with Visit(browser, server.address, token="t") as visit:
        page = visit.page
        visit.go("/policy", "Policy")
        text = page.get_by_label("Policy (YAML)")
        compare, apply = (page.get_by_role("button", name=name, exact=True) for name in (COMPARE, "Apply"))

        def put_in_force(note: str) -> None:
            apply.click()
            page.get_by_label("Note").fill(note)
            page.get_by_role("dialog").get_by_role("button", name="Apply the policy").click()

        text.fill("first")
        expect(apply).to_be_hidden()
        compare.click()
        expect(apply).to_be_visible()
        text.fill("second")
        expect(apply).to_be_hidden()
        compare.click()
        expect(apply).to_be_visible()
        policies.apply("of somebody else", datetime.now(UTC))
        put_in_force("too late")
        expect(page.locator("main")).to_contain_text("another policy was applied meanwhile")
        assert policies.in_force().text == "of somebody else"
        compare.click()
        expect(page.locator("main")).to_contain_text("The policy is valid.")
        put_in_force("on top of it")
        expect(page.locator("main")).to_contain_text("Version 2 is in force.")
        assert (policies.in_force().text, policies.in_force().note) == ("second", "on top of it")
        expect(apply).to_be_hidden()
        visit.forgive("status of 409")


def test_an_upload_goes_on_while_other_pages_are_shown_and_can_be_stopped(
    browser: Browser, server: ConsoleServer
) -> None:
    def whole(tenant: Tenant, key: str, size_bytes: int) -> Upload:
        return Upload(key=key, expires_at=datetime.now(UTC), url="https://bucket.s3.example.com/file")

    vars(server.api.storage)["whole"] = whole
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    with Visit(browser, server.address, token="t") as visit:
        visit.context.route("https://bucket.s3.example.com/**", hold)
        visit.go("/t/acme/data-sets", "Data sets")

        def begin(name: str) -> None:
            file: Any = {"name": name, "mimeType": "text/csv", "buffer": b"target,a\n1,2\n"}
            visit.page.get_by_label("File", exact=True).set_input_files(file)
            visit.page.get_by_role("button", name="Upload", exact=True).click()
            expect(visit.page.get_by_role("group", name=f"Upload of {name}")).to_be_visible()

        begin("first.csv")
        begin("second.csv")
        visit.page.get_by_role("link", name="Models").click()
        visit.loaded("Models")
        stop = visit.page.get_by_role("group", name="Upload of first.csv")
        stop.get_by_role("button", name="Stop the upload").click()
        expect(visit.page.locator(".uploads")).to_contain_text("The upload of first.csv was stopped.")
        for route in held[1:]:
            route.fulfill(status=200, headers=HEADERS_OF_STORAGE)
        expect(visit.page.locator(".uploads")).to_contain_text("second.csv is uploaded.")
        visit.page.get_by_role("button", name="Sign out").click()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_ten_thousand_tenants_and_a_hundred_thousand_requests_are_shown_in_parts(
    browser: Browser, server: ConsoleServer
) -> None:
    """What a page shows and asks for does not grow with what is stored."""
    from tests.build import request, tenant

    api = server.api
    for number in range(10_000):
        api.tenants.put(tenant(f"tenant-{number}"))
        api.deploy(1, f"tenant-{number}")
    states = (State.SUCCEEDED, State.FAILED, State.STOPPED, State.CANCELLED, State.REJECTED)
    for number in range(100_000):
        owner = "acme" if number % 2 else f"tenant-{number % 10_000}"
        added = replace(
            request(number),
            tenant_id=owner,
            state=states[number % 5],
            arrived_at=recent(20 + number / 5000),
            admitted_at=recent(15 + number / 5000),
            finished_at=recent(number / 5000),
            reason=f"the row {number} of 'x{number}.csv' has no label",
        )
        api.store.transact([api.requests.put(added)])
    pages = {f"/{name}": heading for name, heading in OF_SERVICE.items()}
    pages |= {f"/t/acme/{name}": heading for name, heading in OF_TENANT.items()}
    with Visit(browser, server.address, token="t") as visit:
        for path, heading in pages.items():
            before = len(server.calls)
            visit.go(path, heading, SECONDS_TO_SHOW_MAX)
            assert visit.page.locator("tbody tr").count() <= ROWS_MAX, path
            assert len(server.calls) - before <= CALLS_MAX, (path, server.calls[before:])
            assert visit.page.evaluate("document.querySelectorAll('*').length") <= ELEMENTS_MAX, path
