"""What the functions need from Lambda and the SDK, so that none of them imports an adapter."""

from collections.abc import Mapping
from typing import Any

from trainyard.adapters.aws.clients import take_calls
from trainyard.adapters.aws.items import deserialized
from trainyard.persistence.bell import BellRing, bell_ring_from, parse_delayed_ring

__all__ = ["calls_made", "parse_delayed_ring", "rings_in"]


def calls_made() -> int:
    """Return the SDK calls made since this was asked last."""
    return sum(take_calls().values())


def rings_in(event: Mapping[str, Any]) -> list[BellRing]:
    """Return the rings of the bell among the records of a table's stream."""
    images = [record["dynamodb"].get("NewImage", {}) for record in event.get("Records", ())]
    return [bell_ring_from(deserialized(image)) for image in images if "rings" in image]
