"""The settings of a function, read once from its environment; a missing one is reported by name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from trainyard.domain.pipelines import SPOT_VARIANTS, TRANSFORM, TUNING


class MissingSetting(Exception):
    """An environment variable that the function needs is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The names of the deployment's parts; a function is given only those it needs ("" otherwise)."""

    stack: str = ""
    stage: str = ""
    account_id: str = ""
    region: str = ""
    scheduler_table: str = ""
    requests_table: str = ""
    record_table: str = ""
    tenants_table: str = ""
    tier_queue_prefix: str = ""
    dead_letter_queue_url: str = ""
    uploads_queue_url: str = ""
    bell_queue_url: str = ""
    event_bus_name: str = ""
    pipeline_name: str = ""
    training_types_max: str = "1"
    spot_training: str = "false"
    data_key_arn: str = ""
    approval_key_arn: str = ""
    tenant_access_role_arn: str = ""
    predict_function: str = ""
    bulk_function: str = ""
    users_function: str = ""
    users_pool: str = ""
    update_tenant_machine_arn: str = ""
    tenant_claim: str = ""
    groups_claim: str = ""
    training_image_uri: str = ""
    processing_image_uri: str = ""
    tenant_bucket_prefix: str = ""
    tenant_role_prefix: str = ""
    pooled_role_prefix: str = ""
    tenant_group_prefix: str = ""
    tenant_boundary_arn: str = ""
    code_bucket: str = ""
    code_uri: str = ""
    pool_bucket: str = ""
    tenant_roles: str = ""
    result_readers: str = ""
    result_movers: str = ""
    roles_function: str = ""
    subnet_ids: str = ""
    console_origins: str = ""
    job_instance_types: str = ""
    job_runtime_max_seconds: str = "0"
    security_group_ids: str = ""
    billing_bucket: str = ""
    marketplace_dimension: str = ""
    pooled_role_idle_days: str = "30"
    serving_bucket: str = ""
    serving_role_arn: str = ""
    serving_instance_type: str = ""
    component_instances_max: str = "1"
    deploy_model_machine_arn: str = ""
    partition: str = "aws"
    schedule_group: str = ""
    schedule_role_arn: str = ""
    request_retention_days: str = "400"
    running_max: str = "20"

    @property
    def pipeline_names(self) -> dict[str, str]:
        """The deployment's pipelines: variant (`pipeline_variant`) → name."""
        lists = [str(types) for types in range(2, int(self.training_types_max) + 1)]
        spot = SPOT_VARIANTS if self.spot_training == "true" else ()
        further = {variant: f"{self.pipeline_name}-{variant}" for variant in (*lists, *spot, TUNING)}
        transform = self.pipeline_name.removesuffix("-training") + f"-{TRANSFORM}"
        return {"": self.pipeline_name, TRANSFORM: transform, **further}

    @classmethod
    def from_env(cls, *required: str, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read TRAINYARD_<NAME> for each field; raises MissingSetting, naming the `required` one."""
        values = {f.name: env.get(f"TRAINYARD_{f.name.upper()}", f.default) for f in fields(cls)}
        for name in required:
            if not values[name]:
                raise MissingSetting(f"set TRAINYARD_{name.upper()} in the function's environment")
        return cls(**{name: str(value) for name, value in values.items()})
