"""Conversion of attribute values to and from DynamoDB's format."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

Item = dict[str, Any]
_serializer = TypeSerializer()
_deserializer = TypeDeserializer()


def serialized(values: Mapping[str, Any]) -> Item:
    """Return attribute values as DynamoDB takes them; None is left out, floats become decimals."""
    return {name: _serializer.serialize(_decimal(value)) for name, value in values.items() if value is not None}


def deserialized(item: Mapping[str, Any]) -> Item:
    return {name: _deserializer.deserialize(value) for name, value in item.items()}


def _decimal(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, Mapping):
        return {name: _decimal(inner) for name, inner in value.items()}
    return value
