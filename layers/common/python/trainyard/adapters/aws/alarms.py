"""The alarms of a deployment, as CloudWatch has them."""

import re
from datetime import UTC

from trainyard.adapters.aws.clients import client

OF_A_STACK = re.compile(r"[A-Z][A-Za-z0-9]*(-[A-Z0-9]+)?")
"""What CloudFormation puts behind a stack's name: a logical ID and a suffix. The name of another stack may begin
with this one's, as trainyard-dev-2 with trainyard-dev, but does not go on so.
"""


def alarms_in_force(stack: str) -> list[tuple[str, str]]:
    """Return the deployment's CloudWatch alarms in state ALARM: name, and since when."""
    pages = client("cloudwatch").get_paginator("describe_alarms")
    alarms = [
        alarm
        for page in pages.paginate(AlarmNamePrefix=f"{stack}-", StateValue="ALARM")
        for alarm in page["MetricAlarms"]
    ]
    named = [(str(alarm["AlarmName"]).removeprefix(f"{stack}-"), alarm) for alarm in alarms]
    return [
        (name, f"{alarm['StateUpdatedTimestamp'].astimezone(UTC):%Y-%m-%d %H:%M} UTC")
        for name, alarm in named
        if OF_A_STACK.fullmatch(name)
    ]
