"""The pipeline parameters of a run; every one derives from the tenant's record and the policy."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from trainyard.domain.algorithms import Algorithm, Value
from trainyard.domain.errors import Refused
from trainyard.domain.pipelines import TRAINING_TYPES
from trainyard.domain.policy import Policy, TierPolicy
from trainyard.domain.prices import NO_PRICES, Prices
from trainyard.domain.requests import Request
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.retraining import OnDrift, RetrainingSettings
from trainyard.domain.tenants import Tenant
from trainyard.domain.tuning import plan, ranges_of, ranges_text, with_tuned


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """A deployment's defaults for runs whose algorithm or tenant does not set a value."""

    training_image_uri: str
    processing_image_uri: str
    code_uri: str
    """Where the step scripts were published."""
    key_arn: str
    """Of the KMS key by which outputs are encrypted."""


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

    @property
    def statistics(self) -> str:
        return f"{self.reports}/profile/statistics.json"

    @property
    def drift(self) -> str:
        return f"{self.reports}/profile/drift.json"


def images_of(tenant: Tenant, policy: Policy, defaults: Defaults) -> tuple[str, ...]:
    """Return the container images that the tenant's jobs pull."""
    names = {settings.algorithm for settings in (tenant.settings, *tenant.data_sets.values())}
    algorithms = [policy.catalogue[name] for name in sorted(names) if name in policy.catalogue]
    own = {uri for algorithm in algorithms for uri in algorithm.images}
    return tuple(sorted(own | {defaults.training_image_uri, defaults.processing_image_uri}))


