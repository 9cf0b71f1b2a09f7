"""Approval links: whoever has one may approve or reject one version of a model, once, until the link expires."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

VALID_MAX = timedelta(days=30)
REVIEWER_LENGTH_MAX = 80
COMMENT_LENGTH_MAX = 400
"""Both together fit into the registry's 1,024 characters, also where a character counts twice as it does in UTF-16
(API reference, UpdateModelPackage)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalLink:
    """What a link says; its signature shows that this deployment made it."""

    tenant_id: str
    version: int
    """Its number in the tenant's model group."""
    request_id: str
    """The training that made the version. A group that is created anew counts its versions from 1 again, so that
    the number alone could mean another model."""
    expires_at: datetime
    """In whole seconds."""
    reviewer: str
    """For whom it was made, as its maker put it: shown, and recorded with the decision."""


class Decision(StrEnum):
    """What a reviewer can decide about a version."""

    APPROVE = "approve"
    REJECT = "reject"

    @property
    def past(self) -> str:
        return "approved" if self is Decision.APPROVE else "rejected"


class LinkFault(StrEnum):
    """Why nothing can be decided by a link: the kinds of its refusals."""

    INVALID = "invalid"
    """It was not made by this deployment, or was changed."""
    EXPIRED = "expired"
    GONE = "gone"
    """The version is not there any more."""
    DECIDED = "decided"
    """The version was approved or rejected before, differently."""
    DISABLED = "disabled"
    """The key that signs links is disabled, or is going to be deleted."""


def comment_of(decision: Decision, link: ApprovalLink, words: str) -> str:
    """Return what the registry keeps as the reason of a decision: one line of printable characters."""
    reason = "".join(character for character in words if character.isprintable())
    return f"{decision.past} by link for {link.reviewer}" + (f": {reason}" if reason else "")
