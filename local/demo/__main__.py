"""Run the whole product on this machine, show its progress, and check the results.

python -m local.demo [--keep]
"""

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from local.cloud import Cloud
from local.demo import api, checks, picture, serving
from local.demo.scenario import Scenario, build
from local.deploy import deploy
from local.sagemaker import interpreter

STACK = "trainyard"
POLICY = Path(__file__).with_name("policy.yaml")
PATIENCE_SECONDS = 180
PICTURED = 3
"""The number of requests of each tenant in the picture."""
STORM = 8
"""Dispatch passes that are started at once, repeatedly, in addition to those of the bell and the timer: limits
must hold even if other passes have committed in the meantime."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the local cloud running until Ctrl-C")
    parser.add_argument("--picture", type=Path, help="save a picture of the result to this file (SVG)")
    parser.add_argument("--screens", type=Path, help="save pictures of the console's pages in this folder (PNG)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        console.print(interpreter.described())
        console.print("starting the local cloud: AWS's services on this machine, without an account")
        with Cloud() as cloud:
            demo = Demo(cloud, console, began, arguments.picture)
            passed = demo.run()
            if arguments.screens is not None:
                from local.demo import screens

                wrong = screens.draw(demo, arguments.screens)
                console.print(*wrong or ["no page has anything cut off"], sep="\n", markup=False)
                passed = passed and not wrong
            if arguments.keep:
                _keep(cloud, console, demo)
    except KeyboardInterrupt:
        console.print("\nstopped; nothing is left behind")
        return 130
    if passed:
        console.print(NEXT, highlight=False)
    return 0 if passed else 1


PARAMETERS = {
    "Stage": "dev",
    "InstancePreferences": "true",
    "SharedServing": "true",
    "ApprovalLinks": "true",
    "HttpApi": "true",
}

NEXT = """
Next:
  make demo KEEP=1        the same, and the cloud runs on for your own commands
  ./trainyard --help      what an operator can do
  docs/tour.md            the life of one upload, step by step"""


class Demo:
    def __init__(self, cloud: Cloud, console: Console, began: float, picture_file: Path | None = None) -> None:
        self.cloud, self.console, self.began, self.picture_file = cloud, console, began, picture_file
        self.logins: list[api.Login] = []
        os.environ.update(cloud.environment())
        # Imported here, because clients read the environment when they are created.
        from cli.deployment import Deployment

        self.deployment = Deployment(STACK)

    def run(self) -> bool:
        self.say("the local cloud runs; deploying template.yaml to it")
        deploy(self.cloud, STACK, PARAMETERS)
        # Premium's runs prefer them, and get the next type instead.
        self.cloud.exhaust(checks.EXHAUSTED)
        self.say("deployed; its policies authorise all calls except those to SageMaker")
        scenario = build()
        self.say(f"creating {len(scenario.tenants)} tenants, each by a state machine")
        self.trainyard("policy", "apply", "--yes", str(POLICY))
        for tenant in scenario.tenants:
            self.trainyard("tenant", "create", tenant.name, "--tier", tenant.tier, *tenant.options)
        self.say(f"{len(scenario.tenants)} tenants created")
        self.trainyard("pause", "all")
        uploads = self.drop_all(scenario)
        self.disturb(uploads)
        self.await_enlisted()
        self.trainyard("resume", "all")
        resumed_at = datetime.now(UTC)
        self.storm()
        with self.live() as update:
            self.await_rest(update)
        self.say(f"all requests have ended; approving {len(serving.ASKS)} models, one of them by a link")
        answers = serving.serve(self.deployment, self.trainyard, Path(self.cloud.home))
        self.say("they are served, and have answered; checking the results")
        names = [tenant.name for tenant in scenario.tenants]
        self.logins = api.logins(self.deployment, names)
        seen = api.seen(self.deployment, self.logins, names)
        facts = checks.gather(self.cloud, self.deployment, uploads, resumed_at, answers, seen)
        for line in checks.request_lines(facts, self.console.width):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        results = checks.run_all(facts)
        claims = [
            f" {'[green]✓[/]' if result.passed else '[red]✗[/]'} {result.claim}: {result.found}"
            for result in results
        ]
        self.console.print(*claims, sep="\n")
        if self.picture_file is not None:
            picture.save(self.picture_file, Group(checks.request_table(facts, each=PICTURED), *claims))
        passed = all(result.passed for result in results)
        self.say("all checks passed" if passed else "[red]some checks failed[/]")
        if not passed:
            self.console.print(self.cloud.log_tail(20))
        return passed

    def drop_all(self, scenario: Scenario) -> list[checks.Upload]:
        s3 = self.cloud.client("s3")
        uploads: list[checks.Upload] = []
        for title, drops in scenario.waves:
            for drop in drops:
                tenant = self.deployment.tenant(drop.tenant)
                at = {"Bucket": tenant.bucket, "Key": tenant.root + drop.key}
                version_id = s3.put_object(**at, Body=drop.body)["VersionId"]
                uploads.append(checks.Upload(drop, tenant.bucket, at["Key"], version_id))
            self.say(f"{len(drops)} objects uploaded: {title}")
            time.sleep(0.5)
        return uploads

    def disturb(self, uploads: list[checks.Upload]) -> None:
        """Deliver one upload event five more times, send a malformed event, and request a retraining."""
        sqs, queue = self.cloud.client("sqs"), self.deployment.outputs["UploadsQueue"]
        for _ in range(5):
            sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(_event(uploads[0])))
        sqs.send_message(QueueUrl=queue, MessageBody='{"detail-type": "Object Created", "detail": {')
        self.trainyard("retrain", "fern", "--data-set", "cancer")
        self.say("an event repeated five times, a malformed one, a retraining requested")
        self.say("the service is paused: requests gather in the queues (some ten seconds)")

    def await_enlisted(self) -> None:
        """Wait until all requests are enlisted while paused; keep the dispatcher busy meanwhile."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while (status := self.status())["queued"] and time.monotonic() < limit:
            self.storm()
            time.sleep(1)
        waiting = sum(tier["waiting"] for tier in status["tiers"])
        self.say(f"paused: {waiting} requests are waiting for {status['limit']} slots; resuming")

    def await_rest(self, update: Any) -> None:
        """Show progress until no request waits or runs; raises TimeoutError with the status."""
        limit = time.monotonic() + PATIENCE_SECONDS
        quiet_since: float | None = None
        rounds = 0
        while quiet_since is None or time.monotonic() - quiet_since < 2.5:
            status = self.status()
            update(status)
            busy = status["busy"]
            quiet_since = None if busy else (quiet_since or time.monotonic())
            if time.monotonic() > limit:
                raise TimeoutError(f"still busy after {PATIENCE_SECONDS} s: {status}\n{self.cloud.log_tail()}")
            if rounds % 5 == 0:
                self.storm()
            rounds += 1
            time.sleep(0.4)

    def storm(self) -> None:
        for _ in range(STORM):
            self.cloud.client("lambda").invoke(
                FunctionName=self.deployment.outputs["DispatcherFunction"],
                InvocationType="Event",
                Payload=b'{"source": "storm"}',
            )

    def status(self) -> dict[str, Any]:
        policy, scheduler = self.deployment.policies.current(), self.deployment.scheduler
        ledger, backlog = scheduler.tables.ledger.read(), scheduler.tables.queues.backlog(policy)
        requests = [
            r
            for t in self.deployment.tenants.all()
            for r in self.deployment.scheduler.tables.requests.of_tenant(t.tenant_id)
        ]
        tiers: list[dict[str, Any]] = [
            {
                "tier": tier.name,
                "used": ledger.used_of_tier(tier.name),
                "quota": tier.quota,
                "waiting": backlog[tier.name].waiting,
                **{
                    state: sum(r.tier == tier.name and r.state == state for r in requests)
                    for state in ("RUNNING", "SUCCEEDED", "FAILED", "REJECTED", "SUPERSEDED")
                },
            }
            for tier in policy.tiers
        ]
        queued = sum(
            self.queued(name) for name in ("uploads", "status", *(f"tier-{t.name}" for t in policy.tiers))
        )
        busy = queued + ledger.used + sum(tier["waiting"] for tier in tiers)
        return {"tiers": tiers, "used": ledger.used, "limit": policy.running_max, "queued": queued, "busy": busy}

    def queued(self, name: str) -> int:
        url = self.deployment.outputs["UploadsQueue"].replace("-uploads", f"-{name}")
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[attribute]) for attribute in names)

    @contextmanager
    def live(self) -> Iterator[Any]:
        if not self.console.is_terminal:
            last = [0.0]

            def line(status: dict[str, Any]) -> None:
                if time.monotonic() - last[0] > 3:
                    last[0] = time.monotonic()
                    self.say(_status_line(status))

            yield line
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            yield lambda status: live.update(_status_table(status, time.monotonic() - self.began))

    def trainyard(self, *arguments: str) -> Any:
        """Run an operator's command in this process, without showing its output or progress; return its data."""
        from cli.app import answer

        with contextlib.redirect_stderr(io.StringIO()):
            answered = answer(self.deployment, *arguments)
        return answered.data if answered is not None else None

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f} s[/]  {text}")


