"""Patches for what MiniStack 1.5 lacks; tests/unit/test_patches.py shows when one is no longer needed."""

import contextvars
import hashlib
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from local.api_patches import answer_as_api_gateway, provision_reachable_apis
from local.cognito_patches import delete_attributes, keep_attributes_to_their_clients
from local.log_patches import filter_as_aws
from local.notification_patches import leave_mail_unconfirmed, provision_destinations, send_as_aws
from local.schedule_patches import schedule_as_aws

Answer = dict[str, Any]


def mend_all(sagemaker: Callable[[], Any]) -> None:
    """Apply all patches; `sagemaker` returns a client of the SageMaker server."""
    provision_pipelines(sagemaker)
    provision_named_queries()
    provision_bus_policies()
    carry_scheduled_events()
    schedule_as_aws()
    tell_object_versions()
    authorise_as_aws()
    put_variables_in_place()
    name_task_errors()
    tell_condition_keys()
    tell_encryption_keys()
    let_rules_send_by_queue_policy()
    refuse_queue_policies_of_several_queues()
    swallow_uploads()
    emit_alarm_changes()
    filter_as_aws()
    provision_destinations()
    send_as_aws(_objection_to_send)
    leave_mail_unconfirmed()
    answer_as_api_gateway()
    keep_attributes_to_their_clients()
    delete_attributes()
    provision_reachable_apis(f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}")


def provision_pipelines(sagemaker: Callable[[], Any]) -> None:
    """CloudFormation refuses a stack with an AWS::SageMaker::Pipeline: create it in the SageMaker server."""
    from ministack.services.cloudformation import provisioners

    def request(properties: Answer) -> Answer:
        location = properties["PipelineDefinition"]["PipelineDefinitionS3Location"]
        return {
            "PipelineName": properties["PipelineName"],
            "RoleArn": properties["RoleArn"],
            "PipelineDefinitionS3Location": {"Bucket": location["Bucket"], "ObjectKey": location["Key"]},
        }

    def create(logical_id: str, properties: Answer, stack_name: str) -> tuple[str, Answer]:
        sagemaker().create_pipeline(
            ClientRequestToken=f"{stack_name}-{logical_id}".ljust(32, "-"), **request(properties)
        )
        return properties["PipelineName"], {}

    def update(physical_id: str, old: Answer, new: Answer, stack_name: str) -> tuple[str, Answer]:
        sagemaker().update_pipeline(**request(new))
        return physical_id, {}

    def delete(physical_id: str, properties: Answer) -> None:
        sagemaker().delete_pipeline(PipelineName=physical_id, ClientRequestToken=physical_id.ljust(32, "-"))

    provisioners._RESOURCE_HANDLERS["AWS::SageMaker::Pipeline"] = {
        "create": create,
        "update": update,
        "delete": delete,
    }


def provision_named_queries() -> None:
    """CloudFormation refuses a stack with an AWS::Athena::NamedQuery, although MiniStack's Athena supports it."""
    from ministack.services import athena
    from ministack.services.cloudformation import provisioners

    def create(logical_id: str, properties: Answer, stack_name: str) -> tuple[str, Answer]:
        _, _, body = athena._create_named_query(properties)
        return str(json.loads(body)["NamedQueryId"]), {}

    def update(physical_id: str, old: Answer, new: Answer, stack_name: str) -> tuple[str, Answer]:
        delete(physical_id, old)
        return create("", new, stack_name)

    def delete(physical_id: str, properties: Answer) -> None:
        athena._delete_named_query({"NamedQueryId": physical_id})

    provisioners._RESOURCE_HANDLERS["AWS::Athena::NamedQuery"] = {
        "create": create,
        "update": update,
        "delete": delete,
    }


