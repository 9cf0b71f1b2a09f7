"""Logs and metrics, set up alike in every function. No metric has a tenant dimension: each would be billed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

NAMESPACE = "Trainyard"


def build_logger(function: str) -> Logger:
    """Return the function's structured logger; keys added for a record are cleared by the next one."""
    return Logger(service=f"trainyard-{function}", utc=True)


def count(name: str, value: float = 1, *, unit: MetricUnit = MetricUnit.Count, **dimensions: str) -> None:
    """Emit one metric with dimensions of its own, such as tier and state."""
    with single_metric(name=name, unit=unit, value=value, namespace=NAMESPACE) as metric:
        for dimension, text in dimensions.items():
            metric.add_dimension(name=dimension, value=text)


def reporting(logger: Logger, handle: Callable[[SQSRecord], None]) -> Callable[[SQSRecord], None]:
    """Wrap a record handler so that a failure is logged and counted; the record is delivered again."""

    def handle_and_report(record: SQSRecord) -> None:
        try:
            handle(record)
        except Exception:
            logger.exception("record failed, and will be delivered again", extra={"message_id": record.message_id})
            count("RecordsFailed")
            raise

    return handle_and_report
