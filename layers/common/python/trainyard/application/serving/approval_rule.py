"""The rule by which a data set's new versions are approved: all, or those that are better than what is live."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from trainyard.application.serving.ports import Comparisons, ModelPackage, ModelPackages
from trainyard.domain.algorithms import family_of
from trainyard.domain.aliases import Alias
from trainyard.domain.approval_links import COMMENT_LENGTH_MAX
from trainyard.domain.challenge import objection_to_challenger, summary
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Request
from trainyard.domain.serving import Approval
from trainyard.domain.tenants import Tenant
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions

APPROVES_WITHIN = timedelta(days=1)
"""After a version was registered, a rule approves it."""

APPROVED = "approved by the data set's rule"
NOT_APPROVED = "not approved by the data set's rule"
DECIDED = "somebody has decided about it just now"


def approves_itself(package: ModelPackage, tenant: Tenant | None, now: datetime) -> bool:
    """Tell whether the rule of a package's data set may approve it, nobody having approved or rejected it.

    A rule approves no versions that were registered long before: somebody has left them waiting.
    """
    if tenant is None or not package.is_pending or now - package.created_at > APPROVES_WITHIN:
        return False
    if package.comment.startswith(NOT_APPROVED):
        return False  # it was looked at: to say so was a change of the package, with an event of its own
    return tenant.settings_for(package.data_set).serving.approval in (Approval.AUTOMATIC, Approval.IF_BETTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRule:
    aliases: Aliases
    versions: ModelVersions
    packages: ModelPackages
    comparisons: Comparisons
    request_of: Callable[[str], Request | None]
    """Returns a request by its id."""

    def apply(self, package: ModelPackage, tenant: Tenant, now: datetime) -> ModelPackage:
        """Approve a version that its rule may approve, and return it; raises Refused, with the reason as the
        version's comment, where it is left to somebody.
        """
        objection, comment = self._judged(package, tenant)
        current = self.packages.get(package.arn)
        if current is None or not current.is_pending:
            raise Refused(DECIDED)
        if objection is not None:
            self.packages.leave_pending(package.arn, f"{NOT_APPROVED}: {objection}"[:COMMENT_LENGTH_MAX])
            raise Refused(objection)
        self.packages.approve(package.arn, comment)
        return replace(package, is_approved=True, changed_at=now)

    def _judged(self, package: ModelPackage, tenant: Tenant) -> tuple[str | None, str]:
        """Return why a version is left to somebody, None if it is not; and the comment to approve it with."""
        settings = tenant.settings_for(package.data_set).serving
        if self._is_of_another_version(package, tenant):
            return "its data set has another version of the algorithm by now", ""
        if settings.approval is not Approval.IF_BETTER:
            return None, APPROVED
        try:
            challenge = self.comparisons.read(tenant, package.data_set, package.request_id)
        except Refused as error:
            return f"it is not known how it stands beside the model before: {error}", ""
        number = _newest_of(self.aliases.get(package.tenant_id, package.data_set), package.version)
        newest = self.versions.get(package.tenant_id, package.data_set, number) if number is not None else None
        objection = objection_to_challenger(challenge, settings, live=newest.request_id if newest else None)
        return objection, f"{APPROVED}: {summary(challenge)}" if challenge else APPROVED

    def _is_of_another_version(self, package: ModelPackage, tenant: Tenant) -> bool:
        """Tell whether a package was trained with a version of an algorithm that its data set does not have any
        more: a wave that has gone back must not be followed by what it has left behind.
        """
        request = self.request_of(package.request_id)
        algorithm = tenant.settings_for(package.data_set).algorithm
        return (
            request is not None
            and request.has_algorithm_of_settings
            and request.algorithm is not None
            and request.algorithm != algorithm
            and family_of(request.algorithm) == family_of(algorithm)
        )


def _newest_of(alias: Alias, but: int) -> int | None:
    """Return the newest version that answers calls, or is about to, other than a version."""
    numbers = (alias.live, alias.canary, alias.testing, alias.deploying, alias.waiting)
    return max((number for number in numbers if number is not None and number != but), default=None)
