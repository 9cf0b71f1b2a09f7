"""Base64url without padding, for texts that stand in addresses."""

import base64
import binascii

from trainyard.domain.errors import Malformed


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """Return what was encoded; raises Malformed for any text but the one that `encoded` writes."""
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("it is not base64url") from error
    if encoded(content) != text:
        raise Malformed("it is not base64url as it is written here")
    return content
