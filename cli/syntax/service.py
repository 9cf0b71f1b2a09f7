"""trainyard status, pause, resume, halt, policy …, simulate, dlq …, teardown"""

import click

from cli.syntax.command import Command, Group, argument, choice, flag, option, path

WATCH = flag("--watch", "-w", help="Show it again every two seconds, until Ctrl-C.")
STATUS = Command(
    "status",
    "status:status",
    WATCH,
    help="Show slots and requests by tier, and what needs attention.",
    examples=["trainyard status", "trainyard status -w"],
)
QUEUE_OF_TIER = Command(
    "queue",
    "queue:queue",
    argument("tier", required=False),
    option("--limit", type=click.IntRange(min=1), default=10, metavar="N", help="Of each tier (default: 10)."),
    WATCH,
    help="Show which requests are next in each tier, when they may start, and why the others wait.",
    examples=["trainyard queue", "trainyard queue basic --limit 30", "trainyard queue -w"],
)
TOP = Command(
    "top",
    "top:top",
    help="Open a full-screen view of tiers, queue and requests, refreshed every two seconds.\n\n"
    "Keys: 1, 2, 3 choose a table, w explains the request under the cursor, p pauses the view, q leaves.",
    examples=["trainyard top"],
)
DOCTOR = Command(
    "doctor",
    "doctor:doctor",
    help="Look for what is wrong, or will be, in account and deployment, each with its remedy.\n\n"
    "Exit code 4 when something is bad. Works before the first deployment too.",
    examples=["trainyard doctor", "trainyard doctor --json"],
)
WHAT = argument("what", "all|tier|tenant", type=choice("all", "tier", "tenant"))
NAME = argument("name", required=False)
NOTE = option("--note", default="", metavar="TEXT", help="The reason, which `trainyard status` shows.")
PAUSE = Command(
    "pause",
    "service:pause",
    WHAT,
    NAME,
    NOTE,
    help="Start nothing new; running executions continue.",
    examples=["trainyard pause all", "trainyard pause tier basic", "trainyard pause tenant acme"],
)
DRAIN = Command(
    "drain",
    "service:drain",
    WHAT,
    NAME,
    NOTE,
    option(
        "--minutes", type=click.IntRange(min=1), metavar="N", help="Wait at most so long (default: until it ends)."
    ),
    help="Start nothing new, and wait until what runs has ended.",
    examples=["trainyard drain all", "trainyard drain tier basic --minutes 30"],
)
RESUME = Command(
    "resume", "service:resume", WHAT, NAME, help="Start requests again.", examples=["trainyard resume tier basic"]
)
HALT = Command(
    "halt",
    "halt:halt",
    argument("what", "all|tenant", type=choice("all", "tenant")),
    NAME,
    flag("--yes", help="Do it; without --yes, only show what would be stopped."),
    help="The kill switch: show running executions; with --yes, start nothing new and stop them.",
    examples=["trainyard halt tenant acme", "trainyard halt all --yes"],
)
YES = flag("--yes", help="Do not ask; without a terminal to ask on, nothing is done without it.")
FORCE = flag("--force", help="Also where it hurts tenants, whose next uploads would be refused.")
DRY_RUN = flag("--dry-run", help="Show what would change, and change nothing.")
POLICY = Group(
    "policy",
    Command(
        "show",
        "policy:show",
        option("--version", type=int, metavar="N", help="An earlier policy version."),
        flag("--text", help="Print the text as it was applied."),
        option(
            "--at",
            metavar="TIME",
            help="The limits at a time, where windows change them: 2026-11-28T23:00 (UTC), "
            "2026-11-28T23:00+01:00 or '2026-11-28T23:00 Europe/Zurich'.",
        ),
        help="Show the policy in force, or an earlier one as text.",
        examples=["trainyard policy show", "trainyard policy show --version 3", "trainyard policy show --text"],
    ),
    Command(
        "diff",
        "policy:diff",
        argument("file", type=path()),
        help="Compare a policy file with the policy in force.",
        examples=["trainyard policy diff policy.yaml"],
    ),
    Command(
        "history",
        "policy:history",
        help="List all versions, newest first.",
        examples=["trainyard policy history"],
    ),
    Command(
        "rollback",
        "policy:rollback",
        argument("version", type=int),
        DRY_RUN,
        YES,
        FORCE,
        help="Put an earlier version in force again, as a new version.",
        examples=["trainyard policy rollback 3 --dry-run"],
    ),
    Command(
        "apply",
        "policy:apply",
        argument("file", type=path()),
        DRY_RUN,
        YES,
        FORCE,
        option("--note", default="", metavar="TEXT", help="The reason, shown in the policy history."),
        help="Check a policy file, show what it changes, ask, and put it in force.",
        examples=['trainyard policy apply policy.yaml --note "two more slots for premium"'],
    ),
    help="Show, compare, apply and roll back the policy.",
)
SIMULATE = Command(
    "simulate",
    "simulate:simulate",
    option("--policy", type=path(), required=True, metavar="FILE", help="The candidate policy file."),
    option(
        "--history", type=path(), metavar="FILE", help="File of arrivals (default: this deployment's history)."
    ),
    option("--generate", type=float, metavar="HOURS", help="Generate arrivals for this many hours."),
    option("--load", type=float, default=0.8, help="Generated load per quota (default: 0.8)."),
    option(
        "--per-hour",
        type=float,
        metavar="N",
        help="Generate this many requests per hour for each tier, whatever its quota.",
    ),
    option("--seed", type=int, default=1, help="Seed of the generated arrivals (default: 1)."),
    option(
        "--begins",
        metavar="TIME",
        help="When the arrivals begin, where windows change the limits (default: the coming Monday, 00:00 UTC, or "
        "when this deployment's history did).",
    ),
    option("--today", type=path(), metavar="FILE", help="Compare with this policy (default: the one in force)."),
    option(
        "--picture",
        type=path(),
        metavar="FILE.svg",
        help="Draw slots in use and waits over time, under both policies.",
    ),
    option("--save-history", type=path(), metavar="FILE", help="Write the arrivals to this file."),
    help="Simulate another policy: waiting times, slot utilization, fairness, cost.",
    examples=[
        "trainyard simulate --policy candidate.yaml --picture what-if.svg",
        "trainyard simulate --policy candidate.yaml --history arrivals.jsonl",
        "trainyard simulate --policy candidate.yaml --generate 24 --today policy.yaml",
        "trainyard simulate --policy candidate.yaml --generate 168 --begins '2026-11-30T00:00 Europe/Zurich'",
    ],
    notes=["A history has one JSON object per line: arrives_seconds, tenant, tier, run_seconds, size_mb."],
)
QUEUE = argument("queue")
REASON = option("--reason", metavar="TEXT", help="Only those whose reason contains this text.")
DLQ = Group(
    "dlq",
    Command(
        "list",
        "dlq:list_letters",
        help="List the dead-letter queues, and how many letters of each have which reason.",
        examples=["trainyard dlq list"],
    ),
    Command(
        "show",
        "dlq:show",
        QUEUE,
        REASON,
        option("--limit", type=click.IntRange(min=1), default=10, metavar="N", help="At most N (default: 10)."),
        help="Print dead letters, the oldest first.\n\nQUEUE: as shown by dlq list.",
        examples=["trainyard dlq show trainyard-dev-uploads-dlq --limit 3"],
    ),
    Command(
        "redrive",
        "dlq:redrive",
        QUEUE,
        REASON,
        flag("--yes", help="Do it; without --yes, only show what would be done."),
        help="Send dead letters back to where they came from.\n\nQUEUE: as shown by dlq list.",
        examples=["trainyard dlq redrive trainyard-dev-uploads-dlq --yes"],
    ),
    Command(
        "drop",
        "dlq:drop",
        QUEUE,
        REASON,
        flag("--all", help="All letters of the queue."),
        flag("--yes", help="Do it; without --yes, only show what would be done."),
        help="Delete dead letters for good: those of a reason, or all.\n\nQUEUE: as shown by dlq list.",
        examples=['trainyard dlq drop trainyard-dev-uploads-dlq --reason "not JSON" --yes'],
    ),
    help="List, show, redrive and drop dead letters.",
)
TEARDOWN = Command(
    "teardown",
    "teardown:teardown",
    flag("--yes", help="Delete it; without --yes, only show what would be deleted."),
    flag("--delete-data", help="Delete the tenants with their data, models and records too."),
    help="Show everything this deployment has created; with --yes, delete it and the stack.",
    examples=["trainyard --stack trainyard-dev teardown"],
)
EMAIL = argument("email", "EMAIL")
USER = Group(
    "user",
    Command(
        "list",
        "users:list_users",
        option("--tenant", metavar="ID", help="Only those of a tenant."),
        help="List the users of the HTTP API and the console, with their roles.",
        examples=["trainyard user list", "trainyard user list --tenant acme"],
    ),
    Command(
        "create",
        "users:create",
        EMAIL,
        option(
            "--role",
            required=True,
            type=choice("operator", "viewer", "tenant-admin", "tenant-reader"),
            help="Operators and viewers see all tenants; the others see their own (docs/api.md).",
        ),
        option("--tenant", metavar="ID", help="The tenant that a tenant-admin or tenant-reader belongs to."),
        flag("--no-mail", help="Print a temporary password, instead of letting Cognito send one by e-mail."),
        help="Make a user of the HTTP API and the console, or give an existing one another role or tenant.",
        examples=[
            "trainyard user create ada@example.com --role tenant-admin --tenant acme",
            "trainyard user create grace@example.com --role operator --no-mail",
        ],
    ),
    Command(
        "reset",
        "users:reset",
        EMAIL,
        help="Give a user a temporary password, remove the authenticator, and end all sessions.",
        examples=["trainyard user reset ada@example.com"],
    ),
    Command(
        "delete",
        "users:delete",
        EMAIL,
        flag("--yes", help="Do it; without --yes, only show what would be deleted."),
        help="Delete a user, or revoke an API key by its user name.",
        examples=[
            "trainyard user delete ada@example.com --yes",
            "trainyard user delete key-0123456789abcdef@keys.invalid --yes",
        ],
    ),
    default="list",
    help="Show and change who may use the HTTP API and the console.",
    notes=["Users are kept in the deployment's user pool; with ApiIssuer, your identity provider has them."],
)
COMMANDS: tuple[click.Command, ...] = (
    STATUS,
    QUEUE_OF_TIER,
    TOP,
    DOCTOR,
    PAUSE,
    RESUME,
    DRAIN,
    HALT,
    POLICY,
    SIMULATE,
    DLQ,
    TEARDOWN,
    USER,
)
