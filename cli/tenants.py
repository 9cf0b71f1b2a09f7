"""Tenants and their data."""

import json
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.machines import run
from cli.requests import view
from cli.retraining import check_data_set
from cli.show import Answer
from cli.text import say
from cli.values import hyperparameter
from cli.waiting import awaited
from trainyard.adapters.aws.credentials import scoped_credentials
from trainyard.adapters.aws.deployment_names import Purpose
from trainyard.contracts.events import explain
from trainyard.contracts.retraining import RetrainingValues
from trainyard.contracts.tenants import LIMITS, tenant_view
from trainyard.domain.arrivals import check_file_name
from trainyard.domain.errors import Refused
from trainyard.domain.names import request_id
from trainyard.domain.schedules import check_is_due, parse_schedule
from trainyard.domain.tenants import Change, Tenant, TenantState

_SETTINGS = ("target", "algorithm", "problem", "split", "train_on", "every_upload", "ready_by", "priority")
_SERVING = (
    "isolation",
    "approval",
    "margin",
    "segment_loss_max",
    "compare_by",
    "promotion",
    "test_minutes",
    "canary_percent",
    "bake_minutes",
    "instance_type",
    "instances",
    "instances_max",
    "scale_at",
    "memory_mb",
    "cpu_percent",
    "concurrency",
)
_PLAIN = (
    "tier",
    *_SETTINGS,
    "retrain",
    "kms_key",
    "account",
    "buyer_account",
    "license",
    "weight",
    "running_max",
    "running_ceiling",
    "budget_usd",
    "budget_mode",
)


def create(deployment: Deployment, arguments: Arguments) -> Answer:
    """Create a tenant; raises Refused, with what differs, when there is one of that name already."""
    existing = deployment.tenants.get(arguments.tenant_id)
    if existing is not None and existing.state in (TenantState.ACTIVE, TenantState.SUSPENDED):
        _refuse_existing(existing, _entry(arguments))
    return _changed(deployment, Change.CREATE, arguments)


def _refuse_existing(tenant: Tenant, wanted: dict[str, Any]) -> None:
    """Raise Refused, with the commands that would change an existing tenant to the tier and target wanted."""
    name, target = tenant.tenant_id, tenant.settings.target
    commands = []
    if wanted["tier"] != tenant.tier:
        commands.append(f"its tier is {tenant.tier} (trainyard tenant move {name} --tier {wanted['tier']})")
    if wanted["target"] != target:
        commands.append(f"its target is {target!r} (trainyard tenant update {name} --target {wanted['target']})")
    differences = f", and {', and '.join(commands)}" if commands else ""
    raise Refused(
        f"tenant {name} exists{differences}; nothing was changed (trainyard tenant show {name}; `tenant update` "
        "changes its settings)"
    )


def update(deployment: Deployment, arguments: Arguments) -> Answer:
    return _changed(deployment, Change.UPDATE, arguments)


def repair(deployment: Deployment, arguments: Arguments) -> Answer:
    """Restore what was removed or changed."""
    return _changed(deployment, Change.CREATE, arguments, repair=True)


def move(deployment: Deployment, arguments: Arguments) -> Answer:
    return _changed(deployment, Change.MOVE, arguments)


def suspend(deployment: Deployment, arguments: Arguments) -> Answer:
    return _changed(deployment, Change.SUSPEND, arguments)


def resume(deployment: Deployment, arguments: Arguments) -> Answer:
    return _changed(deployment, Change.RESUME, arguments)


def delete(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show what would be deleted; with --yes, delete it."""
    tenant = {"name": arguments.tenant_id}
    if not arguments.yes:
        answer = run(deployment, Change.DELETE, {"tenant": tenant, "dry_run": True}, quiet=True)
        if not answer["known"]:
            return Answer(data=answer, lines=[answer["progress"]])
        return Answer(
            data=answer,
            columns=("WOULD BE DELETED", "COUNT"),
            rows=list(answer["would_go"].items()),
            lines=[
                "nothing was deleted; add --yes to delete it, and --purge to delete its record and requests too"
            ],
        )
    answer = run(deployment, Change.DELETE, {"tenant": tenant, "purge": arguments.purge})
    return Answer(data=answer, lines=[answer["progress"]])


def check(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show what was changed or removed outside the service."""
    names = [arguments.tenant_id] if arguments.tenant_id else [t.tenant_id for t in deployment.tenants.all()]
    live = [name for name in names if arguments.tenant_id or _is_live(deployment, name)]
    findings = [(name, finding) for name in live for finding in _drift(deployment, name)]
    return Answer(
        data=[{"tenant": name, "drift": finding} for name, finding in findings],
        columns=("TENANT", "DRIFT"),
        rows=list(findings),
        below="DRIFT",
        lines=[f"trainyard tenant repair {name}" for name in dict.fromkeys(name for name, _ in findings)],
    )


def credentials(deployment: Deployment, arguments: Arguments) -> Answer:
    """Print credentials for what is one tenant's only, as shell exports."""
    purpose = Purpose(arguments.purpose)
    if purpose is Purpose.PREDICT and deployment.outputs["DirectInvocation"] != "true":
        raise Refused(
            "this deployment does not let tenants call models themselves: deploy it with DirectInvocation=true, "
            "or use `trainyard predict`"
        )
    credentials = scoped_credentials(
        deployment.tenant(arguments.tenant_id),
        access_role_arn=deployment.outputs["TenantAccessRoleArn"],
        data_key_arn=deployment.outputs["DataKeyArn"],
        purpose=purpose,
        minutes=arguments.minutes,
    )
    names = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
    }
    return Answer(
        data=names | {"expires_at": credentials.expires_at.isoformat()},
        verbatim=[f"export {name}={value}" for name, value in names.items()]
        + [f"# valid until {credentials.expires_at:%H:%M:%S}Z"],
    )


