"""Approval links signed by an HMAC key of KMS, which never leaves it."""

from dataclasses import dataclass

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.contracts.approval_links import content_of, message_of, parse_link, written
from trainyard.domain.approval_links import ApprovalLink

ALGORITHM = "HMAC_SHA_256"


@dataclass(frozen=True, slots=True)
class KmsLinks:
    """Implements Links, and writes them."""

    key_id: str

    def write(self, link: ApprovalLink) -> str:
        """Return a link's text; raises Malformed when it has values that no link can have."""
        content = content_of(link)
        with translated():
            answer = client("kms").generate_mac(
                KeyId=self.key_id, MacAlgorithm=ALGORITHM, Message=message_of(content)
            )
        return written(content, answer["Mac"])

    def read(self, text: str) -> ApprovalLink:
        return parse_link(text).link

    def is_genuine(self, text: str) -> bool:
        signed = parse_link(text)
        try:
            with translated():
                client("kms").verify_mac(
                    KeyId=self.key_id, MacAlgorithm=ALGORITHM, Message=signed.message, Mac=signed.signature
                )
        except ClientError as error:
            if code_of(error) == "KMSInvalidMacException":
                return False
            raise
        return True
