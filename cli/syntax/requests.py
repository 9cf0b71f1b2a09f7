"""trainyard check, upload, presign, retrain; requests, request, why, expedite, stop; models, predict, …"""

import click

from cli.syntax.command import Command, Group, argument, choice, flag, option, path
from cli.syntax.tenants import PROBLEMS
from trainyard.domain.approval_links import VALID_MAX

STATES = ("QUEUED", "ADMITTED", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED", "CANCELLED", "SUPERSEDED", "REJECTED")
TENANT = argument("tenant_id", "TENANT")
REQUEST = argument("request_id", "REQUEST")
NAME_DEFAULT = "(default: the file's name without its extension)"
BY_PREFIX = "REQUEST is the request's id, or its beginning (at least 4 characters) where no other request has it."

WAIT = flag("--wait", help="Wait for the training to end; exit code 4 unless it succeeds.")
SELECTED = (
    option("--tenant", "tenant_id", metavar="ID", help="All of this tenant."),
    option("--tier", metavar="TIER", help="All of this tier."),
    option("--data-set", metavar="NAME", help="Only of this data set of the tenant."),
    option("--state", type=choice(*STATES), help="All in this state."),
    option(
        "--since",
        metavar="DAY",
        help="2026-11-20: the first day. Of a tenant's requests, and to stop: of arrival; else of end.",
    ),
    option("--until", metavar="DAY", help="The last day, inclusive."),
    flag("--yes", help="Do it; requests selected by options are only shown without it."),
)
"""Options that select requests instead of their ids."""

CHECK = Command(
    "check",
    "data:check",
    argument("files", "FILE…", nargs=-1, type=path()),
    option("--target", metavar="COLUMN", help="The column to predict (default: the tenant's setting)."),
    option("--problem", type=PROBLEMS),
    option("--split", metavar="HOW", help="auto, random, group:COLUMN or time:COLUMN."),
    option("--tenant", metavar="ID", help="Take its settings, and estimate time and cost."),
    option("--data-set", metavar="NAME", help=f"Of the tenant {NAME_DEFAULT}."),
    help="Show how files would be read, and what is doubtful about them, without a run.\n\n"
    "FILE: files of one data set, or its folder.",
    examples=[
        "trainyard check churn.csv --target churned",
        "trainyard check sales/ --tenant acme --data-set sales --split time:day",
    ],
)
UPLOAD = Command(
    "upload",
    "tenants:upload",
    TENANT,
    argument("file", type=path()),
    option("--data-set", metavar="NAME", help=f"The data set {NAME_DEFAULT}."),
    WAIT,
    help="Put a file into a tenant's incoming/ folder.",
    examples=["trainyard upload acme churn.csv --data-set churn", "trainyard upload acme churn.csv --wait"],
)
PRESIGN = Command(
    "presign",
    "tenants:presign",
    TENANT,
    argument("data_set"),
    argument("name"),
    option("--minutes", type=int, default=60, help="How long it is valid (default: 60, at most 720)."),
    help="Print a command with which the tenant can upload one object, without credentials.\n\n"
    "NAME: of the object, for example data.csv; --json prints the URL too.",
    examples=["trainyard presign acme churn data.csv"],
)
RETRAIN = Command(
    "retrain",
    "retraining:retrain",
    TENANT,
    option("--data-set", metavar="NAME", help="Default: all of them."),
    option(
        "--ready-by",
        metavar="TIME",
        help="When the model is to be ready: 2026-11-28T06:00+01:00, or 06:00 UTC.",
    ),
    option("--priority", type=click.IntRange(0, 9), help="Among the tenant's requests; 9 is first."),
    option("--algorithm", metavar="NAME", help="Of this training alone, instead of the data set's."),
    option(
        "--hyperparameter",
        "hyperparameters",
        metavar="NAME=VALUE",
        multiple=True,
        help="Of this training alone; may be repeated.",
    ),
    flag("--force", help="Train although neither data nor settings have changed since the last training."),
    WAIT,
    help="Request a new training on the data already uploaded.",
    examples=[
        "trainyard retrain acme --data-set churn",
        'trainyard retrain acme --ready-by "06:00 Europe/Zurich"',
        "trainyard retrain acme --data-set churn --algorithm linear --hyperparameter max_iter=200",
    ],
)
REQUESTS = Command(
    "requests",
    "requests:list_requests",
    argument("tenant_id", "TENANT", required=False),
    option("--state", type=choice(*STATES), help="Only requests in this state."),
    option("--tier", metavar="TIER", help="Only requests of this tier."),
    option("--data-set", metavar="NAME", help="Only requests for this data set of the tenant."),
    option(
        "--since",
        metavar="DAY",
        help="2026-11-20: the first day of arrival (of end, when no tenant is given).",
    ),
    option("--until", metavar="DAY", help="The last day, inclusive."),
    option(
        "--limit", type=click.IntRange(min=1), default=200, metavar="N", help="Only the last N (default: 200)."
    ),
    flag("--watch", "-w", help="Show it again every two seconds, until Ctrl-C."),
    help="List training requests: one tenant's, or all active ones.",
    examples=[
        "trainyard requests",
        "trainyard requests -w",
        "trainyard requests acme --state FAILED --since 2026-11-20",
    ],
)
SHOW_REQUEST = Command(
    "request",
    "requests:show_request",
    REQUEST,
    help="Show one request: its history, and what each attempt did and cost.",
    examples=["trainyard request 0124550c"],
    notes=[BY_PREFIX],
)
LOGS = Command(
    "logs",
    "logs:logs",
    REQUEST,
    argument("step", required=False),
    flag("--follow", "-f", help="Print lines as they come, until the request has ended."),
    option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt (default: the last one)."),
    option("--tail", type=click.IntRange(min=1), metavar="N", help="Only the last N lines of each step."),
    help="Print what the steps of a request printed, on AWS as in the local cloud.\n\n"
    "STEP: Preprocess, Train, Evaluate or another step with a job (default: all).",
    examples=["trainyard logs 0124550c", "trainyard logs 0124550c Train --tail 20", "trainyard logs 0124550c -f"],
    notes=[BY_PREFIX],
)
WHY = Command(
    "why",
    "requests:why",
    REQUEST,
    help="Show why a request is waiting, who is ahead, and when it may start; or why it ended as it did.",
    examples=["trainyard why 0124550c"],
    notes=[BY_PREFIX],
)
EXPEDITE = Command(
    "expedite",
    "requests:expedite",
    REQUEST,
    option("--why", required=True, metavar="TEXT", help="The reason; it is recorded with your name."),
    help="Put a waiting request first in its tier; its limits still apply.",
    examples=['trainyard expedite 0124550c --why "audit due at noon"'],
    notes=[BY_PREFIX],
)
STOP = Command(
    "stop",
    "stopping:stop",
    argument("request_ids", "[REQUEST]…", required=False, nargs=-1),
    *SELECTED,
    help="Cancel waiting requests, and stop running ones: those named, or all that options select.",
    examples=[
        "trainyard stop 0124550c",
        "trainyard stop --tenant acme --state QUEUED",
        "trainyard stop --tier basic --yes",
    ],
    notes=[BY_PREFIX, "`trainyard cancel` does the same."],
)
RETRY = Command(
    "retry",
    "retraining:retry",
    argument("request_ids", "[REQUEST]…", required=False, nargs=-1),
    *SELECTED,
    option("--reason", metavar="TEXT", help="Only those whose reason contains this text."),
    WAIT,
    help="Ask for another training for requests that ended without a model: those named, or all that options "
    "select.\n\nOptions select FAILED requests, unless --state names another. Each data set is trained on its "
    "newest data, once, however many of its requests failed.",
    examples=[
        "trainyard retry 0124550c --wait",
        'trainyard retry --state FAILED --since 2026-11-27 --reason "no capacity"',
        "trainyard retry --tenant acme --state FAILED --yes",
    ],
    notes=[BY_PREFIX],
)

VERSION = argument("version", type=int)
REASON = option("--reason", metavar="TEXT", help="Recorded with the decision.")
MODELS = Group(
    "models",
    Command(
        "list",
        "models:list_models",
        TENANT,
        help="List the versions in the tenant's model group.",
        examples=["trainyard models acme"],
    ),
    Command(
        "approve",
        "models:approve",
        TENANT,
        VERSION,
        REASON,
        help="Approve a version for deployment.",
        examples=[
            "trainyard models approve acme 3",
            'trainyard models approve acme 3 --reason "passed the review"',
        ],
    ),
    Command(
        "reject",
        "models:reject",
        TENANT,
        VERSION,
        REASON,
        help="Reject a version.",
        examples=['trainyard models reject acme 3 --reason "too few rows"'],
    ),
    Command(
        "link",
        "models:link",
        TENANT,
        VERSION,
        option(
            "--for",
            "reviewer",
            metavar="NAME",
            required=True,
            help="Who is to decide; recorded with the decision.",
        ),
        option(
            "--days",
            type=click.IntRange(1, VALID_MAX.days),
            default=7,
            help=f"How long it is valid (default: 7, at most {VALID_MAX.days}).",
        ),
        help="Print a link with which somebody without credentials approves or rejects a version.\n\n"
        "Whoever has the link can decide, until somebody has. To withdraw a link, decide with `models approve` or "
        "`reject`. Requires ApprovalLinks=true.",
        examples=[
            "trainyard models link acme 3 --for ada@example.com",
            "trainyard models link acme 3 --for Ada --days 1",
        ],
    ),
    Command(
        "fetch",
        "models:fetch",
        TENANT,
        VERSION,
        option("--to", type=path(), metavar="FILE", help="Default: <tenant>-<version>.tar.gz."),
        help="Download a version's model.tar.gz.",
        examples=["trainyard models fetch acme 3 --to model.tar.gz"],
    ),
    default="list",
    help="List (models TENANT), approve and fetch a tenant's models, or let others approve them.",
)
DATA_SET = argument("data_set")
PREDICT = Command(
    "predict",
    "predictions:predict",
    TENANT,
    DATA_SET,
    argument("file", type=path()),
    option("--key", help="Calls with the same key get the same version while there is a canary."),
    option(
        "--environment",
        type=choice("production", "test"),
        default="production",
        help="test: the version that is in test answers (default: production).",
    ),
    option(
        "--timeout", type=int, default=900, metavar="SECONDS", help="Of an asynchronous endpoint; default: 900."
    ),
    help="Predict the rows of a file (CSV with a header line, or JSON lines) with the model that is served.",
    examples=[
        "trainyard predict acme churn churn.csv",
        "trainyard predict acme churn churn.csv --environment test",
    ],
)
TRANSFORM = Command(
    "transform",
    "transforms:transform",
    TENANT,
    DATA_SET,
    argument("files", "[FILE]…", nargs=-1, required=False, type=path()),
    flag("--force", help="Also if the same version has predicted the same rows before."),
    option("--priority", type=click.IntRange(0, 9), help="Among the tenant's requests; 9 is first."),
    flag("--wait", help="Wait for its end; exit code 4 unless it succeeds."),
    help="Let the live model predict all rows that are stored for a data set, in a batch transform job.\n\n"
    "FILE: rows to store first (.csv with a header line, or .jsonl). The job waits in the tenant's queue, as "
    "trainings do; the predictions are in reports/<data set>/<request>/predictions/.",
    examples=[
        "trainyard transform acme churn rows.csv --wait",
        "trainyard transform acme churn --force",
    ],
    notes=["On a schedule: trainyard tenant update acme --data-set 'churn:transform=rate(1 day)'."],
)
SERVING = Group(
    "serving",
    Command(
        "show",
        "serving:show",
        TENANT,
        help="Show which versions of a tenant's models answer calls, and what became of the others.",
        examples=["trainyard serving acme"],
    ),
    Command(
        "promote",
        "serving:promote",
        TENANT,
        DATA_SET,
        VERSION,
        help="Let a canary answer all calls, or let a version in test answer calls in production.",
        examples=["trainyard serving promote acme churn 3"],
    ),
    Command(
        "roll-back",
        "serving:roll_back",
        TENANT,
        DATA_SET,
        VERSION,
        help="Take a version out of service: one in test, a canary, or the live one. After the live one, the "
        "previous version answers from the next call on.",
        examples=["trainyard serving roll-back acme churn 3"],
    ),
    Command(
        "stop",
        "serving:stop",
        TENANT,
        DATA_SET,
        flag("--yes", help="Do it; without, only show what would be stopped."),
        help="Take all versions of a data set out of service: calls are refused until one is approved again.",
        examples=["trainyard serving stop acme churn --yes"],
    ),
    default="show",
    help="Show (serving TENANT) and change what answers calls for a tenant's data sets.",
)
RETRAINING = Command(
    "retraining",
    "schedules:retraining",
    argument("tenant_id", "[TENANT]", required=False),
    option(
        "--hours",
        type=click.IntRange(min=1, max=24 * 14),
        default=24,
        metavar="N",
        help="Draw the load of so many hours (default: 24).",
    ),
    help="Show which schedules will ask for trainings and batch transforms, when, and what load that makes.\n\n"
    "A schedule of all data sets counts those that have settings of their own; there may be more.",
    examples=["trainyard retraining", "trainyard retraining acme --hours 168"],
    notes=["Schedules are set by trainyard tenant update (docs/tenants.md)."],
)
DRIFT = Command(
    "drift",
    "drift:drift",
    TENANT,
    argument("data_set", "DATA-SET"),
    option("--request", "request_id", metavar="REQUEST", help="The training to show; default: the last one."),
    flag("--all", help="Show stable columns too."),
    flag(
        "--captured",
        help="Compare what models were asked (captured/ in the tenant's root) with the last training.",
    ),
    help="Show how far the columns of a data set have moved from those of the training before.\n\n"
    "INDEX is the population stability index: below 0.1 a column is stable, from 0.25 on it has shifted.",
    examples=[
        "trainyard drift acme churn",
        "trainyard drift acme churn --all --request 0124550c",
        "trainyard drift acme churn --captured",
    ],
    notes=["docs/retraining.md says what follows from drift, and how a data set's rules change that."],
)
DATA_SET = argument("data_set", "DATA-SET")
TUNING = Group(
    "tuning",
    Command(
        "show",
        "tuning:show",
        TENANT,
        DATA_SET,
        help="Show what the last tunings of a data set have found, and which values trainings begin with.",
        examples=["trainyard tuning acme churn"],
    ),
    Command(
        "start",
        "tuning:start",
        TENANT,
        DATA_SET,
        option(
            "--trials",
            type=click.IntRange(2, 100),
            default=10,
            metavar="N",
            help="Trainings (default: 10); the first one has the hyperparameters of before.",
        ),
        option("--minutes", type=click.IntRange(min=1), metavar="N", help="That all of them may take."),
        option("--usd", metavar="AMOUNT", help="That all of them may cost."),
        option(
            "--range",
            "ranges",
            metavar="NAME=LOW..HIGH",
            multiple=True,
            help="Of a hyperparameter (default: those that the algorithm offers); may be repeated.",
        ),
        option("--algorithm", metavar="NAME", help="Of this tuning alone, instead of the data set's."),
        option(
            "--hyperparameter",
            "hyperparameters",
            metavar="NAME=VALUE",
            multiple=True,
            help="That all trials have; may be repeated.",
        ),
        option("--ready-by", metavar="TIME", help="When the model is to be ready."),
        option("--priority", type=click.IntRange(0, 9), help="Among the tenant's requests; 9 is first."),
        flag("--force", help="Train however far the data has moved since the last training."),
        WAIT,
        help="Search for the hyperparameters with which models of a data set are best.\n\n"
        "It trains once for each trial, one after the other; the best trial's model is judged and registered. "
        "It takes no longer, and costs no more, than a training of the tenant's tier may.",
        examples=[
            "trainyard tuning start acme churn",
            "trainyard tuning start acme churn --trials 20 --range learning_rate=0.01..0.3 --usd 2.50 --wait",
        ],
    ),
    Command(
        "use",
        "tuning:use",
        TENANT,
        DATA_SET,
        argument("request_id", "REQUEST|none"),
        help="Let trainings begin with the best values of a tuning; or, with none, with those of no tuning.\n\n"
        "What the data set's settings say of a hyperparameter comes before it.",
        examples=["trainyard tuning use acme churn 0124550c", "trainyard tuning use acme churn none"],
    ),
    default="show",
    help="Search for the best hyperparameters of a data set, and show what was found (tuning TENANT DATA-SET).",
    notes=["docs/retraining.md says what a tuning does, and what it costs."],
)
COMMANDS = (
    CHECK,
    UPLOAD,
    PRESIGN,
    RETRAIN,
    RETRAINING,
    DRIFT,
    TUNING,
    REQUESTS,
    SHOW_REQUEST,
    LOGS,
    WHY,
    EXPEDITE,
    STOP,
    RETRY,
    MODELS,
    PREDICT,
    TRANSFORM,
    SERVING,
)