def provision_bus_policies() -> None:
    """CloudFormation refuses a stack with an AWS::Events::EventBusPolicy: keep its statement with the bus.

    EventBridge does not enforce it here: events of other accounts do not reach a bus at all.
    """
    from ministack.services import eventbridge
    from ministack.services.cloudformation import provisioners

    def create(logical_id: str, properties: Answer, stack_name: str) -> tuple[str, Answer]:
        statement, bus, name = properties["Statement"], properties["EventBusName"], properties["StatementId"]
        eventbridge._put_permission(
            {
                "EventBusName": bus,
                "StatementId": name,
                "Principal": statement["Principal"],
                "Action": statement["Action"],
                "Condition": statement["Condition"],
            }
        )
        return f"{bus}|{name}", {}

    def update(physical_id: str, old: Answer, new: Answer, stack_name: str) -> tuple[str, Answer]:
        return create("", new, stack_name)

    def delete(physical_id: str, properties: Answer) -> None:
        bus, _, name = physical_id.partition("|")
        eventbridge._remove_permission({"EventBusName": bus, "StatementId": name})

    provisioners._RESOURCE_HANDLERS["AWS::Events::EventBusPolicy"] = {
        "create": create,
        "update": update,
        "delete": delete,
    }


def carry_scheduled_events() -> None:
    """A schedule's event reaches a bus as "Scheduled Event": give it the target's source, type and input."""
    from ministack.services import eventbridge

    invoke = eventbridge._invoke_target

    def invoke_target(target: Answer, event: Answer, *rest: Any, **options: Any) -> Any:
        parameters = target.get("EventBridgeParameters")
        if parameters is None:
            return invoke(target, event, *rest, **options)
        entry = {
            "EventBusName": target["Arn"],
            "Source": parameters["Source"],
            "DetailType": parameters["DetailType"],
            "Detail": target.get("Input") or "{}",
        }
        return eventbridge._put_events({"Entries": [entry]})

    eventbridge._invoke_target = invoke_target


def tell_object_versions() -> None:
    """S3's events lack the object's version, which AWS includes for versioned buckets: add it."""
    from ministack.services import eventbridge, s3

    version: contextvars.ContextVar[str | None] = contextvars.ContextVar("version", default=None)
    fire, dispatch = s3._fire_s3_event, eventbridge._dispatch_event

    def fire_s3_event(*arguments: Any, version_id: str | None = None, **options: Any) -> None:
        version.set(version_id)
        fire(*arguments, version_id=version_id, **options)

    def dispatch_event(event: Answer, *rest: Any) -> Any:
        if event["Source"] == "aws.s3" and version.get():
            detail = json.loads(event["Detail"])
            detail["object"]["version-id"] = version.get()
            event["Detail"] = json.dumps(detail)
        return dispatch(event, *rest)

    s3._fire_s3_event = fire_s3_event
    eventbridge._dispatch_event = dispatch_event


def pass_schedule_time(seconds: float) -> None:
    """Advance the schedules' clock, and run the schedules that become due."""
    from ministack.services import scheduler

    last_runs = scheduler._schedule_last_fired
    for key, schedule in list(scheduler._schedules._data.items()):
        last_runs[key] = last_runs.get(key, schedule["CreationDate"]) - seconds
    scheduler._tick_schedules()


_lost_share = 0.0
"""The share of S3's events that is dropped."""


def lose_uploads(share: float) -> None:
    """Drop a share of S3's events from now on, as AWS does in a bucket's first minutes, and may at any time."""
    global _lost_share  # noqa: PLW0603 - the server's one switch
    _lost_share = share


def swallow_uploads() -> None:
    """Drop S3's events as `lose_uploads` says; MiniStack itself never loses one."""
    from ministack.services import s3

    fire = s3._fire_s3_event

    def fire_or_lose(*arguments: Any, **options: Any) -> None:
        if random.random() >= _lost_share:  # noqa: S311 - a fault, no secret
            fire(*arguments, **options)

    s3._fire_s3_event = fire_or_lose


