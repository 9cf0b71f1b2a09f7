"""trainyard tenant …, algorithm …"""

import click

from cli.syntax.command import Command, Group, argument, choice, flag, option, path

TENANT_ID = argument("tenant_id", "ID")
TIER_HELP = "A tier of the policy (trainyard policy show)."
PROBLEMS = choice("auto", "classification", "regression")


SETTINGS = (
    option("--algorithm", metavar="NAME", help="An algorithm of the catalogue (trainyard algorithm list)."),
    option("--problem", type=PROBLEMS),
    option(
        "--split",
        metavar="HOW",
        help="Which rows to test on: random, group:COLUMN (all rows of a customer in one part), time:COLUMN "
        "(the latest); auto (default) splits by time if the rows are in the order of their only dates.",
    ),
    option(
        "--train-on",
        type=choice("newest-object", "whole-prefix"),
        help="Only the newest upload (default), or everything under the data set's prefix.",
    ),
    option(
        "--every-upload/--no-every-upload",
        default=None,
        help="Train on every upload separately, instead of only on the newest.",
    ),
    option(
        "--ready-by",
        metavar="TIME",
        help='When models are to be ready: "06:00 Europe/Zurich"; "" for no deadline.',
    ),
    option(
        "--priority", type=int, help="Of its requests among those of its other data sets, 0 to 9 (9 is first)."
    ),
    option("--hyperparameter", multiple=True, metavar="NAME=VALUE", help="They replace all that the tenant has."),
    option(
        "--serving",
        metavar="MODE[:KEY=VALUE…]",
        help="How approved models are served: on an endpoint that tenants share: multi-model (default), "
        "inference-component or multi-container; on one of their own: real-time, serverless or asynchronous; or "
        "by jobs alone: batch-transform. Keys: "
        "approval (manual, automatic, if-better), margin, segment_loss_max, compare_by, "
        "promotion (direct, manual, automatic), test_minutes, canary_percent, "
        "bake_minutes, instance_type, instances, instances_max, scale_at, memory_mb, cpu_percent, concurrency "
        "(docs/serving.md).",
    ),
    option(
        "--data-set",
        multiple=True,
        metavar="NAME:KEY=VALUE,…",
        help="Settings that differ for one data set (target, algorithm, problem, split, train_on, "
        "every_upload, ready_by, priority, serving; transform: when stored rows are predicted, such as "
        "rate(1 day)).",
    ),
    option(
        "--retrain",
        metavar="SCHEDULE",
        help='When data sets are trained on again: "rate(1 day)" or "cron(0 3 * * ? *) Europe/Zurich from '
        '2026-12-01 until 2027-03-31 within 60 minutes" (docs/tenants.md); "" for never.',
    ),
    option(
        "--schedule",
        multiple=True,
        metavar="NAME=SCHEDULE",
        help="When one data set is trained on again, instead of by --retrain; others stay as they are. "
        "With nothing after =, it has no schedule of its own any more.",
    ),
    option(
        "--retraining",
        multiple=True,
        metavar="[NAME:]KEY=VALUE,…",
        help="When data sets train, or the one of a name: enough uploads (files, megabytes, rows, closed_by), "
        "waits (quiet_minutes, delay_max_minutes, interval_minutes, between), what follows from drift "
        "(on_schema_change, on_shift, shift_percent, critical), what trains again by itself "
        "(age_max_days, retry_hours, failed_calls_percent), and warm_start. It replaces the rules before; nothing "
        "after NAME: for none.",
    ),
    option("--tag", multiple=True, metavar="TAG", help='For waves; they replace all before ("" for none).'),
    option(
        "--kms-key",
        metavar="ARN",
        help="The tenant's own KMS key for its results; a key in this account needs the tag trainyard:lend=STACK.",
    ),
    option(
        "--account",
        metavar="ACCOUNT",
        help="The tenant's own AWS account, which may upload data and read results.",
    ),
    option(
        "--buyer-account",
        metavar="ACCOUNT",
        help="The AWS account that bought the product on AWS Marketplace.",
    ),
    option("--license", metavar="ARN", help="Its AWS Marketplace licence."),
    flag("--clear-limits", help="Remove the tenant's own weight, cap and budget, except those given here."),
    option("--weight", type=int, help="Its weight among the tenants of its tier (policy: tenants)."),
    option("--running-max", type=int, help="Its own cap on concurrent trainings."),
    option(
        "--running-ceiling",
        type=int,
        help="Its concurrent trainings while nobody below a cap wants the slots.",
    ),
    option("--budget-usd", metavar="USD", help="Its monthly budget for trainings."),
    option(
        "--budget-mode",
        type=choice("hard", "soft"),
        help="hard: never overspent (default); soft: reserves the 90th-percentile cost of a training.",
    ),
)
"""Options of a tenant that is made or changed."""

