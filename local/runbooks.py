"""Write docs/runbooks.md: plant faults in the local cloud, run the commands, and keep what they print.

    python -m local.runbooks          writes the page

A command whose output lacks what the operator is to see there fails the run, and the tests.
"""

import io
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.cloud import Cloud
from local.demo import data
from local.deploy import deploy

if TYPE_CHECKING:
    from cli.deployment import Deployment

PAGE = Path(__file__).parents[1] / "docs/runbooks.md"
POLICY = Path(__file__).with_name("demo") / "policy.yaml"
WIDTH = 100
LINES_MAX = 24
"""Of a command's output that the page shows."""

PATIENCE_SECONDS = 120
INTRODUCTION = f"""# Runbooks

What to do on a bad day: the commands in their order, with what they print. `make runbooks` wrote this page: it
planted each fault in the local cloud, ran the commands and kept their output, {WIDTH} columns wide. Ids, times and
names are those of that run. Nothing here was run on AWS.

To rehearse, run `make demo KEEP=1` and plant the fault yourself ([rehearsing](operations.md#rehearsing)).
"""


@dataclass
class Runbook:
    """A page that is written while its commands are run."""

    cloud: Cloud
    deployment: "Deployment"
    folder: Path
    lines: list[str] = field(default_factory=list)

    def section(self, title: str, symptom: str) -> None:
        self.lines += ["", f"## {title}", "", symptom]

    def text(self, text: str) -> None:
        self.lines += ["", text]

    def command(self, words: str, expect: str) -> str:
        """Run a command and keep what it prints, which must match `expect`; return all of it."""
        printed = self.run(words)
        whole = "\n".join(printed)
        if re.search(expect, " ".join(whole.split())) is None:
            raise AssertionError(f"trainyard {words}: {expect!r} is not in\n{whole}")
        more = len(printed) - LINES_MAX
        shown = [*printed[:LINES_MAX], f"… {more} more lines"] if more > 1 else printed
        typed = _without_folders(words, self.folder)
        self.lines += ["", "```console", f"$ trainyard {typed}", *(line for line in shown if line), "```"]
        return whole

    def run(self, words: str) -> list[str]:
        """Return the lines that a command prints on a terminal; of an error its reason."""
        from cli.app import answer
        from cli.show import lines_of
        from trainyard.domain.errors import TrainyardError

        printed, progress = io.StringIO(), io.StringIO()
        with redirect_stdout(printed), redirect_stderr(progress):
            try:
                answered = answer(self.deployment, *shlex.split(words))
            except TrainyardError as error:
                return [f"trainyard: {error}"]
        shown = [] if answered is None else [line.text for line in lines_of(answered, WIDTH)]
        lines = [line.rstrip() for line in (*printed.getvalue().splitlines(), *shown)]
        return [_without_folders(line, self.folder) for line in lines]

    # --- what happens in the background -----------------------------------------------------------------------

    def quietly(self, words: str) -> None:
        """Run a command that the page does not show."""
        printed = self.run(words)
        if printed and printed[0].startswith("trainyard: "):
            raise AssertionError(f"trainyard {words}: {printed}")

    def file(self, name: str, body: bytes | str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body if isinstance(body, bytes) else body.encode())
        return str(path)

    def upload(self, tenant: str, body: bytes, name: str = "table.csv") -> None:
        owner = self.deployment.tenant(tenant)
        key = f"{owner.root}incoming/customers/{name}"
        self.cloud.client("s3").put_object(Bucket=owner.bucket, Key=key, Body=body)

    def request(self, tenant: str, wanted: Callable[[Any], bool]) -> str:
        """Wait for a tenant's newest request to be as wanted; return the beginning of its id."""

        def newest() -> Any:
            requests = self.deployment.scheduler.tables.requests.recent_of_tenant(tenant, limit=1)
            return requests[0] if requests and wanted(requests[0]) else None

        return str(self.wait(newest).request_id[:8])

    def wait(self, look: Callable[[], Any]) -> Any:
        limit = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < limit:
            seen = look()
            if seen:
                return seen
            time.sleep(0.2)
        raise AssertionError(f"not within {PATIENCE_SECONDS} s")


def _without_folders(line: str, folder: Path) -> str:
    """Return a line without this machine's temporary folders: on AWS, a container's paths begin with /opt/ml."""
    return re.sub(r"/tmp/trainyard-\w+/jobs/[^/]+/\d+(?=/opt/ml)", "", line.replace(f"{folder}/", ""))  # noqa: S108


def ended(state: str) -> Callable[[Any], bool]:
    return lambda request: request.state.value == state


