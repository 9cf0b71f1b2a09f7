"""EventBridge Scheduler as AWS has it: MiniStack reads cron expressions by UTC alone, and takes any."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Answer = dict[str, Any]


class _Zoned(str):
    """A cron expression that is to be read by the clock of a zone."""

    zone: ZoneInfo


class _ZonedFields(tuple[Any, ...]):
    """Its fields."""

    zone: ZoneInfo


def schedule_as_aws() -> None:
    """Read cron expressions by the clock of their zone, and refuse what AWS refuses when it is asked to keep it.

    A time that the clock skips is left out; of a time that it shows twice, the first counts (EventBridge Scheduler
    user guide, "Schedule types").
    """
    from ministack.services import eventbridge, scheduler

    fields_of, next_fire = eventbridge._parse_cron_fields, eventbridge._cron_next_fire
    create, update = scheduler._create_schedule, scheduler._update_schedule

    def parse_cron_fields(expression: str) -> Any:
        fields = fields_of(str(expression))
        if fields is None or not isinstance(expression, _Zoned):
            return fields
        zoned = _ZonedFields(fields)
        zoned.zone = expression.zone
        return zoned

    def cron_next_fire(fields: Any, after: datetime) -> Any:
        if not isinstance(fields, _ZonedFields):
            return next_fire(fields, after)
        clock: datetime | None = after.astimezone(fields.zone).replace(tzinfo=UTC)
        while (clock := next_fire(tuple(fields), clock)) is not None:
            at = clock.replace(tzinfo=fields.zone).astimezone(UTC)
            is_shown = at.astimezone(fields.zone).replace(tzinfo=UTC) == clock
            if is_shown and at > after:
                return at
        return None

    def create_schedule(name: str, body: Answer) -> Any:
        return _refusal(scheduler, fields_of, body) or create(name, _zoned(body))

    def update_schedule(name: str, body: Answer) -> Any:
        return _refusal(scheduler, fields_of, body) or update(name, _zoned(body))

    eventbridge._parse_cron_fields, eventbridge._cron_next_fire = parse_cron_fields, cron_next_fire
    scheduler._create_schedule, scheduler._update_schedule = create_schedule, update_schedule


def _zoned(body: Answer) -> Answer:
    zone = body.get("ScheduleExpressionTimezone", "UTC")
    if zone == "UTC":
        return body
    expression = _Zoned(body["ScheduleExpression"])
    expression.zone = ZoneInfo(zone)
    return {**body, "ScheduleExpression": expression}


def _refusal(scheduler: Any, fields_of: Any, body: Answer) -> Any:
    """Return what AWS answers to a schedule that it does not take, None to one that it does."""
    now = datetime.now(UTC)
    expression, begins, ends = (body.get(name) for name in ("ScheduleExpression", "StartDate", "EndDate"))
    try:
        ZoneInfo(body.get("ScheduleExpressionTimezone", "UTC"))
    except (ValueError, OSError, KeyError):
        return scheduler._error(400, "ValidationException", "Invalid Schedule Expression Timezone.")
    if str(expression).startswith("cron(") and fields_of(str(expression)) is None:
        return scheduler._error(400, "ValidationException", f"Invalid Schedule Expression {expression}.")
    if begins is not None and _time(scheduler, begins) < now - timedelta(minutes=5):
        words = "The StartDate you specify cannot be earlier than 5 minutes ago."
        return scheduler._error(400, "ValidationException", words)
    if ends is not None and _time(scheduler, ends) <= now:
        return scheduler._error(400, "ValidationException", "The EndDate you specify cannot be in the past.")
    return None


def _time(scheduler: Any, value: Any) -> datetime:
    return datetime.fromtimestamp(scheduler._to_epoch(value), UTC)
