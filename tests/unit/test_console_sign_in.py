"""Signing in to the console at another identity provider, in a browser."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from testing.browser import CHROMIUM, MISSING, NARROW, Visit, chromium
from tests.console_server import ConsoleServer, serving
from tests.http_api import Api
from tests.oidc_issuer import Issuer, issuing

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]


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
            expect(visit.page.locator("main")).to_contain_text("This sign-in was not begun in this tab.")
        assert issuer.grants == []


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
