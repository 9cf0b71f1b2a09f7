"""Pictures of the console after the demo, for the documentation; and whether anything in them is cut off."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.demo.api import OPERATOR, Login
from testing.browser import CHROMIUM, MISSING, NARROW, WIDE, Visit, chromium

SECONDS_MAX = 30
BUDGET = "\ntenants:\n  elm: {budget_usd: 0.05}\n"
"""Less than a run of elm could cost, so that its next one waits."""
RAISED = ("budget_usd: 0.05", "budget_usd: 50")


@dataclass(frozen=True)
class Screen:
    """A page as a user sees it."""

    name: str
    user: str
    path: str
    heading: str
    act: Callable[[Visit], None] | None = None
    """What is done before the picture is taken."""


def screens(waiting: str, failed: str, succeeded: str) -> Iterator[Screen]:
    """Yield all pages; `waiting` and `succeeded` are requests of elm, `failed` is one of aster."""
    yield Screen("overview", OPERATOR, "/overview", "Overview")
    yield Screen("queue", OPERATOR, "/queue", "Queue")
    yield Screen("activity", OPERATOR, "/activity", "Activity")
    yield Screen("failures", OPERATOR, "/failures", "Failures")
    yield Screen("deployments", OPERATOR, "/deployments", "Deployments")
    yield Screen("tenants", OPERATOR, "/tenants", "Tenants")
    yield Screen("all-costs", OPERATOR, "/costs", "All costs")
    yield Screen("dead-letters", OPERATOR, "/dead-letters", "Dead letters")
    yield Screen("policy", OPERATOR, "/policy", "Policy", _compare)
    yield Screen("requests", "elm", "/t/elm/requests", "Requests")
    yield Screen("waiting", "elm", f"/t/elm/requests/{waiting}", f"Request {waiting[:8]}")
    yield Screen("failed", "aster", f"/t/aster/requests/{failed}", f"Request {failed[:8]}")
    yield Screen("steps", "elm", f"/t/elm/requests/{succeeded}", f"Request {succeeded[:8]}", _log)
    yield Screen("settings", "elm", "/t/elm/data-sets", "Data sets", _settings)
    yield Screen("upload", "elm", "/t/elm/data-sets", "Data sets", _quote)
    yield Screen("models", "elm", "/t/elm/models", "Models")
    yield Screen("model", "elm", "/t/elm/models/1", "Model version 1")
    yield Screen("keys", "elm", "/t/elm/keys", "Keys", _key)
    yield Screen("costs", "elm", "/t/elm/costs", "Costs")


def _compare(visit: Visit) -> None:
    text = visit.page.get_by_label("Policy (YAML)")
    text.fill(text.input_value().replace(*RAISED))
    visit.page.get_by_role("button", name="Compare").click()
    visit.page.get_by_text("The policy is valid").wait_for()


def _key(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Make a key").click()
    visit.page.get_by_role("dialog").get_by_label("Name").fill("nightly upload")


def _log(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Log of Train").first.click()
    visit.page.locator("pre.log span").first.wait_for()


def _settings(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Settings of").first.click()
    visit.page.get_by_role("dialog").wait_for()


def _quote(visit: Visit) -> None:
    rows = "is_fraud,amount\n" + "".join(f"{number % 2},{number}\n" for number in range(500))
    file: Any = {"name": "payments.csv", "mimeType": "text/csv", "buffer": rows.encode()}
    visit.page.get_by_label("File", exact=True).set_input_files(file)
    visit.page.get_by_text("Expected cost").wait_for()


def draw(demo: Any, folder: Path) -> list[str]:
    """Let a request wait, and save a picture of each page at both widths, in both themes; return what is wrong."""
    if CHROMIUM is None:
        return [MISSING]
    limited = Path(demo.cloud.home) / "policy.yaml"
    limited.write_text(demo.deployment.policies.in_force().text + BUDGET, encoding="utf-8")
    demo.trainyard("policy", "apply", "--yes", "--note", "a budget for elm", str(limited))
    demo.trainyard("pause", "tier", "basic", "--note", "quota increase under way")
    demo.cloud.client("s3").put_object(
        Bucket=demo.deployment.tenant("elm").bucket,
        Key=f"{demo.deployment.tenant('elm').root}incoming/payments/more.csv",
        Body=b"is_fraud,amount\n" + b"".join(b"%d,%d\n" % (number % 2, number) for number in range(200)),
    )
    waiting, failed = _request(demo, "elm", "QUEUED"), _request(demo, "aster", "FAILED")
    succeeded = _request(demo, "elm", "SUCCEEDED")
    folder.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with chromium() as browser:
        for width in (WIDE, NARROW):
            for theme in ("light", "dark"):
                for screen in screens(waiting, failed, succeeded):
                    (login,) = (each for each in demo.logins if each.name == screen.user)
                    wrong += _drawn(demo, browser, screen, login, folder, width, theme)
    return wrong


def _request(demo: Any, tenant: str, state: str) -> str:
    """Return a tenant's request in a state, once there is one."""
    limit = time.monotonic() + SECONDS_MAX
    while time.monotonic() < limit:
        with contextlib.suppress(StopIteration):
            requests = demo.deployment.scheduler.tables.requests.of_tenant(tenant)
            return str(next(each.request_id for each in requests if each.state == state))
        time.sleep(0.5)
    raise TimeoutError(f"tenant {tenant} has no request that is {state}")


def _drawn(
    demo: Any, browser: Any, screen: Screen, login: Login, folder: Path, width: int, theme: str
) -> list[str]:
    """Save a picture of one page; return what is wrong with it."""
    visit = Visit(browser, demo.deployment.outputs["ApiAddress"], width=width, theme=theme)
    visit.sign_in(login.email, login.password)
    visit.go(screen.path, screen.heading)
    if screen.act is not None:
        screen.act(visit)
    name = f"{screen.name}-{width}-{theme}"
    visit.page.screenshot(path=folder / f"{name}.png", full_page=width == WIDE)
    wrong = [f"{name}: {text!r} is cut off, or lies above something" for text in visit.clipped()]
    wrong += [f"{name}: wider than the window by {visit.overflow()} pixels"] if visit.overflow() else []
    wrong += [f"{name}: blank"] if visit.is_blank() else []
    wrong += [f"{name}: {problem}" for problem in visit.problems]
    visit.context.close()
    return wrong