def authorise_as_aws() -> None:
    """With authorisation on: treat loopback as TLS; support paths and boundaries of roles, schedule groups and
    grants.

    The policies rightly deny plain HTTP, which loopback uses. MiniStack builds ARNs of roles without a path and of
    schedules with the default group, lacks the condition keys iam:PermissionsBoundary and kms:Grant…, and treats
    SQS's batch calls as separate actions.
    """
    from ministack.core import iam_actions, iam_evaluator
    from ministack.services import iam

    boundary: contextvars.ContextVar[str | None] = contextvars.ContextVar("boundary", default=None)
    grant: contextvars.ContextVar[Answer] = contextvars.ContextVar("grant", default=_NO_GRANT)
    extract, resolve = iam_actions.extract_resource_arn, iam_evaluator._resolve_condition_key
    extract_action = iam_actions.extract_iam_action

    def extract_iam_action(service: str, *request: Any) -> Any:
        action = extract_action(service, *request)
        return action.removesuffix("Batch") if service == "sqs" and action else action

    def extract_resource_arn(
        service: str, method: str, path: str, headers: Any, body: Any, query: Any, *rest: Any
    ) -> Any:
        arn = extract(service, method, path, headers, body, query, *rest)
        if service == "logs" and arn == "*" and _operation(headers) == "DescribeLogGroups":
            region, account_id = rest
            return f"arn:aws:logs:{region}:{account_id}:log-group::log-stream:*"  # as AWS's denials name it
        if service == "logs" and ":log-group:" in str(arn) and ":log-stream:" not in arn:
            return f"{arn}:log-stream:{json.loads(body or '{}').get('logStreamName', '')}"  # the same
        if service == "monitoring" and _operation(headers) == "DeleteAlarms":
            (name,) = json.loads(body)["AlarmNames"]  # our code deletes one at a time
            region, account_id = rest
            return f"arn:aws:cloudwatch:{region}:{account_id}:alarm:{name}"
        if service == "monitoring" and _operation(headers) == "DescribeAlarms":
            region, account_id = rest
            return f"arn:aws:cloudwatch:{region}:{account_id}:alarm:*"  # as AWS's denials name it
        if service == "kms":
            asked = json.loads(body) if body else {}
            told = {
                "kms:granteeprincipal": asked.get("GranteePrincipal"),
                "kms:grantoperations": asked.get("Operations"),
            }
            grant.set({name: value for name, value in told.items() if value is not None})
            return arn
        if service == "scheduler":
            group = _first(query.get("groupName")) or (json.loads(body) if body else {}).get("GroupName")
            return arn.replace(":schedule/default/", f":schedule/{group or 'default'}/")
        if service != "iam" or ":role/" not in arn:
            return arn
        asked = {name: _first(values) for name, values in query.items()}
        known = iam._roles.get(asked["RoleName"]) or {}
        boundary.set(asked.get("PermissionsBoundary") or known.get("PermissionsBoundary"))
        role_path = asked.get("Path") or known.get("Path") or "/"
        return arn.replace(":role/", f":role{role_path}")

    def resolve_condition_key(key: str, context: Any) -> Any:
        if key.lower() == "aws:securetransport":
            return "true"
        if key.lower().startswith("kms:grant"):
            return grant.get().get(key.lower())
        return boundary.get() if key.lower() == "iam:permissionsboundary" else resolve(key, context)

    iam_actions.extract_iam_action = extract_iam_action
    iam_actions.extract_resource_arn = extract_resource_arn
    iam_evaluator._resolve_condition_key = resolve_condition_key


