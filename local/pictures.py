"""Save pictures of what commands print in a terminal, for docs/ (make pictures).

    python -m local.pictures          writes docs/terminal/*.svg

They show a day with something of everything in the local cloud: a model, a failure, a paused tier, a dead letter.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from local.cloud import Cloud
from local.demo import data
from local.demo.picture import save, with_own_fonts
from local.deploy import deploy
from local.runbooks import POLICY, Runbook, ended

if TYPE_CHECKING:
    from cli.deployment import Deployment

FOLDER = Path(__file__).parents[1] / "docs/terminal"
STACK = "trainyard-dev"
WIDTH = 100


def prepare(book: Runbook) -> str:
    """Let something of everything happen; return a request that waits."""
    from cli.dlq import counts

    book.quietly(f"policy apply {POLICY} --yes")
    book.quietly("tenant create acme --tier premium --target target --budget-usd 5")
    book.quietly("tenant create birch --tier standard --target churned")
    book.quietly("tenant create cedar --tier basic --target target")
    for table in (data.bundled("wine"), b"\n".join(data.bundled("wine").splitlines()[::2])):
        book.upload("acme", table)
        book.request("acme", ended("SUCCEEDED"))
    book.upload("birch", data.bundled("wine"))
    book.request("birch", ended("FAILED"))
    book.quietly("pause tier basic --note 'until the new image is there'")
    for name in ("customers", "orders", "visits"):
        tenant = book.deployment.tenant("cedar")
        book.cloud.client("s3").put_object(
            Bucket=tenant.bucket, Key=f"{tenant.root}incoming/{name}/table.csv", Body=data.bundled("wine")
        )
    waiting = book.request("cedar", ended("QUEUED"))
    uploads = book.deployment.outputs["UploadsQueue"]
    book.cloud.client("sqs").send_message(QueueUrl=uploads, MessageBody=json.dumps({"detail": "not an event"}))
    book.wait(lambda: counts(book.deployment)[f"{STACK}-uploads-dlq"])
    book.wait(lambda: len(book.deployment.scheduler.tables.requests.of_tenant("cedar")) == 3)
    return waiting


def draw(deployment: "Deployment", name: str, words: str) -> None:
    """Save what a command prints."""
    from cli.app import answer
    from cli.show import PLAIN, lines_of

    answered = answer(deployment, *words.split())
    assert answered is not None, words
    lines = (f"{line.style}{line.text}{PLAIN if line.style else ''}" for line in lines_of(answered, WIDTH))
    printed = Text.from_ansi("\n".join((f"$ trainyard {words}", *lines)))
    save(FOLDER / f"{name}.svg", printed, title=f"trainyard {words}", width=WIDTH)


def draw_top(deployment: "Deployment") -> None:
    """Save the full-screen view, with a request explained."""
    from cli.top import Top

    async def run() -> str:
        app = Top(deployment)
        async with app.run_test(size=(120, 34)) as pilot:
            for key in ("", "3", "w"):
                if key:
                    await pilot.press(key)
                await app.workers.wait_for_complete()
                await pilot.pause()
            return app.export_screenshot(title="trainyard top")

    (FOLDER / "top.svg").write_text(with_own_fonts(asyncio.run(run())), encoding="utf-8")


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with Cloud() as cloud, tempfile.TemporaryDirectory() as folder:
        os.environ.update(cloud.environment())
        from cli.deployment import Deployment

        print("deploying template.yaml to the local cloud")
        deploy(cloud, STACK, {"Stage": "dev", "InstancePreferences": "true"})
        deployment = Deployment(STACK)
        print("training, failing and waiting")
        waiting = prepare(Runbook(cloud, deployment, Path(folder)))
        for name, words in {
            "status": "status",
            "why-waiting": f"why {waiting}",
            "models": "models acme",
        }.items():
            draw(deployment, name, words)
        draw_top(deployment)
    print(f"wrote {', '.join(sorted(path.name for path in FOLDER.glob('*.svg')))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
