"""Serving: in which modes a data set's models can be served, and what each mode allows.

Sources of the limits: botocore's models of SageMaker and SageMaker Runtime (1.44), and the pages of the developer
guide that are named beside them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How a model is served."""

    REAL_TIME = "real-time"
    SERVERLESS = "serverless"
    ASYNCHRONOUS = "asynchronous"
    BATCH_TRANSFORM = "batch-transform"
    MULTI_MODEL = "multi-model"
    MULTI_CONTAINER = "multi-container"
    INFERENCE_COMPONENT = "inference-component"


class Isolation(StrEnum):
    """What of the serving infrastructure tenants share."""

    SILO = "silo"
    """Nothing: the endpoint, or the job, is the tenant's own."""
    BRIDGE = "bridge"
    """The instances; the model is the tenant's own."""
    POOL = "pool"
    """The instances and the model."""


ALLOWED: Mapping[Mode, tuple[Isolation, ...]] = {
    Mode.REAL_TIME: (Isolation.SILO,),
    Mode.SERVERLESS: (Isolation.SILO,),
    Mode.ASYNCHRONOUS: (Isolation.SILO,),
    Mode.BATCH_TRANSFORM: (Isolation.SILO, Isolation.BRIDGE, Isolation.POOL),
    Mode.MULTI_MODEL: (Isolation.BRIDGE, Isolation.POOL),
    Mode.MULTI_CONTAINER: (Isolation.BRIDGE, Isolation.POOL),
    Mode.INFERENCE_COMPONENT: (Isolation.SILO, Isolation.BRIDGE, Isolation.POOL),
}
"""Mode → what tenants can share in it. Source: AWS Machine Learning Blog, "Implement a multi-tenant SaaS inference
solution with Amazon SageMaker" (2022); inference components are newer, and own or share their endpoint."""

MB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeLimits:
    """What SageMaker takes in a mode."""

    request_bytes_max: int
    """Of the rows that are sent at once."""
    answer_seconds_max: int
    """In which the model must answer them."""
    scales_to_zero: bool
    """Whether it can cost nothing while nobody asks, as it is deployed here."""
    source: str


_AT_ONCE = ModeLimits(
    request_bytes_max=6_291_456,
    answer_seconds_max=60,
    scales_to_zero=False,
    source="InvokeEndpointInput.Body; API reference, InvokeEndpoint",
)
LIMITS: Mapping[Mode, ModeLimits] = {
    Mode.REAL_TIME: _AT_ONCE,
    Mode.SERVERLESS: ModeLimits(
        request_bytes_max=4 * MB,
        answer_seconds_max=60,
        scales_to_zero=True,
        source="developer guide, Serverless inference",
    ),
    Mode.ASYNCHRONOUS: ModeLimits(
        request_bytes_max=1024 * MB,
        answer_seconds_max=3600,
        scales_to_zero=True,
        source="InvokeEndpointAsyncInput.InvocationTimeoutSeconds; developer guide, Asynchronous inference",
    ),
    Mode.BATCH_TRANSFORM: ModeLimits(
        request_bytes_max=100 * MB,
        answer_seconds_max=3600,
        scales_to_zero=True,
        source="CreateTransformJobRequest.MaxPayloadInMB and ModelClientConfig",
    ),
    Mode.MULTI_MODEL: _AT_ONCE,
    Mode.MULTI_CONTAINER: _AT_ONCE,
    Mode.INFERENCE_COMPONENT: _AT_ONCE,
}

SUPPORTED = frozenset(
    {
        (Mode.MULTI_MODEL, Isolation.BRIDGE),
        (Mode.REAL_TIME, Isolation.SILO),
        (Mode.SERVERLESS, Isolation.SILO),
        (Mode.ASYNCHRONOUS, Isolation.SILO),
        (Mode.BATCH_TRANSFORM, Isolation.SILO),
        (Mode.MULTI_CONTAINER, Isolation.BRIDGE),
        (Mode.INFERENCE_COMPONENT, Isolation.BRIDGE),
    }
)
"""What this version can deploy of what is allowed."""