def put_variables_in_place() -> None:
    """With authorisation on: policies can contain ${aws:PrincipalTag/…}, and aws:PrincipalArn is the role's ARN.

    MiniStack knows the tags, but does not replace the variables, and it uses the session's ARN. An absent tag
    matches no resource and no text (IAM user guide, "IAM policy elements: Variables and tags").
    """
    from ministack.core import iam_evaluator
    from ministack.services import iam

    first_match, resolve = iam_evaluator._first_match, iam_evaluator._resolve_condition_key

    def resolve_condition_key(key: str, context: Any) -> Any:
        if key.lower() == "aws:principalarn" and ":assumed-role/" in context.principal_arn:
            role = iam._roles.get(context.principal_arn.split("/")[1])
            return role["Arn"] if role else context.principal_arn
        if key.lower() == "aws:resourceaccount" and key.lower() in context.service_context:
            return context.service_context[key.lower()]  # a bucket of another account; not in its ARN
        return resolve(key, context)

    def match(context: Any, statements: list[Any], effect: str) -> Any:
        placed = [_placed(statement, context, resolve_condition_key) for statement in statements]
        return first_match(context, placed, effect)

    iam_evaluator._first_match = match
    iam_evaluator._resolve_condition_key = resolve_condition_key


def _placed(statement: Any, context: Any, resolve: Callable[[str, Any], Any]) -> Any:
    """Return a statement with its policy variables replaced."""

    def value(match: re.Match[str]) -> str:
        found = resolve(match[1], context)
        return str(found) if found is not None else "\x00"  # in no ARN and no text

    def placed(text: Any) -> Any:
        if isinstance(text, list):
            return [placed(one) for one in text]
        return _VARIABLE.sub(value, text) if isinstance(text, str) else text

    conditions = {
        operator: {key: placed(expected) for key, expected in keys.items()}
        for operator, keys in (statement.conditions or {}).items()
    }
    return replace(
        statement,
        resources=placed(statement.resources),
        not_resources=placed(statement.not_resources),
        conditions=conditions,
    )


def _operation(headers: Answer) -> str:
    return str(headers.get("x-amz-target", "")).rpartition(".")[2]


_NO_GRANT: Answer = {}
_VARIABLE = re.compile(r"\$\{(aws:[^}]+)\}")


def tell_encryption_keys() -> None:
    """With authorisation on: a bucket policy can check with which key an object is encrypted."""
    from ministack.core import iam_actions

    told = ("x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-customer-algorithm")
    context = iam_actions.s3_service_context

    def s3_service_context(action: str, query: Any, path: str = "", headers: Any = None) -> Answer:
        named = {
            f"s3:{name}": headers[name] for name in told if action == "s3:PutObject" and (headers or {}).get(name)
        }
        return dict(context(action, query, path, headers)) | named

    iam_actions.s3_service_context = s3_service_context


def tell_condition_keys() -> None:
    """With authorisation on: provide the condition keys that limit writes to tables and events.

    A transaction is authorised item by item (DynamoDB developer guide, "Using IAM with transactions"), and each of
    its items has its own leading key.
    """
    from ministack.core import iam_actions, iam_evaluator

    leading: contextvars.ContextVar[list[list[str]]] = contextvars.ContextVar("leading")
    enforce, checks = iam_evaluator.enforce, iam_actions.dynamodb_transaction_checks
    tables, tags = iam_actions.dynamodb_service_context, iam_actions.request_tag_context

    def transaction_checks(action: str, body: bytes, *rest: Any) -> Any:
        found = checks(action, body, *rest)
        if found:
            items = [item for entry in json.loads(body)["TransactItems"] for item in entry.values()]
            leading.set([_leading_keys(item) for item in items])
        return found

    def enforce_with_leading_key(*call: Any, service_context: Any = None, **options: Any) -> Any:
        told = dict(service_context or {})
        if "dynamodb:EnclosingOperation" in told and leading.get([]):
            told["dynamodb:LeadingKeys"] = leading.get().pop(0)
        return enforce(*call, service_context=told, **options)

    def dynamodb_service_context(body: bytes) -> Answer:
        asked = json.loads(body or b"{}")
        told = {"dynamodb:LeadingKeys": _leading_keys(asked), "dynamodb:ReturnValues": asked.get("ReturnValues")}
        told["dynamodb:Attributes"] = _attributes(asked)
        return dict(tables(body)) | {name: value for name, value in told.items() if value}

    def request_tag_context(service: str, action: str, body: Any, *rest: Any) -> Any:
        told = dict(tags(service, action, body, *rest) or {})
        if action == "events:PutEvents":
            entries = json.loads(body)["Entries"]
            told["events:source"] = [entry["Source"] for entry in entries]
            told["events:detail-type"] = [entry["DetailType"] for entry in entries]
        return told

    iam_actions.dynamodb_transaction_checks = transaction_checks
    iam_actions.dynamodb_service_context = dynamodb_service_context
    iam_actions.request_tag_context = request_tag_context
    iam_evaluator.enforce = enforce_with_leading_key


