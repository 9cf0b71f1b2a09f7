"""Approval links: their text, what they decide, and the page behind them."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from random import Random
from types import ModuleType
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from testing.memory_ports import MemoryTenants
from testing.memory_serving import MemoryModelPackages
from testing.memory_store import MemoryStore
from tests.build import NOW, request, submission, tenant
from tests.unit.test_functions import Context, load
from trainyard.adapters.aws import approval_links, serving
from trainyard.adapters.aws.approval_links import KmsLinks
from trainyard.application.serving.approval import Approvals, Decided, LiveVersion, Quality, Review
from trainyard.application.serving.ports import ModelPackage
from trainyard.contracts.approval_links import (
    FORM_BYTES_MAX,
    LENGTH_MAX,
    content_of,
    message_of,
    parse_decision,
    parse_link,
    text_of,
)
from trainyard.domain.approval_links import (
    COMMENT_LENGTH_MAX,
    REVIEWER_LENGTH_MAX,
    VALID_MAX,
    ApprovalLink,
    Decision,
    LinkFault,
    comment_of,
)
from trainyard.domain.errors import Malformed, OutcomeUnknown, Refused, Throttled
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.requests import Outcome, Request
from trainyard.entrypoints import bootstrap
from trainyard.entrypoints.approval_page import HEADERS, STYLE, problem_page, review_page
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions

LINK = ApprovalLink(
    tenant_id="acme",
    version=3,
    request_id="0123456789abcdef" * 2,
    expires_at=NOW + timedelta(days=7),
    reviewer="ada@example.com",
)
FORM = "application/x-www-form-urlencoded"
HOSTILE = "<script>alert(1)</script>'\"><img src=x onerror=y>&amp;"


class OwnLinks:
    """Signs by a key in memory, as KMS does by one that nobody can read."""

    def __init__(self, key: bytes = b"key") -> None:
        self.key, self.verified = key, 0

    def write(self, link: ApprovalLink) -> str:
        content = content_of(link)
        return text_of(content, self._code(message_of(content)))

    def read(self, text: str) -> ApprovalLink:
        return parse_link(text).link

    def is_genuine(self, text: str) -> bool:
        self.verified += 1
        signed = parse_link(text)
        return hmac.compare_digest(self._code(signed.message), signed.signature)

    def _code(self, message: bytes) -> bytes:
        return hmac.new(self.key, message, hashlib.sha256).digest()


@dataclass
class Harness:
    links: OwnLinks = field(default_factory=OwnLinks)
    tenants: MemoryTenants = field(default_factory=MemoryTenants)
    packages: MemoryModelPackages = field(default_factory=MemoryModelPackages)
    requests: dict[str, Request] = field(default_factory=dict)

    def __post_init__(self) -> None:
        store = MemoryStore()
        self.owner = self.tenants.put(tenant())
        self.aliases, self.versions = Aliases(store, lambda _: None), ModelVersions(store)
        self.approvals = Approvals(
            links=self.links,
            tenants=self.tenants,
            packages=self.packages,
            arn_of=lambda group, version: f"{group}/{version}",
            requests=self.requests,
            aliases=self.aliases,
            versions=self.versions,
        )
        self.register(LINK.version, LINK.request_id)

    def register(self, version: int, request_id: str, **fields: Any) -> None:
        package = ModelPackage(
            arn=f"{self.owner.model_group}/{version}",
            group=self.owner.model_group,
            version=version,
            is_approved=False,
            changed_at=NOW,
            tenant_id="acme",
            data_set="churn",
            request_id=request_id,
            model_uri="s3://bucket/model.tar.gz",
            image_uri="registry/image:1",
            is_pending=True,
            created_at=NOW,
        )
        self.packages.packages[package.arn] = replace(package, **fields)

    @property
    def package(self) -> ModelPackage:
        package = self.packages.get(f"{self.owner.model_group}/{LINK.version}")
        assert package is not None
        return package

    def decide(self, decision: Decision, words: str = "", now: datetime = NOW, **fields: Any) -> Decided:
        return self.approvals.decide(self.links.write(replace(LINK, **fields)), decision, words, now)


@pytest.mark.parametrize(
    "link",
    [
        LINK,
        replace(LINK, reviewer="Ada Lovelace, Zürich 🚂"),
        replace(LINK, reviewer="\U0001f682" * REVIEWER_LENGTH_MAX, tenant_id="a" * 24, version=10**9),
        replace(LINK, reviewer='"\\' * (REVIEWER_LENGTH_MAX // 2)),
    ],
)
def test_a_link_is_read_as_it_was_written_and_is_short_enough(link: ApprovalLink) -> None:
    text = OwnLinks().write(link)
    assert parse_link(text).link == link
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}", text)
    assert len(text) <= LENGTH_MAX
    assert OwnLinks().is_genuine(text)
    assert not OwnLinks(b"another").is_genuine(text)


def test_no_text_but_the_one_that_was_signed_is_genuine() -> None:
    links, random = OwnLinks(), Random(7)
    text = links.write(LINK)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=%+/ \n"
    changed = {text[:n] + c + text[n + 1 :] for n in range(len(text)) for c in random.sample(alphabet, 8)}
    changed |= (
        {text[:n] for n in range(len(text))} | {text + c for c in alphabet} | {text + text, f"{text}.{text}"}
    )
    accepted = []
    for forged in changed - {text}:
        try:
            genuine = links.is_genuine(forged)
        except Malformed:
            continue
        if genuine:
            accepted.append(forged)
    assert accepted == []
    assert len(changed) > 1500


@pytest.mark.parametrize(
    "fields",
    [
        {"reviewer": ""},
        {"reviewer": "  "},
        {"reviewer": "a\nb"},
        {"reviewer": "\u202eadmin"},
        {"reviewer": "x" * (REVIEWER_LENGTH_MAX + 1)},
        {"tenant_id": "Acme"},
        {"tenant_id": "acme\n"},
        {"version": 0},
        {"request_id": "x"},
        {"request_id": "0" * 32 + "\n"},
    ],
)
def test_no_link_is_written_with_values_that_none_can_have(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        content_of(replace(LINK, **fields))


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "null",
        "1" * 5000,
        '{"tenant": "acme"}',
        json.dumps({"tenant": "acme", "version": "3", "request": "0" * 32, "expires": 1, "reviewer": "a"}),
        json.dumps({"tenant": "acme", "version": 3, "request": "0" * 32, "expires": 1e400, "reviewer": "a"}),
        json.dumps({"tenant": "acme", "version": 3, "request": "0" * 32, "expires": 2**60, "reviewer": "a"}),
        json.dumps({"tenant": "acme", "version": 3, "request": "0" * 32, "expires": 1, "reviewer": "a", "x": 1}),
    ],
)
def test_content_that_is_signed_and_yet_no_link_is_malformed(content: str) -> None:
    encoded = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")
    code = hmac.new(b"key", message_of(encoded), hashlib.sha256).digest()
    with pytest.raises(Malformed):
        parse_link(text_of(encoded, code))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("decision=approve", (Decision.APPROVE, "")),
        ("decision=reject&comment=", (Decision.REJECT, "")),
        ("decision=reject&comment=too+few%20rows", (Decision.REJECT, "too few rows")),
        (urlencode({"decision": "approve", "comment": "é" * COMMENT_LENGTH_MAX}), (Decision.APPROVE, "é" * 400)),
        ("decision=reject&comment=" + "x" * 399 + "%0D%0A", (Decision.REJECT, "x" * 399)),
        ("decision=reject&comment=" + "x%0D%0A" * 200, (Decision.REJECT, " ".join("x" * 200))),
        ("", None),
        ("decision", None),
        ("decision=", None),
        ("decision=Approved", None),
        ("decision=approve&decision=approve", None),
        ("decision=approve&status=Approved", None),
        ("decision=approve&comment=%ff", None),
        (urlencode({"decision": "approve", "comment": "é" * (COMMENT_LENGTH_MAX + 1)}), None),
        ("&".join(f"a{n}=1" for n in range(100)), None),
    ],
)
def test_a_form_is_a_decision_or_is_refused(body: str, expected: tuple[Decision, str] | None) -> None:
    if expected is None:
        with pytest.raises(Malformed):
            parse_decision(body)
    else:
        form = parse_decision(body)
        assert (form.decision, form.comment) == expected


def test_what_a_reviewer_writes_is_one_line_of_printable_characters_in_the_registry() -> None:
    form = parse_decision(urlencode({"decision": "reject", "comment": " too\r\n few\x1b[31m\u202e rows\0 "}))
    assert comment_of(Decision.REJECT, LINK, form.comment) == (
        "rejected by link for ada@example.com: too few[31m rows"
    )
    assert comment_of(Decision.APPROVE, LINK, "") == "approved by link for ada@example.com"
    train = "\U0001f682"
    link = replace(LINK, reviewer=train * REVIEWER_LENGTH_MAX)
    longest = comment_of(Decision.APPROVE, link, train * COMMENT_LENGTH_MAX)
    units = len(longest.encode("utf-16-le")) // 2
    assert units <= 1024, "ApprovalDescription, UpdateModelPackage in the API reference"


def test_a_decision_changes_the_registry_once_and_a_second_one_is_told_of_the_first() -> None:
    harness = Harness()
    later = NOW + timedelta(hours=1)
    first = harness.decide(Decision.APPROVE, "fine", later)
    assert (first.review.package.is_approved, first.review.package.is_pending) == (True, False)
    assert (first.is_new, first.review.package.changed_at) == (True, later)
    assert harness.package.comment == first.review.package.comment == "approved by link for ada@example.com: fine"
    again = harness.decide(Decision.APPROVE, "finer", reviewer="bob")
    assert again.is_new is False
    assert again.review.package.comment == "approved by link for ada@example.com: fine"
    assert harness.package.comment == "approved by link for ada@example.com: fine"
    with pytest.raises(Refused) as refused:
        harness.decide(Decision.REJECT)
    assert refused.value.kind == LinkFault.DECIDED
    assert harness.package.is_approved


def test_a_rejection_moves_nothing_else_and_an_approval_after_it_is_refused() -> None:
    harness = Harness()
    assert harness.decide(Decision.REJECT).review.package.is_approved is False
    assert (harness.package.is_pending, harness.package.is_approved) == (False, False)
    harness.decide(Decision.REJECT)
    with pytest.raises(Refused, match="was rejected before"):
        harness.decide(Decision.APPROVE)


CASES: dict[str, tuple[Callable[[Harness], object], dict[str, Any], LinkFault]] = {
    "valid for longer than any": (
        lambda harness: None,
        {"expires_at": NOW + VALID_MAX + timedelta(seconds=1)},
        LinkFault.INVALID,
    ),
    "expired just now": (lambda harness: None, {"expires_at": NOW}, LinkFault.EXPIRED),
    "another key": (lambda harness: setattr(harness.links, "key", b"x"), {}, LinkFault.INVALID),
    "no such tenant": (lambda harness: None, {"tenant_id": "other"}, LinkFault.GONE),
    "no such version": (lambda harness: None, {"version": 4}, LinkFault.GONE),
    "a version of another training": (lambda harness: None, {"request_id": "f" * 32}, LinkFault.GONE),
    "a package of another tenant": (
        lambda harness: harness.register(3, LINK.request_id, tenant_id="other"),
        {},
        LinkFault.GONE,
    ),
    "approved otherwise": (
        lambda harness: harness.packages.approve(harness.package.arn, ""),
        {},
        LinkFault.DECIDED,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_link_that_does_not_hold_decides_nothing(case: str) -> None:
    prepare, fields, fault = CASES[case]
    harness = Harness()
    text = harness.links.write(replace(LINK, **fields))
    prepare(harness)
    before = dict(harness.packages.packages)
    with pytest.raises(Refused) as refused:
        harness.approvals.decide(text, Decision.REJECT, "", NOW)
    assert refused.value.kind == fault
    assert harness.packages.packages == before


def test_what_has_expired_or_is_no_link_costs_no_verification() -> None:
    harness = Harness()
    forever = NOW + timedelta(days=10_000)
    expired, endless = (harness.links.write(replace(LINK, expires_at=at)) for at in (NOW, forever))
    for text in ("x", "x.y", "A" * 5000, expired, endless):
        with pytest.raises(Refused):
            harness.approvals.review(text, NOW)
    assert harness.links.verified == 0


def test_a_link_is_valid_until_the_second_in_which_it_expires() -> None:
    harness = Harness()
    text = harness.links.write(LINK)
    assert harness.approvals.review(text, LINK.expires_at - timedelta(microseconds=1)).link == LINK
    longest = replace(LINK, expires_at=NOW + VALID_MAX)
    assert harness.approvals.review(harness.links.write(longest), NOW).link == longest


def test_a_review_compares_with_the_version_that_is_live() -> None:
    harness = Harness()
    good = Outcome(quality=0.9, quality_metric="roc_auc", baseline=0.5, rows=1200)
    live = submission(2, data_set="churn")
    harness.requests[LINK.request_id] = replace(request(3), outcome=good, algorithm="linear")
    harness.requests[live.request_id] = replace(request(2), outcome=replace(good, quality=0.95))
    text = harness.links.write(LINK)
    assert harness.approvals.review(text, NOW).live is None
    harness.aliases.change("acme", "churn", lambda alias: replace(alias, live=2), NOW)
    harness.versions.put(
        ModelVersion(
            tenant_id="acme",
            data_set="churn",
            version=2,
            package_arn="x",
            request_id=live.request_id,
            model_uri="s3://b/k",
            state=VersionState.READY,
            since=NOW,
            approved_at=NOW,
        )
    )
    review = harness.approvals.review(text, NOW)
    assert review.live == LiveVersion(2, Quality("roc_auc", 0.95, 0.5))
    assert (review.algorithm, review.rows, review.quality) == ("linear", 1200, Quality("roc_auc", 0.9, 0.5))
    page = review_page(review)
    assert "version 2: 0.950 roc_auc (baseline 0.500)" in page
    assert "0.900 roc_auc (baseline 0.500), -0.050 against the live version" in page
    harness.aliases.change("acme", "churn", lambda alias: replace(alias, live=3), NOW)
    assert harness.approvals.review(text, NOW).live is None, "itself"


class Tags(HTMLParser):
    """Collects the elements of a page, and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}