# --- the pages ------------------------------------------------------------------------------------------------


def model_did_not_come(book: Runbook) -> None:
    book.section("“My model did not come”", "A tenant has uploaded a table, and finds no model.")
    book.quietly("tenant create birch --tier basic --target churned")
    book.upload("birch", data.bundled("wine"))
    request = book.request("birch", ended("FAILED"))
    book.text(
        "Its requests tell what became of each upload. One that is not there was not uploaded below `incoming/`."
    )
    book.command("requests birch", r"FAILED .*churned")
    book.text(
        "The data lacks the column that the tenant is set to predict. The receipt says the same to the tenant."
    )
    book.command(f"why {request}", r"churned")
    book.text("Either the tenant uploads a table that has the column, or its setting is wrong:")
    book.command("tenant update birch --target target", r'"target": "target"')
    book.command(f"retry {request}", r"asked for")
    book.request("birch", ended("SUCCEEDED"))
    book.command("models birch", r"roc_auc|balanced_accuracy")


def tier_stuck(book: Runbook) -> None:
    book.section("A tier is stuck", "Requests of a tier wait, and none starts.")
    book.quietly("tenant create cedar --tier basic --target target")
    book.quietly("pause tier basic")
    book.upload("cedar", data.bundled("wine"))
    request = book.request("cedar", ended("QUEUED"))
    book.wait(lambda: "paused" in " ".join(book.run("queue")))  # once its quiet period is over
    book.text("The first lines of `status` are what needs attention:")
    book.command("status", r"basic is paused since")
    book.command("queue", r"paused")
    book.command(f"why {request}", r"trainyard resume tier basic")
    book.text("Somebody paused it. Ask that person, or resume it:")
    book.command("resume tier basic", r"resumed tier basic")
    book.request("cedar", ended("SUCCEEDED"))


def quota_lowered(book: Runbook) -> None:
    book.section(
        "SageMaker's quota is lower than the policy",
        "Requests go back to the queue although slots are free: the account's own limit is reached.",
    )
    book.quietly("tenant create maple --tier basic --target target")
    book.cloud.plant_faults(
        {
            "operation": "StartPipelineExecution",
            "code": "ResourceLimitExceeded",
            "message": "The account-level service limit 'Maximum number of concurrent pipeline executions' is 1",
            "times": 1000,
        }
    )
    book.upload("maple", data.bundled("wine"))
    request = book.request("maple", lambda r: r.state.value == "QUEUED" and "ResourceLimit" in (r.reason or ""))
    book.command(f"why {request}", r"ResourceLimitExceeded.* it is tried again at the expected start")
    book.text(
        "`doctor` compares the account's quotas with what the policy may start, and names one that is too low. "
        "Here only SageMaker's refusal is planted, and the quotas are in order:"
    )
    book.command("doctor", r"ok SageMaker quotas")
    book.text(
        "Ask for a higher quota in Service Quotas, or lower `running_max` of the policy below it. Requests are "
        "tried again by themselves, with longer and longer pauses; nothing is lost."
    )
    book.cloud.plant_faults()
    book.request("maple", ended("SUCCEEDED"))


def outage(book: Runbook) -> None:
    book.section("SageMaker does not answer", "An outage: starts are refused, or get no response.")
    book.quietly("tenant create aspen --tier basic --target target")
    book.cloud.plant_faults(
        {
            "operation": "StartPipelineExecution",
            "code": "ServiceUnavailable",
            "message": "try later",
            "times": 1000,
        }
    )
    book.upload("aspen", data.bundled("wine"))
    request = book.request(
        "aspen", lambda r: r.state.value == "QUEUED" and "ServiceUnavailable" in (r.reason or "")
    )
    book.command(f"why {request}", r"ServiceUnavailable|has not confirmed its start")
    book.command("status", r"1 request went back to the queue, \w+ last: ServiceUnavailable")
    book.text(
        "There is nothing to do: each start has a token, so that one that SageMaker carried out is not repeated, "
        "and what has ended meanwhile is looked up. To start nothing more until it is over: `trainyard pause all`."
    )
    book.cloud.plant_faults()
    book.request("aspen", ended("SUCCEEDED"))
    book.command("requests aspen", r"SUCCEEDED")


def costs_jump(book: Runbook) -> None:
    book.section("Costs jump", "The alarm `CostAnomaly`, or a bill that nobody expected.")
    book.text("Who, and since when:")
    book.command("costs --by tenant", r"birch")
    book.command("costs --by day", r"\d{4}-\d\d-\d\d")
    book.command("requests birch --limit 5", r"SUCCEEDED")
    book.text(
        "Show what a stop would end, and add `--yes` to carry it out; a budget keeps it from happening again:"
    )
    book.command("halt tenant birch", r"no executions of tenant birch are running")
    book.command("tenant update birch --budget-usd 50", r"birch")
    book.command("costs budgets", r"birch .*50")


