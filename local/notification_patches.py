"""Notifications as AWS has them: MiniStack lacks API destinations in templates, and loses a post that fails."""

import copy
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]
PAUSES_SECONDS = (0.2, 0.5, 1.0)
"""Before each further attempt; AWS tries for 24 hours and up to 185 times (EventBridge user guide, "Retries")."""
HTTPS_ENDPOINT = re.compile(r"https://((%[0-9A-Fa-f]{2}|[-()_.!~*';/?:@&=+$,A-Za-z0-9])+)([).!';/?:,])?")
HEADER_VALUE = re.compile(r"[ \t]*[^\x00-\x1F:\x7F]+([ \t]+[^\x00-\x1F:\x7F]+)*[ \t]*")
"""Of an endpoint and of a key, as botocore's model of EventBridge has them."""

TRIED_AGAIN = (401, 407, 409, 429)


def provision_destinations() -> None:
    """CloudFormation refuses a stack with a connection or an API destination, although EventBridge has both."""
    from ministack.services import eventbridge
    from ministack.services.cloudformation import provisioners

    def handlers(arn_name: str, create: Any, update: Any, delete: Any) -> Answer:
        def created(logical_id: str, properties: Answer, stack_name: str) -> tuple[str, Answer]:
            name = properties.get("Name") or f"{stack_name}-{logical_id}"
            answer = _answered(create({**properties, "Name": name}))
            return name, {"Arn": answer[arn_name]}

        def updated(physical_id: str, old: Answer, new: Answer, stack_name: str) -> tuple[str, Answer]:
            answer = _answered(update({**new, "Name": physical_id}))
            return physical_id, {"Arn": answer[arn_name]}

        def deleted(physical_id: str, properties: Answer) -> None:
            delete({"Name": physical_id})

        return {"create": created, "update": updated, "delete": deleted}

    def create_destination(data: Answer) -> Any:
        if not HTTPS_ENDPOINT.fullmatch(str(data.get("InvocationEndpoint", ""))):
            raise ValueError("Parameter InvocationEndpoint is not valid. Reason: Must be an https:// endpoint.")
        return eventbridge._create_api_destination(data)

    def create_connection(data: Answer) -> Any:
        key = data["AuthParameters"]["ApiKeyAuthParameters"]["ApiKeyValue"]
        if not HEADER_VALUE.fullmatch(key):
            raise ValueError("Parameter ApiKeyValue is not valid.")
        return eventbridge._create_connection(data)

    provisioners._RESOURCE_HANDLERS["AWS::Events::Connection"] = handlers(
        "ConnectionArn",
        create_connection,
        eventbridge._update_connection,
        eventbridge._delete_connection,
    )
    provisioners._RESOURCE_HANDLERS["AWS::Events::ApiDestination"] = handlers(
        "ApiDestinationArn",
        create_destination,
        eventbridge._update_api_destination,
        eventbridge._delete_api_destination,
    )


def _answered(answer: Any) -> Answer:
    status, _, body = answer
    if status != 200:
        raise ValueError(str(json.loads(body).get("message")))
    return dict(json.loads(body))