def hostile_review(**fields: Any) -> Review:
    harness = Harness()
    package = replace(harness.package, data_set=HOSTILE, comment=HOSTILE, tenant_id=HOSTILE, **fields)
    return Review(
        link=replace(LINK, reviewer=HOSTILE),
        package=package,
        algorithm=HOSTILE,
        quality=Quality(HOSTILE, 0.9, None),
        rows=3,
        live=LiveVersion(2, Quality(HOSTILE, 0.8, 0.5)),
        is_suspended=False,
    )


@pytest.mark.parametrize(
    "page",
    [
        review_page(hostile_review()),
        review_page(hostile_review(is_pending=False)),
        review_page(hostile_review(is_pending=False, is_approved=True), is_new=True),
        problem_page(HOSTILE, HOSTILE),
        problem_page(HOSTILE, HOSTILE, has_way_back=True),
    ],
)
def test_text_that_is_hostile_to_html_is_shown_as_text(page: str) -> None:
    tags = Tags(page)
    plain = {"html", "head", "meta", "title", "style", "body", "main", "h1", "p", "dl", "dt", "dd"}
    form = {"form", "label", "small", "textarea", "div", "button", "a"}
    assert set(tags.elements) <= plain | form
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("src", "style")}
    assert re.findall(r"href='([^']*)'", page) in ([], [""])
    assert "&lt;script&gt;" in page


