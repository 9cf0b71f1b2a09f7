"""What is kept of a pass, as compressed JSON: enough to decide it again, by today's code or by another policy."""

import zlib

from pydantic import TypeAdapter

from trainyard.application.dispatch import KeptPass

_ADAPTER: TypeAdapter[KeptPass] = TypeAdapter(KeptPass)


def encode_pass(kept: KeptPass) -> bytes:
    return zlib.compress(_ADAPTER.dump_json(kept), level=6)


def decode_pass(data: bytes) -> KeptPass:
    return _ADAPTER.validate_json(zlib.decompress(data))
