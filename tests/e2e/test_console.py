"""The console in a browser, on the deployed service: tenants and operators do and find what they come for."""

import base64
import hashlib
import hmac
import json
import re
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from testing.browser import CHROMIUM, MISSING, NARROW, WIDE, Visit, chromium
from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_api import PASSWORD, user
from tests.e2e.test_tenants import WINE
from trainyard.domain.executions import month_of
from trainyard.domain.requests import State

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

MAILED = "654321"
"""The code that the local cloud sends to whoever has forgotten the password."""
MINUTE = 60_000
"""In milliseconds."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def visit_as(harness: Harness, browser: Browser, name: str, **options: Any) -> Visit:
    visit = Visit(browser, harness.outputs["ApiAddress"], **options)
    visit.sign_in(f"{name}@example.com", PASSWORD)
    return visit


def test_a_tenant_uploads_waits_gets_a_model_and_predicts(
    harness: Harness, browser: Browser, tmp_path: Path
) -> None:
    harness.create("visitor", tier="standard")
    user(harness, "visitor", "tenant-admins", "visitor")
    file = tmp_path / "wine.csv"
    file.write_bytes(WINE)
    header, *rows = WINE.decode().splitlines()
    harness.run("pause", "tenant", "visitor")
    with visit_as(harness, browser, "visitor") as visit:
        page = visit.page
        page.get_by_role("link", name="Data sets").click()
        visit.loaded("Data sets")
        page.get_by_label("File", exact=True).set_input_files(file)
        expect(page.get_by_label("Data set", exact=True)).to_have_value("wine")
        expect(page.locator("main")).to_contain_text("Expected cost")
        page.get_by_role("button", name="Upload", exact=True).click()
        expect(page.locator(".uploads")).to_contain_text("wine.csv is uploaded")
        eventually(lambda: list(harness.deployment.scheduler.tables.requests.of_tenant("visitor")))
        # Why does it wait? Two clicks from the first page.
        page.get_by_role("link", name="Requests").click()
        visit.loaded("Requests")
        page.get_by_role("link", name=re.compile("Why request")).click()
        expect(page.locator("main")).to_contain_text("the provider has paused")
        assert visit.violations() == []
        harness.run("resume", "tenant", "visitor")
        (ended,) = harness.ended("visitor", 1)
        assert ended.state is State.SUCCEEDED
        page.get_by_role("link", name=re.compile("Model version")).click(timeout=MINUTE)
        visit.loaded("Model version 1")
        page.get_by_role("button", name="Reject").click()
        page.get_by_label("Reason").fill("not yet")
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("Version 1 is rejected.")
        expect(page.locator("main")).to_contain_text("not yet")
        page.get_by_role("button", name="Approve").click()
        page.get_by_role("dialog").get_by_role("button", name="Approve").click()
        expect(page.locator("main")).to_contain_text("Version 1 is approved")

        def is_live() -> bool:
            page.get_by_role("textbox", name="Rows").fill(
                "\n".join([header.rpartition(",")[0], rows[0].rpartition(",")[0]])
            )
            page.get_by_role("button", name="Predict").click()
            expect(page.get_by_role("button", name="Predict")).to_be_enabled(timeout=MINUTE)
            return "Answered by version 1" in page.locator("main").inner_text()

        eventually(is_live, 60)
        expect(page.get_by_role("table", name="Predictions")).to_be_visible()
        page.get_by_role("button", name="Get the files").click()
        expect(page.get_by_role("link", name="Model archive")).to_have_attribute(
            "href", re.compile("model.tar.gz")
        )
        (books,) = harness.deployment.book.totals(month_of(datetime.now(UTC)), "visitor")
        # What has it spent this month? One click.
        page.get_by_role("link", name="Costs").click()
        visit.loaded("Costs")
        expect(page.locator("main")).to_contain_text(f"${books.usd:.4f}"[:6])
        visit.forgive("status of 409")


def test_a_file_in_parts_is_uploaded_from_the_browser(harness: Harness, browser: Browser, tmp_path: Path) -> None:
    harness.create("heavy", tier="standard")
    user(harness, "heavy", "tenant-admins", "heavy")
    harness.run("pause", "tenant", "heavy")
    file = tmp_path / "large.csv"
    lines = 70 * 1024**2 // 12
    file.write_text("target,a\n" + "1,123456789\n" * lines)
    with visit_as(harness, browser, "heavy") as visit:
        visit.go("/t/heavy/data-sets", "Data sets")
        visit.page.get_by_label("File", exact=True).set_input_files(file)
        expect(visit.page.get_by_role("button", name="Upload", exact=True)).to_be_enabled()
        visit.page.get_by_role("button", name="Upload", exact=True).click()
        expect(visit.page.locator(".uploads")).to_contain_text("large.csv is uploaded", timeout=MINUTE)
    bucket = harness.deployment.tenant("heavy").bucket
    assert preflight(harness, bucket, harness.cloud.url) == harness.cloud.url
    assert preflight(harness, bucket, "https://example.com") is None, "another page may not"
    assert preflight(harness, harness.outputs["PoolBucket"], harness.cloud.url) == harness.cloud.url
    (request,) = eventually(lambda: list(harness.deployment.scheduler.tables.requests.of_tenant("heavy")))
    assert request.content.size_bytes == file.stat().st_size
    assert harness.run("tenant", "delete", "heavy", "--yes", "--purge") == 0


def preflight(harness: Harness, bucket: str, origin: str) -> str | None:
    """Ask as a browser does before it puts a file; return the origin that may, or None."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    request = urllib.request.Request(f"{harness.cloud.url}/{bucket}/incoming/x", headers=headers, method="OPTIONS")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return str(response.headers["Access-Control-Allow-Origin"])
    except urllib.error.HTTPError:
        return None


