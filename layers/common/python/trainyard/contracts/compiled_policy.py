"""A compiled policy: its validated values, stored so that functions need not validate the text again.

The schema (`policy_file`) takes longer to import and to build than everything else that a function needs of a
policy. So the validated values are stored beside the text, under its digest, and read from there."""

import json
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trainyard.contracts.policy_values import policy_of
from trainyard.domain.policy import Policy

DEPLOYED = Path(__file__).parent.parent / "policy.yaml"
"""The policy that the code ships with; in force until an operator applies another one."""

FORM = 12
"""Version of the stored form; incremented when it changes, so that older and newer code do not share values."""


@dataclass(frozen=True)
class CheckedValues:
    """The stored form: the validated values as compressed JSON."""

    region: str
    """The Region whose prices the policies contain."""

    def parse(self, text: str, version: int) -> Policy:
        """Return the policy in a text; raises Refused."""
        from trainyard.contracts.policy_file import parse_policy

        return parse_policy(text, version, self.region)

    def digest(self, text: str) -> str:
        """Return under what a text is kept."""
        return sha256(f"{FORM}\n{text}".encode()).hexdigest()

    def kept(self, text: str) -> bytes:
        """Return what is kept of a text; raises Refused."""
        from trainyard.contracts.policy_file import checked_values

        return zlib.compress(json.dumps(checked_values(text), separators=(",", ":")).encode())

    def read(self, compiled: bytes, version: int) -> Policy:
        """Return the policy; raises whatever, when what was kept is damaged."""
        return policy_of(json.loads(zlib.decompress(compiled)), version, self.region)
