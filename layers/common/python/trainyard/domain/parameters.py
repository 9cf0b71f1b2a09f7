"""The pipeline parameters of a run; every one derives from the tenant's record and the policy."""

import json
from dataclasses import dataclass

from trainyard.domain.policy import Lane, TierPolicy
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The container images of a deployment."""

    training_uri: str
    processing_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Locations:
    """Where a run reads and writes; all inside the tenant's root."""

    root_uri: str
    data_set: str
    request_id: str

    @classmethod
    def of(cls, tenant: Tenant, request: Request) -> "Locations":
        return cls(
            root_uri=f"s3://{tenant.bucket}/{tenant.root}",
            data_set=request.data_set,
            request_id=request.request_id,
        )

    @property
    def models(self) -> str:
        return f"{self.root_uri}models/{self.data_set}/{self.request_id}"

    @property
    def model(self) -> str:
        return f"{self.models}/model.tar.gz"

    @property
    def reports(self) -> str:
        return f"{self.root_uri}reports/{self.data_set}/{self.request_id}"

    @property
    def manifest(self) -> str:
        return f"{self.reports}/input.manifest"

    @property
    def evaluation(self) -> str:
        return f"{self.reports}/evaluation/evaluation.json"

    @property
    def profile(self) -> str:
        return f"{self.reports}/profile/profile.json"


def pipeline_parameters(
    request: Request,
    tenant: Tenant,
    tier: TierPolicy,
    *,
    images: Images,
    output_key_id: str,
) -> dict[str, str]:
    """Return name → value of every parameter of the shared pipeline; no value is empty.

    Nothing here comes from the upload but its own location, which lies inside the tenant's root.
    """
    assert request.tenant_id == tenant.tenant_id, "a run belongs to one tenant"
    assert tenant.owns(request.content.uri), "a run reads from its own tenant's root alone"
    settings = tenant.settings_for(request.data_set)
    lane = Lane.parse(request.lane)
    where = Locations.of(tenant, request)
    return {
        "RequestId": request.request_id,
        "Attempt": str(request.attempt),
        "TenantId": tenant.tenant_id,
        "TierName": tier.name,
        "DataSet": request.data_set,
        "InputDataUri": where.manifest,
        "ModelOutputUri": where.models,
        "ReportOutputUri": where.reports,
        "ProcessingInstanceType": lane.processing,
        "TrainingInstanceType": lane.training,
        "TrainingInstanceCount": str(lane.instances),
        "TrainingVolumeSizeGB": str(lane.volume_gb),
        "MaxRuntimeSeconds": str(int(tier.runtime_max.total_seconds())),
        "JobRoleArn": tenant.role_arn,
        "ModelPackageGroupName": tenant.model_group,
        "TrainingImageUri": images.training_uri,
        "ProcessingImageUri": images.processing_uri,
        "OutputKmsKeyId": output_key_id,
        "Algorithm": settings.algorithm.value,
        "TargetColumn": settings.target,
        "ProblemType": settings.problem.value,
        "MinimumQuality": str(tier.quality_min),
        "Hyperparameters": json.dumps(dict(settings.hyperparameters), separators=(",", ":")),
    }
