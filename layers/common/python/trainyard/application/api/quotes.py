"""Quotes: what an upload would cost and when its model would be ready, before anything is uploaded."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from trainyard.application.api.uploads import content_of
from trainyard.application.scheduling.explain import Explain, Explanation
from trainyard.application.scheduling.intake import accepted_training
from trainyard.domain.errors import Refused
from trainyard.domain.receipts import Prospect
from trainyard.domain.requests import Cause, Request
from trainyard.domain.scheduling import Reason
from trainyard.domain.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What is to be expected of an upload."""

    request: Request
    """The one that would wait; `expected` is what its run would take and cost."""
    prospect: Prospect
    replaces: str | None
    """The waiting request of the data set that the upload would supersede."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotes:
    explain: Explain

    def quote(self, tenant: Tenant, data_set: str, name: str, size_bytes: int, now: datetime) -> Quote:
        """Return what is to be expected of a file of a name and size that is uploaded now.

        Nothing is written, and nothing is reserved. Raises Refused with the reason for which the upload would be
        refused.
        """
        content = content_of(tenant, data_set, name, size_bytes, now)
        policy = self.explain.policies.current()
        submission = accepted_training(tenant, content, uuid4().hex, Cause.UPLOAD, policy, now)
        explanation = self.explain.if_enlisted(submission, now)
        request = explanation.request
        return Quote(request=request, prospect=prospect_of(explanation), replaces=request.supersedes)


def prospect_of(explanation: Explanation) -> Prospect:
    """Return what a waiting request can expect, as its tenant may know it; raises Refused if it does not wait."""
    if explanation.reason is None:
        raise Refused(f"the request is {explanation.request.state.value}, so it is not waiting")
    expected, latest = explanation.request.expected, explanation.latest
    return Prospect(
        reason=Reason(explanation.reason),
        position=explanation.position if latest else None,
        earliest=explanation.earliest,
        latest=latest,
        ends_by=latest + timedelta(seconds=expected.seconds_p90) if expected and latest else None,
    )
