"""Tenants and their data."""

import json
from argparse import Namespace
from typing import Any

from cli.deployment import Deployment
from cli.show import Answer
from trainyard.contracts.events import APPLICATION_SOURCE
from trainyard.contracts.tenants import tenant_view
from trainyard.domain.errors import Refused, TrainyardError
from trainyard.domain.names import FOLDERS, is_data_set

_SETTINGS = ("target", "algorithm", "problem", "train_on", "every_upload")


def create(deployment: Deployment, arguments: Namespace) -> Answer:
    settings = {
        "target": arguments.target,
        "algorithm": arguments.algorithm,
        "problem": arguments.problem,
        "train_on": arguments.train_on,
        "every_upload": arguments.every_upload,
        "hyperparameters": dict(_hyperparameter(text) for text in arguments.hyperparameter),
    }
    tenant = {
        "tenant_id": arguments.tenant_id,
        "tier": arguments.tier,
        "settings": settings,
        "data_sets": dict(_data_set(text, settings) for text in arguments.data_set),
        "retrain": arguments.retrain,
    }
    return _tenant_answer(_call(deployment, "ensure", tenant))


def suspend(deployment: Deployment, arguments: Namespace) -> Answer:
    return _tenant_answer(_call(deployment, "suspend", {"tenant_id": arguments.tenant_id}))


def resume(deployment: Deployment, arguments: Namespace) -> Answer:
    return _tenant_answer(_call(deployment, "resume", {"tenant_id": arguments.tenant_id}))


def list_all(deployment: Deployment, arguments: Namespace) -> Answer:
    views = [tenant_view(tenant) for tenant in deployment.tenants.all()]
    return Answer(
        data=views,
        columns=("TENANT", "TIER", "STATE", "ALGORITHM", "TARGET", "RETRAIN"),
        rows=[
            (
                v["tenant_id"],
                v["tier"],
                v["state"],
                v["settings"]["algorithm"],
                v["settings"]["target"],
                v["retrain"],
            )
            for v in views
        ],
    )


def show_one(deployment: Deployment, arguments: Namespace) -> Answer:
    return _tenant_answer(tenant_view(deployment.tenant(arguments.tenant_id)))


def upload(deployment: Deployment, arguments: Namespace) -> Answer:
    tenant = deployment.tenant(arguments.tenant_id)
    if not arguments.file.is_file():
        raise Refused(f"{arguments.file} is not a file")
    data_set = arguments.data_set or arguments.file.stem
    _check_data_set(data_set)
    key = f"{tenant.root}incoming/{data_set}/{arguments.file.name}"
    deployment.client("s3").upload_file(str(arguments.file), tenant.bucket, key)
    uri = f"s3://{tenant.bucket}/{key}"
    return Answer(
        data={"uri": uri}, lines=[f"uploaded {uri}", f"follow it with: trainyard requests {tenant.tenant_id}"]
    )


def presign(deployment: Deployment, arguments: Namespace) -> Answer:
    tenant = deployment.tenant(arguments.tenant_id)
    _check_data_set(arguments.data_set)
    if not 1 <= arguments.minutes <= 720:
        raise Refused(f"--minutes is {arguments.minutes}: choose between 1 and 720")
    key = f"{tenant.root}incoming/{arguments.data_set}/{arguments.name}"
    url = deployment.client("s3").generate_presigned_url(
        "put_object", Params={"Bucket": tenant.bucket, "Key": key}, ExpiresIn=arguments.minutes * 60
    )
    return Answer(data={"url": url}, lines=[url])


def retrain(deployment: Deployment, arguments: Namespace) -> Answer:
    tenant = deployment.tenant(arguments.tenant_id)
    detail: dict[str, Any] = {"tenant_id": tenant.tenant_id, "reason": "asked for on the command line"}
    if arguments.data_set:
        _check_data_set(arguments.data_set)
        detail["data_set"] = arguments.data_set
    answer = deployment.client("events").put_events(
        Entries=[
            {
                "EventBusName": deployment.outputs["EventBus"],
                "Source": APPLICATION_SOURCE,
                "DetailType": "Retraining Requested",
                "Detail": json.dumps(detail),
            }
        ]
    )
    if answer["FailedEntryCount"]:
        raise Refused(f"the event bus refused: {answer['Entries'][0].get('ErrorMessage')}")
    return Answer(
        data=answer["Entries"][0], lines=[f"asked for; follow it with: trainyard requests {tenant.tenant_id}"]
    )


def _call(deployment: Deployment, action: str, tenant: dict[str, Any]) -> dict[str, Any]:
    """Let the tenants function act; raises Refused with its reason."""
    answer = deployment.client("lambda").invoke(
        FunctionName=deployment.outputs["TenantsFunction"],
        Payload=json.dumps({"action": action, "tenant": tenant}).encode(),
    )
    body = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise TrainyardError(f"the tenants function failed; run it again. {body.get('errorMessage', body)}")
    if "refused" in body:
        raise Refused(body["refused"])
    settled: dict[str, Any] = body["tenant"]
    return settled


def _tenant_answer(view: dict[str, Any]) -> Answer:
    shown = [(name, json.dumps(value) if isinstance(value, dict) else value) for name, value in view.items()]
    return Answer(data=view, columns=("FIELD", "VALUE"), rows=list(shown))


def _hyperparameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Refused(f"--hyperparameter {text!r}: write NAME=VALUE, for example max_iter=200")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _data_set(text: str, defaults: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name, colon, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",")] if colon else []
    wrong = [part[0] for part in pairs if part[0] not in _SETTINGS or not part[2]]
    if not pairs or wrong:
        raise Refused(
            f"--data-set {text!r}: write NAME:KEY=VALUE,… with keys {', '.join(_SETTINGS)}, for example "
            "sales:target=revenue,train_on=whole-prefix"
        )
    return name, defaults | {key: value for key, _, value in pairs}


def _check_data_set(name: str) -> None:
    if not is_data_set(name):
        raise Refused(
            f"{name!r} cannot name a data set: 1 to 63 letters, digits, dots, hyphens or underscores, and none of "
            f"{', '.join(FOLDERS)}"
        )
