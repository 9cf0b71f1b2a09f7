"""Service Quotas for SageMaker: the values of an ordinary account, in short pages.

Source: Service Quotas API reference, ListServiceQuotas and ListAWSDefaultServiceQuotas. Values of the first list
were changed for the account; the second has AWS's default for every quota.
"""

from typing import Any

PAGE = 3
APPLIED = {
    "Maximum number of concurrent pipeline executions": 20.0,
    "ml.m5.large for training job usage": 50.0,
    "ml.m5.large for processing job usage": 50.0,
    "ml.m5.xlarge for training job usage": 50.0,
    "ml.m5.xlarge for processing job usage": 50.0,
}
TYPES = tuple(
    f"ml.{family}.{size}"
    for family in ("c5", "m5", "m6i", "r5", "t3")
    for size in ("medium", "large", "xlarge", "2xlarge", "4xlarge", "9xlarge", "12xlarge")
)
USES = ("training job usage", "spot training job usage", "processing job usage", "endpoint usage")
DEFAULTS = {f"{name} for {use}": 20.0 for name in TYPES for use in USES} | APPLIED


def list_service_quotas(request: dict[str, Any]) -> dict[str, Any]:
    return _page(APPLIED, request)


def list_aws_default_service_quotas(request: dict[str, Any]) -> dict[str, Any]:
    return _page(DEFAULTS, request)


def _page(values: dict[str, float], request: dict[str, Any]) -> dict[str, Any]:
    begin = int(request.get("NextToken", "0"))
    quotas = [
        {"ServiceCode": request["ServiceCode"], "QuotaName": name, "Value": value, "Adjustable": True}
        for name, value in list(values.items())[begin : begin + PAGE]
    ]
    more = {"NextToken": str(begin + PAGE)} if begin + PAGE < len(values) else {}
    return {"Quotas": quotas} | more
