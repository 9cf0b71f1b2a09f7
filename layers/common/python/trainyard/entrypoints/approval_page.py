"""The page that a reviewer sees behind an approval link: HTML without scripts, safe for any text."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from trainyard.application.serving.approval import Quality, Review
from trainyard.domain.approval_links import COMMENT_LENGTH_MAX, Decision

STYLE = """
:root { color-scheme: light dark; --line: #c9ced6; --quiet: #59636e; --good: #0b6b3a; --bad: #a4262c; }
@media (prefers-color-scheme: dark) {
  :root { --line: #454c55; --quiet: #a9b2bd; --good: #1c7c4a; --bad: #b3373d; }
}
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 38rem; padding: 1.5rem 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; margin: 1.5rem 0; }
dt, dd { border-top: 1px solid var(--line); margin: 0; padding: .4rem .5rem .4rem 0; overflow-wrap: anywhere; }
dt, small { color: var(--quiet); }
label { display: block; margin-bottom: .25rem; }
textarea { box-sizing: border-box; font: inherit; min-height: 5rem; padding: .5rem; width: 100%; }
.buttons { display: flex; flex-wrap: wrap; gap: 1.5rem; margin: 1rem 0; }
button { border: 1px solid transparent; border-radius: .4rem; color: #fff; cursor: pointer; font: inherit;
  font-weight: 600; min-height: 2.75rem; min-width: 8rem; }
.approve { background: var(--good); }
.reject { background: var(--bad); }
button:focus-visible, textarea:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address is what gives the right to decide
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
"""Of every answer: nothing is loaded, framed, cached or told to other sites."""


def review_page(review: Review, *, is_new: bool = False) -> str:
    """Return the page of a version: with a form while nobody has decided, else with what was decided."""
    package = review.package
    title = f"Version {package.version} of {package.data_set}"
    if package.is_pending:
        return _page(f"Approve {title[0].lower()}{title[1:]}?", _table(review) + _form(review))
    state = "approved" if package.is_approved else "rejected"
    comment = f": {package.comment}" if package.comment else ""
    words = f"<p>Recorded {_time(package.changed_at)}{escape(comment)}</p>"
    more = "<p>You can close this page. An operator can change the decision.</p>"
    heading = f"{title} is now {state}" if is_new else f"{title} was {state} before"
    return _page(heading, words + more + _table(review))


def problem_page(title: str, words: str, *, has_way_back: bool = False) -> str:
    """Return the page that says why nothing was decided, perhaps with the way back to the version."""
    back = "<p><a href=''>Back to the version</a></p>" if has_way_back else ""
    return _page(title, f"<p>{escape(words)}</p>{back}")


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def _table(review: Review) -> str:
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(review))
    return f"<dl>{''.join(rows)}</dl>"


def _facts(review: Review) -> Iterator[tuple[str, str]]:
    package, live = review.package, review.live
    yield "Tenant", package.tenant_id
    yield "Data set", package.data_set
    yield "Version", f"{package.version}, registered {_time(package.created_at)}"
    if review.algorithm:
        yield "Algorithm", review.algorithm
    if review.rows is not None:
        yield "Rows", f"{review.rows:,}"
    yield "Quality", _words(review.quality) + (_change(review.quality, live.quality) if live else "")
    yield "Live now", f"version {live.version}: {_words(live.quality)}" if live else "no version of this data set"
    yield "Request", package.request_id
    yield "Link", f"for {review.link.reviewer}, valid until {_time(review.link.expires_at)}"


def _words(quality: Quality | None) -> str:
    if quality is None:
        return "not known any more"
    baseline = "" if quality.baseline is None else f" (baseline {quality.baseline:.3f})"
    return f"{quality.value:.3f} {quality.metric}{baseline}"


def _change(quality: Quality | None, live: Quality | None) -> str:
    if quality is None or live is None or quality.metric != live.metric:
        return ""
    return f", {quality.value - live.value:+.3f} against the live version"


def _form(review: Review) -> str:
    suspended = " The tenant is suspended: nothing is deployed until it is resumed." if review.is_suspended else ""
    return (
        "<form method='post'>"
        "<label for='comment'>Reason <small>(optional, recorded with the decision)</small></label>"
        f"<textarea id='comment' name='comment' maxlength='{COMMENT_LENGTH_MAX}'></textarea>"
        "<div class='buttons'>"
        f"<button class='approve' name='decision' value='{Decision.APPROVE}'>Approve</button>"
        f"<button class='reject' name='decision' value='{Decision.REJECT}'>Reject</button></div></form>"
        "<p><small>An approved version is deployed where the service deploys models, and answers calls once it "
        "has passed its smoke test. A rejected one changes nothing. Once somebody has decided, only an operator "
        f"can change that.{suspended}</small></p>"
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
