"""Waves: carries waves on by timer, which bring tenants another version of their algorithm."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from trainyard.domain.waves import WaveState
from trainyard.entrypoints import bootstrap
from trainyard.telemetry import build_logger, count

logger = build_logger("waves")

NEEDED_MILLIS = 60_000
"""Time needed for one more tenant, and to store what was decided."""

STOPPED = (WaveState.PAUSED, WaveState.GOING_BACK)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Carry all waves on that have not ended; the event is a timer's, and says nothing."""
    states = {}
    for each in bootstrap.wave_advance().run(
        datetime.now(UTC), lambda: context.get_remaining_time_in_millis() < NEEDED_MILLIS
    ):
        wave = each.wave
        states[wave.wave_id] = wave.state.value
        extra = {
            "wave": wave.wave_id,
            "version": wave.version,
            "state": wave.state.value,
            "stage": wave.stage,
            "reason": wave.reason,
            "changed": len(each.changed),
            "failed": each.failed,
        }
        if wave.state is not each.before and wave.state in STOPPED:
            logger.error("wave stopped", extra=extra)
            count("WavesStopped")
        elif each.failed:
            logger.warning("wave", extra=extra)
        else:
            logger.info("wave", extra=extra)
        count("WavesHindered", int(bool(each.failed)))
    return {"waves": states}