def _event(upload: checks.Upload) -> dict[str, Any]:
    """Return an upload's event, as EventBridge delivers it."""
    return {
        "version": "0",
        "id": "00000000-0000-0000-0000-000000000000",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": "us-east-1",
        "resources": [f"arn:aws:s3:::{upload.bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": upload.bucket},
            "object": {"key": upload.key, "size": len(upload.drop.body), "version-id": upload.version_id},
            "reason": "PutObject",
        },
    }


def _status_line(status: dict[str, Any]) -> str:
    tiers = "; ".join(
        f"{t['tier']} {t['used']}/{t['quota']} slots, {t['waiting']} waiting, {t['SUCCEEDED'] + t['FAILED']} done"
        for t in status["tiers"]
    )
    return f"{status['used']}/{status['limit']} slots: {tiers}"


def _status_table(status: dict[str, Any], seconds: float) -> Group:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("TIER", "SLOTS", "", "WAITING", "RUNNING", "SUCCEEDED", "FAILED", "REJECTED", "SUPERSEDED"):
        table.add_column(column, justify="left" if column in ("TIER", "") else "right")
    for tier in status["tiers"]:
        bar = "[green]" + "■" * tier["used"] + "[/]" + "□" * (tier["quota"] - tier["used"])
        states = (str(tier[s]) for s in ("RUNNING", "SUCCEEDED", "FAILED", "REJECTED", "SUPERSEDED"))
        table.add_row(tier["tier"], f"{tier['used']}/{tier['quota']}", bar, str(tier["waiting"]), *states)
    head = Text(
        f"{seconds:5.1f} s  {status['used']} of {status['limit']} slots used, {status['queued']} messages queued"
    )
    return Group(head, table)