def test_an_operator_sees_why_things_wait_and_fail_and_what_a_policy_would_change(
    harness: Harness, browser: Browser
) -> None:
    user(harness, "sees", "operators")
    harness.put(harness.create("broken"), "incoming/wine/bad.csv", b"a,b\n1,2\n" * 50)
    (failed,) = harness.ended("broken", 1)
    assert failed.state is State.FAILED
    bucket = harness.create("queued", tier="standard")
    policy = harness.deployment.policies.in_force()
    with visit_as(harness, browser, "sees") as visit:
        page = visit.page
        page.get_by_role("button", name="Pause tier standard").click()
        page.get_by_label("Reason").fill("a test of the console")
        page.get_by_role("dialog").get_by_role("button", name="Pause tier standard").click()
        expect(page.locator("main")).to_contain_text("a test of the console")
        harness.put(bucket, "incoming/wine/wine.csv", WINE)
        eventually(lambda: list(harness.deployment.scheduler.tables.requests.of_tenant("queued")))
        page.get_by_role("link", name="Queue").click()
        visit.loaded("Queue")
        expect(page.locator("main")).to_contain_text("the tier is paused", timeout=MINUTE)
        assert visit.violations() == []
        # Why did the last run fail? One click shows the reason, two the request.
        page.get_by_role("link", name="Failures").click()
        visit.loaded("Failures")
        expect(page.locator("main")).to_contain_text("no column 'target'", timeout=MINUTE)
        assert visit.violations() == []
        for name in ("Activity", "Tenants"):
            page.get_by_role("link", name=name, exact=True).click()
            visit.loaded(name)
        # What would a policy change? Two clicks, and the change itself.
        page.get_by_role("link", name="Policy", exact=True).click()
        visit.loaded("Policy")
        text = page.get_by_label("Policy (YAML)")
        assert text.input_value() == policy.text
        text.fill(policy.text.replace("  standard:\n    quota: 2", "  standard:\n    quota: 1"))
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("main")).to_contain_text("The policy is valid", timeout=MINUTE)
        expect(page.locator("main")).to_contain_text("queued/wine")
        expect(page.locator(".diff")).to_contain_text("+    quota: 1")
        assert visit.violations() == []
        page.get_by_role("link", name="Overview").click()
        visit.loaded("Overview")
        page.get_by_role("button", name="Resume tier standard").click()
        page.get_by_role("dialog").get_by_role("button", name="Resume tier standard").click()
        expect(page.locator("main")).to_contain_text("Tier standard has been resumed")
    assert harness.deployment.policies.in_force() == policy, "nothing was applied"
    harness.ended("queued", 1)


