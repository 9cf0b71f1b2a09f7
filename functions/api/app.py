"""Api: the part of the HTTP API that is about one tenant, for its users and for operators.

API Gateway has verified the token of each request. Whose it is, and what it may do, is decided in the routes
(trainyard/entrypoints/api). Their types check what they are given, and are what docs/openapi.json is made from.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.entrypoints.api import (
    bulk_actions,
    costs,
    data_sets,
    deployments,
    events,
    keys,
    me,
    models,
    requests,
    runs,
    tenant,
)
from trainyard.entrypoints.api.calls import logger
from trainyard.entrypoints.api.http import resolver_of, respond

app = resolver_of(
    me.router,
    tenant.router,
    data_sets.router,
    requests.router,
    runs.router,
    bulk_actions.router,
    events.router,
    models.router,
    deployments.router,
    keys.router,
    costs.router,
)


@logger.inject_lambda_context(clear_state=True, log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return respond(app, event, context)