SERVERLESS_MEMORY_MB = range(1024, 6145, 1024)
"""ServerlessConfig.MemorySizeInMB: whole gigabytes."""
CONCURRENCY_MAX = 200
"""ServerlessConfig.MaxConcurrency, of one endpoint."""
ASYNC_INLINE_BYTES_MAX = 128_000
"""InvokeEndpointAsyncInput.Body: more rows must be in S3."""
COMPONENT_MEMORY_MB = range(128, 262_145)
"""ComputeResourceRequirements.MinMemoryRequiredInMb, up to what a large instance has."""
COMPONENT_CPU_PERCENT = range(25, 6_401)
"""ComputeResourceRequirements.NumberOfCpuCoresRequired, in hundredths."""
INSTANCES_MAX = 10
SCALE_AT_MAX = 100_000
SCALE_AT: Mapping[Mode, int] = {Mode.REAL_TIME: 500, Mode.ASYNCHRONOUS: 5}
"""Modes whose endpoints can scale → their load for each instance, if the settings name none: calls a minute, and
requests that wait."""
CANARY_PERCENT_MAX = 50
"""As CanarySize of a deployment guardrail (developer guide, "Use canary traffic shifting")."""
JUDGED_MINUTES_MAX = 12 * 60
"""Of a test, and of baking. The execution that judges each minute has time for both, and stays below the 25,000
events of an execution (Step Functions quotas); what it has no time for, the search goes on with."""


COMPARISON_MAX = 1_000_000
"""Of a difference of two qualities, in the unit of their metric."""


class Promotion(StrEnum):
    """How a version gets from the test environment to production."""

    DIRECT = "direct"
    """There is no test environment: it answers in production once it has passed its smoke test."""
    MANUAL = "manual"
    """Somebody promotes it."""
    AUTOMATIC = "automatic"
    """It is promoted after `test_minutes`, unless it fails calls in test."""


class Approval(StrEnum):
    """Who approves a new version."""

    MANUAL = "manual"
    AUTOMATIC = "automatic"
    """Nobody: it is approved when it is registered, and answers calls if it passes its smoke test."""
    IF_BETTER = "if-better"
    """As automatic, if it is better than the live model on the same rows; somebody decides about others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """How the models of a data set are served."""

    mode: Mode = Mode.MULTI_MODEL
    isolation: Isolation = Isolation.BRIDGE
    approval: Approval = Approval.MANUAL
    margin: float = 0
    """By how much the metric that counts must be better with approval `if-better`; below 0, how much worse it may
    be."""
    segment_loss_max: float = 0.1
    """By how much a segment may be worse then."""
    compare_by: str = ""
    """The column whose values are the segments; "" for the classes that are predicted."""
    promotion: Promotion = Promotion.DIRECT
    test_minutes: int = 60
    """In the test environment, with automatic promotion."""
    canary_percent: int = 0
    """Share of the calls that a new version answers at first; 0 for all calls at once."""
    bake_minutes: int = 30
    """After which a canary that does well answers all calls."""
    instance_type: str = ""
    """Of an endpoint of its own with instances; "" for the deployment's ServingInstanceType."""
    instances: int = 1
    """Of an endpoint of its own with instances; where it scales, the fewest."""
    instances_max: int = 0
    """The most instances of an endpoint that scales; 0 for one that does not."""
    scale_at: int = 0
    """Load for each instance above which there are more: calls a minute (real-time), or requests that wait
    (asynchronous); 0 for the mode's default."""
    memory_mb: int = 2048
    """Of a serverless endpoint, or reserved for an inference component."""
    cpu_percent: int = 50
    """Of one virtual CPU, reserved for an inference component."""
    concurrency: int = 5
    """Requests that a serverless endpoint answers at once."""

    @property
    def scales(self) -> bool:
        """Tell whether the endpoint's number of instances follows its load."""
        return self.instances_max != 0

    @property
    def is_own(self) -> bool:
        """Tell whether each version has an endpoint of its own."""
        return self.isolation is Isolation.SILO


