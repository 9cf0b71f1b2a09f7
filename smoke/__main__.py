"""Run the preflight or the smoke suite.

python -m smoke check --stage dev          what can be known before anything is made
python -m smoke run --stage dev            say what the suite would do, and what it may cost
python -m smoke run --stage dev --yes      do it, in a stack of its own: trainyard-smoke-dev
python -m smoke run --local                the same suite in the local cloud
python -m smoke run --stage dev --yes --from guard      go on from a step
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from cli.region import settle_region
from cli.text import say
from local.cloud import Cloud
from smoke import deployed, guarding, leaving, preflight, training
from smoke.place import HEALTHY, ALocalCloud, AnAccount, Place, Suite, status_of
from smoke.steps import Step, run_steps
from trainyard.adapters.aws import clients
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.errors import Refused
from trainyard.domain.prices import JobKind

SUITE: Sequence[Step[Suite]] = (
    *deployed.STEPS,
    *training.STEPS,
    *guarding.STEPS,
    deployed.SECOND_DEPLOYMENT,
    *leaving.STEPS,
)
JOB_MINUTES_MAX = 15
"""The policy of the suite lets no job run longer."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("check", "run"))
    parser.add_argument("--stage", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument("--local", action="store_true", help="in the local cloud, which skips what it cannot show")
    parser.add_argument("--from", dest="first", metavar="STEP", help="begin with this step")
    parser.add_argument("--only", metavar="STEP", help="this step alone")
    parser.add_argument("--yes", action="store_true", help="do it; without --yes, only show what would be done")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--evidence", type=Path, default=Path(".local/smoke"), help="where AWS's words are kept")
    return parser


def chosen(steps: Sequence[Step[Suite]], *, first: str | None, only: str | None) -> Sequence[Step[Suite]]:
    """Return the steps to run; raises Refused for a name that is none of them."""
    names = [step.name for step in steps]
    for name in filter(None, (first, only)):
        if name not in names:
            raise Refused(f"there is no step {name!r}; there are {', '.join(names)}")
    if only:
        return [step for step in steps if step.name == only]
    return steps[names.index(first) :] if first else steps


def cost_max(steps: Sequence[Step[Suite]], region: str) -> Decimal | None:
    """Return what the jobs of some steps cost at most, in USD: each on the dearer instance, to its latest end."""
    dearest = prices_of(region).cost(JobKind.TRAINING, "ml.m5.large", 1, 30, JOB_MINUTES_MAX * 60)
    return dearest and dearest * sum(step.jobs for step in steps)


def plan(steps: Sequence[Step[Suite]], region: str) -> list[str]:
    minutes, jobs = sum(step.minutes for step in steps), sum(step.jobs for step in steps)
    cost = cost_max(steps, region)
    money = f"at most {cost:.2f} USD" if cost else "at prices that are not known here"
    lines = [f"{step.name:18} {step.minutes:>3} min  {step.jobs or '-':>3} jobs  {step.does}" for step in steps]
    return [
        *lines,
        f"{len(steps)} steps, about {minutes} minutes, at most {jobs} jobs of SageMaker: {money}",
        "use credentials that last as long; a step that is cut off is taken up by --from",
    ]


def main(given: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(given)
    try:
        steps = chosen(
            preflight.CHECKS if arguments.what == "check" else SUITE, first=arguments.first, only=arguments.only
        )
        with ExitStack() as stack:
            place = _place(arguments, stack)
            return _run(arguments, place, steps)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except (ClientError, BotoCoreError) as error:
        print(f"error: the account cannot be asked, check the credentials ({error})", file=sys.stderr)
        return 2


def _place(arguments: argparse.Namespace, stack: ExitStack) -> Place:
    if not arguments.local:
        return AnAccount()
    cloud = stack.enter_context(Cloud())
    os.environ |= cloud.environment()
    clients.forget()
    return ALocalCloud(cloud)


def _run(arguments: argparse.Namespace, place: Place, steps: Sequence[Step[Suite]]) -> int:
    region = settle_region()
    name = "trainyard" if arguments.what == "check" else "trainyard-smoke"
    begun = datetime.now(UTC)
    suite = Suite(
        place=place,
        stack=f"{name}-{arguments.stage}",
        stage=arguments.stage,
        account_id=clients.client("sts").get_caller_identity()["Account"],
        region=region,
        evidence=arguments.evidence / f"{name}-{arguments.stage}" / f"{begun:%Y%m%dT%H%M%SZ}",
    )
    say(f"{suite.stack}: account {suite.account_id}, Region {region}{', local' if place.local else ''}")
    if arguments.what == "run":
        for line in plan(steps, region):
            say(line)
        if not (arguments.yes or place.local):
            say("nothing was done; add --yes (make aws-smoke YES=1) to do it")
            return 0
    if arguments.what == "run" and steps[0].name != "deploy" and status_of(suite.stack) in HEALTHY:
        deployed.make_ready(suite)
    results = run_steps(steps, suite, local=place.local, say=say)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", "utf-8")
    counts = {kind: sum(r.outcome == kind for r in results) for kind in ("passed", "skipped", "failed")}
    say(", ".join(f"{count} {kind}" for kind, count in counts.items() if count))
    if counts["failed"] and arguments.what == "run":
        say(f"go on with --from {results[-1].name}, or remove it all: trainyard --stack {suite.stack} teardown")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
