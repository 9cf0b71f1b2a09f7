"""trainyard: run the service from a terminal."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from cli import algorithms, costs, data, dlq, halt, models, prices, requests, service, simulate, teardown, tenants
from cli.deployment import Deployment
from cli.shorthand import written_out
from cli.show import Answer, show
from cli.text import say
from trainyard.application.billing.reports import By
from trainyard.domain.errors import TrainyardError
from trainyard.domain.requests import State

EXAMPLES = """examples:
  trainyard tenant create acme --tier premium --target churned
  trainyard tenant create globex --tier basic --target price --algorithm linear --retrain "rate(1 day)"
  trainyard tenant move globex --tier premium
  trainyard tenant delete globex
  trainyard algorithm list
  trainyard check churn.csv --target churned
  trainyard upload acme churn.csv --data-set churn
  trainyard requests acme
  trainyard why 0f3c…
  trainyard policy diff policy.yaml
  trainyard simulate --policy candidate.yaml
  trainyard models acme
  trainyard models fetch acme 1 --to model.tar.gz
  trainyard costs --by tier --month 2026-11
  trainyard costs budgets
  trainyard halt tenant acme
  trainyard pause tenant acme
  trainyard dlq list

The deployment is selected by its stack: --stack NAME, else TRAINYARD_STACK, else trainyard-dev. Credentials and
region come from the AWS SDK's environment."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trainyard",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(stack=os.environ.get("TRAINYARD_STACK", "trainyard-dev"), json=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _tenant_commands(commands)
    _algorithm_commands(commands)
    _data_commands(commands)
    _request_commands(commands)
    _model_commands(commands)
    _service_commands(commands)
    _cost_commands(commands)
    _add_common_options(parser)
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    """Accept --stack and --json both before and after the command."""
    parser.add_argument("--stack", default=argparse.SUPPRESS, help="the deployment's stack")
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of a table"
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _add_common_options(inner)


def _tenant_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    # long: a line for each option
    tenant = commands.add_parser("tenant", help="create, change, move, check and delete tenants")
    actions = tenant.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser(
        "create",
        help="create a tenant; after a failure, run it again to continue where it stopped",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  trainyard tenant create acme --tier premium --target churned "
        '--data-set sales:target=revenue,problem=regression,train_on=whole-prefix --retrain "rate(1 day)"',
    )
    create.add_argument("tenant_id", metavar="ID", help="lower-case letters, digits, single hyphens; at most 24")
    create.add_argument("--tier", required=True, help="a tier of the policy (trainyard policy show)")
    create.add_argument("--target", required=True, help="the column to predict")
    _tenant_options(create)
    create.set_defaults(run=tenants.create)
    update = actions.add_parser(
        "update",
        help="change a tenant's training settings, schedule, limits, key or account; the rest is unchanged",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example:\n  trainyard tenant update acme --algorithm linear --retrain "" --budget-usd 500',
    )
    update.add_argument("tenant_id", metavar="ID")
    update.add_argument("--target", help="the column to predict")
    _tenant_options(update)
    update.set_defaults(run=tenants.update)
    moved = actions.add_parser(
        "move", help="move a tenant to another tier; out of the pool too, if that tier has per-tenant buckets"
    )
    moved.add_argument("tenant_id", metavar="ID")
    moved.add_argument("--tier", required=True, help="a tier of the policy (trainyard policy show)")
    moved.set_defaults(run=tenants.move)
    deleted = actions.add_parser("delete", help="show everything a tenant has; with --yes, delete it")
    deleted.add_argument("tenant_id", metavar="ID")
    deleted.add_argument(
        "--yes", action="store_true", help="delete it; without --yes, only show what would be deleted"
    )
    deleted.add_argument("--purge", action="store_true", help="also delete its record, requests and costs")
    deleted.set_defaults(run=tenants.delete)
    checked = actions.add_parser("check", help="show what was changed or removed outside the service")
    checked.add_argument("tenant_id", metavar="ID", nargs="?", help="default: all tenants")
    checked.set_defaults(run=tenants.check)
    scoped = actions.add_parser("credentials", help="issue short-lived credentials for one tenant's data only")
    scoped.add_argument("tenant_id", metavar="ID")
    scoped.add_argument(
        "--purpose", choices=["upload", "read"], default="upload", help="upload data, or read results"
    )
    scoped.add_argument("--minutes", type=int, default=15, help="how long they are valid (15 to 60)")
    scoped.set_defaults(run=tenants.credentials)
    listed = actions.add_parser("list", help="list all tenants")
    listed.add_argument("--all", action="store_true", help="include deleted tenants")
    listed.set_defaults(run=tenants.list_all)
    for name, run, text in (
        ("show", tenants.show_one, "show one tenant"),
        ("suspend", tenants.suspend, "refuse the tenant's uploads, and hold its requests"),
        ("resume", tenants.resume, "accept the tenant's uploads and admit its requests again"),
        ("repair", tenants.repair, "restore what was removed or changed"),
    ):
        parser = actions.add_parser(name, help=text)
        parser.add_argument("tenant_id", metavar="ID")
        parser.set_defaults(run=run)