def bad_policy(book: Runbook) -> None:
    book.section("A policy does harm", "Since a change of the policy, tiers wait or uploads are refused.")
    text = book.deployment.policies.in_force().text
    typo = book.file("typo.yaml", text.replace("quota:", "quotta:", 1))
    book.text("A policy that is invalid is never applied:")
    book.command(f"policy apply {typo} --yes", r"quotta")
    strict = book.file("strict.yaml", text.replace("quality_min: 0.5", "quality_min: 0.95", 1))
    before = book.deployment.policies.in_force().version
    book.quietly(f"policy apply {strict} --yes --note stricter")
    book.text("The history names the author of each version. Show what the last one changed, and go back:")
    book.command("policy history", r"stricter")
    book.command(f"policy rollback {before} --dry-run", r"quality_min")
    book.command(f"policy rollback {before} --yes", r"version|in force")


CRASHING = "import json\n\nrows = json.loads(open('/opt/ml/input/rows.json').read())\n"
OWN = "name: ours\nhyperparameters: {}\n"


def crash_in_a_script(book: Runbook) -> None:
    book.section("An algorithm's script crashes", "All trainings of an algorithm fail since it was registered.")
    script = book.file("scripts/train.py", CRASHING)
    file = book.file("ours.yaml", OWN)
    book.quietly(f"algorithm register {file} --scripts {Path(script).parent}")
    book.quietly("tenant create hazel --tier basic --target target --algorithm ours")
    book.upload("hazel", data.bundled("wine"))
    request = book.request("hazel", ended("FAILED"))
    book.command("requests hazel", r"FileNotFoundError")
    book.command(f"logs {request} Train", r"Traceback")
    book.text("Correct the script, and try it on this machine before it is registered again:")
    table = book.file("wine.csv", data.bundled("wine"))
    book.command(
        f"algorithm test {file} --scripts {Path(script).parent} --data {table} --target target",
        r"Train +failed .*FileNotFoundError",
    )
    book.text("Until then, the tenants' models of before stay in use. Another algorithm takes over with:")
    book.command("tenant update hazel --algorithm linear", r"linear")
    book.quietly("algorithm remove ours")
    book.command(f"retry {request}", r"asked for")
    book.request("hazel", ended("SUCCEEDED"))


def dead_letters(book: Runbook) -> None:
    book.section("Dead letters", "The alarm `UploadsDeadLetter`: an event could not be processed.")
    url = book.deployment.outputs["UploadsQueue"]
    queue = f"{url.rpartition('/')[2]}-dlq"
    book.cloud.client("sqs").send_message(QueueUrl=url, MessageBody=json.dumps({"detail": "not an event"}))
    book.wait(lambda: any(queue in line for line in book.run("dlq list")))
    book.command("dlq list", queue)
    book.command(f"dlq show {queue} --limit 1", r"not an event")
    book.text(
        "After the cause is mended, `dlq redrive` sends them again. What can never be processed is dropped; both "
        "only show what they would do until `--yes` is added:"
    )
    book.command(f"dlq drop {queue} --all", r"would")
    book.command(f"dlq drop {queue} --all --yes", r"deleted 1 dead letter")


PAGES: Sequence[Callable[[Runbook], None]] = (
    model_did_not_come,
    tier_stuck,
    quota_lowered,
    outage,
    costs_jump,
    bad_policy,
    crash_in_a_script,
    dead_letters,
)


def written(cloud: Cloud, deployment: "Deployment", folder: Path) -> str:
    """Run all pages; return the text of docs/runbooks.md."""
    book = Runbook(cloud, deployment, folder)
    for page in PAGES:
        page(book)
    return INTRODUCTION + "\n".join(book.lines) + "\n"


def main() -> int:
    with Cloud() as cloud, tempfile.TemporaryDirectory() as folder:
        os.environ.update(cloud.environment())
        from cli.deployment import Deployment

        print("deploying template.yaml to the local cloud")
        deploy(cloud, "trainyard", {"Stage": "dev", "InstancePreferences": "true"})
        print("planting faults and running the commands of each page")
        deployment = Deployment("trainyard")
        Runbook(cloud, deployment, Path(folder)).quietly(f"policy apply {POLICY} --yes")
        PAGE.write_text(written(cloud, deployment, Path(folder)), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(PAGE.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
