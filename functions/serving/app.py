"""Serving: the tasks of the state machine that deploys approved models, each repeatable.

By timer, it searches for lost approvals and removes unused endpoints.

A task that cannot be done raises Refused, which the state machine does not retry; anything else it does.
"""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.serving.model_deployment import Judgement, VersionId
from trainyard.contracts.serving import ServingStep, parse_serving_step
from trainyard.domain.aliases import Begun
from trainyard.domain.errors import InProgress, Refused
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("serving")

Answer = dict[str, Any]

NEEDED_MILLIS = 20_000
"""Time needed to remove one more endpoint and to finish cleanly."""
REMOVAL_MILLIS = 50_000
"""Time that the search leaves, in any case, for removing unused endpoints."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> Answer:
    """Carry out one step, and return its result to the state machine."""
    step = parse_serving_step(event)
    if step.step == "Search":
        return search(context)
    logger.append_keys(step=step.step, run=step.run)
    try:
        answer = STEPS[step.step](step, datetime.now(UTC))
    except (Refused, InProgress) as error:
        logger.info("step not done", extra={"reason": str(error)})
        raise
    logger.info("step done", extra={"answer": answer})
    return answer


def begin(step: ServingStep, now: datetime) -> Answer:
    started = bootstrap.model_deployment().begin(step.package_arn, step.run, now)
    deploys = started.begun is Begun.DEPLOY
    reason = started.reason or (str(started.begun) if started.begun else "")
    version = started.id._asdict() if started.id else None
    return {
        "deploys": deploys,
        "is_judged": started.is_judged,
        "is_missing": started.is_missing,
        "version": version,
        "reason": reason,
        **_next(started.following),
    }


def place(step: ServingStep, now: datetime) -> Answer:
    bootstrap.model_deployment().place(_version(step))
    return {}


def bring_up(step: ServingStep, now: datetime) -> Answer:
    if not bootstrap.model_deployment().bring_up(_version(step)):
        raise InProgress("the endpoint is being created")
    return {}


def test(step: ServingStep, now: datetime) -> Answer:
    return {"latency_ms": bootstrap.model_deployment().test(_version(step), now)}


def switch(step: ServingStep, now: datetime) -> Answer:
    switched = bootstrap.model_deployment().switch(_version(step), step.run, now)
    if switched.serves:
        count("ModelsDeployed")
    return {"is_judged": switched.is_judged, **_next(switched.following)}


def judge(step: ServingStep, now: datetime) -> Answer:
    judgement, following = bootstrap.model_deployment().judge(_version(step), now)
    if judgement is Judgement.ROLLED_BACK:
        count("ModelsRolledBack")
    goes_on = judgement in (Judgement.TESTING, Judgement.BAKING)
    return {"goes_on": goes_on, "judgement": str(judgement), **_next(following)}


def fail(step: ServingStep, now: datetime) -> Answer:
    following = bootstrap.model_deployment().fail(_version(step), step.run, step.failure, now)
    logger.warning("version given up", extra={"reason": step.failure})
    count("ModelsNotDeployed")
    return _next(following)


def search(context: LambdaContext) -> Answer:
    """Deploy versions whose approval reached nobody, of the tenants whose turn it is; remove unused endpoints."""
    searched = bootstrap.lost_approvals().run(
        datetime.now(UTC), lambda: context.get_remaining_time_in_millis() < REMOVAL_MILLIS
    )
    for tenant_id, error in searched.failed.items():
        logger.error("a tenant was not searched", extra={"tenant_id": tenant_id, "error": error})
    for version in searched.rolled_back:
        logger.warning("a version was rolled back", extra={"version": version._asdict()})
    if searched.rolled_back:
        count("ModelsRolledBack", len(searched.rolled_back))
    removed = bootstrap.unused_endpoints().remove(
        datetime.now(UTC), lambda: context.get_remaining_time_in_millis() < NEEDED_MILLIS
    )
    for endpoint, error in removed.failed.items():
        logger.error("an unused endpoint was not removed", extra={"endpoint": endpoint, "error": error})
    if removed.endpoints:
        logger.info("unused endpoints removed", extra={"endpoints": removed.endpoints})
    if searched.started:
        logger.warning("approvals without an event", extra={"packages": searched.started})
        count("ApprovalsRecovered", len(searched.started))
    return {
        "tenants": searched.tenants,
        "started": len(searched.started),
        "removed": len(removed.endpoints),
        "failed": len(searched.failed) + len(removed.failed),
    }


STEPS = {
    "Begin": begin,
    "Restore": bring_up,
    "Place": place,
    "BringUp": bring_up,
    "Test": test,
    "Switch": switch,
    "Judge": judge,
    "Fail": fail,
}


def _version(step: ServingStep) -> VersionId:
    if step.version is None:
        raise Refused(f"step {step.step} needs a version")
    return VersionId(step.version.tenant_id, step.version.data_set, step.version.version)


def _next(following: VersionId | None) -> Answer:
    """Return the package of the version to deploy next; "" where there is none."""
    package = bootstrap.model_deployment().package_of(following) if following is not None else ""
    return {"package_arn": package}
