"""Approval by link: a version is approved or rejected by somebody without credentials of AWS.

A link decides about a version while nobody has: once it is approved or rejected, by a link or otherwise, only an
operator can change that. So a link that is passed on, or opened again, changes nothing. The registry cannot set a
condition on an update: of two people who decide in the same moment, the later one is recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Protocol

from trainyard.application.ports import Tenants
from trainyard.application.serving.ports import ModelPackage, ModelPackages
from trainyard.domain.approval_links import VALID_MAX, ApprovalLink, Decision, LinkFault, comment_of
from trainyard.domain.errors import Malformed, Refused
from trainyard.domain.requests import Outcome, Request
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions


class Links(Protocol):
    """The texts of links, signed by a key of this deployment that nobody can read."""

    def read(self, text: str) -> ApprovalLink:
        """Return what a text says, whoever wrote it; raises Malformed."""
        ...

    def is_genuine(self, text: str) -> bool:
        """Tell whether this deployment has signed a text that `read` can read; raises Throttled."""
        ...


class Requests(Protocol):
    def get(self, request_id: str) -> Request | None: ...


class Quality(NamedTuple):
    """How good a model is, by a metric between 0 and 1."""

    metric: str
    value: float
    baseline: float | None


class LiveVersion(NamedTuple):
    """The version that answers calls while another one is reviewed."""

    version: int
    quality: Quality | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A version that a link is for, and what is known of it."""

    link: ApprovalLink
    package: ModelPackage
    algorithm: str | None
    """None, as the quality and the rows, once the request's record is deleted."""
    quality: Quality | None
    rows: int | None
    live: LiveVersion | None
    is_suspended: bool
    """Whether the tenant is, so that an approved version is deployed only once it is resumed."""


class Decided(NamedTuple):
    """A version about which a decision was made."""

    review: Review
    is_new: bool
    """Whether it was made just now, and not before by the same or another reviewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    links: Links
    tenants: Tenants
    packages: ModelPackages
    arn_of: Callable[[str, int], str]
    """Returns the ARN of a model package of a group by its version."""
    requests: Requests
    aliases: Aliases
    versions: ModelVersions

    def review(self, text: str, now: datetime) -> Review:
        """Return what a link is for; raises Refused, of a kind in LinkFault, where there is nothing to decide."""
        link = self._verified(text, now)
        tenant, package = self._tenant_and_package(link)
        request = self.requests.get(link.request_id)
        return Review(
            link=link,
            package=package,
            algorithm=request.algorithm if request else None,
            quality=_quality(request),
            rows=_outcome(request).rows,
            live=self._live(package),
            is_suspended=tenant.state is TenantState.SUSPENDED,
        )

    def decide(self, text: str, decision: Decision, words: str, now: datetime) -> Decided:
        """Approve or reject the version that a link is for, unless it is so already, and return it as it is then.

        `words` are the reviewer's reason, or "". Raises Refused, of a kind in LinkFault, where the link is not
        valid, or somebody has decided differently before.
        """
        review = self.review(text, now)
        package, is_approval = review.package, decision is Decision.APPROVE
        if not package.is_pending:
            if package.is_approved is not is_approval:
                state = "approved" if package.is_approved else "rejected"
                raise Refused(
                    f"version {package.version} was {state} before; an operator can change that",
                    kind=LinkFault.DECIDED,
                )
            return Decided(review, is_new=False)
        comment = comment_of(decision, review.link, words)
        (self.packages.approve if is_approval else self.packages.reject)(package.arn, comment)
        decided = replace(package, is_pending=False, is_approved=is_approval, changed_at=now, comment=comment)
        return Decided(replace(review, package=decided), is_new=True)

    def _verified(self, text: str, now: datetime) -> ApprovalLink:
        invalid = Refused(
            "it is incomplete, was changed, or was withdrawn: ask for another one", kind=LinkFault.INVALID
        )
        try:
            link = self.links.read(text)
        except Malformed:
            raise invalid from None
        # Looked at first, because it costs no call.
        if now >= link.expires_at:
            raise Refused("ask for another one", kind=LinkFault.EXPIRED)
        if link.expires_at - now > VALID_MAX or not self.links.is_genuine(text):
            raise invalid
        return link

    def _tenant_and_package(self, link: ApprovalLink) -> tuple[Tenant, ModelPackage]:
        gone = Refused(f"version {link.version} does not exist any more", kind=LinkFault.GONE)
        tenant = self.tenants.get(link.tenant_id)
        if tenant is None:
            raise gone
        package = self.packages.get(self.arn_of(tenant.model_group, link.version))
        if package is None or (package.tenant_id, package.request_id) != (link.tenant_id, link.request_id):
            raise gone
        return tenant, package

    def _live(self, package: ModelPackage) -> LiveVersion | None:
        number = self.aliases.get(package.tenant_id, package.data_set).live
        if number is None or number == package.version:
            return None
        version = self.versions.get(package.tenant_id, package.data_set, number)
        request = self.requests.get(version.request_id) if version else None
        return LiveVersion(number, _quality(request))


def _outcome(request: Request | None) -> Outcome:
    return (request.outcome if request else None) or Outcome()


def _quality(request: Request | None) -> Quality | None:
    outcome = _outcome(request)
    if outcome.quality is None or outcome.quality_metric is None:
        return None
    return Quality(outcome.quality_metric, outcome.quality, outcome.baseline)
