"""Notifications leave through the rules of the template: by e-mail, to a webhook over TLS, and to Slack."""

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cli import doctor
from cli.dlq import counts
from local.cloud import ACCOUNT_ID, REGION
from local.deploy import deploy
from tests.e2e.conftest import OPTIONS, Harness, eventually
from tests.e2e.test_tenants import WINE

KEY = "of-the-webhook-only"


class Receiver(ThreadingHTTPServer):
    """Takes posts over TLS; answers with the status that its path asks for, and with 500 before the first 200."""

    daemon_threads = True

    def __init__(self, certificate: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        self.failed: set[str] = set()

    def bodies(self, path: str) -> list[Any]:
        return [body for posted_to, _, body in self.posts if posted_to == path]

    def url(self, path: str) -> str:
        return f"https://localhost:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 403 if self.path == "/refuses" else 200
        if status == 200 and self.path not in self.server.failed:
            self.server.failed.add(self.path)
            status = 500
        if status == 200:
            self.server.posts.append((self.path, dict(self.headers), body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log each request."""


@pytest.fixture
def receiver(harness: Harness) -> Iterator[Receiver]:
    server = Receiver(harness.certificate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    deploy(harness.cloud, parameters=OPTIONS)
    server.shutdown()


def failed_upload(harness: Harness, tenant_id: str) -> str:
    """Upload what cannot be read, under a name that is not nice; return the request's id."""
    harness.drop(tenant_id, 'incoming/wine/"quoted" <b>.csv', b"PK\x03\x04 not a table")
    (request,) = harness.ended(tenant_id)
    return request.request_id


@pytest.mark.thorough
def test_events_of_the_chosen_tenants_are_mailed_posted_and_written_into_a_channel(
    harness: Harness, receiver: Receiver
) -> None:
    harness.create("notified")
    harness.create("unnoticed")
    deploy(
        harness.cloud,
        parameters=OPTIONS
        | {
            "NotificationEmail": "operators@example.com",
            "NotificationWebhookUrl": receiver.url("/hook"),
            "NotificationWebhookKey": KEY,
            "NotificationSlackUrl": receiver.url("/slack"),
            "NotificationTenants": "notified,nobody",
            "NotificationEvents": "Training Request Rejected,Training Request Failed,Tenant Suspended",
        },
    )
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT_ID}:trainyard-notifications"
    mails = harness.inbox(topic)
    sns = harness.cloud.client("sns")
    (mail, _) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert (mail["Protocol"], mail["Endpoint"]) == ("email", "operators@example.com")
    assert doctor._recipients(harness.deployment, topic) == (
        1,
        1,
    )  # the queue; the mail waits for its confirmation

    failed_upload(harness, "unnoticed")
    request_id = failed_upload(harness, "notified")
    assert harness.run("tenant", "suspend", "notified") == 0
    eventually(lambda: len(receiver.bodies("/hook")) == 2 and len(receiver.bodies("/slack")) == 2)

    (failed,) = [e for e in receiver.bodies("/hook") if e["detail-type"] == "Training Request Failed"]
    (suspended,) = [e for e in receiver.bodies("/hook") if e["detail-type"] == "Tenant Suspended"]
    assert (failed["detail"]["tenant_id"], failed["detail"]["request_id"]) == ("notified", request_id)
    assert failed["detail"]["reason"]
    assert suspended["detail"]["tenant_id"] == "notified"
    assert all(headers["X-Trainyard-Key"] == KEY for path, headers, _ in receiver.posts if path == "/hook")
    assert KEY not in str([headers for path, headers, _ in receiver.posts if path == "/slack"])
    texts = {
        f"Training Request Failed: tenant notified, request {request_id}": f"trainyard why {request_id}",
        "Tenant Suspended: tenant notified": "trainyard status",
    }
    assert sorted(body["text"] for body in receiver.bodies("/slack")) == sorted(
        f"*{what}*\n{command}" for what, command in texts.items()
    )
    assert sorted(eventually(lambda: mails() if len(mails()) == 2 else None)) == sorted(
        f'"{what}. {command}"' for what, command in texts.items()
    )


def test_a_post_that_is_refused_is_a_dead_letter_with_its_reason(
    harness: Harness, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.create("unheard")
    deploy(
        harness.cloud,
        parameters=OPTIONS | {"NotificationWebhookUrl": receiver.url("/refuses"), "NotificationWebhookKey": KEY},
    )
    request_id = failed_upload(harness, "unheard")
    eventually(lambda: counts(harness.deployment)["trainyard-undelivered-dlq"] == 1)
    capsys.readouterr()
    assert harness.run("dlq", "list") == 0
    assert "SDK_CLIENT_ERROR: Unable to invoke ApiDestination endpoint" in capsys.readouterr().out
    assert harness.run("dlq", "show", "trainyard-undelivered-dlq") == 0
    assert request_id in capsys.readouterr().out
    assert harness.run("dlq", "drop", "trainyard-undelivered-dlq", "--reason", "SDK_CLIENT_ERROR", "--yes") == 0
    harness.drop("unheard", "incoming/wine/wine.csv", WINE)
    assert len(harness.ended("unheard", count=2)) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"NotificationWebhookUrl": "https://example.com/hook"}, "requires NotificationWebhookKey"),
        (
            {"NotificationWebhookUrl": "http://example.com/hook", "NotificationWebhookKey": KEY},
            "NotificationWebhookUrl.*must be an https:// URL",
        ),
        (
            {"NotificationSlackUrl": "http://hooks.slack.com/services/x"},
            "NotificationSlackUrl.*must be the https:// URL",
        ),
        ({"NotificationWebhookKey": "user:secret"}, "NotificationWebhookKey.*without spaces and colons"),
        ({"NotificationEvents": "Training Request Faild"}, "NotificationEvents.*must be detail types"),
        ({"NotificationTenants": "acme, globex"}, "NotificationTenants.*without spaces"),
    ],
)
def test_what_eventbridge_would_refuse_is_refused_before_anything_changes(
    harness: Harness, wrong: dict[str, str], said: str
) -> None:
    def events() -> int:
        return len(
            harness.cloud.client("cloudformation").describe_stack_events(StackName="trainyard")["StackEvents"]
        )

    before = events()
    with pytest.raises(ClientError, match=said):
        deploy(harness.cloud, parameters=OPTIONS | wrong)
    assert events() == before
