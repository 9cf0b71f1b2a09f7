"""The price table file: JSON, validated before use."""

import json
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainyard.contracts.violations import reason_of
from trainyard.domain.errors import Refused

_InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
_Price = Annotated[Decimal, Field(gt=0, le=Decimal(10_000), allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RegionPrices(_Strict):
    """USD: per instance and hour, per GB and second or month, per GB, per execution."""

    training: dict[_InstanceType, _Price] = Field(min_length=1)
    processing: dict[_InstanceType, _Price] = Field(min_length=1)
    transform: dict[_InstanceType, _Price] = Field(min_length=1)
    hosting: dict[_InstanceType, _Price] = Field(min_length=1)
    serverless_gb_second: _Price
    serverless_gb: _Price
    training_volume_gb_month: _Price
    processing_volume_gb_month: _Price
    storage_gb_month: _Price
    scheduler_per_execution: _Price


class PriceFile(_Strict):
    version: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
    currency: Literal["USD"]
    source: str = ""
    regions: dict[Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")], RegionPrices]


def parse_prices(text: str) -> PriceFile:
    """Return the table in a JSON text; raises Refused, naming each bad entry and what is wrong with it."""
    try:
        return PriceFile.model_validate(json.loads(text, parse_float=Decimal))
    except json.JSONDecodeError as error:
        raise Refused(f"the price table is not JSON: {error}") from error
    except ValidationError as error:
        findings = [_finding(dict(violation)) for violation in error.errors(include_url=False)]
        raise Refused("the price table is invalid:\n  " + "\n  ".join(findings)) from error


def _finding(violation: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in violation["loc"] if part != "[key]")
    given = (
        f", got {violation['input']!r}" if isinstance(violation.get("input"), str | int | float | Decimal) else ""
    )
    return f"{path or 'table'}: {reason_of(violation)}{given}"


def write_prices(table: PriceFile) -> str:
    """Return the table as the file has it."""
    return json.dumps(table.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
