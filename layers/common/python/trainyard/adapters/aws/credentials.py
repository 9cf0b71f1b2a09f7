"""Short-lived credentials for one tenant's data: for an API, or for a person at the tenant."""

import json
from dataclasses import dataclass
from datetime import datetime

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.deployment_names import TENANT_TAG, Purpose, session_policy
from trainyard.adapters.aws.errors import translated
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Tenant, TenantState

MINUTES_MIN, MINUTES_MAX = 15, 60
"""The shortest that STS allows, and the longest with role chaining (STS API, AssumeRole)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: datetime


def scoped_credentials(
    tenant: Tenant, *, access_role_arn: str, data_key_arn: str, purpose: Purpose, minutes: int
) -> Credentials:
    """Return credentials for one purpose.

    Restricted twice: the access role checks the session's tag, and the session policy names what is the tenant's.
    Raises Refused for a tenant that is not active, or for too short or long a time.
    """
    if tenant.state is not TenantState.ACTIVE:
        raise Refused(f"tenant {tenant.tenant_id} is {tenant.state.lower()}: only active tenants get credentials")
    if not MINUTES_MIN <= minutes <= MINUTES_MAX:
        raise Refused(f"--minutes is {minutes}: choose between {MINUTES_MIN} and {MINUTES_MAX}")
    partition = access_role_arn.split(":")[1]
    policy = session_policy(tenant, partition=partition, data_key_arn=data_key_arn, purpose=purpose)
    with translated():
        answer = client("sts").assume_role(
            RoleArn=access_role_arn,
            RoleSessionName=f"{tenant.tenant_id}-{purpose.value}",
            DurationSeconds=minutes * 60,
            Policy=json.dumps(policy, separators=(",", ":")),
            Tags=[{"Key": TENANT_TAG, "Value": tenant.tenant_id}],
        )["Credentials"]
    return Credentials(
        access_key_id=answer["AccessKeyId"],
        secret_access_key=answer["SecretAccessKey"],
        session_token=answer["SessionToken"],
        expires_at=answer["Expiration"],
    )
