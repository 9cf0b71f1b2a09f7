"""What is kept of a pass, as compressed JSON: enough to decide it again, by today's code or by another policy."""

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
    """Return the schema; built once, and only by who keeps or reads passes."""
    return TypeAdapter(PassRecord)
