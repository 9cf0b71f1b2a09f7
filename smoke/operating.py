"""What an operator reads of a run: its log, the health of the service, and what the doctor finds."""

import json
from collections.abc import Sequence

from cli.codes import DONE, UNSUCCESSFUL
from smoke.deployed import SILO
from smoke.place import Suite
from smoke.steps import Step, StepFailed
from smoke.training import JOBS_OF_A_RUN, await_end, upload


def reads(suite: Suite) -> list[str]:
    """Train once, and read its log from CloudWatch and each view of the service."""
    request = await_end(suite, SILO, upload(suite, SILO, "logged"))
    lines = [json.loads(line) for line in suite.operator("logs", request.request_id, "--json").splitlines()]
    steps = {line["step"] for line in lines}
    if not {"Preprocess", "Train", "Evaluate"} <= steps:
        raise StepFailed(f"the logs have lines of {', '.join(sorted(steps)) or 'no step'} only")
    last = suite.operator("logs", request.request_id, "Train", "--tail", "1").strip()
    health = json.loads(suite.operator("status", "--json"))
    for words in (("queue",), ("requests", SILO), ("models", SILO), ("dlq", "list"), ("costs", "--by", "day")):
        suite.operator(*words)
    found = suite.operator("doctor", "--json", codes=(DONE, UNSUCCESSFUL))
    unknown = [each["text"] for each in json.loads(found) if each["result"] == "unknown"]
    return [
        f"{len(lines)} lines were logged; the last one of Train: {last}",
        f"alarms in force: {len(health['alarms'])}",
        suite.keep("doctor", json.loads(found)),
        f"the doctor could not tell {len(unknown)} things: {'; '.join(unknown) or 'none'}",
    ]


STEPS: Sequence[Step[Suite]] = (
    Step(
        name="operating",
        does="train once; read its log, the health of the service, models, costs, and the doctor's findings",
        means="CloudWatch names streams of jobs differently than adapters/aws/job_logs.py expects, or shows lines "
        "later, or the operator lacks a permission.",
        run=reads,
        minutes=15,
        jobs=JOBS_OF_A_RUN,
    ),
)