def _leading_keys(asked: Answer) -> list[str]:
    """Return the partition key of a write's item, by the attribute names of the template's tables."""
    item = asked.get("Key") or asked.get("Item") or {}
    return [item[name]["S"] for name in ("pk", "request_id") if name in item][:1]


def _attributes(asked: Answer) -> list[str]:
    """Return the attributes that a write names: of its item or key, and in its expressions."""
    named = [*(asked.get("Key") or {}), *(asked.get("Item") or {})]
    return sorted({*named, *(asked.get("ExpressionAttributeNames") or {}).values()})


def name_task_errors() -> None:
    """Pass the class of a function's error to Step Functions, which otherwise gets "Runtime.HandlerError".

    The class only appears in the traceback of the worker's log, whose last line is "<class>: <message>".
    """
    from ministack.services import lambda_svc

    execute = lambda_svc._execute_function_with_config_scope

    def execute_and_name(*arguments: Any, **options: Any) -> Any:
        result = execute(*arguments, **options)
        body = result.get("body")
        if result.get("error") and isinstance(body, dict) and body.get("errorType") == "Runtime.HandlerError":
            body["errorType"] = _error_class(str(result.get("log", "")), str(body.get("errorMessage", "")))
        return result

    lambda_svc._execute_function_with_config_scope = execute_and_name


def _error_class(log: str, message: str) -> str:
    """Return the class in a traceback's last line, or "Runtime.HandlerError" if there is none."""
    first = (message.splitlines() or [""])[0]
    for line in reversed(log.splitlines()):
        name, colon, rest = line.partition(": ")
        if colon and rest == first and re.fullmatch(r"[\w.]+", name):
            return name.rpartition(".")[2]
    return "Runtime.HandlerError"


def let_rules_send_by_queue_policy() -> None:
    """With authorisation on: a rule can send to a queue only if the queue's policy allows that rule.

    AWS drops the event otherwise (EventBridge user guide, "Using resource-based policies", Amazon SQS).
    """
    from ministack.services import eventbridge, sqs

    invoke = eventbridge._invoke_target

    def invoke_target(target: Answer, event: Answer, rule: Answer, *rest: Any, **options: Any) -> Any:
        arn, rule_arn = str(target.get("Arn", "")), str(rule.get("Arn", ""))
        if ":sqs:" in arn and rule_arn:
            account = rule_arn.split(":")[4]
            if not sqs.queue_policy_allows(arn, "events.amazonaws.com", rule_arn, account):
                eventbridge.logger.error("%s may not send to %s: the event is dropped", rule_arn, arn)
                return None
        return invoke(target, event, rule, *rest, **options)

    eventbridge._invoke_target = invoke_target


