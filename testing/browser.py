"""The console in a headless Chromium, for tests and pictures."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Response, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = (
    "WARNING: Chromium was not found: the console is not tested in a browser. Debian and Ubuntu: apt-get install "
    "chromium"
)

LOADED_SECONDS_MAX = 5
"""Of a page of the console, with few things stored."""
TEXT_MIN = 20
"""Characters of a page that is not blank."""
WIDE, NARROW = 1440, 375
"""Widths in pixels."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
"""Tags of axe's rules."""
_OBSERVER = """
window.layoutShift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.layoutShift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser; without a sandbox, since root has none."""
    with sync_playwright() as playwright:
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", *quiet]
        )
        yield browser
        browser.close()


class Visit:
    """A tab with the console. What its pages log as an error, and whatever was not to be fetched, is a problem."""

    def __init__(
        self, browser: Browser, address: str, *, width: int = WIDE, theme: Any = "light", token: str | None = None
    ) -> None:
        """`address`: of the HTTP API. With a `token`, its bearer is signed in."""
        self.address = address
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, timezone_id="UTC", locale="en-GB"
        )
        self.context.add_init_script(_OBSERVER)
        if token is not None:
            session = f'{{"id": "{token}", "refresh": null, "until": null}}'
            self.context.add_init_script(
                f"sessionStorage.getItem('trainyard.session') || "
                f"sessionStorage.setItem('trainyard.session', '{session}')"
            )
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.answers: list[Response] = []
        self.page.on("console", lambda message: self._note(message.type == "error", message.text))
        self.page.on("pageerror", lambda error: self._note(True, str(error)))
        self.page.on("dialog", lambda dialog: self._note(True, f"dialog: {dialog.message}"))
        self.page.on("response", self._answered)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.problems == [], self.problems

    def _answered(self, answer: Response) -> None:
        self.answers.append(answer)

    def _note(self, is_problem: bool, text: str) -> None:
        if is_problem:
            self.problems.append(text)

    def go(self, path: str, heading: str, seconds: float = LOADED_SECONDS_MAX) -> None:
        """Open a page of the console, and wait until it has its data."""
        self.page.goto(f"{self.address}/console#{path}")
        self.loaded(heading, seconds)

    def loaded(self, heading: str, seconds: float = LOADED_SECONDS_MAX) -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)
        expect(self.page.locator(".live")).to_contain_text("Updated", timeout=seconds * 1000)

    def sign_in(self, email: str, password: str) -> None:
        self.page.goto(f"{self.address}/console")
        self.page.get_by_label("E-mail address").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.locator("nav a").first).to_be_visible()

    def violations(self) -> list[str]:
        """Return what axe finds, as rule and element."""
        found = Axe().run(self.page, options={"runOnly": {"type": "tag", "values": RULES}})
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found.response["violations"]]

    def layout_shift(self) -> float:
        """Return how far what was shown moved by itself, as the browser counts it (web.dev/cls)."""
        return float(self.page.evaluate("window.layoutShift"))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return max(0, int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")))

    def is_blank(self) -> bool:
        """Tell whether the page shows hardly anything, as one whose script has failed."""
        shown = self.page.locator("main").inner_text() + self.page.locator("h1").first.inner_text()
        return len("".join(shown.split())) < TEXT_MIN

    def clipped(self) -> list[str]:
        """Return the texts that are cut off by what contains them, or lie above each other."""
        return list(self.page.evaluate(_CLIPPED))

    def forgive(self, *texts: str) -> None:
        """Forget problems that a test has caused on purpose."""
        self.problems = [each for each in self.problems if not any(text in each for text in texts)]


_CLIPPED = """() => {
  const shown = [...document.querySelectorAll("main *, header *")].filter((each) => each.checkVisibility() &&
    !each.closest("svg") && [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  const boxes = shown.map((each) => { const range = document.createRange(); range.selectNodeContents(each);
    return [each, range.getBoundingClientRect()];
  }).filter(([each]) => !each.matches(".unseen, textarea, select, option"));
  const { clientWidth } = document.documentElement;
  const outside = boxes.filter(([, box]) => box.width && box.right > 0 &&
    (box.left < -1 || box.right > clientWidth + 1));
  const above = boxes.filter(([each, box], index) => boxes.slice(index + 1).some(([other, second]) =>
    !each.contains(other) && !other.contains(each) && box.left < second.right - 2 && second.left < box.right - 2 &&
    box.top < second.bottom - 3 && second.top < box.bottom - 3));
  return [...outside, ...above].map(([each]) => each.textContent.trim().slice(0, 60));
}"""
