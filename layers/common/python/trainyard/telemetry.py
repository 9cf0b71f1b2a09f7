"""Logs and metrics, set up the same way in every function. No metric has a tenant dimension: each would be billed.

The namespace of the metrics is that of the stack (POWERTOOLS_METRICS_NAMESPACE, set in template.yaml), so that two
stages in one account never share a metric or an alarm.
"""

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric


def build_logger(function: str) -> Logger:
    """Return the function's structured logger; keys added for a record are cleared by the next one."""
    return Logger(service=f"trainyard-{function}", utc=True)


def count(name: str, value: float = 1, *, unit: MetricUnit = MetricUnit.Count, **dimensions: str) -> None:
    """Emit one metric with dimensions of its own, such as tier and state."""
    with single_metric(name=name, unit=unit, value=value) as metric:
        for dimension, text in dimensions.items():
            metric.add_dimension(name=dimension, value=text)
