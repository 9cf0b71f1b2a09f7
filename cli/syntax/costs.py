"""trainyard costs …, prices …"""

from cli.syntax.command import Command, Group, Price, argument, choice, flag, option, path

BY = ("tenant", "tier", "data-set", "algorithm", "month", "day")
MONTH = option("--month", metavar="MONTH", help="2026-11 (default: this month).")
TENANT = argument("tenant", required=False)

COSTS = Group(
    "costs",
    Command(
        "report",
        "costs:report",
        option("--by", type=choice(*BY), default="tenant"),
        option("--tenant", metavar="ID", help="Only this tenant."),
        MONTH,
        option("--since", metavar="MONTH", help="The first month of a range."),
        help="Show costs by tenant, tier, data set, algorithm, month or day (the default of `costs`).",
        examples=[
            "trainyard costs --by tier --month 2026-11",
            "trainyard costs --by month --since 2026-01",
            "trainyard costs --by day",
        ],
    ),
    Command(
        "budgets",
        "costs:budgets",
        TENANT,
        help="Show the budgets of tenants and tiers, and their use.",
        examples=["trainyard costs budgets", "trainyard costs budgets acme"],
    ),
    Command(
        "estimates",
        "costs:estimates",
        TENANT,
        MONTH,
        help="Show how accurate the estimates were.",
        examples=["trainyard costs estimates --month 2026-11"],
    ),
    Command(
        "statement",
        "costs:statement",
        argument("tenant"),
        MONTH,
        flag("--open", help="Show it in the browser, from a copy in the temporary folder."),
        help="Write a tenant's statement into its storage, as HTML.",
        examples=["trainyard costs statement acme --month 2026-11 --open"],
    ),
    Command(
        "export",
        "costs:export",
        argument("day"),
        help="Export a day's usage to the billing bucket again.\n\nDAY: for example 2026-11-20.",
        examples=["trainyard costs export 2026-11-20"],
    ),
    Command(
        "tags",
        "costs:tags",
        help="Show the state of the cost allocation tags.",
        examples=["trainyard costs tags"],
    ),
    Command(
        "reconcile",
        "costs:reconcile",
        MONTH,
        help="Compare booked with billed costs (Cost Explorer).",
        examples=["trainyard costs reconcile --month 2026-10"],
    ),
    default="report",
    help="Training costs (costs --by tenant), budgets, estimates, statements, comparison with the bill.",
)
REGION = option("--region", metavar="REGION", help="Default: the environment's region.")
FILE = option("--file", type=path(), metavar="FILE", help="Default: the shipped table.")
PRICES = Group(
    "prices",
    Command(
        "show",
        "prices:show",
        REGION,
        FILE,
        help="Show the prices of a region.",
        examples=["trainyard prices show", "trainyard prices show --region eu-west-1 --json"],
    ),
    Command(
        "update",
        "prices:update",
        flag("--dry-run", help="Show what would change."),
        option(
            "--volume-gb-month", type=Price(), help="Price of jobs' volumes, in USD; required for a new region."
        ),
        REGION,
        FILE,
        help="Update the table with a region's current list prices.",
        examples=["trainyard prices update --region eu-west-1 --dry-run"],
    ),
    help="The price table.",
)
