"""CloudWatch Logs as AWS answers: MiniStack's FilterLogEvents ignores prefixes of streams, and has one page."""

import json
from collections.abc import Callable
from typing import Any

EVENTS_OF_A_PAGE = 200
"""AWS ends a page at 10,000 events or 1 MB; ours end sooner, so that short logs have several too."""

Handler = Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]]


def filter_as_aws() -> None:
    """Let FilterLogEvents read the streams that a prefix names, in pages, of which one may be empty.

    Source: API reference, FilterLogEvents: "This operation can return empty results while there are more log
    events available through the token".
    """
    from ministack.services import cloudwatch_logs

    filtered: Handler = cloudwatch_logs._filter_log_events

    def filter_log_events(data: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        group = cloudwatch_logs._log_groups.get(cloudwatch_logs._resolve_log_group_name(data))
        prefix = data.get("logStreamNamePrefix")
        if group is not None and prefix:
            names = [name for name in group["streams"] if name.startswith(prefix)]
            data = {**data, "logStreamNames": names or [prefix]}
        status, headers, body = filtered(data)
        answer = json.loads(body)
        events, begin = answer.get("events", []), int(data.get("nextToken", "-1"))
        if status != 200 or (begin < 0 and len(events) <= EVENTS_OF_A_PAGE):
            return status, headers, body
        page = [] if begin < 0 else events[begin : begin + EVENTS_OF_A_PAGE]
        end = 0 if begin < 0 else begin + EVENTS_OF_A_PAGE
        answer |= {"events": page} | ({"nextToken": str(end)} if end < len(events) else {})
        return status, headers, json.dumps(answer).encode()

    cloudwatch_logs._filter_log_events = filter_log_events
