"""A full-screen view of the service: tiers, queue, requests, their changes, and what needs attention."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Footer, Static, TabbedContent, TabPane

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.queue import queue
from cli.requests import ended_lately, list_requests, why
from cli.show import REQUEST, Answer
from cli.status import status
from cli.text import printable
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request

SECONDS_BETWEEN = 2.0
TABLES = ("tiers", "queue", "requests", "events")
REQUESTS_SHOWN = 50
EVENTS_SHOWN = 100
ID_CHARACTERS = 8


@dataclass(frozen=True)
class Screen:
    """What is shown, as it was read at a time."""

    at: datetime
    health: Answer
    queue: Answer
    requests: Answer
    events: Answer


def read(deployment: Deployment) -> Screen:
    """Read everything that the view shows."""
    every = dict.fromkeys(("tenant_id", "tier", "data_set", "state", "since", "until"))
    requests = list_requests(deployment, Arguments(**every, limit=REQUESTS_SHOWN))
    return Screen(
        at=datetime.now(UTC),
        health=status(deployment, Arguments()),
        queue=queue(deployment, Arguments(tier=None, limit=20)),
        requests=requests,
        events=_events(
            [*_ids(requests), *(request.request_id for request in ended_lately(deployment))], deployment
        ),
    )


def _ids(requests: Answer) -> list[str]:
    return [str(row[requests.columns.index(REQUEST)]) for row in requests.rows]


def _events(request_ids: Sequence[str], deployment: Deployment) -> Answer:
    """Return the last changes of requests, newest first."""
    requests = deployment.scheduler.tables.requests.get_all(dict.fromkeys(request_ids))
    return events_of(requests)


def events_of(requests: Iterable[Request]) -> Answer:
    """Return the last changes of state of requests, newest first."""
    changes = sorted(
        ((change.at, request, change) for request in requests for change in request.history),
        key=lambda entry: entry[0],
        reverse=True,
    )[:EVENTS_SHOWN]
    return Answer(
        data=None,
        columns=("AT", REQUEST, "TENANT", "DATA SET", "STATE", "REASON"),
        rows=[
            (
                f"{at:%H:%M:%S}",
                request.request_id,
                request.tenant_id,
                request.data_set,
                change.state.value,
                change.cause,
            )
            for at, request, change in changes
        ],
    )


def top(deployment: Deployment, arguments: Arguments) -> None:
    """Open the view; raises Refused without a terminal."""
    if not is_terminal():
        raise Refused("the full-screen view needs a terminal; `trainyard status --json` is for scripts")
    deployment.outputs  # noqa: B018 - a wrong stack is told before the screen is taken
    Top(deployment).run()


def is_terminal() -> bool:
    return sys.stdout.isatty() and sys.stdin.isatty()


class Top(App[None]):
    """Reads in a thread of its own, so that keys are answered while AWS is slow; an error stays on its line."""

    TITLE = "trainyard"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { overflow: hidden; }
    TabbedContent, ContentSwitcher, TabPane { height: 1fr; }
    #attention { height: auto; max-height: 10; color: $text-error; padding: 0 1; }
    #line { height: auto; padding: 0 1; text-style: bold; }
    #answer { height: auto; max-height: 14; padding: 0 1; border-top: solid $primary; display: none; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("r", "reload", "refresh"),
        Binding("p", "pause", "pause"),
        Binding("1", "tab('tiers')", "tiers"),
        Binding("2", "tab('queue')", "queue"),
        Binding("3", "tab('requests')", "requests"),
        Binding("4", "tab('events')", "events"),
        Binding("w", "why", "why"),
        Binding("escape", "close", "close", show=False),
    ]

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment, self.is_paused, self.is_reading = deployment, False, False

    def compose(self) -> ComposeResult:
        yield Static("reading …", id="line", markup=False)
        yield Static("", id="attention", markup=False)
        with TabbedContent(initial="tiers"):
            for name in TABLES:
                with TabPane(name, id=name), Vertical():
                    yield DataTable(id=f"{name}-table", cursor_type="row")
        yield Static("", id="answer", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.set_interval(SECONDS_BETWEEN, self.reload_unless_paused)
        self.action_reload()

    def reload_unless_paused(self) -> None:
        if not self.is_paused:
            self.action_reload()

    def action_reload(self) -> None:
        """Read again, unless a reading is under way: a slow one must not gather others behind it."""
        if not self.is_reading:
            self.is_reading = True
            self.run_worker(self._read, thread=True, group="reading")

    def _read(self) -> None:
        try:
            screen = read(self.deployment)
        except Exception as error:  # whatever AWS answers: the last state stays on the screen
            self.call_from_thread(self.tell, f"not refreshed: {error}")
        else:
            self.call_from_thread(self.show_screen, screen)
        finally:
            self.is_reading = False

    def tell(self, line: str) -> None:
        self.query_one("#line", Static).update(Text(printable(line)))

    def show_screen(self, screen: Screen) -> None:
        state = " · ".join(screen.health.lines[:1])
        paused = " · view paused (p)" if self.is_paused else ""
        self.tell(f"{self.deployment.stack} · {screen.at:%H:%M:%S} UTC · {state}{paused}")
        self.query_one("#attention", Static).update(Text("\n".join(map(printable, screen.health.alarms))))
        for name, answer in zip(
            TABLES, (screen.health, screen.queue, screen.requests, screen.events), strict=True
        ):
            self._fill(name, answer)

    def _fill(self, name: str, answer: Answer) -> None:
        """Put rows into a table, and leave its cursor on its row, or at its place where that row is gone."""
        table = self.query_one(f"#{name}-table", DataTable)
        place, scroll, key = table.cursor_coordinate.row, table.scroll_offset, self._row_key(table)
        if not table.columns:
            table.add_columns(*answer.columns)
        table.clear()
        for number, row in enumerate(answer.rows):
            row_key = _key(answer.columns, row, number)
            while row_key in table.rows:  # two changes of a request to the same state in a second
                row_key += " again"
            table.add_row(*_cells(answer.columns, row), key=row_key)
        if answer.rows:
            place = table.get_row_index(key) if key in table.rows else min(place, len(answer.rows) - 1)
            table.move_cursor(row=place, animate=False, scroll=False)
            table.scroll_to(scroll.x, scroll.y, animate=False)

    def _row_key(self, table: DataTable[Text]) -> str:
        """Return the key of the row under the cursor; "" in an empty table."""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value) if table.row_count else ""

    def action_pause(self) -> None:
        self.is_paused = not self.is_paused
        if not self.is_paused:
            self.action_reload()
        else:
            self.tell("the view is paused; p goes on")

    def action_tab(self, name: str) -> None:
        self.query_one(TabbedContent).active = name
        self.query_one(f"#{name}-table", DataTable).focus()

    def action_why(self) -> None:
        """Explain the request under the cursor."""
        name = self.query_one(TabbedContent).active
        table = self.query_one(f"#{name}-table", DataTable)
        labels = [str(column.label) for column in table.ordered_columns]
        if REQUEST not in labels or not table.row_count:
            self.show_answer("choose a request first: 2 (queue), 3 (requests) or 4 (events), then the arrow keys")
            return
        request_id = self._row_key(table).partition(" ")[0]
        self.run_worker(lambda: self._why(request_id), thread=True, exclusive=True, group="why")

    def _why(self, request_id: str) -> None:
        try:
            explained = why(self.deployment, Arguments(request_id=request_id))
        except Exception as error:  # whatever AWS answers: the view stays
            lines: Sequence[str] = [f"not explained: {error}"]
        else:
            lines = [*(f"{name}: {value}" for name, value in explained.rows), *explained.lines]
        self.call_from_thread(self.show_answer, "\n".join(map(printable, lines)))

    def show_answer(self, text: str) -> None:
        panel = self.query_one("#answer", Static)
        panel.update(Text(text))
        panel.display = True

    def action_close(self) -> None:
        self.query_one("#answer", Static).display = False


def _key(columns: Sequence[str], row: Sequence[Any], number: int) -> str:
    """Return what a row is known by, beginning with the id of its request if it has one.

    A request has one row, but several changes: an event is told from the others by time and state.
    """
    if REQUEST not in columns:
        return f"{number} {row[0]}"
    request_id = str(row[columns.index(REQUEST)])
    return f"{request_id} {row[0]} {row[columns.index('STATE')]}" if columns[0] == "AT" else request_id


def _cells(columns: Sequence[str], row: Sequence[Any]) -> list[Text]:
    """Return cells as text that is shown as it is; ids short, as commands take them."""
    return [
        Text("" if cell is None else printable(str(cell))[: ID_CHARACTERS if name == REQUEST else None])
        for name, cell in zip(columns, row, strict=True)
    ]
