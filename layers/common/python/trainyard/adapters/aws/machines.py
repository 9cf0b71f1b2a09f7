"""The state machines that change tenants, and the function that creates pooled tenants' roles."""

import json
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.domain.errors import Throttled

STEP_MAX = timedelta(minutes=3)
"""A step that was under way when its run was stopped ends within the function's limit, two minutes."""


class StepFunctionsRuns:
    """Implements Runs."""

    def alive(self, run: str) -> bool:
        try:
            with translated():
                execution = client("stepfunctions").describe_execution(executionArn=run)
        except ClientError as error:
            if code_of(error) in ("ExecutionDoesNotExist", "InvalidArn"):
                return False
            raise
        if execution["status"] in ("RUNNING", "PENDING_REDRIVE"):
            return True
        cut_off = execution["status"] in ("ABORTED", "TIMED_OUT")
        return cut_off and datetime.now(UTC) < execution["stopDate"] + STEP_MAX


class LambdaTenantRoles:
    """Implements TenantRoles: the roles function makes them."""

    def __init__(self, *, function_name: str) -> None:
        self._function = function_name

    def make(self, tenant_id: str) -> None:
        with translated():
            answer = client("lambda").invoke(
                FunctionName=self._function,
                Payload=json.dumps({"make": tenant_id}).encode(),
            )
        if answer.get("FunctionError"):
            body = json.loads(answer["Payload"].read())
            raise Throttled(f"the role of tenant {tenant_id} was not made: {body.get('errorMessage', body)}")
