"""Run the preflight or the smoke suite.

python -m smoke check --stage dev          check the account before anything is created
python -m smoke run --stage dev            show what the suite would do and what it may cost
python -m smoke run --stage dev --yes      run it in its own stack: trainyard-smoke-dev
python -m smoke run --local                run the same suite in the local cloud
python -m smoke run --stage dev --yes --from guard      continue from a step
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
from smoke import deployed, guarding, http_api, leaving, operating, preflight, retraining, serving, training
from smoke.place import HEALTHY, ALocalCloud, AnAccount, Place, Suite, status_of
from smoke.steps import Step, run_steps
from trainyard.adapters.aws import clients
from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.errors import Refused
from trainyard.domain.prices import JobKind

SUITE: Sequence[Step[Suite]] = (
    *deployed.STEPS,
    *training.STEPS,
    *operating.STEPS,
    *retraining.STEPS,
    *guarding.STEPS,
    deployed.SECOND_DEPLOYMENT,
    *serving.STEPS,
    *http_api.STEPS,
    *leaving.STEPS,
)
JOB_MINUTES_MAX = 15
"""The maximum runtime of a job in the suite's policy."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("check", "run"))
    parser.add_argument("--stage", choices=("dev", "staging", "prod"), default="dev")
    parser.add_argument("--local", action="store_true", help="use the local cloud, without steps that need AWS")
    parser.add_argument("--from", dest="first", metavar="STEP", help="start with this step")
    parser.add_argument("--only", metavar="STEP", help="run only this step")
    parser.add_argument("--yes", action="store_true", help="run it; without --yes, only show what would be done")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    parser.add_argument("--evidence", type=Path, default=Path(".local/smoke"), help="folder for AWS's messages")
    return parser


def chosen(steps: Sequence[Step[Suite]], *, first: str | None, only: str | None) -> Sequence[Step[Suite]]:
    """Return the steps to run; raises Refused for an unknown name."""
    names = [step.name for step in steps]
    for name in filter(None, (first, only)):
        if name not in names:
            raise Refused(f"there is no step {name!r}; the steps are {', '.join(names)}")
    if only:
        return [step for step in steps if step.name == only]
    return steps[names.index(first) :] if first else steps


def cost_max(steps: Sequence[Step[Suite]], region: str) -> Decimal | None:
    """Return the maximum cost of the steps' jobs in USD: each on the dearer instance, for its maximum runtime."""
    dearest = prices_of(region).cost(JobKind.TRAINING, "ml.m5.large", 1, 30, JOB_MINUTES_MAX * 60)
    return dearest and dearest * sum(step.jobs for step in steps)


def plan(steps: Sequence[Step[Suite]], region: str) -> list[str]:
    minutes, jobs = sum(step.minutes for step in steps), sum(step.jobs for step in steps)
    cost = cost_max(steps, region)
    money = f"at most {cost:.2f} USD" if cost else "cost unknown, no prices for this Region"
    lines = [f"{step.name:18} {step.minutes:>3} min  {step.jobs or '-':>3} jobs  {step.does}" for step in steps]
    return [
        *lines,
        f"{len(steps)} steps, about {minutes} minutes, at most {jobs} SageMaker jobs: {money}",
        "the credentials must be valid for this long; continue an interrupted suite with --from STEP",
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
        print(f"error: the account is not accessible, check the credentials ({error})", file=sys.stderr)
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
            say("nothing was done; add --yes (make aws-smoke YES=1) to run the suite")
            return 0
    if arguments.what == "run" and steps[0].name != "deploy" and status_of(suite.stack) in HEALTHY:
        deployed.make_ready(suite)
    results = run_steps(steps, suite, local=place.local, say=say)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", "utf-8")
    counts = {kind: sum(r.outcome == kind for r in results) for kind in ("passed", "skipped", "failed")}
    say(", ".join(f"{count} {kind}" for kind, count in counts.items() if count))
    if counts["failed"] and arguments.what == "run":
        say(f"continue with --from {results[-1].name}, or clean up: trainyard --stack {suite.stack} teardown")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