def test_only_a_version_that_nobody_has_decided_about_has_a_form() -> None:
    assert "form" in Tags(review_page(hostile_review())).elements
    assert "form" not in Tags(review_page(hostile_review(is_pending=False))).elements


def test_the_style_of_the_page_is_the_one_that_the_security_policy_names() -> None:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in HEADERS["Content-Security-Policy"]
    assert f"<style>{STYLE}</style>" in problem_page("a", "b")
    assert "script-src" not in HEADERS["Content-Security-Policy"]


SAFE = {
    "Cache-Control": "no-store",
    "Content-Type": "text/html; charset=utf-8",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def review(self, *_: Any) -> Review:
        raise self.error

    decide = review


@pytest.mark.parametrize(
    ("quality", "live", "shown"),
    [
        (Quality("r2", 0.5, 0.0), Quality("r2", 0.25, None), "0.500 r2 (baseline 0.000), +0.250 against the live"),
        (Quality("r2", 0.5, None), Quality("roc_auc", 0.25, None), "0.500 r2</dd>"),
        (Quality("r2", 0.5, None), None, "0.500 r2</dd>"),
        (None, Quality("r2", 0.25, None), "not known any more</dd>"),
    ],
)
def test_qualities_are_compared_where_they_have_one_metric(
    quality: Quality | None, live: Quality | None, shown: str
) -> None:
    review = replace(hostile_review(), quality=quality, live=LiveVersion(2, live))
    assert f"<dt>Quality</dt><dd>{shown}" in review_page(review)
    assert "no version of this data set" in review_page(replace(review, live=None))
    assert "<dt>Rows</dt>" not in review_page(replace(review, rows=None))


def test_times_are_shown_in_utc_and_a_suspended_tenant_is_told() -> None:
    zurich = ZoneInfo("Europe/Zurich")
    review = hostile_review(created_at=datetime(2026, 11, 21, 1, 0, tzinfo=zurich))
    assert "registered 2026-11-21 00:00 UTC" in review_page(review)
    assert "is suspended" not in review_page(review)
    assert "The tenant is suspended" in review_page(replace(review, is_suspended=True))


def test_the_form_sends_what_its_buttons_say() -> None:
    page = review_page(hostile_review())
    buttons = re.findall(r"<button class='\w+' name='decision' value='(\w+)'>(\w+)</button>", page)
    assert buttons == [("approve", "Approve"), ("reject", "Reject")]
    assert "<form method='post'>" in page
    assert f"name='comment' maxlength='{COMMENT_LENGTH_MAX}'" in page
    for value, words in buttons:
        assert parse_decision(urlencode({"comment": "x", "decision": value})).decision.name == words.upper()


def test_what_was_decided_is_told_by_whether_it_is_new() -> None:
    rejected = hostile_review(is_pending=False)
    assert "is now rejected</h1>" in review_page(rejected, is_new=True)
    assert "was rejected before</h1>" in review_page(rejected)
    assert "was approved before</h1>" in review_page(hostile_review(is_pending=False, is_approved=True))


def called(
    method: str, path: str, body: str | None = None, *, module: ModuleType | None = None, **more: Any
) -> dict[str, Any]:
    """Return what the function answers to an event of API Gateway (payload format 2.0)."""
    event = {
        "version": "2.0",
        "routeKey": f"{method} /approvals/{{text}}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"},
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default", "requestId": "r"},
        "isBase64Encoded": False,
        **({} if body is None else {"body": body}),
    } | more
    answer: dict[str, Any] = (module or load("approvals")).handler(event, Context())
    return answer


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Throttled("slow down"), 503),
        (OutcomeUnknown("no answer"), 503),
        (RuntimeError("of the service"), 500),
        (Refused("no", kind=LinkFault.INVALID), 404),
        (Refused("no", kind=LinkFault.EXPIRED), 410),
        (Refused("no", kind=LinkFault.GONE), 410),
        (Refused("no", kind=LinkFault.DECIDED), 409),
        (Refused("no", kind=LinkFault.DISABLED), 503),
        (Refused("of the service"), 500),
    ],
)
def test_every_error_is_a_page_that_says_nothing_of_the_service(
    error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "approvals", lambda: Failing(error))
    for answer in (called("GET", "/approvals/x.y"), called("POST", "/approvals/x.y", "decision=approve")):
        assert answer["statusCode"] == status
        assert answer["headers"].items() >= SAFE.items()
        policy = dict(part.split(" ", 1) for part in answer["headers"]["Content-Security-Policy"].split("; "))
        assert policy.pop("style-src").startswith("'sha256-")
        none, own = "'none'", "'self'"
        assert policy == {"default-src": none, "form-action": own, "base-uri": none, "frame-ancestors": none}
        assert "of the service" not in re.sub("It is an error of the service", "", answer["body"])
        assert "slow down" not in answer["body"]
    if isinstance(error, Throttled):
        assert answer["headers"]["Retry-After"] == "60"