TENANT = Group(
    "tenant",
    Command(
        "create",
        "tenants:create",
        argument("tenant_id", "ID"),
        option("--tier", required=True, metavar="TIER", help=TIER_HELP),
        option("--target", required=True, metavar="COLUMN", help="The column to predict."),
        *SETTINGS,
        help="Create a tenant. After a failure, run it again to continue where it stopped.\n\n"
        "ID: lower-case letters, digits, single hyphens; at most 24.",
        examples=[
            "trainyard tenant create acme --tier premium --target churned",
            'trainyard tenant create globex --tier basic --target price --retrain "rate(1 day)"',
            "trainyard tenant create initech --tier basic --target churned \\",
            "  --data-set sales:target=revenue,problem=regression,train_on=whole-prefix",
        ],
    ),
    Command(
        "update",
        "tenants:update",
        TENANT_ID,
        option("--target", metavar="COLUMN", help="The column to predict."),
        *SETTINGS,
        flag("--clear-hyperparameters", help="Remove the tenant's hyperparameters, except those given here."),
        help="Change a tenant's training settings, schedule, limits, key or account; the rest is unchanged.",
        examples=[
            'trainyard tenant update acme --algorithm linear --retrain "" --budget-usd 500',
            "trainyard tenant update acme --retraining churn:files=10,interval_minutes=60",
            "trainyard tenant update acme --retraining 'between=22:00-06:00 Europe/Zurich,age_max_days=30'",
        ],
    ),
    Command(
        "move",
        "tenants:move",
        TENANT_ID,
        option("--tier", required=True, metavar="TIER", help=TIER_HELP),
        help="Move a tenant to another tier; out of the pool too, if that tier has per-tenant buckets.",
        examples=["trainyard tenant move globex --tier premium"],
    ),
    Command(
        "delete",
        "tenants:delete",
        TENANT_ID,
        flag("--yes", help="Delete it; without --yes, only show what would be deleted."),
        flag("--purge", help="Also delete its record, requests and costs."),
        help="Show everything a tenant has; with --yes, delete it.",
        examples=["trainyard tenant delete globex", "trainyard tenant delete globex --yes"],
    ),
    Command(
        "check",
        "tenants:check",
        argument("tenant_id", "ID", required=False),
        help="Show what was changed or removed outside the service, of one tenant or of all.",
        examples=["trainyard tenant check", "trainyard tenant check acme"],
    ),
    Command(
        "credentials",
        "tenants:credentials",
        TENANT_ID,
        option(
            "--purpose",
            type=choice("upload", "read", "predict"),
            default="upload",
            help="Upload data, read results, or call models on shared endpoints.",
        ),
        option("--minutes", type=int, default=15, help="How long they are valid (15 to 60; default: 15)."),
        help="Issue short-lived credentials for what is one tenant's only.",
        examples=['eval "$(trainyard tenant credentials acme --purpose read)"'],
    ),
    Command(
        "list",
        "tenants:list_all",
        flag("--all", help="Include deleted tenants."),
        help="List all tenants.",
        examples=["trainyard tenant list", "trainyard tenant list --json | jq -r '.[].tenant_id'"],
    ),
    Command(
        "show", "tenants:show_one", TENANT_ID, help="Show one tenant.", examples=["trainyard tenant show acme"]
    ),
    Command(
        "suspend",
        "tenants:suspend",
        TENANT_ID,
        help="Refuse the tenant's uploads, and hold its requests.",
        examples=["trainyard tenant suspend acme"],
    ),
    Command(
        "resume",
        "tenants:resume",
        TENANT_ID,
        help="Accept the tenant's uploads and admit its requests again.",
        examples=["trainyard tenant resume acme"],
    ),
    Command(
        "repair",
        "tenants:repair",
        TENANT_ID,
        help="Restore what was removed or changed.",
        examples=["trainyard tenant repair acme"],
    ),
    help="Create, change, move, check and delete tenants.",
)