TRY = """
Then try:
  ./trainyard status
  ./trainyard requests fern
  ./trainyard why REQUEST          # with the first characters of a failed one
  ./trainyard logs REQUEST
  ./trainyard models elm
  ./trainyard costs
  aws s3 ls                        # if the AWS CLI is installed"""


API = """
The console (docs/console.md) is at {console}

Its users, and those of the HTTP API (docs/api.md), are {users}, all with the password {password}
To call the API as one of them:

  export ADDRESS='{address}'
  export TOKEN=$(curl -s "$AWS_ENDPOINT_URL" -H 'Content-Type: application/x-amz-json-1.1' \\
    -H 'X-Amz-Target: AWSCognitoIdentityProviderService.InitiateAuth' -d '{sign_in}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["AuthenticationResult"]["IdToken"])')
  curl -s -H "Authorization: Bearer $TOKEN" "$ADDRESS/v1/tenants/{name}/requests?limit=1"
"""


def _keep(cloud: Cloud, console: Console, demo: Demo) -> None:
    console.print("\nThe local cloud runs until Ctrl-C. To use it, paste this into another terminal:\n")
    for name, value in {**cloud.environment(), "TRAINYARD_STACK": STACK}.items():
        console.print(f"  export {name}={value}", highlight=False)
    console.print(TRY, highlight=False)
    outputs, login = demo.deployment.outputs, demo.logins[-1]
    sign_in = {
        "AuthFlow": "USER_PASSWORD_AUTH",
        "ClientId": outputs["ApiClient"],
        "AuthParameters": {"USERNAME": login.email, "PASSWORD": login.password},
    }
    text = API.format(
        address=outputs["ApiAddress"],
        console=outputs["ConsoleAddress"],
        users=", ".join(each.email for each in demo.logins),
        password=login.password,
        sign_in=json.dumps(sign_in),
        name=login.name,
    )
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main())