def _tenant_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--algorithm", help="an algorithm of the catalogue (trainyard algorithm list)")
    parser.add_argument("--problem", choices=["auto", "classification", "regression"])
    parser.add_argument(
        "--split",
        metavar="HOW",
        help="which rows to test on: random, group:COLUMN (all rows of a customer in one part), time:COLUMN (the "
        "latest); auto (default) splits by time if the rows are in the order of their only column of dates",
    )
    parser.add_argument(
        "--train-on",
        choices=["newest-object", "whole-prefix"],
        help="only the newest upload (default), or everything under the data set's prefix",
    )
    parser.add_argument(
        "--every-upload",
        action=argparse.BooleanOptionalAction,
        help="train on every upload separately, instead of only on the newest",
    )
    parser.add_argument(
        "--ready-by", metavar="TIME", help='when models are to be ready: "06:00 Europe/Zurich"; "" for no deadline'
    )
    parser.add_argument("--priority", type=int, help="of its requests among those of its other data sets, 0 to 9")
    parser.add_argument("--hyperparameter", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--data-set",
        action="append",
        default=[],
        metavar="NAME:KEY=VALUE,…",
        help="settings that differ for one data set (target, algorithm, problem, split, train_on, every_upload, "
        "ready_by, priority)",
    )
    parser.add_argument(
        "--retrain", metavar="SCHEDULE", help='"rate(1 day)" or "cron(0 3 * * ? *)"; "" removes the schedule'
    )
    parser.add_argument(
        "--kms-key",
        metavar="ARN",
        help="the tenant's own KMS key for its results; a key in this account needs the tag trainyard:lend=STACK",
    )
    parser.add_argument(
        "--account", metavar="ACCOUNT", help="the tenant's own AWS account, which may upload data and read results"
    )
    parser.add_argument(
        "--buyer-account", metavar="ACCOUNT", help="the AWS account that bought the product on AWS Marketplace"
    )
    parser.add_argument("--license", metavar="ARN", help="its AWS Marketplace licence")
    _limit_options(parser)


def _limit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clear-limits",
        action="store_true",
        help="remove the tenant's own weight, cap and budget, except those given here",
    )
    parser.add_argument("--weight", type=int, help="its weight among the tenants of its tier (policy: tenants)")
    parser.add_argument("--running-max", type=int, help="its own cap on concurrent trainings")
    parser.add_argument(
        "--running-ceiling", type=int, help="its concurrent trainings while nobody below a cap wants the slots"
    )
    parser.add_argument("--budget-usd", metavar="USD", help="its monthly budget for trainings")
    parser.add_argument(
        "--budget-mode",
        choices=["hard", "soft"],
        help="hard: never overspent (default); soft: reserves the 90th-percentile cost of a training",
    )


