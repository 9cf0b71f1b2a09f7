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
    """Whether it costs nothing while nobody asks."""
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
    Mode.INFERENCE_COMPONENT: ModeLimits(
        request_bytes_max=6_291_456,
        answer_seconds_max=60,
        scales_to_zero=True,
        source="InvokeEndpointInput.Body; developer guide, Scale an endpoint to zero instances",
    ),
}

SERVERLESS_MEMORY_MB = range(1024, 6145, 1024)
"""ServerlessConfig.MemorySizeInMB: whole gigabytes."""
CONCURRENCY_MAX = 200
"""ServerlessConfig.MaxConcurrency, of one endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """How the models of a data set are served."""

    mode: Mode = Mode.MULTI_MODEL
    isolation: Isolation = Isolation.BRIDGE
    memory_mb: int = 2048
    """Of a serverless endpoint."""
    concurrency: int = 5
    """Requests that a serverless endpoint answers at once."""


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
    silo = f"choose {Isolation.SILO} with {_either(_modes_with(Isolation.SILO))}"
    if own_code and isolation is not Isolation.SILO:
        return f"the tenant trains with code of its own, which must not run beside other tenants' models: {silo}"
    if own_key and isolation is not Isolation.SILO:
        return (
            f"the tenant's data is encrypted with its own key, and {isolation} puts copies of its models beside "
            f"those of others: {silo}"
        )
    if mode is Mode.SERVERLESS:
        if settings.memory_mb not in SERVERLESS_MEMORY_MB:
            return (
                f"{settings.memory_mb} MB of memory: serverless endpoints have {_either(SERVERLESS_MEMORY_MB)} MB"
            )
        if not 1 <= settings.concurrency <= CONCURRENCY_MAX:
            return f"a concurrency of {settings.concurrency}: a serverless endpoint allows 1 to {CONCURRENCY_MAX}"
    return None


def _modes_with(isolation: Isolation) -> list[Mode]:
    return [mode for mode in Mode if isolation in ALLOWED[mode]]


def _either(choices: Iterable[object]) -> str:
    texts = [str(choice) for choice in choices]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"
