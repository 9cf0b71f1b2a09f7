"""Users: makes the users of the pool that are API keys, and deletes users of tenants.

Whoever may change the pool could make an operator of himself. So no function that callers of the HTTP API reach
has that right: this one makes users of tenants alone, and is invoked with nothing else.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.users_command import DeleteKey, DeleteUsers, MakeKey, parse_users_command
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import TenantState
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger

logger = build_logger("users")

LEAVING = (TenantState.DELETING, TenantState.DELETED)
NEEDED_MILLIS = 30_000
"""Time needed for one more page of users."""


@logger.inject_lambda_context(clear_state=True, log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what a command says; the secret of a key is in the answer, and in no log."""
    users = bootstrap.pool_users()
    match parse_users_command(event):
        case MakeKey() as command:
            secret = users.make_key(command.make_key, command.tenant_id, command.role)
            logger.info("key made", extra={"key_id": command.make_key, "tenant_id": command.tenant_id})
            return {"secret": secret}
        case DeleteKey() as command:
            users.delete_key(command.delete_key)
            logger.info("key deleted", extra={"key_id": command.delete_key})
            return {}
        case DeleteUsers() as command:
            tenant_id, keys = command.delete_users_of, bootstrap.stored_keys()
            tenant = bootstrap.tenants().get(tenant_id)
            if tenant is not None and tenant.state not in LEAVING:
                raise Refused(f"tenant {tenant_id} is {tenant.state.value}: its users stay")

            def out_of_time() -> bool:
                return context.get_remaining_time_in_millis() < NEEDED_MILLIS

            deleted, after = users.delete_of_tenant(tenant_id, keys.deletion(tenant_id), out_of_time)
            keys.note_deletion(tenant_id, after)
            if after is None:
                for key in keys.of_tenant(tenant_id):
                    users.delete_key(key.key_id)
                    keys.forget(tenant_id, key.key_id)
            logger.info("users deleted", extra={"tenant_id": tenant_id, "users": deleted})
            return {"deleted": deleted, "is_complete": after is None}