def _changed(deployment: Deployment, change: Change, arguments: Arguments, *, repair: bool = False) -> Answer:
    outcome = run(deployment, change, {"tenant": _entry(arguments) | ({"repair": True} if repair else {})})
    answer = _tenant_answer(tenant_view(deployment.tenant(arguments.tenant_id)))
    return replace(answer, data=answer.data | {"outcome": outcome})


def _entry(arguments: Arguments) -> dict[str, Any]:
    """Return the requested settings; what is not given keeps its value, or gets its default."""
    given = vars(arguments)
    entry: dict[str, Any] = {"name": arguments.tenant_id}
    if given.get("clear_limits"):
        entry |= dict.fromkeys(LIMITS)
    entry |= {name: given[name] for name in _PLAIN if given.get(name) is not None}
    if entry.get("retrain"):
        _due(entry["retrain"])
    if given.get("clear_hyperparameters"):
        entry["hyperparameters"] = {}
    if given.get("hyperparameter"):
        entry["hyperparameters"] = dict(map(hyperparameter, arguments.hyperparameter))
    if given.get("tag"):
        entry["tags"] = [tag for tag in arguments.tag if tag]
    if given.get("serving"):
        entry["serving"] = _serving(arguments.serving)
    if given.get("data_set"):
        entry["data_sets"] = dict(_data_set(text) for text in arguments.data_set)
    changes: dict[str, dict[str, Any]] = {}
    for name, change in map(_own_schedule, given.get("schedule") or ()):
        changes.setdefault(name, {}).update(change)
    for name, rules in map(_retraining, given.get("retraining") or ()):
        if name:
            changes.setdefault(name, {})["retraining"] = rules
        else:
            entry["retraining"] = rules
    if changes:
        entry["data_set_changes"] = changes
    return entry


def _is_live(deployment: Deployment, tenant_id: str) -> bool:
    return deployment.tenant(tenant_id).state not in (TenantState.DELETED, TenantState.DELETING)


def _drift(deployment: Deployment, tenant_id: str) -> list[str]:
    answer = deployment.client("lambda").invoke(
        FunctionName=deployment.outputs["TenantsFunction"],
        Payload=json.dumps({"step": "Drift", "tenant": {"name": tenant_id}}).encode(),
    )
    body = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise Refused(str(body.get("errorMessage", body)))
    return [str(line) for line in body["drift"]]


def list_all(deployment: Deployment, arguments: Arguments) -> Answer:
    tenants = deployment.tenants.all()
    views = [tenant_view(t) for t in tenants if arguments.all or t.state is not TenantState.DELETED]
    return Answer(
        data=views,
        columns=("TENANT", "TIER", "STATE", "STORAGE", "ALGORITHM", "TARGET", "RETRAIN", "CHANGE"),
        rows=[
            (
                v["tenant_id"],
                v["tier"],
                v["state"],
                v["storage"],
                v["settings"]["algorithm"],
                v["settings"]["target"],
                v["retrain"],
                v["under_way"] and (v["under_way"]["failure"] or v["under_way"]["change"]),
            )
            for v in views
        ],
    )


def show_one(deployment: Deployment, arguments: Arguments) -> Answer:
    return _tenant_answer(tenant_view(deployment.tenant(arguments.tenant_id)))