def refuse_queue_policies_of_several_queues() -> None:
    """SQS takes a policy only if each statement names one resource.

    Source: SQS developer guide, "Special information for SQS policies": a policy must cover only a single queue.
    """
    from ministack.services.cloudformation import provisioners

    handlers = provisioners._RESOURCE_HANDLERS["AWS::SQS::QueuePolicy"]
    create, update = handlers["create"], handlers["update"]

    def checked(properties: Answer) -> None:
        for statement in properties["PolicyDocument"]["Statement"]:
            if isinstance(statement["Resource"], list):
                raise ValueError("Invalid value for the parameter Policy.")

    def create_checked(logical_id: str, properties: Answer, stack_name: str) -> Any:
        checked(properties)
        return create(logical_id, properties, stack_name)

    def update_checked(physical_id: str, old: Answer, new: Answer, stack_name: str) -> Any:
        checked(new)
        return update(physical_id, old, new, stack_name)

    provisioners._RESOURCE_HANDLERS["AWS::SQS::QueuePolicy"] = handlers | {
        "create": create_checked,
        "update": update_checked,
    }


def denial(role_arn: str, action: str, resource: str, keys: Answer, *, region: str) -> str | None:
    """Return AWS's message if a role may not do something; None if it may, or without authorisation.

    `keys` are condition keys with AWS's names. It is used for what a service does on behalf of a role.
    """
    from ministack import app
    from ministack.core import iam_evaluator
    from ministack.core.responses import request_scope

    if not app.AUTH:
        return None
    account_id, role_name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    with request_scope(account_id, region):
        context = iam_evaluator.EvalContext(
            principal_arn=f"arn:aws:sts::{account_id}:assumed-role/{role_name}/SageMaker",
            principal_type="AssumedRole",
            principal_account=account_id,
            action=action,
            resource_arn=resource,
            region=region,
            secure_transport=True,
            service_context={name.lower(): value for name, value in keys.items()},
        )
        policies = iam_evaluator._gather_role_policies(role_name, account_id)
        if iam_evaluator.evaluate(context, policies).decision == "Allow":
            return None
    return (
        f"User: arn:aws:sts::{account_id}:assumed-role/{role_name}/SageMaker is not authorized to perform: "
        f"{action} on resource: {resource} because no identity-based policy allows the {action} action"
    )


def objection(
    access_key: str, action: str, resource: str, keys: Answer, *, account_id: str, region: str
) -> str | None:
    """Return AWS's message if the owner of an access key may not do something; None without authorisation.

    `keys` are condition keys with AWS's names. It is used for calls to services that MiniStack does not have.
    """
    from ministack import app
    from ministack.core import iam_evaluator
    from ministack.core.responses import request_scope

    if not app.AUTH:
        return None
    with request_scope(account_id, region):
        refused = iam_evaluator.enforce(
            access_key, action, action.partition(":")[0], region, resource_arn=resource, service_context=keys
        )
    if refused is None:
        return None
    if isinstance(refused, iam_evaluator.AuthError):
        return f"{refused}"
    return (
        f"User: {refused.principal_arn} is not authorized to perform: {action} on resource: {resource} because no "
        f"identity-based policy allows the {action} action"
    )


def _objection_to_send(role_arn: str, rule_arn: str, action: str, resource: str) -> str | None:
    """Return why EventBridge may not do something to a target with a role on behalf of a rule; None if it may."""
    region = rule_arn.split(":")[3]
    if not role_arn or not trusts(role_arn, rule_arn, region=region, service="events"):
        return f"EventBridge cannot assume {role_arn or 'no role'} for {rule_arn}"
    return denial(role_arn, action, resource, {}, region=region)


def trusts(role_arn: str, source_arn: str, *, region: str, service: str = "sagemaker") -> bool:
    """Tell whether a role's trust lets a service assume it on behalf of a job, a pipeline or a rule.

    Always True without authorisation.
    """
    from ministack import app
    from ministack.core.responses import request_scope
    from ministack.services import iam

    if not app.AUTH:
        return True
    with request_scope(role_arn.split(":")[4], region):
        role = iam._roles.get(role_arn.rpartition("/")[2])
    if role is None:
        return False
    trust = role["AssumeRolePolicyDocument"]
    return trust_lets(json.loads(trust) if isinstance(trust, str) else trust, role_arn, source_arn, service)


