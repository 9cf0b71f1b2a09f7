"""The full-screen view: its keys, and that it stays up when AWS does not answer."""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from textual.widgets import DataTable, Static, TabbedContent

from cli import top
from cli.deployment import Deployment
from cli.show import Answer
from tests.build import after, request
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request, State, StateChange

IDS = ["0124550c" + "0" * 24, "fedcba98" + "1" * 24]
HOSTILE = "[red]bad[/red]\x1b[31m\u202e"


class Deployed:
    stack = "trainyard-dev"


def screen(**changes: Any) -> top.Screen:
    parts: dict[str, Any] = {
        "at": datetime(2026, 11, 28, tzinfo=UTC),
        "health": Answer(
            data=None,
            columns=("TIER", "SLOTS USED"),
            rows=[("basic", 1)],
            lines=["1 of 4 slots used; policy version 7"],
            alarms=[f"tier basic is paused: {HOSTILE}"],
        ),
        "queue": Answer(data=None, columns=("TIER", "REQUEST", "REASON"), rows=[("basic", IDS[0], HOSTILE)]),
        "requests": Answer(data=None, columns=("REQUEST", "STATE"), rows=[(i, "RUNNING") for i in IDS]),
        "events": top.events_of([changed(IDS[1], State.QUEUED, State.RUNNING), changed(IDS[0], State.FAILED)]),
    }
    return top.Screen(**parts | changes)


def changed(request_id: str, *states: State) -> Request:
    history = tuple(StateChange(after(number), state, HOSTILE) for number, state in enumerate(states))
    return request(request_id=request_id, history=history)


def drive(monkeypatch: pytest.MonkeyPatch, keys: list[str], read: Any = screen) -> dict[str, Any]:
    """Press keys in the view; return what is on the screen afterwards."""
    monkeypatch.setattr(top, "read", lambda _: read())
    monkeypatch.setattr(top, "SECONDS_BETWEEN", 3600)  # only keys read again, however slow the machine is
    monkeypatch.setattr(
        top, "why", lambda _, given: Answer(data=None, lines=[f"why {given.request_id}: {HOSTILE}"])
    )

    async def run() -> dict[str, Any]:
        app = top.Top(cast(Deployment, Deployed()))
        async with app.run_test(size=(100, 30)) as pilot:
            await app.workers.wait_for_complete()
            await pilot.pause()
            for key in keys:
                await pilot.press(key)
                await app.workers.wait_for_complete()
                await pilot.pause()
            panel = app.query_one("#answer", Static)
            return {
                "line": str(app.query_one("#line", Static).render()),
                "attention": str(app.query_one("#attention", Static).render()),
                "answer": str(panel.render()) if panel.display else "",
                "tab": app.query_one(TabbedContent).active,
                "paused": app.is_paused,
                "cursor": app.query_one("#requests-table", DataTable).cursor_coordinate.row,
                "ids": [str(app.query_one("#requests-table", DataTable).get_row_at(n)[0]) for n in range(2)]
                if app.query_one("#requests-table", DataTable).row_count == 2
                else [],
                "running": app.is_running,
            }

    return asyncio.run(run())


def test_the_view_shows_slots_attention_queue_and_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = drive(monkeypatch, [])
    assert shown["line"].startswith("trainyard-dev · 00:00:00 UTC · 1 of 4 slots used")
    assert shown["attention"] == r"tier basic is paused: [red]bad[/red]\x1b[31m\u202e", "hostile text is text"
    assert (shown["tab"], shown["ids"]) == ("tiers", ["0124550c", "fedcba98"])


def test_digits_choose_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drive(monkeypatch, ["3"])["tab"] == "requests"
    assert drive(monkeypatch, ["3", "1"])["tab"] == "tiers"


def test_w_explains_the_request_under_the_cursor_and_escape_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = drive(monkeypatch, ["3", "down", "w"])
    assert shown["answer"].startswith(f"why {IDS[1]}: [red]bad[/red]\\x1b"), "by its whole id"
    assert drive(monkeypatch, ["3", "down", "w", "escape"])["answer"] == ""
    assert "choose a request first" in drive(monkeypatch, ["w"])["answer"]


