"""The state machines that change tenants, and functions that do what others may not."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.application.api.settings_changes import ChangeState, ChangeStatus
from trainyard.application.tenancy.leaving import UsersDeleted
from trainyard.domain.api_keys import ApiKey
from trainyard.domain.errors import OutcomeUnknown, Refused, Throttled, TrainyardError
from trainyard.domain.receipts import without_account_number
from trainyard.persistence.idempotency_keys import REUSED

STEP_MAX = timedelta(minutes=3)
"""A step that was under way when its run was stopped ends within the function's limit, two minutes."""


BEGIN_SECONDS_MAX = 5
"""Until Lambda has taken a call that it carries out later."""
PREDICTION_SECONDS_MAX = 25
"""A caller of the HTTP API waits no longer than 30 s (API Gateway quotas, "Maximum integration timeout")."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFunctionsTenantUpdates:
    """Implements TenantUpdates."""

    machine_arn: str

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        machines = client("stepfunctions")
        try:
            with translated():
                machines.start_execution(
                    stateMachineArn=self.machine_arn, name=name, input=json.dumps(payload, sort_keys=True)
                )
        except machines.exceptions.ExecutionAlreadyExists:
            raise Refused(
                "the idempotency key was used for another change, or for one that has ended: use a new one",
                kind=REUSED,
            ) from None

    def status(self, name: str) -> ChangeStatus | None:
        run = f"{self.machine_arn.replace(':stateMachine:', ':execution:')}:{name}"
        try:
            with translated():
                execution = client("stepfunctions").describe_execution(executionArn=run)
        except ClientError as error:
            if code_of(error) in ("ExecutionDoesNotExist", "InvalidArn"):
                return None
            raise
        if execution["status"] in ("RUNNING", "PENDING_REDRIVE"):
            return ChangeStatus(ChangeState.RUNNING, None)
        if execution["status"] == "SUCCEEDED":
            return ChangeStatus(ChangeState.DONE, None)
        return ChangeStatus(ChangeState.FAILED, _words(str(execution.get("cause") or execution["status"])))


def _words(cause: str) -> str:
    """Return the message of a failed task, without the JSON around it."""
    with suppress(ValueError):
        details = json.loads(cause)
        if isinstance(details, dict) and "errorMessage" in details:
            return str(details["errorMessage"])
    return cause


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaBulkStarts:
    """Implements BulkStarts: Lambda queues the call, and repeats it twice where it fails."""

    function_name: str

    def begin(self, owner: str, action_id: str) -> None:
        """Raises Throttled and OutcomeUnknown."""
        with translated():
            client("lambda", waits=BEGIN_SECONDS_MAX).invoke(
                FunctionName=self.function_name,
                InvocationType="Event",
                Payload=json.dumps({"owner": owner, "action_id": action_id}).encode(),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaPredictions:
    """The function that answers rows by a data set's model."""

    function_name: str

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the function answers to a command (contracts/serving.py).

        Raises Refused with a reason for the caller, and Throttled and OutcomeUnknown.
        """
        with translated():
            answer = client("lambda", waits=PREDICTION_SECONDS_MAX).invoke(
                FunctionName=self.function_name, Payload=json.dumps(command, ensure_ascii=False).encode()
            )
        body = json.loads(answer["Payload"].read())
        if not answer.get("FunctionError"):
            return dict(body)
        kind, message = body.get("errorType"), str(body.get("errorMessage", body))
        if kind in ("Refused", "Malformed"):
            raise Refused(without_account_number(message))
        if kind == "Throttled":
            raise Throttled(message)
        raise TrainyardError(f"the function that predicts failed: {message}")


USERS_SECONDS_MAX = 20
"""For a few calls of Cognito; a caller of the HTTP API waits no longer than 30 s."""
DELETION_SECONDS_MAX = 110
"""For reading users of the pool; a step of a deletion may take two minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaUsers:
    """Implements KeyUsers and TenantUsers: the users function does it."""

    function_name: str

    def make(self, key: ApiKey) -> str:
        command = {"make_key": key.key_id, "tenant_id": key.tenant_id, "role": key.role.value}
        return str(self._done(command, USERS_SECONDS_MAX)["secret"])

    def delete(self, key_id: str) -> None:
        self._done({"delete_key": key_id}, USERS_SECONDS_MAX)

    def delete_of_tenant(self, tenant_id: str) -> UsersDeleted:
        answer = self._done({"delete_users_of": tenant_id}, DELETION_SECONDS_MAX)
        return UsersDeleted(int(answer["deleted"]), bool(answer["is_complete"]))

    def _done(self, command: Mapping[str, Any], seconds_max: int) -> dict[str, Any]:
        with translated():
            answer = client("lambda", waits=seconds_max).invoke(
                FunctionName=self.function_name, Payload=json.dumps(command).encode()
            )
        body = dict(json.loads(answer["Payload"].read()))
        if answer.get("FunctionError"):
            # Whatever it says, it can have done a part; its words may name the pool.
            raise OutcomeUnknown(f"the function of users failed: {body.get('errorType')}")
        return body
