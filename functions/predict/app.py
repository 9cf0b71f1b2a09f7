"""Predict: answers rows with the version of a model that its data set's alias names, and counts the call.

Invoked with {"tenant_id": …, "data_set": …, "rows": …, "content_type": …}; the answer has the model's predictions,
its version, and how many milliseconds it took. Rows for an asynchronous endpoint may be in S3 ({…, "input": "s3://…"});
its answer has where the predictions will be ("output"), or why there are none ("failure"). With {…, "environment":
"test"} the version in test answers. A call that cannot be
answered raises Refused with the reason.
"""

import json
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.application.serving.prediction import Call
from trainyard.contracts.serving import parse_predict_command, parse_prediction
from trainyard.domain.errors import Refused
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("predict")

ANSWER_BYTES_MAX = 6_291_556 - 4096
"""Lambda's limit of a synchronous answer, with room for what is beside the predictions (Lambda quotas)."""


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    command = parse_predict_command(event)
    logger.append_keys(tenant_id=command.tenant_id, data_set=command.data_set)
    call = Call(
        tenant_id=command.tenant_id,
        data_set=command.data_set,
        rows=command.rows.encode(),
        location=command.input,
        content_type=command.content_type,
        key=command.key or context.aws_request_id,
        environment=command.environment,
    )
    try:
        answered = bootstrap.predictor().predict(call, datetime.now(UTC))
    except Refused as error:
        logger.info("not answered", extra={"reason": str(error)})
        raise
    if answered.not_counted:
        logger.error("the call could not be counted", extra={"reason": answered.not_counted})
        count("CallsNotCounted")
    if answered.response is None:
        return {"version": answered.version, "output": answered.output, "failure": answered.failure}
    return answer_of(answered.version, answered.response.body, answered.response.milliseconds)


def answer_of(version: int, body: bytes, milliseconds: int) -> dict[str, Any]:
    """Return what the caller gets; raises Refused where the model answered too much."""
    prediction = parse_prediction(body)
    answer = prediction.model_dump(exclude_none=True)
    if len(json.dumps(answer)) > ANSWER_BYTES_MAX:
        raise Refused(
            f"the answer to {len(prediction.predictions):,} rows is too large: send them in smaller parts"
        )
    return {**answer, "version": version, "milliseconds": milliseconds}