ALGORITHM = Group(
    "algorithm",
    Command("list", "algorithms:list_all", help="List the catalogue.", examples=["trainyard algorithm list"]),
    Command(
        "show",
        "algorithms:show_one",
        argument("name"),
        help="Show one algorithm and the allowed values of its hyperparameters.",
        examples=["trainyard algorithm show linear"],
    ),
    Command(
        "register",
        "algorithms:register",
        argument("file", type=path()),
        option("--scripts", type=path(), metavar="FOLDER", help="A folder with its own step scripts."),
        flag("--dry-run", help="Validate only, change nothing."),
        help="Add an algorithm to the catalogue, or change it.",
        examples=["trainyard algorithm register neighbours.yaml --scripts neighbours/"],
        notes=[
            "The file describes the algorithm and its hyperparameters (docs/tenants.md); the folder holds "
            "train.py and any other step script that differs from the shipped ones."
        ],
    ),
    Command(
        "test",
        "rehearsal:test",
        argument("name", "NAME|FILE"),
        option("--data", type=path(), required=True, metavar="FILE", help="The file to train on."),
        option("--target", required=True, metavar="COLUMN", help="The column to predict."),
        option("--scripts", type=path(), metavar="FOLDER", help="A folder with its own step scripts."),
        option("--problem", type=PROBLEMS, default="auto", help="Default: auto, from the target's values."),
        option("--split", default="auto", metavar="HOW", help="As of `trainyard tenant create`; default: auto."),
        option("--hyperparameter", multiple=True, metavar="NAME=VALUE", help="Its value, as a tenant may set it."),
        option(
            "--quality-min",
            type=click.FloatRange(0, 1),
            default=0.0,
            metavar="0…1",
            help="What the tier asks for; default: 0.",
        ),
        option("--minutes", type=click.IntRange(1, 1440), default=60, help="For each step at most; default: 60."),
        option("--output", type=path(), metavar="FOLDER", help="Keep what the steps wrote: model, card, logs."),
        help="Run an algorithm's steps on this machine, as the pipeline runs them; nothing is registered.\n\n"
        "NAME is an algorithm of the catalogue; FILE describes one that is not registered yet.",
        examples=[
            "trainyard algorithm test neighbours.yaml --scripts neighbours/ --data churn.csv --target churned",
            "trainyard algorithm test linear --data churn.csv --target churned --hyperparameter max_iter=50",
        ],
        notes=[
            "A file needs neither a deployment nor credentials. The exit code is 4 if a step failed, or the "
            "model would not be registered; the end of the failed step's log is printed."
        ],
    ),
    Command(
        "remove",
        "algorithms:remove",
        argument("name"),
        help="Remove an algorithm from the catalogue, unless a tenant uses it.",
        examples=["trainyard algorithm remove neighbours"],
    ),
    help="The algorithms that tenants may choose.",
)

WAVE_ID = argument("wave", "WAVE")