def objection_to(settings: ServingSettings, *, own_code: bool = False, own_key: bool = False) -> str | None:
    """Return why models cannot be served so, naming what is allowed; None if they can.

    `own_code` tells that the tenant trains with code that is not the provider's, `own_key` that its data is
    encrypted with a key of its own.
    """
    mode, isolation = settings.mode, settings.isolation
    if isolation not in ALLOWED[mode]:
        return (
            f"{mode} does not allow {isolation}: it allows {_either(ALLOWED[mode])}; {isolation} is allowed with "
            f"{_either(_modes_with(isolation))}"
        )
    silo = f"choose {Isolation.SILO} with {_either(_supported(Isolation.SILO))}"
    if own_code and isolation is not Isolation.SILO:
        return f"the tenant trains with code of its own, which must not run beside other tenants' models: {silo}"
    if own_key and isolation is not Isolation.SILO:
        return (
            f"the tenant's data is encrypted with its own key, and {isolation} puts copies of its models beside "
            f"those of others: {silo}"
        )
    objection = _objection_to_rollout(settings) or _objection_to_comparison(settings)
    if objection is not None:
        return objection
    objection = _objection_to_instances(settings)
    if objection is not None:
        return objection
    return _objection_to_size(settings)


def _objection_to_size(settings: ServingSettings) -> str | None:
    """Return why a model cannot have so much memory, processors or concurrency; None if it can."""
    mode, memory, percent = settings.mode, settings.memory_mb, settings.cpu_percent
    if mode is Mode.SERVERLESS:
        if memory not in SERVERLESS_MEMORY_MB:
            return f"{memory} MB of memory: serverless endpoints have {_either(SERVERLESS_MEMORY_MB)} MB"
        if not 1 <= settings.concurrency <= CONCURRENCY_MAX:
            return f"a concurrency of {settings.concurrency}: a serverless endpoint allows 1 to {CONCURRENCY_MAX}"
    if mode is Mode.INFERENCE_COMPONENT:
        if memory not in COMPONENT_MEMORY_MB:
            return f"{memory} MB of memory: {_span(COMPONENT_MEMORY_MB)} can be reserved"
        if percent not in COMPONENT_CPU_PERCENT:
            return (
                f"cpu_percent={percent}: {_span(COMPONENT_CPU_PERCENT)} percent of a virtual CPU can be reserved"
            )
    return None


def _objection_to_instances(settings: ServingSettings) -> str | None:
    """Return why an endpoint cannot have such numbers of instances; None if it can."""
    mode, fewest, most = settings.mode, settings.instances, settings.instances_max
    if not settings.scales:
        if settings.scale_at:
            return f"scale_at={settings.scale_at} without instances_max, the most instances that there may be"
        if not 1 <= fewest <= INSTANCES_MAX:
            zero = ", and 0 where instances_max is given" if mode is Mode.ASYNCHRONOUS else ""
            return f"{fewest} instances: 1 to {INSTANCES_MAX} are allowed{zero}"
        return None
    if mode not in SCALE_AT:
        return f"{mode} with instances_max: only {_either(SCALE_AT)} can scale"
    if not max(fewest, 1) <= most <= INSTANCES_MAX:
        return f"instances_max={most}: {max(fewest, 1)} to {INSTANCES_MAX} are allowed with instances={fewest}"
    if fewest < (0 if mode is Mode.ASYNCHRONOUS else 1):
        return f"{fewest} instances: {mode} needs one at least; {Mode.ASYNCHRONOUS} alone can do without"
    if is_burstable(settings.instance_type):
        return f"instance_type={settings.instance_type} cannot scale: choose one that is not burstable"
    if not 0 <= settings.scale_at <= SCALE_AT_MAX:
        return f"scale_at={settings.scale_at}: 1 to {SCALE_AT_MAX:,} are allowed"
    return None