def test_a_path_that_is_no_link_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "approvals", lambda: Harness().approvals)
    for path in ("/", "/approvals", "/approvals/", "/approvals/a/b", "/approvals/%2e%2e", "/approvals/é"):
        assert called("GET", path)["statusCode"] == 404
    assert called("PUT", "/approvals/x")["statusCode"] == 404


def test_the_log_of_a_decision_names_everything_but_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    harness, module, lines = Harness(), load("approvals"), []
    monkeypatch.setattr(bootstrap, "approvals", lambda: harness.approvals)
    monkeypatch.setattr(module.logger, "info", lambda *words, **more: lines.append((words, more)))
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    text = harness.links.write(replace(LINK, expires_at=tomorrow))
    for decision, status in (("reject", 200), ("reject", 200), ("approve", 409)):
        assert called("POST", f"/approvals/{text}", f"decision={decision}", module=module)["statusCode"] == status
    decided = {"tenant_id": "acme", "version": 3, "decision": "reject", "reviewer": "ada@example.com"}
    assert lines == [
        (("decided",), {"extra": decided}),
        (("decided before",), {"extra": decided}),
        (("refused",), {"extra": {"kind": LinkFault.DECIDED}}),
    ]


FORMS: dict[str, tuple[bytes, str, int]] = {
    "a decision": (b"decision=reject&comment=too+few", "application/x-www-form-urlencoded", 200),
    "with a charset": (b"decision=reject", "Application/X-WWW-Form-URLencoded; charset=UTF-8", 200),
    "JSON": (b'{"decision": "reject"}', "application/json", 415),
    "no type": (b"decision=reject", "", 415),
    "of the greatest size": (b"decision=reject&" + b"x" * (FORM_BYTES_MAX - 16), FORM, 400),
    "too large": (b"decision=reject&" + b"x" * (FORM_BYTES_MAX - 15), FORM, 413),
    "not in UTF-8": (b"decision=reject&comment=\xff", FORM, 400),
    "empty": (b"", FORM, 400),
}