def test_every_page_is_accessible_and_fits_at_both_widths(harness: Harness, browser: Browser) -> None:
    harness.put(harness.create("looked", tier="standard"), "incoming/wine/wine.csv", WINE)
    (request,) = harness.ended("looked", 1)
    user(harness, "looks", "operators")
    pages = {
        "/overview": "Overview",
        "/queue": "Queue",
        "/activity": "Activity",
        "/failures": "Failures",
        "/deployments": "Deployments",
        "/tenants": "Tenants",
        "/costs": "All costs",
        "/dead-letters": "Dead letters",
        "/policy": "Policy",
        "/waves": "Waves",
        "/t/looked/requests": "Requests",
        f"/t/looked/requests/{request.request_id}": f"Request {request.request_id[:8]}",
        "/t/looked/data-sets": "Data sets",
        "/t/looked/models": "Models",
        "/t/looked/models/1": "Model version 1",
        "/t/looked/deployments": "Deployments",
        "/t/looked/costs": "Costs",
        "/t/looked/keys": "Keys",
    }
    for width, theme in ((WIDE, "light"), (NARROW, "dark")):
        with visit_as(harness, browser, "looks", width=width, theme=theme) as visit:
            for path, heading in pages.items():
                visit.go(path, heading)
                assert visit.violations() == [], (path, width)
                assert (visit.overflow(), visit.clipped()) == (0, []), (path, width)


def test_a_session_is_renewed_until_it_cannot_be(harness: Harness, browser: Browser) -> None:
    harness.create("lasting")
    user(harness, "lasting", "tenant-readers", "lasting")
    with visit_as(harness, browser, "lasting") as visit:
        visit.loaded("Requests")

        def with_session(**changes: Any) -> None:
            session = json.loads(visit.page.evaluate("sessionStorage.getItem('trainyard.session')")) | changes
            visit.page.evaluate("(text) => sessionStorage.setItem('trainyard.session', text)", json.dumps(session))
            visit.page.reload()

        with_session(id="x.y.z")
        visit.loaded("Requests")
        assert visit.page.evaluate("sessionStorage.getItem('trainyard.session')").count(".") > 2, "another token"
        with_session(until=0)
        visit.loaded("Requests")
        with_session(id="x.y.z", refresh="none")
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in")
        expect(visit.page.locator("main")).to_contain_text("Your session has ended.")
        visit.page.get_by_label("E-mail address").fill("lasting@example.com")
        visit.page.get_by_label("Password").fill("wrong")
        visit.page.get_by_role("button", name="Sign in").click()
        expect(visit.page.get_by_role("alert")).to_contain_text("The e-mail address or the password is wrong.")
        visit.page.get_by_label("Password").fill(PASSWORD)
        visit.page.get_by_role("button", name="Sign in").click()
        visit.loaded("Requests")
        visit.forgive("status of 40")


def test_a_new_user_chooses_a_password_first(harness: Harness, browser: Browser) -> None:
    harness.create("newcomer")
    users, pool = harness.cloud.client("cognito-idp"), harness.outputs["ApiUsers"]
    named = [{"Name": "email", "Value": "new@example.com"}, {"Name": "custom:tenant", "Value": "newcomer"}]
    users.admin_create_user(
        UserPoolId=pool,
        Username="new@example.com",
        UserAttributes=named,
        MessageAction="SUPPRESS",
        TemporaryPassword="Given-by-mail-1",
    )
    with Visit(browser, harness.outputs["ApiAddress"]) as visit:
        page = visit.page
        page.goto(f"{visit.address}/console#/t/newcomer/models")
        page.get_by_label("E-mail address").fill("new@example.com")
        page.get_by_label("Password").fill("Given-by-mail-1")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Choose a new password")
        page.get_by_label("New password").fill(PASSWORD)
        page.get_by_role("button", name="Continue").click()
        # Without a group, a user may see nothing yet.
        expect(page.locator("main .banner")).to_be_visible()
        users.admin_add_user_to_group(UserPoolId=pool, Username="new@example.com", GroupName="tenant-readers")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.goto(f"{visit.address}/console#/t/newcomer/models")
        page.get_by_label("E-mail address").fill("new@example.com")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        visit.loaded("Models")
        visit.forgive("status of 403")