def _algorithm_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("algorithm", help="the algorithms that tenants may choose")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list the catalogue").set_defaults(run=algorithms.list_all)
    shown = actions.add_parser("show", help="show one algorithm and the allowed values of its hyperparameters")
    shown.add_argument("name")
    shown.set_defaults(run=algorithms.show_one)
    registered = actions.add_parser(
        "register",
        help="add an algorithm to the catalogue, or change it",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  trainyard algorithm register neighbours.yaml --scripts neighbours/\n\n"
        "The file describes the algorithm and its hyperparameters (docs/tenants.md); the folder holds train.py "
        "and any other step script that differs from the shipped ones.",
    )
    registered.add_argument("file", type=Path)
    registered.add_argument("--scripts", type=Path, help="a folder with its own step scripts")
    registered.add_argument("--dry-run", action="store_true", help="validate only, change nothing")
    registered.set_defaults(run=algorithms.register)
    removed = actions.add_parser("remove", help="remove an algorithm from the catalogue")
    removed.add_argument("name")
    removed.set_defaults(run=algorithms.remove)


def _data_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = commands.add_parser(
        "check",
        help="show how files would be read, and what is doubtful about them, without a run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  trainyard check churn.csv --target churned\n"
        "  trainyard check sales/ --tenant acme --data-set sales --split time:day",
    )
    check.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files of one data set, or its folder")
    check.add_argument("--target", help="the column to predict (default: the tenant's setting)")
    check.add_argument("--problem", choices=["auto", "classification", "regression"])
    check.add_argument("--split", metavar="HOW", help="auto, random, group:COLUMN or time:COLUMN")
    check.add_argument("--tenant", metavar="ID", help="take its settings, and estimate time and cost")
    check.add_argument("--data-set", help="of the tenant (default: the file's name without its extension)")
    check.set_defaults(run=data.check)
    upload = commands.add_parser("upload", help="put a file into a tenant's incoming/ folder")
    upload.add_argument("tenant_id", metavar="TENANT")
    upload.add_argument("file", type=Path)
    upload.add_argument("--data-set", help="default: the file's name without its extension")
    upload.set_defaults(run=tenants.upload)
    presign = commands.add_parser("presign", help="print a URL to which the tenant can PUT one object")
    presign.add_argument("tenant_id", metavar="TENANT")
    presign.add_argument("data_set", metavar="DATA_SET")
    presign.add_argument("name", metavar="NAME", help="for example data.csv")
    presign.add_argument("--minutes", type=int, default=60, help="how long it is valid (default: 60, at most 720)")
    presign.set_defaults(run=tenants.presign)
    retrain = commands.add_parser("retrain", help="request a new training on the data already uploaded")
    retrain.add_argument("tenant_id", metavar="TENANT")
    retrain.add_argument("--data-set", help="default: all of them")
    retrain.add_argument(
        "--ready-by", metavar="TIME", help="when the model is to be ready: 2026-11-28T06:00+01:00, or 06:00 UTC"
    )
    retrain.add_argument("--priority", type=int, choices=range(10), help="among the tenant's requests; 9 is first")
    retrain.set_defaults(run=tenants.retrain)


def _request_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    listed = commands.add_parser("requests", help="list training requests: one tenant's, or all active ones")
    listed.add_argument("tenant_id", metavar="TENANT", nargs="?")
    listed.add_argument("--state", choices=[state.value for state in State], help="only requests in this state")
    listed.add_argument("--tier", help="only requests of this tier")
    listed.add_argument("--data-set", help="only requests for this data set of the tenant")
    listed.add_argument(
        "--since", metavar="DAY", help="2026-11-20: the first day of arrival (of end, when no tenant is given)"
    )
    listed.add_argument("--until", metavar="DAY", help="the last day, inclusive")
    listed.add_argument("--limit", type=_some, default=200, help="show only the last N (default: 200)")
    listed.set_defaults(run=requests.list_requests)
    shown = commands.add_parser(
        "request", help="show one request: its history, and what each attempt did and cost"
    )
    shown.add_argument("request_id", metavar="REQUEST")
    shown.set_defaults(run=requests.show_request)
    why = commands.add_parser("why", help="show why a request is waiting, who is ahead, and when it may start")
    why.add_argument("request_id", metavar="REQUEST")
    why.set_defaults(run=requests.why)
    expedite = commands.add_parser(
        "expedite", help="put a waiting request first in its tier; its limits still apply"
    )
    expedite.add_argument("request_id", metavar="REQUEST")
    expedite.add_argument("--why", required=True, metavar="TEXT", help="the reason; it is recorded with your name")
    expedite.set_defaults(run=requests.expedite)
    stop = commands.add_parser("stop", help="cancel a waiting request, or stop a running one")
    stop.add_argument("request_id", metavar="REQUEST")
    stop.set_defaults(run=requests.stop)