def trust_lets(trust: Answer, role_arn: str, source_arn: str, service: str = "sagemaker") -> bool:
    """Tell whether a trust policy lets a service assume its role for the job, pipeline or rule of that ARN."""
    from ministack.core import iam_evaluator

    account_id = role_arn.split(":")[4]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:iam::{account_id}:{service}.amazonaws.com",
        principal_type="Service",
        principal_account=account_id,
        action="sts:AssumeRole",
        resource_arn=role_arn,
        region=source_arn.split(":")[3],
        secure_transport=True,
        service_context={"aws:sourceaccount": source_arn.split(":")[4], "aws:sourcearn": source_arn},
    )
    document = {"Statement": [{"Resource": "*"} | statement for statement in trust["Statement"]]}
    judged = iam_evaluator.evaluate_resource_policy(document, context, service=f"{service}.amazonaws.com")
    return bool(judged.decision == "Allow")


def _first(values: Any) -> Any:
    return values[0] if isinstance(values, list) else values


def assume_as_service(role_arn: str, session_name: str, trusted: str = ".amazonaws.com") -> dict[str, str]:
    """Return credentials of a role as a service gets them: only a service can assume its roles by AssumeRole.

    Raises PermissionError unless the role exists and trusts the service.
    """
    from ministack.core.responses import request_scope
    from ministack.services import iam, sts

    account_id, role_name = role_arn.split(":")[4], role_arn.rpartition("/")[2]
    with request_scope(account_id, "us-east-1"):
        role = iam._roles.get(role_name)
    if role is None or trusted not in str(role["AssumeRolePolicyDocument"]):
        raise PermissionError(f"{session_name} cannot assume {role_arn}: it must exist and trust {trusted}")
    digest = hashlib.sha256(f"{role_arn}/{session_name}".encode()).hexdigest()
    session = {"SecretAccessKey": digest, "SessionToken": digest}
    key = f"ASIA{digest[:16].upper()}"
    sts.register_session(
        key,
        session
        | {
            "Arn": f"arn:aws:sts::{account_id}:assumed-role/{role_name}/{session_name}",
            "UserId": f"{role_name}:{session_name}",
        },
    )
    return {
        "aws_access_key_id": key,
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }


def emit_alarm_changes() -> None:
    """Alarms emit no event when their state changes: put it on the default bus, as CloudWatch does.

    Source: CloudWatch user guide, "Alarm events and EventBridge".
    """
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import cloudwatch

    dispatch = cloudwatch._dispatch_alarm_actions

    def dispatch_and_emit(alarm: Answer, old_state: str, new_state: str, reason: str) -> None:
        dispatch(alarm, old_state, new_state, reason)
        if old_state == new_state:
            return
        detail = {
            "alarmName": alarm["AlarmName"],
            "state": {"value": new_state, "reason": reason},
            "previousState": {"value": old_state},
            "configuration": {"description": alarm.get("AlarmDescription", "")},
        }
        entry = {
            "Source": "aws.cloudwatch",
            "DetailType": "CloudWatch Alarm State Change",
            "Detail": json.dumps(detail),
            "Resources": [alarm["AlarmArn"]],
        }
        emit_as_aws(entry, account_id=get_account_id(), region=get_region())

    cloudwatch._dispatch_alarm_actions = dispatch_and_emit


def emit_as_aws(entry: Answer, *, account_id: str, region: str) -> None:
    """Put an event of an AWS service on the default bus, which PutEvents refuses to customers."""
    from ministack.core.responses import request_scope
    from ministack.services import eventbridge

    with request_scope(account_id, region):
        answer = eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
    failed = json.loads(answer[2])["FailedEntryCount"]
    assert failed == 0, f"the event was refused: {answer}"
