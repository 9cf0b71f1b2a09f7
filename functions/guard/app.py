"""Guard: stops a job that runs as one tenant and is tagged as another, which IAM cannot detect."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.contracts.jobs import parse_job_status
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("guard")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer {"stopped": reason}, or {"stopped": null} for a job whose role and tag agree, or that is not ours."""
    started = parse_job_status(event)
    reason = bootstrap.guard().check(started)
    if reason is not None:
        logger.error("job stopped", extra={"job": started.name, "reason": reason})
        count("JobsStoppedByGuard")
    return {"stopped": reason}
