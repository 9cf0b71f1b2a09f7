"""Models are approved and rejected over HTTP by people without credentials, whose links are signed."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import Harness, eventually
from tests.e2e.test_tenants import WINE
from trainyard.adapters.aws.approval_links import KmsLinks
from trainyard.domain.approval_links import ApprovalLink

FORM = "application/x-www-form-urlencoded"


class Page(NamedTuple):
    status: int
    text: str
    headers: Any


def fetched(address: str, body: bytes | None = None, content_type: str = FORM) -> Page:
    """Send a request as a browser does; it is repeated while the address is asked too often."""
    headers = {"Content-Type": content_type} if body is not None else {}

    def answer() -> Page | None:
        request = urllib.request.Request(address, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Page(response.status, response.read().decode(), response.headers)
        except urllib.error.HTTPError as error:
            return None if error.code == 429 else Page(error.code, error.read().decode(), error.headers)

    return eventually(answer)


def sent(address: str, decision: str, comment: str = "") -> Page:
    return fetched(address, urllib.parse.urlencode({"decision": decision, "comment": comment}).encode())


def link_for(
    harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str, version: int, reviewer: str = "ada"
) -> str:
    capsys.readouterr()
    assert harness.run("--json", "models", "link", tenant_id, str(version), "--for", reviewer) == 0
    return str(json.loads(capsys.readouterr().out)["link"])


def models(
    harness: Harness, capsys: pytest.CaptureFixture[str], tenant_id: str = "reviewed"
) -> dict[int, dict[str, Any]]:
    capsys.readouterr()
    assert harness.run("--json", "models", "list", tenant_id) == 0
    return {model["version"]: model for model in json.loads(capsys.readouterr().out)}


@pytest.mark.thorough
def test_a_version_is_approved_by_link_and_answers_and_the_next_one_is_rejected(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = harness.create("reviewed")
    for number in (1, 2):
        harness.put(bucket, "incoming/wine/wine.csv", WINE + b"\n" * number)
        harness.ended("reviewed", count=number)
    first, second = (link_for(harness, capsys, "reviewed", number, "ada <b>") for number in (1, 2))
    shown = fetched(first)
    assert shown.status == 200
    assert "<form method='post'>" in shown.text
    assert "ada &lt;b&gt;" in shown.text
    assert "no version of this data set" in shown.text
    assert {model["status"] for model in models(harness, capsys).values()} == {"PendingManualApproval"}

    approved = sent(first, "approve", "looks <i>good</i>\r\n")
    assert (approved.status, "<form" in approved.text) == (200, False)
    assert "looks &lt;i&gt;good&lt;/i&gt;" in approved.text
    (model, other) = models(harness, capsys).values()
    assert (model["status"], model["comment"]) == (
        "Approved",
        "approved by link for ada <b>: looks <i>good</i>",
    )
    assert other["status"] == "PendingManualApproval"
    assert set(model["metadata"]) >= {"tenant", "data_set", "request"}

    def is_live() -> bool:
        capsys.readouterr()
        assert harness.run("--json", "serving", "show", "reviewed") == 0
        return any(v["version"] == 1 and v["percent"] == 100 for v in json.loads(capsys.readouterr().out))

    eventually(is_live, 60)
    assert "is now approved" in approved.text
    again = sent(first, "approve", "another reason")
    assert (again.status, "is now approved" in again.text, "another reason" in again.text) == (200, False, False)
    assert sent(first, "reject").status == 409
    assert models(harness, capsys)[1]["status"] == "Approved"

    shown = fetched(second)
    assert "<dt>Live now</dt><dd>version 1: " in shown.text
    assert "+0.000 against the live version" in shown.text
    assert sent(second, "reject", "too few rows").status == 200
    capsys.readouterr()
    assert harness.run("models", "list", "reviewed") == 0
    assert "version 2: rejected by link for ada <b>: too few rows" in capsys.readouterr().out
    assert sent(second, "approve").status == 409
    assert harness.run("models", "reject", "reviewed", "2", "--reason", "of rows, too few\n") == 1
    assert "one line of at most 400 printable characters" in capsys.readouterr().err
    assert harness.run("models", "reject", "reviewed", "2") == 0
    assert models(harness, capsys)[2]["comment"] == "rejected by an operator", "not the reviewer's words any more"
    assert harness.run("models", "link", "reviewed", "2", "--for", "ada") == 1
    assert "is Rejected" in capsys.readouterr().err


@pytest.mark.thorough
def test_nothing_is_decided_by_what_the_deployment_has_not_signed_or_a_form_that_is_none(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.put(harness.create("forged"), "incoming/wine/wine.csv", WINE)
    harness.ended("forged")
    link = link_for(harness, capsys, "forged", 1)
    base, _, text = link.rpartition("/")
    content, _, signature = text.partition(".")
    links, request_id = (
        KmsLinks(harness.outputs["ApprovalKeyArn"]),
        models(harness, capsys, "forged")[1]["request"],
    )
    now = datetime.now(UTC).replace(microsecond=0)
    true = ApprovalLink(
        tenant_id="forged",
        version=1,
        request_id=request_id,
        expires_at=now + timedelta(days=1),
        reviewer="ada",
    )

    def changed(**fields: Any) -> str:
        return links.write(replace(true, **fields))

    other_key = harness.cloud.client("kms").create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
    foreign = KmsLinks(other_key["KeyMetadata"]["Arn"]).write(true)
    longer = changed(expires_at=now + timedelta(days=29))
    wrong: dict[str, tuple[str, int]] = {
        "another deployment's": (foreign, 404),
        "content of one, signature of another": (f"{longer.partition('.')[0]}.{signature}", 404),
        "cut off": (text[:-1], 404),
        "without a signature": (content, 404),
        "longer than any": (text + "A" * 5000, 404),
        "nothing": ("%00", 404),
        "expired": (changed(expires_at=now - timedelta(seconds=1)), 410),
        "another training's": (changed(request_id="0" * 32), 410),
        "of a version that is not there": (changed(version=2), 410),
        "of a tenant that is not there": (changed(tenant_id="forged-not"), 410),
    }
    for name, (forged, status) in wrong.items():
        assert fetched(f"{base}/{forged}").status == status, name
        assert sent(f"{base}/{forged}", "approve").status == status, name
    bodies: dict[str, tuple[bytes, str, int]] = {
        "JSON": (b'{"decision": "approve"}', "application/json", 415),
        "no decision": (b"comment=x", FORM, 400),
        "another decision": (b"decision=PendingManualApproval", FORM, 400),
        "two decisions": (b"decision=reject&decision=approve", FORM, 400),
        "a field of no form": (b"decision=approve&percent=100", FORM, 400),
        "a long comment": (b"decision=approve&comment=" + b"x" * 401, FORM, 400),
        "a large body": (b"decision=approve&comment=" + b"x" * 9000, FORM, 413),
        "no text": (b"decision=approve&comment=%ff", FORM, 400),
        "bytes": (b"\xff\xfe", FORM, 400),
        "an empty body": (b"", FORM, 400),
    }
    for name, (body, content_type, status) in bodies.items():
        answer = fetched(link, body, content_type)
        assert answer.status == status, f"{name}: {answer}"
        assert "<form" not in answer.text
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert models(harness, capsys, "forged")[1]["status"] == "PendingManualApproval"
    assert fetched(f"{base}/").status == 404
    assert sent(f"{base}/{changed()}", "approve").status == 200, "none of it was refused for another reason"


def test_a_burst_of_requests_is_throttled_before_it_reaches_the_function(harness: Harness) -> None:
    address = f"{harness.outputs['ApprovalsAddress']}/approvals/x"

    def status() -> int:
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    eventually(lambda: status() == 404)
    statuses = [status() for _ in range(30)]
    assert 429 in statuses
    assert set(statuses) <= {404, 429}, statuses
