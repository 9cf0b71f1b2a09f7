"""Operations: the part of the HTTP API that is about the service as a whole, for operators and viewers.

API Gateway has verified the token of each request. It is a function of its own, so that the one that answers
tenants has none of its rights.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.entrypoints.api import dead_letters, service, service_bulk_actions, waves
from trainyard.entrypoints.api.calls import logger
from trainyard.entrypoints.api.http import resolver_of, respond

app = resolver_of(service.router, service_bulk_actions.router, dead_letters.router, waves.router)


@logger.inject_lambda_context(clear_state=True, log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return respond(app, event, context)