def _model_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("models", help="list (models TENANT), approve and fetch a tenant's models")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="the versions in the tenant's model group")
    listed.add_argument("tenant_id", metavar="TENANT")
    listed.set_defaults(run=models.list_models)
    for name, run, text in (
        ("approve", models.approve, "approve a version for deployment"),
        ("reject", models.reject, "reject a version"),
        ("fetch", models.fetch, "download a version's model.tar.gz"),
    ):
        command = actions.add_parser(name, help=text)
        command.add_argument("tenant_id", metavar="TENANT")
        command.add_argument("version", type=int)
        command.set_defaults(run=run)
        if name == "fetch":
            command.add_argument("--to", type=Path, help="default: <tenant>-<version>.tar.gz")


def _service_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    # long: a line for each option
    commands.add_parser("status", help="show slots and requests, by tier").set_defaults(run=service.status)
    for name, run, text in (
        ("pause", service.pause, "start nothing new; running executions continue"),
        ("resume", service.resume, "start requests again"),
    ):
        parser = commands.add_parser(name, help=text)
        parser.add_argument("what", choices=["all", "tier", "tenant"])
        parser.add_argument("name", nargs="?", help="name of the tier or tenant")
        parser.set_defaults(run=run)
    policy = commands.add_parser("policy", help="show, compare, apply and roll back the policy")
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = actions.add_parser("show", help="the policy in force, or an earlier one as text")
    shown.add_argument("--version", type=int, help="an earlier policy version")
    shown.add_argument("--text", action="store_true", help="print the text as it was applied")
    shown.add_argument(
        "--at",
        metavar="TIME",
        help="the limits at a time, where windows change them: 2026-11-28T23:00 (UTC), 2026-11-28T23:00+01:00 or "
        "'2026-11-28T23:00 Europe/Zurich'",
    )
    shown.set_defaults(run=service.policy_show)
    compared = actions.add_parser("diff", help="compare a policy file with the policy in force")
    compared.add_argument("file", type=Path)
    compared.set_defaults(run=service.policy_diff)
    actions.add_parser("history", help="list all versions, newest first").set_defaults(run=service.policy_history)
    rolled = actions.add_parser("rollback", help="put an earlier version in force again, as a new version")
    rolled.add_argument("version", type=int)
    rolled.add_argument("--dry-run", action="store_true", help="validate only, change nothing")
    rolled.set_defaults(run=service.policy_rollback)
    apply = actions.add_parser("apply", help="check a policy file and put it in force")
    apply.add_argument("file", type=Path)
    apply.add_argument("--dry-run", action="store_true", help="validate only, change nothing")
    apply.add_argument("--note", default="", help="the reason, shown in the policy history")
    apply.set_defaults(run=service.policy_apply)
    simulate.add_parser(commands)
    removed = commands.add_parser(
        "teardown", help="show everything this deployment has created; with --yes, delete it and the stack"
    )
    removed.add_argument(
        "--yes", action="store_true", help="delete it; without --yes, only show what would be deleted"
    )
    removed.add_argument(
        "--delete-data", action="store_true", help="delete the tenants with their data, models and records too"
    )
    removed.set_defaults(run=teardown.teardown)
    letters = commands.add_parser("dlq", help="list and redrive dead letters")
    actions = letters.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list the dead-letter queues and their newest dead letters").set_defaults(
        run=dlq.list_letters
    )
    redrive = actions.add_parser("redrive", help="send a queue's dead letters back to where they came from")
    redrive.add_argument("queue", help="queue name, as shown by dlq list")
    redrive.add_argument("--yes", action="store_true", help="do it; without --yes, only show what would be done")
    redrive.set_defaults(run=dlq.redrive)