def code_of(key: str) -> str:
    """Return what an authenticator app shows for a key now (RFC 6238)."""
    counter = struct.pack(">Q", int(time.time() // 30))
    mac = hmac.new(base64.b32decode(key.replace(" ", "")), counter, hashlib.sha1).digest()
    begin = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[begin : begin + 4])[0] & 0x7FFFFFFF) % 1_000_000:06d}"


def test_an_authenticator_app_is_set_up_asked_for_and_removed(harness: Harness, browser: Browser) -> None:
    harness.create("careful")
    user(harness, "careful", "tenant-readers", "careful")
    with visit_as(harness, browser, "careful") as visit:
        page, dialog = visit.page, visit.page.get_by_role("dialog")
        page.get_by_role("link", name="careful, tenant-reader").click()
        visit.loaded("Account")
        expect(page.locator("main")).to_contain_text("careful@example.com")
        assert visit.violations() == []
        page.get_by_role("button", name="Set up").click()
        key = dialog.locator("code").inner_text()
        assert visit.violations() == []
        dialog.get_by_label("Code").fill("000000")
        dialog.get_by_role("button", name="Set up").click()
        expect(dialog.get_by_role("alert")).to_be_visible()
        dialog.get_by_label("Code").fill(code_of(key))
        dialog.get_by_role("button", name="Set up").click()
        expect(page.locator("main")).to_contain_text("is asked for from the next sign-in on")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("E-mail address").fill("careful@example.com")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Enter the code")
        page.get_by_label("Code").fill(code_of(key))
        page.get_by_role("button", name="Continue").click()
        visit.loaded("Requests")
        page.get_by_role("link", name="careful, tenant-reader").click()
        visit.loaded("Account")
        page.get_by_role("button", name="Remove").click()
        dialog.get_by_role("button", name="Remove").click()
        expect(page.locator("main")).to_contain_text("is not asked for any more")
        visit.forgive("status of 400")


def test_a_password_is_changed_and_one_that_is_forgotten_is_chosen_anew(
    harness: Harness, browser: Browser
) -> None:
    harness.create("forgetful")
    user(harness, "forgetful", "tenant-readers", "forgetful")
    second, third = "Another-horse-8-battery", "Yet-another-9-battery"
    with visit_as(harness, browser, "forgetful") as visit:
        page, dialog = visit.page, visit.page.get_by_role("dialog")
        page.get_by_role("link", name="forgetful, tenant-reader").click()
        visit.loaded("Account")
        page.get_by_role("button", name="Change the password").click()
        dialog.get_by_label("Present password").fill("wrong")
        dialog.get_by_label("New password").fill(second)
        dialog.get_by_role("button", name="Change").click()
        expect(dialog.get_by_role("alert")).to_be_visible()
        dialog.get_by_label("Present password").fill(PASSWORD)
        dialog.get_by_role("button", name="Change").click()
        expect(page.locator("main")).to_contain_text("The password is changed.")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("E-mail address").fill("forgetful@example.com")
        page.get_by_role("button", name="Forgot the password?").click()
        expect(page.get_by_label("E-mail address")).to_have_value("forgetful@example.com")
        page.get_by_role("button", name="Send a code").click()
        page.get_by_label("Code").fill("111111")
        page.get_by_label("New password").fill(third)
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_contain_text("code")
        page.get_by_label("Code").fill(MAILED)
        page.get_by_role("button", name="Continue").click()
        visit.loaded("Requests")
        visit.forgive("status of 400")