def test_events_are_the_changes_of_all_requests_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    events = top.events_of([changed(IDS[1], State.QUEUED, State.RUNNING), changed(IDS[0], State.FAILED)])
    assert [(row[0], row[1], row[4]) for row in events.rows] == [
        ("12:00:01", IDS[1], "RUNNING"),
        ("12:00:00", IDS[1], "QUEUED"),
        ("12:00:00", IDS[0], "FAILED"),
    ]
    shown = drive(monkeypatch, ["4", "down", "r", "w"])
    assert (shown["tab"], shown["answer"][: 4 + len(IDS[1])]) == ("events", f"why {IDS[1]}")


def test_two_changes_to_a_state_in_a_second_are_two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    history = (StateChange(after(0), State.QUEUED), StateChange(after(0.5), State.QUEUED))
    events = top.events_of([request(request_id=IDS[0], history=history)])
    assert len(events.rows) == 2
    assert drive(monkeypatch, ["4", "down", "w"], lambda: screen(events=events))["answer"].startswith(
        f"why {IDS[0]}"
    )


def test_refreshing_leaves_the_cursor_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drive(monkeypatch, ["3", "down", "r", "r"])["cursor"] == 1


def test_the_cursor_stays_on_its_request_when_rows_move(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Answer(
        data=None, columns=("REQUEST", "STATE"), rows=[("00000000" + "2" * 24, "RUNNING"), (IDS[1], "QUEUED")]
    )
    answers = [screen(requests=moved), screen()]
    shown = drive(monkeypatch, ["3", "down", "r", "w"], lambda: answers.pop() if len(answers) > 1 else answers[0])
    assert shown["answer"].startswith(f"why {IDS[1]}")
    first = [screen(requests=Answer(data=None, columns=moved.columns, rows=moved.rows[::-1])), screen()]
    shown = drive(monkeypatch, ["3", "down", "r", "w"], lambda: first.pop() if len(first) > 1 else first[0])
    assert (shown["cursor"], shown["answer"][:12]) == (0, "why fedcba98")


def test_an_error_of_a_question_is_told_and_the_view_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def throttled(*_: Any) -> Answer:
        raise OSError("ThrottlingException")

    monkeypatch.setattr(top, "read", lambda _: screen())

    async def run() -> tuple[str, bool]:
        app = top.Top(cast(Deployment, Deployed()))
        async with app.run_test(size=(100, 30)) as pilot:
            await app.workers.wait_for_complete()
            monkeypatch.setattr(top, "why", throttled)
            for key in ("3", "w"):
                await pilot.press(key)
                await app.workers.wait_for_complete()
                await pilot.pause()
            return str(app.query_one("#answer", Static).render()), app.is_running

    assert asyncio.run(run()) == ("not explained: ThrottlingException", True)


def test_slow_reads_do_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    answered = threading.Event()

    def slow() -> top.Screen:
        reads.append(1)
        answered.wait(30)
        return screen()

    monkeypatch.setattr(top, "read", lambda _: slow())

    async def run() -> None:
        app = top.Top(cast(Deployment, Deployed()))
        async with app.run_test(size=(100, 30)) as pilot:
            for _ in range(5):
                await pilot.press("r")
            assert len(reads) == 1
            answered.set()
            await app.workers.wait_for_complete()

    asyncio.run(run())


def test_p_pauses_the_view_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drive(monkeypatch, ["p"])["paused"] is True
    assert drive(monkeypatch, ["p", "p"])["paused"] is False


def test_an_error_is_told_and_the_view_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [screen()]

    def read() -> top.Screen:
        if answers:
            return answers.pop()
        raise OSError("no route to host")

    shown = drive(monkeypatch, ["r"], read)
    assert shown["line"] == "not refreshed: no route to host"
    assert (shown["ids"], shown["running"]) == (["0124550c", "fedcba98"], True)


def test_without_a_terminal_it_is_refused_with_what_to_use() -> None:
    with pytest.raises(Refused, match="trainyard status --json"):
        top.top(cast(Deployment, Deployed()), cast(Any, None))
