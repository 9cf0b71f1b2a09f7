"""The record of a pass as compressed JSON: enough to replay its decision with newer code or another policy."""

import zlib
from functools import cache

from pydantic import TypeAdapter

from trainyard.application.scheduling.dispatch import PassRecord


def encode_pass(record: PassRecord) -> bytes:
    return zlib.compress(_adapter().dump_json(record), level=6)


def decode_pass(data: bytes) -> PassRecord:
    return _adapter().validate_json(zlib.decompress(data))


@cache
def _adapter() -> TypeAdapter[PassRecord]:
    """Return the schema; built once, and only where passes are written or read."""
    return TypeAdapter(PassRecord)