def is_burstable(instance_type: str) -> bool:
    """Tell whether an instance type is burstable: Application Auto Scaling refuses those.

    Source: SageMaker developer guide, "Auto scaling prerequisites".
    """
    return instance_type.startswith("ml.t")


def _objection_to_rollout(settings: ServingSettings) -> str | None:
    """Return why versions cannot come into production so; None if they can."""
    mode = settings.mode
    if not 0 <= settings.canary_percent <= CANARY_PERCENT_MAX:
        return f"a canary of {settings.canary_percent} percent: 0 to {CANARY_PERCENT_MAX} are allowed"
    if settings.canary_percent and mode in (Mode.ASYNCHRONOUS, Mode.BATCH_TRANSFORM):
        return f"{mode} with a canary: whether it answers is not known at its calls; leave canary_percent at 0"
    if settings.promotion is not Promotion.DIRECT and mode is Mode.BATCH_TRANSFORM:
        return f"{mode} with promotion={settings.promotion}: it answers no calls that could test a version"
    if settings.promotion is Promotion.AUTOMATIC and mode is Mode.ASYNCHRONOUS:
        return (
            f"{mode} with promotion={settings.promotion}: whether it answers is not known at its calls; choose "
            f"{Promotion.MANUAL} or {Promotion.DIRECT}"
        )
    for minutes, of in ((settings.test_minutes, "test"), (settings.bake_minutes, "baking")):
        if not 1 <= minutes <= JUDGED_MINUTES_MAX:
            return f"{minutes} minutes of {of}: 1 to {JUDGED_MINUTES_MAX} are allowed"
    return None


def _objection_to_comparison(settings: ServingSettings) -> str | None:
    """Return why models cannot be compared so; None if they can."""
    if settings.approval is not Approval.IF_BETTER:
        default = ServingSettings()
        for name in ("margin", "segment_loss_max"):
            if getattr(settings, name) != getattr(default, name):
                return f"{name} has no effect with approval={settings.approval}: it is for {Approval.IF_BETTER}"
    if not -COMPARISON_MAX <= settings.margin <= COMPARISON_MAX:
        return f"margin={settings.margin}: {-COMPARISON_MAX:,} to {COMPARISON_MAX:,} are allowed"
    if not 0 <= settings.segment_loss_max <= COMPARISON_MAX:
        return f"segment_loss_max={settings.segment_loss_max}: 0 to {COMPARISON_MAX:,} are allowed"
    return None


def unsupported(settings: ServingSettings) -> str | None:
    """Return what this version cannot deploy of what is allowed, naming what it can; None if it can."""
    if (settings.mode, settings.isolation) in SUPPORTED:
        return None
    return f"{settings.mode} with {settings.isolation} is not supported yet: choose {_either(_supported())}"


def default_isolation(mode: Mode) -> Isolation:
    """Return the isolation that shares least, of those that can be deployed in a mode, or are allowed in it."""
    deployable = [isolation for isolation in ALLOWED[mode] if (mode, isolation) in SUPPORTED]
    return (deployable or ALLOWED[mode])[0]


def _span(numbers: range) -> str:
    return f"{numbers[0]:,} to {numbers[-1]:,}"


def _modes_with(isolation: Isolation) -> list[Mode]:
    return [mode for mode in Mode if isolation in ALLOWED[mode]]


def _supported(isolation: Isolation | None = None) -> list[str]:
    """Return the supported modes, with the isolation of each unless it is given."""
    modes = [(mode, of) for mode in Mode for of in Isolation if (mode, of) in SUPPORTED]
    return [f"{mode}" if isolation else f"{mode} with {of}" for mode, of in modes if isolation in (None, of)]


def _either(choices: Iterable[object]) -> str:
    texts = [str(choice) for choice in choices]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"
