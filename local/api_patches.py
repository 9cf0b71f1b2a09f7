"""API Gateway as AWS has it: MiniStack's APIs have an address that no client resolves, and forgive too much."""

import json
import time
from typing import Any

Answer = dict[str, Any]

REQUEST_BYTES_MAX = 10 * 1024**2
"""Payload of an HTTP API (API Gateway developer guide, "Quotas for configuring and running an HTTP API")."""

_JSON = {"Content-Type": "application/json"}


class _Throttle:
    """A token bucket: so many requests at once, refilled at a rate a second."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str], tuple[float, float]] = {}

    def takes(self, api_id: str, route_key: str, settings: Answer, now: float) -> bool:
        """Tell whether a route has a token for one more request, and take it."""
        burst = float(settings.get("ThrottlingBurstLimit") or settings.get("throttlingBurstLimit") or 5000)
        rate = float(settings.get("ThrottlingRateLimit") or settings.get("throttlingRateLimit") or 10000)
        tokens, since = self._tokens.get((api_id, route_key), (burst, now))
        tokens = min(burst, tokens + (now - since) * rate)
        self._tokens[api_id, route_key] = (tokens - 1 if tokens >= 1 else tokens, now)
        return tokens >= 1


def answer_as_api_gateway() -> None:
    """Bound HTTP APIs by their stages' throttling and AWS's size limit, and tell callers nothing about errors.

    A function that API Gateway has no permission to invoke is not invoked. Sources: API Gateway developer guide,
    "Throttle requests to your HTTP APIs" (429 Too Many Requests) and "Troubleshooting issues with HTTP API Lambda
    integrations" (500 Internal Server Error).
    """
    from ministack.services import apigateway

    handle, invoke, throttle = apigateway.handle_execute, apigateway._invoke_lambda_proxy, _Throttle()

    async def handle_execute(
        api_id: str, stage: str, path: str, method: str, headers: Any, body: Any, *rest: Any, **options: Any
    ) -> Any:
        if len(body or b"") > REQUEST_BYTES_MAX:
            return _refusal(413, "Request Entity Too Large")
        return await handle(api_id, stage, path, method, headers, body, *rest, **options)

    async def invoke_lambda_proxy(
        integration: Answer, api_id: str, stage: str, path: str, method: str, *rest: Any, **options: Any
    ) -> Any:
        function = str(integration.get("integrationUri", ""))
        route_key = rest[3] if len(rest) > 3 else options.get("route_key", "$default")
        if not throttle.takes(
            api_id, str(route_key), _settings_of(apigateway, api_id, stage, route_key), time.monotonic()
        ):
            return _refusal(429, "Too Many Requests")
        if not _may_invoke(
            function, api_id, stage, str(route_key), options.get("owner_account_id"), options.get("owner_region")
        ):
            return _refusal(500, "Internal Server Error")
        status, told, content = await invoke(integration, api_id, stage, path, method, *rest, **options)
        if status == 502:
            return _refusal(500, "Internal Server Error")
        return status, told, content

    apigateway.handle_execute = handle_execute
    apigateway._invoke_lambda_proxy = invoke_lambda_proxy


def provision_reachable_apis(address: str) -> None:
    """Let CloudFormation return an endpoint of APIs that any client can reach, and store CORS as it is read."""
    from ministack.services import apigateway
    from ministack.services.cloudformation import provisioners

    handlers = provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"]
    create, update = handlers["create"], handlers["update"]

    def reachable(answer: tuple[str, Answer]) -> tuple[str, Answer]:
        api_id, attributes = answer
        cors = apigateway._apis[api_id].get("corsConfiguration") or {}
        for name in list(cors):
            cors[name[:1].lower() + name[1:]] = cors.pop(name)
        return api_id, attributes | {"ApiEndpoint": f"{address}/_aws/execute-api/{api_id}/$default"}

    provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"] = handlers | {
        "create": lambda *call, **options: reachable(create(*call, **options)),
        "update": lambda *call, **options: reachable(update(*call, **options)),
    }


def _settings_of(apigateway: Any, api_id: str, stage: str, route_key: Any) -> Answer:
    """Return the throttling of a route: its own, or else the stage's, which holds for each route alone."""
    settings = _stage_of(apigateway, api_id, stage)
    own = (settings.get("routeSettings") or {}).get(str(route_key))
    return dict(own or settings.get("defaultRouteSettings") or {})


def _stage_of(apigateway: Any, api_id: str, stage: str) -> Answer:
    from ministack.core.responses import request_scope

    scope = apigateway.find_api_scope(api_id)
    if scope is None:
        return {}
    with request_scope(*scope):
        return dict(apigateway._stages.get(api_id, {}).get(stage) or {})


def _may_invoke(function: str, api_id: str, stage: str, route_key: str, account_id: Any, region: Any) -> bool:
    """Tell whether the function's policy lets API Gateway invoke it for a route."""
    from ministack.core import iam_evaluator
    from ministack.core.responses import request_scope
    from ministack.services import lambda_svc

    with request_scope(account_id, region):
        record = lambda_svc._functions.get(function.rpartition(":")[2]) or {}
    method, _, path = route_key.partition(" ")
    source = f"arn:aws:execute-api:{region}:{account_id}:{api_id}/{stage}/{method}{path}"
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:iam::{account_id}:apigateway.amazonaws.com",
        principal_type="Service",
        principal_account=account_id,
        action="lambda:InvokeFunction",
        resource_arn=function,
        region=region,
        secure_transport=True,
        service_context={"aws:sourcearn": source},  # that there is an aws:SourceAccount is documented nowhere
    )
    judged = iam_evaluator.evaluate_resource_policy(
        record.get("policy") or {}, context, service="apigateway.amazonaws.com"
    )
    return bool(judged.decision == "Allow")


def _refusal(status: int, message: str) -> tuple[int, Answer, bytes]:
    return status, dict(_JSON), json.dumps({"message": message}).encode()
