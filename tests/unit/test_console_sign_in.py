"""Signing in to the console at another identity provider, in a browser."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from testing.browser import CHROMIUM, MISSING, NARROW, Visit, chromium
from tests.build import NOW
from tests.console_server import ConsoleServer, serving
from tests.http_api import Api
from tests.oidc_issuer import Issuer, issuing

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

UPDATES = 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, issuer: Issuer) -> Iterator[ConsoleServer]:
    monkeypatch.setenv("TRAINYARD_USERS_CLIENT", issuer.client)
    monkeypatch.setenv("TRAINYARD_URL_SUFFIX", "example.com")
    monkeypatch.setenv("TRAINYARD_ISSUER", issuer.address)
    with serving(ConsoleServer(Api(monkeypatch), "operators")) as server:
        yield server


def begin(visit: Visit, path: str = "/queue") -> None:
    """Open a page, and go to the issuer."""
    visit.page.goto(f"{visit.address}/console#{path}")
    visit.page.get_by_role("button", name="Continue").click()
    visit.page.get_by_role("link", name="Ada").wait_for()


def session(visit: Visit) -> Any:
    return json.loads(visit.page.evaluate("sessionStorage.getItem('trainyard.session')"))


def test_a_user_signs_in_at_the_issuer_and_comes_back_to_the_page(
    browser: Browser, server: ConsoleServer, issuer: Issuer
) -> None:
    with Visit(browser, server.address, width=NARROW) as visit:
        visit.page.goto(f"{visit.address}/console#/queue?tier=basic")
        expect(visit.page.locator("main")).to_contain_text(
            f"You sign in at {issuer.address.removeprefix('http://')}"
        )
        assert visit.violations() == []
        begin(visit, "/queue?tier=basic")
        visit.page.get_by_role("link", name="Ada").click()
        visit.loaded("Queue")
        assert visit.page.url == f"{server.address}/console#/queue?tier=basic"
        assert session(visit)["refresh"] in issuer.refresh_tokens
        assert "trainyard.signing-in" not in visit.page.evaluate("Object.keys(sessionStorage)")
        visit.page.get_by_role("link", name="operator").click()
        visit.loaded("Account")
        expect(visit.page.locator("main")).to_contain_text("Your identity provider keeps your password.")
        visit.page.get_by_role("button", name="Sign out").click()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in")
        visit.page.wait_for_timeout(300)
        assert issuer.refresh_tokens == set()
        assert issuer.prompts == [None]
        begin(visit)
        assert issuer.prompts == [None, "login"], "who has signed out is asked who it is"


def test_a_token_is_renewed_until_the_issuer_refuses(
    browser: Browser, server: ConsoleServer, issuer: Issuer
) -> None:
    def expire(visit: Visit) -> None:
        changed = json.dumps(session(visit) | {"until": 0})
        visit.page.evaluate("(text) => sessionStorage.setItem('trainyard.session', text)", changed)
        visit.page.reload()

    with Visit(browser, server.address) as visit:
        begin(visit)
        visit.page.get_by_role("link", name="Ada").click()
        visit.loaded("Queue")
        first = session(visit)
        expire(visit)
        visit.loaded("Queue")
        assert session(visit)["id"] != first["id"]
        assert session(visit)["refresh"] == first["refresh"]
        issuer.refresh_tokens.clear()
        expire(visit)
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in")
        expect(visit.page.locator("main")).to_contain_text("Your session has ended.")
        assert issuer.grants == ["authorization_code", "refresh_token", "refresh_token"]
        visit.forgive("status of 400")


def test_who_is_refused_by_the_issuer_is_told(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address) as visit:
        begin(visit)
        visit.page.get_by_role("link", name="Nobody").click()
        expect(visit.page.locator("main")).to_contain_text("The identity provider has refused: no <b>")
        assert visit.page.url == f"{server.address}/console#/queue"
        assert visit.page.locator("main b").count() == 0


def test_the_answer_to_somebody_elses_sign_in_is_not_taken(
    browser: Browser, server: ConsoleServer, issuer: Issuer
) -> None:
    with Visit(browser, server.address) as visit:
        for query in ("?code=code-0&state=stolen", "?state=&code=x"):
            visit.page.goto(f"{server.address}/console{query}#/queue")
            expect(visit.page.get_by_role("button", name="Continue")).to_be_visible()
            assert visit.page.url == f"{server.address}/console#/queue"
        begin(visit)
        visit.page.goto(f"{server.address}/console?code=code-0&state=stolen#/queue")
        expect(visit.page.locator("main")).to_contain_text("This is the answer to another sign-in.")
        assert issuer.grants == []
        assert visit.page.evaluate("sessionStorage.getItem('trainyard.session')") is None


def test_an_address_with_a_foreign_answer_ends_no_session(browser: Browser, server: ConsoleServer) -> None:
    with Visit(browser, server.address, token="t") as visit:
        visit.page.goto(f"{server.address}/console?code=code-0&state=stolen#/queue")
        visit.loaded("Queue")
        assert visit.page.url == f"{server.address}/console#/queue"


def test_a_token_for_another_sign_in_is_not_taken(browser: Browser, server: ConsoleServer, issuer: Issuer) -> None:
    issuer.nonce = "of somebody else"
    with Visit(browser, server.address) as visit:
        begin(visit)
        visit.page.get_by_role("link", name="Ada").click()
        expect(visit.page.locator("main")).to_contain_text("has sent no token for this sign-in")
        assert visit.page.evaluate("sessionStorage.getItem('trainyard.session')") is None


def test_an_issuer_that_gives_tokens_elsewhere_is_not_asked(
    browser: Browser, server: ConsoleServer, issuer: Issuer
) -> None:
    issuer.token_address = "https://tokens.example.com/token"
    with Visit(browser, server.address) as visit:
        visit.page.goto(f"{server.address}/console")
        visit.page.get_by_role("button", name="Continue").click()
        expect(visit.page.get_by_role("alert")).to_contain_text("gives tokens at another address than http://127")


def test_an_issuer_that_does_not_answer_is_named(browser: Browser, server: ConsoleServer, issuer: Issuer) -> None:
    with Visit(browser, server.address) as visit:
        visit.page.route(re.compile("openid-configuration"), lambda route: route.abort())
        visit.page.goto(f"{server.address}/console")
        visit.page.get_by_role("button", name="Continue").click()
        expect(visit.page.get_by_role("alert")).to_contain_text(f"does not describe itself at {issuer.address}")
        visit.forgive("ERR_FAILED")


def test_without_a_client_at_the_issuer_a_token_is_pasted(
    browser: Browser, server: ConsoleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_USERS_CLIENT", "")
    with Visit(browser, server.address) as visit:
        visit.page.goto(f"{server.address}/console#/queue")
        token = visit.page.get_by_label("ID token")
        token.fill("nonsense")
        visit.page.get_by_role("button", name="Sign in").click()
        expect(visit.page.get_by_role("alert")).to_contain_text("This is not an ID token")
        token.fill("a.b.c")
        visit.page.get_by_role("button", name="Sign in").click()
        visit.loaded("Queue")


def test_a_console_that_is_left_open_for_a_day_goes_on_or_asks_to_sign_in(
    browser: Browser, server: ConsoleServer, issuer: Issuer
) -> None:
    waiting = server.api.enlist(1)
    path, heading = f"/t/acme/requests/{waiting.request_id}", f"Request {waiting.request_id[:8]}"
    with Visit(browser, server.address) as visit:
        page = visit.page
        page.clock.install()
        begin(visit, path)
        page.get_by_role("link", name="Ada").click()
        visit.loaded(heading)
        # At night there is no connection: what was shown last stays, and says so.
        visit.context.set_offline(True)
        page.clock.fast_forward("10:00:00")
        expect(page.locator(".banners")).to_contain_text("There is no connection to the service")
        expect(page.locator("main")).to_contain_text("Why it waits")
        # In the morning, the token has expired, and is renewed; the page shows what has happened since.
        server.api.service.stop.stop(waiting.request_id, NOW)
        visit.context.set_offline(False)
        page.clock.fast_forward("00:02:00")
        expect(page.locator(".banners")).to_be_hidden()
        expect(page.locator("main")).to_contain_text("Cancelled")
        assert issuer.grants == ["authorization_code", "refresh_token"]
        # After a day, the issuer wants to see the user again, who comes back to the same page.
        issuer.refresh_tokens.clear()
        page.clock.fast_forward("14:00:00")
        expect(page.locator("main")).to_contain_text("Your session has ended.")
        assert heading not in page.locator("main").inner_text()
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("link", name="Ada").click()
        visit.loaded(heading)
        visit.forgive("ERR_INTERNET_DISCONNECTED", "status of 400")


def test_a_console_that_is_looked_at_all_day_does_not_grow(browser: Browser, server: ConsoleServer) -> None:
    for number in range(30):
        server.api.enlist(number, data_set=f"d{number}")
    with Visit(browser, server.address, token="t") as visit:
        page = visit.page
        page.clock.install()
        visit.go("/overview", "Overview")
        sizes, updated = [], page.locator(".updated")
        for _ in range(UPDATES):
            before = updated.inner_text()
            page.clock.fast_forward(11_000)
            expect(updated).not_to_have_text(before)
            sizes.append(page.evaluate("document.querySelectorAll('*').length"))
        assert len(set(sizes[5:])) == 1, sizes
        # One at a time: what is slow is not asked for again meanwhile.
        assert server.calls.count("GET /v1/service") <= UPDATES + 3


def test_a_console_reloads_itself_once_another_version_was_deployed(
    browser: Browser, server: ConsoleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Visit(browser, server.address, token="t") as visit:
        page = visit.page
        page.clock.install()
        visit.go("/queue", "Queue")
        page.evaluate("window.isTheSamePage = true")
        page.clock.fast_forward("24:00:00")
        visit.loaded("Queue")
        page.get_by_role("link", name="Tenants").click()
        visit.loaded("Tenants")
        assert page.evaluate("window.isTheSamePage") is True
        monkeypatch.setattr(server.console, "_version", lambda: "another")
        page.clock.fast_forward("24:00:00")
        page.get_by_role("link", name="Failures").click()
        visit.loaded("Failures")
        assert page.evaluate("window.isTheSamePage") is None