WAVE = Group(
    "wave",
    Command(
        "start",
        "waves:start",
        argument("name", "NAME@VERSION"),
        option(
            "--stage",
            type=click.FloatRange(0, 100, min_open=True),
            multiple=True,
            metavar="PERCENT",
            help="Of the tenants, how many have the version at the end of a stage; default: 1, 10, 50 and 100.",
        ),
        option("--tier", metavar="TIER", help="Move only tenants of a tier."),
        option("--tag", metavar="TAG", help="Move only tenants with a tag."),
        option(
            "--from",
            "from_version",
            metavar="NAME@VERSION",
            help="Move only those that have this version; default: any other one of the algorithm.",
        ),
        option(
            "--margin",
            type=click.FloatRange(0, 1),
            default=0.02,
            help="By how much a quality may fall without counting as worse (of errors: the share); default: 0.02.",
        ),
        option(
            "--segment-loss-max",
            type=click.FloatRange(min=0),
            default=0.2,
            help="By how much a segment of the rows may be worse; default: 0.2.",
        ),
        option(
            "--worse-max",
            type=click.FloatRange(0, 100),
            default=10.0,
            metavar="PERCENT",
            help="Of the data sets, how many may be worse or fail before all go back; default: 10.",
        ),
        option(
            "--stage-hours",
            type=click.IntRange(1, 720),
            default=72,
            metavar="HOURS",
            help="How long a stage waits for trainings; then half of them are enough, or it waits for you; "
            "default: 72.",
        ),
        option(
            "--soak-hours",
            type=click.IntRange(0, 720),
            default=0,
            metavar="HOURS",
            help="How long a stage lasts at least; default: 0.",
        ),
        flag("--yes", help="Begin; without --yes, only show whom each stage would move."),
        help="Bring another version of an algorithm to its tenants in stages, and back if models get worse.",
        examples=[
            "trainyard wave start neighbours@2",
            "trainyard wave start neighbours@2 --yes",
            "trainyard wave start neighbours@2 --tag pilot --stage 100 --yes",
            "trainyard wave start neighbours@2 --tier basic --stage 5 --stage 100 --soak-hours 24 --yes",
        ],
        notes=[
            "Each tenant that is moved trains its data sets again, within its limits and budget. Each new model "
            "is compared with the one before on the same rows. docs/waves.md has the rules."
        ],
    ),
    Command(
        "list",
        "waves:list_waves",
        help="List the last waves, newest first.",
        examples=["trainyard wave list"],
    ),
    Command(
        "show",
        "waves:show",
        WAVE_ID,
        flag("--all", help="Show all of its tenants; without --all, those that do badly or were left out."),
        help="Show how far a wave is, and how its tenants' models do.",
        examples=["trainyard wave show 20261130-060000-a1b2c3 --all"],
    ),
    Command(
        "pause",
        "waves:pause",
        WAVE_ID,
        option("--reason", metavar="TEXT", help="Why, for others who look at it."),
        help="Let a wave move no more tenants; those that were moved keep the version.",
        examples=['trainyard wave pause 20261130-060000-a1b2c3 --reason "a holiday"'],
    ),
    Command(
        "resume",
        "waves:resume",
        WAVE_ID,
        flag("--anyway", help="Go to the next stage, although too few data sets were judged."),
        help="Let a paused wave go on.",
        examples=["trainyard wave resume 20261130-060000-a1b2c3"],
    ),
    Command(
        "back",
        "waves:back",
        WAVE_ID,
        option("--reason", metavar="TEXT", help="Why, for others who look at it."),
        flag("--yes", help="Let it go back; without --yes, only show which tenants would."),
        help="Give the tenants of a wave back the versions that they had, also after it has ended.",
        examples=["trainyard wave back 20261130-060000-a1b2c3 --yes"],
    ),
    help="Waves: another version of an algorithm reaches the tenants in stages.",
)