def send_as_aws(objection: Callable[[str, str, str, str], str | None]) -> None:
    """Send to topics and API destinations with the target's role; try again what may pass, and keep the rest.

    `objection` returns why a role may not do an action on a resource for a rule, or None. Sources: EventBridge
    user guide, "API destinations": 401, 407, 409, 429 and 5xx are tried again, other codes are not; "Using
    dead-letter queues to process undelivered events": the event is kept, with attributes that say why.
    """
    from ministack.services import eventbridge

    invoke = eventbridge._invoke_target

    def invoke_target(target: Answer, event: Answer, rule: Answer, *rest: Any, **options: Any) -> Any:
        target = target | {"RuleArn": rule.get("Arn", ""), "Event": event}
        if ":sns:" in target.get("Arn", "") and target.get("RoleArn"):
            refusal = objection(target["RoleArn"], target["RuleArn"], "sns:Publish", target["Arn"])
            if refusal:
                return _keep(target, "NO_PERMISSIONS", refusal)
        return invoke(target, event, rule, *rest, **options)

    def dispatch(spec: Any, payload: str, target: Answer) -> None:
        destination = eventbridge._api_destinations.get(spec.resource.split("/", 2)[1])
        if destination is None:
            return _keep(target, "NO_RESOURCE", "the API destination does not exist")
        role_arn, rule_arn = target.get("RoleArn", ""), target["RuleArn"]
        if refusal := objection(role_arn, rule_arn, "events:InvokeApiDestination", str(spec)):
            return _keep(target, "NO_PERMISSIONS", refusal)
        name = destination["ConnectionArn"].rsplit("/", 1)[-1]
        connection = copy.deepcopy(eventbridge._connections[name])
        request = eventbridge._build_api_destination_request(
            destination, connection, target.get("HttpParameters") or {}, payload
        )
        token = (eventbridge.get_account_id(), eventbridge.get_region(), name)

        def deliver() -> None:
            problem = _posted(request, connection, token)
            if problem:
                _keep(target, "SDK_CLIENT_ERROR", f"Unable to invoke ApiDestination endpoint: {problem}")

        threading.Thread(target=deliver, daemon=True).start()
        return None

    eventbridge._invoke_target = invoke_target
    eventbridge._dispatch_to_api_destination = dispatch


def _posted(request: Answer, connection: Answer, token: Any) -> str | None:
    """Post until it succeeds or cannot; returns the last problem."""
    from ministack.services import eventbridge

    problem = None
    for pause in (0.0, *PAUSES_SECONDS):
        time.sleep(pause)
        try:
            headers = eventbridge._connection_auth_headers(connection, token)
            status = int(eventbridge._api_destination_send_sync(request, headers))
        except OSError as error:
            problem = f"API destination endpoint cannot be reached: {error}"
            continue
        if 200 <= status < 300:
            return None
        problem = f"the endpoint answered with status code {status}"
        if status not in TRIED_AGAIN and status < 500:
            break
    return problem


_keeping = threading.Lock()


def _keep(target: Answer, code: str, message: str) -> None:
    """Put an event into the dead-letter queue of its target, if the queue's policy lets the rule send to it."""
    from ministack.core.arn import parse_arn
    from ministack.services import eventbridge, sqs

    eventbridge.logger.warning("EventBridge to %s: %s, %s", target.get("Arn"), code, message)
    arn, rule_arn = target.get("DeadLetterConfig", {}).get("Arn"), target["RuleArn"]
    if not arn or not sqs.queue_policy_allows(arn, "events.amazonaws.com", rule_arn, rule_arn.split(":")[4]):
        return
    attributes = {"RULE_ARN": rule_arn, "TARGET_ARN": target["Arn"], "ERROR_CODE": code, "ERROR_MESSAGE": message}
    event = eventbridge._pattern_event_view(target["Event"]).event_with_detail()
    with _keeping:
        eventbridge._dispatch_to_sqs(parse_arn(arn), json.dumps(event))
        sqs._queue_by_arn(arn)["messages"][-1]["message_attributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }


def leave_mail_unconfirmed() -> None:
    """A subscription by e-mail stays pending until its recipient confirms it; here, no mail is sent.

    Source: SNS API reference, ListSubscriptionsByTopic; the ARN is then the text "PendingConfirmation".
    """
    from ministack.services import sns

    listed = sns._list_subscriptions_by_topic

    def list_subscriptions_by_topic(params: Any) -> Any:
        status, headers, body = listed(params)
        pending = re.sub(
            rb"<SubscriptionArn>[^<]*(</SubscriptionArn>(?:<(Owner|TopicArn)>[^<]*</\2>)*<Protocol>email<)",
            rb"<SubscriptionArn>PendingConfirmation\1",
            body,
        )
        return status, headers, pending

    sns._list_subscriptions_by_topic = list_subscriptions_by_topic
