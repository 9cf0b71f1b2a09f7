"""Who may ask for trainings, in the policy file: other systems' events, and alarms.

retraining:
  sources: {com.example.crm: [acme, globex], com.example.quality: ["*"]}
  alarms:
    - name: quality/{tenant}/{data_set}
    - {name: churn of acme is worse, tenant: acme, data_set: churn}
"""

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from trainyard.contracts.policy_parts import Strict
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.names import is_data_set, is_tenant_id
from trainyard.domain.policy import ANY_TENANT

ALARM_NAME_MAX = 255
"""Source: CloudWatch API reference, PutMetricAlarm."""
TENANT, DATA_SET = "{tenant}", "{data_set}"

_Source = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,256}$")]


class AlarmEntry(Strict):
    name: str = Field(min_length=1, max_length=ALARM_NAME_MAX)
    tenant: str = ""
    data_set: str = ""

    @model_validator(mode="after")
    def _says_whose(self) -> "AlarmEntry":
        unknown = re.findall(r"\{[^{}]*\}", self.name.replace(TENANT, "").replace(DATA_SET, ""))
        if unknown or self.name.count(TENANT) > 1 or self.name.count(DATA_SET) > 1:
            raise ValueError(f"{self.name!r}: only {TENANT} and {DATA_SET} may stand in it, once each")
        if (TENANT in self.name) == bool(self.tenant):
            raise ValueError(f"{self.name!r}: name the tenant, either as {TENANT} in the name or as tenant")
        if DATA_SET in self.name and self.data_set:
            raise ValueError(f"{self.name!r}: the data set stands in the name already; leave out data_set")
        if self.tenant and not is_tenant_id(self.tenant):
            raise ValueError(f"{self.tenant!r} is not a valid tenant id")
        if self.data_set and not is_data_set(self.data_set):
            raise ValueError(f"{self.data_set!r} is not a valid data set name")
        between = re.search(r"\{(?:tenant|data_set)\}(.*)\{(?:tenant|data_set)\}", self.name)
        if between is not None and not re.search(r"[^A-Za-z0-9._-]", between[1]):
            raise ValueError(
                f"{self.name!r}: between {TENANT} and {DATA_SET} there must be a character that no name contains, "
                "such as /"
            )
        return self


class RetrainingEntry(Strict):
    sources: dict[_Source, Annotated[list[str], Field(min_length=1, max_length=1000)]] = Field(
        default_factory=dict, max_length=100
    )
    alarms: list[AlarmEntry] = Field(default_factory=list, max_length=200)

    @field_validator("sources")
    @classmethod
    def _name_tenants(cls, sources: dict[str, list[str]]) -> dict[str, list[str]]:
        for source, tenants in sources.items():
            if source == APPLICATION_SOURCE or source.startswith("aws."):
                raise ValueError(f"{source} is the source of other events")
            for tenant_id in tenants:
                if tenant_id != ANY_TENANT and not is_tenant_id(tenant_id):
                    raise ValueError(f"{source}: {tenant_id!r} is not a valid tenant id, nor {ANY_TENANT} for all")
        return sources
