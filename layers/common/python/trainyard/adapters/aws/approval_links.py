"""Approval links signed by an HMAC key of KMS, which never leaves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.contracts.approval_links import content_of, message_of, parse_link, text_of
from trainyard.domain.approval_links import ApprovalLink, LinkFault
from trainyard.domain.errors import Refused

ALGORITHM = "HMAC_SHA_256"
UNUSABLE = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})
"""What KMS says of a key that is disabled, is going to be deleted, or is deleted."""


@dataclass(frozen=True, slots=True)
class KmsLinks:
    """Implements Links, and writes them."""

    key_id: str

    def write(self, link: ApprovalLink) -> str:
        """Return a link's text.

        Raises Malformed when it has values that no link can have, Refused when the key cannot be used.
        """
        content = content_of(link)
        with _usable():
            answer = client("kms", hurried=True).generate_mac(
                KeyId=self.key_id, MacAlgorithm=ALGORITHM, Message=message_of(content)
            )
        return text_of(content, answer["Mac"])

    def read(self, text: str) -> ApprovalLink:
        return parse_link(text).link

    def is_genuine(self, text: str) -> bool:
        parsed = parse_link(text)
        try:
            with _usable():
                client("kms", hurried=True).verify_mac(
                    KeyId=self.key_id, MacAlgorithm=ALGORITHM, Message=parsed.message, Mac=parsed.signature
                )
        except ClientError as error:
            if code_of(error) == "KMSInvalidMacException":
                return False
            raise
        return True


@contextmanager
def _usable() -> Iterator[None]:
    """Raise Refused where the key cannot be used, and otherwise what `translated` does."""
    try:
        with translated():
            yield
    except ClientError as error:
        if code_of(error) not in UNUSABLE:
            raise
        words = "approval links are switched off at present: their key cannot be used"
        raise Refused(words, kind=LinkFault.DISABLED) from error
