"""Let tasks of the tenants' state machines fail on request, before or after they have taken effect."""

from collections.abc import Callable
from typing import Any

from local.sagemaker.service import Fault


def plant_in_tasks(next_fault: Callable[[str], Fault | None]) -> None:
    """Ask `next_fault` before each call that Step Functions makes of a function with {"change", "step"}."""
    from ministack.services import stepfunctions

    call = stepfunctions._call_lambda

    def call_or_fail(function: Any, event: Any) -> Any:
        task = f"Task:{event.get('change')}:{event.get('step')}" if isinstance(event, dict) else ""
        fault = next_fault(task)
        if fault is None:
            return call(function, event)
        if fault.effect == "lost":
            call(function, event)
        raise stepfunctions._ExecutionError(fault.code, f'{{"errorMessage": "{fault.message}"}}')

    stepfunctions._call_lambda = call_or_fail