def _cost_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    # long: a line for each option
    parser = commands.add_parser(
        "costs",
        help="training costs (costs --by tenant), budgets, estimates, statements, comparison with the bill",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  trainyard costs\n  trainyard costs --by data-set --tenant acme --month 2026-11\n"
        "  trainyard costs --by month --since 2026-01\n  trainyard costs budgets\n"
        "  trainyard costs statement acme --month 2026-11\n  trainyard costs reconcile --month 2026-10",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    report = actions.add_parser(
        "report", help="costs by tenant, tier, data set, algorithm or month (the default of `costs`)"
    )
    report.add_argument("--by", choices=[by.value for by in By], default=By.TENANT.value)
    report.add_argument("--tenant", help="only this tenant")
    report.add_argument("--month", help="2026-11 (default: this month)")
    report.add_argument("--since", metavar="MONTH", help="the first month of a range")
    report.set_defaults(run=costs.report)
    budgets = actions.add_parser("budgets", help="show the budgets of tenants and tiers, and their use")
    budgets.add_argument("tenant", metavar="TENANT", nargs="?")
    budgets.set_defaults(run=costs.budgets)
    estimates = actions.add_parser("estimates", help="show how accurate the estimates were")
    estimates.add_argument("tenant", metavar="TENANT", nargs="?")
    estimates.add_argument("--month", help="2026-11 (default: this month)")
    estimates.set_defaults(run=costs.estimates)
    statement = actions.add_parser("statement", help="write a tenant's statement into its storage, as HTML")
    statement.add_argument("tenant", metavar="TENANT")
    statement.add_argument("--month", help="2026-11 (default: this month)")
    statement.set_defaults(run=costs.statement)
    exported = actions.add_parser("export", help="export a day's usage to the billing bucket again")
    exported.add_argument("day", metavar="DAY", help="2026-11-20")
    exported.set_defaults(run=costs.export)
    actions.add_parser("tags", help="show the state of the cost allocation tags").set_defaults(run=costs.tags)
    reconcile = actions.add_parser("reconcile", help="compare booked with billed costs (Cost Explorer)")
    reconcile.add_argument("--month", help="2026-11 (default: this month)")
    reconcile.set_defaults(run=costs.reconcile)
    table = commands.add_parser("prices", help="the price table")
    actions = table.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = actions.add_parser("show", help="the prices of a region")
    shown.set_defaults(run=prices.show)
    updated = actions.add_parser("update", help="update the table with a region's current list prices")
    updated.add_argument("--dry-run", action="store_true", help="show what would change")
    updated.add_argument(
        "--volume-gb-month", type=_price, metavar="USD", help="price of jobs' volumes; required for a new region"
    )
    updated.set_defaults(run=prices.update)
    for command in (shown, updated):
        command.add_argument("--region", help="default: the environment's region")
        command.add_argument("--file", type=Path, default=prices.DEFAULT_FILE, help="default: the shipped table")
    halted = commands.add_parser(
        "halt", help="the kill switch: show running executions; with --yes, start nothing new and stop them"
    )
    halted.add_argument("what", choices=["all", "tenant"])
    halted.add_argument("name", nargs="?", help="name of the tenant")
    halted.add_argument("--yes", action="store_true", help="do it; without --yes, only show what would be stopped")
    halted.set_defaults(run=halt.halt)


def _some(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _price(text: str) -> Decimal:
    """Return a price in US dollars."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal(0)
    if not price.is_finite() or price <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price: write it as 0.14")
    return price


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = build_parser().parse_args(written_out(sys.argv[1:] if arguments is None else arguments))
    try:
        answer: Answer = parsed.run(Deployment(parsed.stack), parsed)
    except (TrainyardError, OSError) as error:
        return _complain(str(error))
    except ClientError as error:
        return _complain(f"AWS refused: {error}")
    except BotoCoreError as error:
        return _complain(
            f"the call to AWS failed: {error} Set region and credentials, or paste the exports that "
            "`make demo KEEP=1` prints."
        )
    if parsed.json:
        print(json.dumps(answer.data, indent=2, default=str))
    else:
        show(answer)
    return 0


def _complain(message: str) -> int:
    say(f"trainyard: {message}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