def pipeline_parameters(
    request: Request,
    tenant: Tenant,
    tier: TierPolicy,
    algorithm: Algorithm,
    *,
    defaults: Defaults,
    data_bytes: int | None = None,
    statistics_uri: str | None = None,
    champion: str | None = None,
    champion_is_there: bool = False,
    tuned: Mapping[str, Value] | None = None,
    prices: Prices = NO_PRICES,
) -> dict[str, str]:
    """Return name → value of every parameter of the run's pipeline; no value is empty.

    `statistics_uri` is that of the last training, with which the data is compared; None where there is none.
    `champion` is the request that trained the model beside which the new one is judged, if any; its archive may be
    gone. `tuned` are hyperparameters that a tuning has found, for those that the settings leave open; `prices` are
    needed for a tuning that is bounded by money. `data_bytes` is the size of the objects in its manifest; the run
    fails if it reads any other amount.

    The only value from the upload is its location, which is inside the tenant's root. Raises Refused
    when that is no longer so, or when the catalogue no longer offers what the tenant has chosen.
    """
    assert request.tenant_id == tenant.tenant_id, "a run belongs to one tenant"
    if not tenant.owns(request.content.uri):
        raise Refused("the tenant's storage has moved since the upload: upload the data again")
    settings = with_tuned(tenant.settings_for(request.data_set, request.overrides), tuned or {})
    profile = ResourceProfile.parse(request.profile)
    where = Locations.of(tenant, request)
    champion_uri = Locations.of(tenant, replace(request, request_id=champion)).model if champion else ""
    runtime_max = request.runtime_max_seconds or int(tier.runtime_max.total_seconds())
    # long: a line for each parameter
    parameters = {
        "RequestId": request.request_id,
        "Attempt": str(request.attempt),
        "TenantId": tenant.tenant_id,
        "TierName": tier.name,
        "DataSet": request.data_set,
        "InputDataUri": where.manifest,
        "InputBytes": str(request.data_bytes if data_bytes is None else data_bytes),
        "ModelOutputUri": where.models,
        "ReportOutputUri": where.reports,
        "ProcessingInstanceType": profile.processing,
        **dict(zip(TRAINING_TYPES, profile.training, strict=False)),
        "TrainingInstanceCount": str(profile.instances),
        "TrainingVolumeSizeGB": str(profile.volume_gb),
        "MaxRuntimeSeconds": str(runtime_max),
        **({"MaxWaitSeconds": str(runtime_max + profile.spot_wait_seconds)} if profile.is_on_spot else {}),
        "JobRoleArn": tenant.role_arn,
        "ModelPackageGroupName": tenant.model_group,
        "TrainingImageUri": algorithm.training_image_uri or defaults.training_image_uri,
        "ProcessingImageUri": algorithm.processing_image_uri or defaults.processing_image_uri,
        "CodeUri": algorithm.code_uri or defaults.code_uri,
        "OutputKmsKeyId": tenant.key_arn or defaults.key_arn,
        "Algorithm": algorithm.family,
        "QualityMetric": algorithm.quality_metric,
        "NetworkIsolation": str(algorithm.network_isolation),  # "True", as the SDK gives truth values
        "TrafficEncryption": str(algorithm.traffic_encryption),
        "TargetColumn": settings.target,
        "ProblemType": settings.problem.value,
        "Split": settings.split,
        "MinimumQuality": str(tier.quality_min),
        # Not from the algorithm's own scripts: those that were published earlier do not have these files.
        "StatisticsUri": statistics_uri or f"{defaults.code_uri}/steps/{NO_STATISTICS}",
        "ChampionUri": champion_uri if champion_is_there else f"{defaults.code_uri}/steps/{NO_CHAMPION}",
        "Challenge": f"{champion or 'none'}:{settings.serving.compare_by}",
        "WarmStart": "yes" if settings.retraining.warm_start else "no",
        "DriftRules": _drift_rules(settings.retraining, accepts_drift=request.accepts_drift),
        "Hyperparameters": json.dumps(algorithm.chosen(dict(settings.hyperparameters)), separators=(",", ":")),
    }
    if request.overrides is not None and request.overrides.tuning is not None:
        own = tenant.settings_for(request.data_set, request.overrides)
        ranges = ranges_of(request.overrides.tuning, algorithm, own)
        trials = plan(request.overrides.tuning, tier, profile, prices, timedelta(seconds=runtime_max))
        parameters |= {
            "Search": ranges_text(ranges),
            "Trials": str(trials.trials),
            "TrialSeconds": str(int(trials.trial_time.total_seconds())),
            "TuningSeconds": str(int(trials.time.total_seconds())),
            # Another one for each tuning, which would try the same values again otherwise.
            "Seed": str(int(hashlib.sha256(request.request_id.encode()).hexdigest()[:7], 16)),
        }
    if profile.checkpoints:
        parameters["CheckpointUri"] = _checkpoints(where, request, parameters)
    return parameters


NO_STATISTICS, NO_CHAMPION = "no_statistics.json", "no_champion.json"
"""Published with the step scripts: a job's input must exist."""


def _drift_rules(rules: RetrainingSettings, *, accepts_drift: bool) -> str:
    """Return what follows from drift, as the first step takes it (pipeline/steps/drift.py): an argument of a
    container has 256 characters at most.
    """
    on_schema_change = OnDrift.TRAIN if accepts_drift else rules.on_schema_change
    on_shift = OnDrift.TRAIN if accepts_drift else rules.on_shift
    return f"{on_schema_change}:{on_shift}:{rules.shift_percent}:{'|'.join(rules.critical)}"


TRAINED_ON = ("InputBytes", "CodeUri", "Algorithm", "TargetColumn", "ProblemType", "Split", "Hyperparameters")
"""The parameters on which a training depends; with the object that was uploaded last."""


def _checkpoints(where: Locations, request: Request, parameters: Mapping[str, str]) -> str:
    """Return where the attempts of a request save their progress.

    It is another place once data or settings have changed: a training cannot go on from what another one saved.
    """
    content = request.content
    of = [content.uri, content.version_id, content.etag, *(parameters[name] for name in TRAINED_ON)]
    digest = hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
    return f"{where.reports}/checkpoints/{digest}"