NOT_TEXT = "not in UTF-8"
"""The case that only base64 can carry."""


@pytest.mark.parametrize(
    ("case", "is_encoded"), [(case, how) for case in FORMS for how in (True, False) if how or case != NOT_TEXT]
)
def test_forms_are_read_as_api_gateway_sends_them(
    case: str, is_encoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It encodes forms in base64, as all that it does not take for text."""
    body, content_type, status = FORMS[case]
    harness = Harness()
    monkeypatch.setattr(bootstrap, "approvals", lambda: harness.approvals)
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    text = base64.b64encode(body).decode() if is_encoded else body.decode("latin-1")
    answer = called(
        "POST",
        f"/approvals/{harness.links.write(replace(LINK, expires_at=tomorrow))}",
        text,
        isBase64Encoded=is_encoded,
        headers={"content-type": content_type},
    )
    assert answer["statusCode"] == status
    assert harness.package.is_pending is (status != 200)
    assert ("Back to the version" in answer["body"]) is (status != 200)
    if case == "a decision":
        assert harness.package.comment.endswith("ada@example.com: too few")


def test_a_body_that_is_not_base64_though_it_says_so_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "approvals", lambda: Harness().approvals)
    assert called("POST", "/approvals/x", "é", isBase64Encoded=True)["statusCode"] == 400


@pytest.mark.parametrize("operation", ["generate_mac", "verify_mac"])
@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("DisabledException", 409, Refused),
        ("KMSInvalidStateException", 409, Refused),
        ("NotFoundException", 400, Refused),
        ("AccessDeniedException", 400, ClientError),
        ("InvalidKeyUsageException", 400, ClientError),
        ("ThrottlingException", 400, Throttled),
        ("KMSInternalException", 500, OutcomeUnknown),
    ],
)
def test_an_error_of_kms_is_never_taken_for_a_genuine_signature(
    operation: str, code: str, status: int, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    kms = boto3.client("kms", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr(approval_links, "client", lambda service, *, hurried: {"kms": kms}[service])
    links, text = KmsLinks("key"), OwnLinks().write(LINK)
    calls: dict[str, Callable[[], object]] = {
        "generate_mac": lambda: links.write(LINK),
        "verify_mac": lambda: links.is_genuine(text),
    }
    with Stubber(kms) as stubber:
        stubber.add_client_error(operation, code, http_status_code=status)
        with pytest.raises(expected) as raised:
            calls[operation]()
    if expected is Refused:
        assert raised.value.kind == LinkFault.DISABLED  # type: ignore[attr-defined]


def test_kms_is_asked_about_the_very_text_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    kms = boto3.client("kms", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr(approval_links, "client", lambda service, *, hurried: {"kms": kms}[service])
    text = OwnLinks().write(LINK)
    content, _, _ = text.partition(".")
    message = b"trainyard approval link 1\n" + content.encode()
    code = hmac.new(b"key", message, hashlib.sha256).digest()
    asked = {"KeyId": "key", "MacAlgorithm": "HMAC_SHA_256", "Message": message}
    with Stubber(kms) as stubber:
        stubber.add_response("generate_mac", {"Mac": code}, asked)
        assert KmsLinks("key").write(LINK) == text
        stubber.add_response("verify_mac", {"MacValid": True}, asked | {"Mac": code})
        assert KmsLinks("key").is_genuine(text)
        stubber.add_client_error("verify_mac", "KMSInvalidMacException")
        assert not KmsLinks("key").is_genuine(text)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_signature_of_another_length_is_malformed(length: int) -> None:
    with pytest.raises(Malformed, match="bytes instead of 32"):
        parse_link(text_of(content_of(LINK), b"x" * length))


def test_a_registry_that_somebody_else_is_changing_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = boto3.client("sagemaker", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr(serving, "client", lambda service: {"sagemaker": registry}[service])
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model-package/trainyard--acme/3"
    asked = {"ModelPackageArn": arn, "ModelApprovalStatus": "Rejected", "ApprovalDescription": "why"}
    with Stubber(registry) as stubber:
        stubber.add_client_error("update_model_package", "ConflictException", expected_params=asked)
        with pytest.raises(Throttled):
            serving.SageMakerPackages().reject(arn, "why")
        stubber.add_client_error("update_model_package", "ValidationException")
        with pytest.raises(ClientError):
            serving.SageMakerPackages().approve(arn, "why")
        approved = asked | {"ModelApprovalStatus": "Approved"}
        stubber.add_response("update_model_package", {"ModelPackageArn": arn}, approved)
        serving.SageMakerPackages().approve(arn, "why")