def upload(deployment: Deployment, arguments: Arguments) -> Answer:
    """Upload a file; with --wait, wait for the training that it starts."""
    tenant = deployment.tenant(arguments.tenant_id)
    if not arguments.file.is_file():
        raise Refused(f"{arguments.file} is not a file")
    data_set = arguments.data_set or arguments.file.stem
    check_data_set(data_set)
    key = f"{tenant.root}incoming/{data_set}/{arguments.file.name}"
    check_file_name(arguments.file.name)
    s3 = deployment.client("s3")
    s3.upload_file(str(arguments.file), tenant.bucket, key)
    # Another upload of that key in between would be the newer one, which is what is trained on then too.
    version = s3.head_object(Bucket=tenant.bucket, Key=key).get("VersionId")
    if version is None:
        raise Refused(f"uploaded, but {tenant.bucket} has no versions: trainyard tenant repair {tenant.tenant_id}")
    uri = f"s3://{tenant.bucket}/{key}"
    name = request_id(tenant_id=tenant.tenant_id, bucket=tenant.bucket, key=key, revision=version)
    if arguments.wait:
        say(f"uploaded {uri}; request {name[:8]}")
        requests = deployment.scheduler.tables.requests
        return awaited(deployment, lambda: [r for r in (requests.get(name),) if r is not None], view)
    return Answer(
        data={"uri": uri, "request_id": name},
        lines=[f"uploaded {uri}", f"follow its request with: trainyard why {name[:8]}"],
    )


def presign(deployment: Deployment, arguments: Arguments) -> Answer:
    tenant = deployment.tenant(arguments.tenant_id)
    check_data_set(arguments.data_set)
    if not 1 <= arguments.minutes <= 720:
        raise Refused(f"--minutes is {arguments.minutes}: choose between 1 and 720")
    check_file_name(arguments.name)
    key = f"{tenant.root}incoming/{arguments.data_set}/{arguments.name}"
    url = deployment.client("s3").generate_presigned_url(
        "put_object", Params={"Bucket": tenant.bucket, "Key": key}, ExpiresIn=arguments.minutes * 60
    )
    command = f"curl --fail --upload-file {shlex.quote(arguments.name)} {shlex.quote(url)}"
    return Answer(data={"url": url, "curl": command}, verbatim=[command])


def _tenant_answer(view: dict[str, Any]) -> Answer:
    shown = [(name, json.dumps(value) if isinstance(value, dict) else value) for name, value in view.items()]
    return Answer(data=view, columns=("FIELD", "VALUE"), rows=list(shown))


def _due(schedule: str) -> str:
    """Return a schedule, "" for none; raises Refused where it is never due."""
    if schedule:
        check_is_due(parse_schedule(schedule), datetime.now(UTC))
    return schedule


def _own_schedule(text: str) -> tuple[str, dict[str, str]]:
    name, equals, schedule = text.partition("=")
    if not equals:
        raise Refused(
            f"--schedule {text!r}: write NAME=SCHEDULE, for example 'churn=cron(0 3 * * ? *) Europe/Zurich'; with "
            "nothing after = the data set follows the tenant's schedule again"
        )
    return name, {"schedule": _due(schedule.strip())}


def _retraining(text: str) -> tuple[str, dict[str, str]]:
    """Return a data set, "" for the tenant, and its rules."""
    name, colon, rest = text.partition(":")
    if not colon or "=" in name:
        name, rest = "", text
    pairs = [part.partition("=") for part in rest.split(",")] if rest else []
    rules = {key.strip(): value.strip() for key, _, value in pairs}
    wrong = [key for key, value in rules.items() if key not in RetrainingValues.model_fields or not value]
    if wrong:
        raise Refused(
            f"--retraining {text!r}: {wrong[0]!r} is no rule with a value: write [NAME:]KEY=VALUE,… with keys "
            f"{', '.join(RetrainingValues.model_fields)}, for example churn:files=10,interval_minutes=60"
        )
    try:
        RetrainingValues.model_validate(rules)
    except ValidationError as error:
        raise Refused(f"--retraining {text!r}: {explain(error)}") from None
    return name, rules


def _data_set(text: str) -> tuple[str, dict[str, Any]]:
    name, colon, rest = text.partition(":")
    # A cron expression, in parentheses, may contain commas.
    pairs = [part.partition("=") for part in re.split(r",(?![^()]*\))", rest)] if colon else []
    keys = (*_SETTINGS, "serving", "transform")
    wrong = [part[0] for part in pairs if part[0] not in keys or not part[2]]
    if not pairs or wrong:
        raise Refused(
            f"--data-set {text!r}: write NAME:KEY=VALUE,… with keys {', '.join(keys)}, for example "
            "sales:target=revenue,train_on=whole-prefix"
        )
    for key, _, value in pairs:
        if key == "transform":
            _due(value)
    return name, {key: _serving(value) if key == "serving" else value for key, _, value in pairs}


def _serving(text: str) -> dict[str, Any]:
    mode, *rest = text.split(":")
    pairs = [part.partition("=") for part in rest]
    wrong = [part[0] for part in pairs if part[0] not in _SERVING or not part[2]]
    if wrong or "=" in mode:
        raise Refused(
            f"serving {text!r}: write MODE:KEY=VALUE:… with keys {', '.join(_SERVING)}, for example "
            "serverless:memory_mb=4096:canary_percent=10"
        )
    return {"mode": mode} | {key: value for key, _, value in pairs}
