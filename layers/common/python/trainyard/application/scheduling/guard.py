"""Guard: role and tag of a job must name the same tenant.

The dispatcher derives both from one record (domain/parameters.py). Others who may start the pipeline, or create
jobs with a tenant's role, could choose them differently: such a job is stopped as soon as it has started.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from trainyard.domain.prices import JobKind

TENANT_TAG = "trainyard:tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """A started job; fields that the event does not carry are None."""

    kind: JobKind
    name: str
    arn: str
    role_arn: str | None
    tags: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    role_arn: str
    tags: Mapping[str, str]


class Jobs(Protocol):
    def facts(self, job: JobStarted) -> JobIdentity: ...
    def stop(self, job: JobStarted) -> None:
        """Stop a job; one that has ended already is no error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    jobs: Jobs
    role_prefixes: tuple[str, ...]
    """What the ARNs of tenants' roles begin with, up to the tenant's id."""

    def check(self, job: JobStarted) -> str | None:
        """Stop the job if its role and tag disagree; return why, or None. Idempotent."""
        # 1. Its role and tags; asked for where the event does not tell.
        if job.role_arn is None or not job.tags:
            facts = self.jobs.facts(job)
        else:
            facts = JobIdentity(role_arn=job.role_arn, tags=job.tags)
        # 2. Do they agree?
        reason = disagreement(facts, self.role_prefixes)
        # 3. If not, it ends here.
        if reason is not None:
            self.jobs.stop(job)
        return reason


def disagreement(facts: JobIdentity, role_prefixes: tuple[str, ...]) -> str | None:
    """Return how role and tag disagree; None when they agree, or the job belongs to no tenant.

    A transform job has the role of its model, which may be deleted while it runs.
    """
    arn = facts.role_arn
    if not arn and TENANT_TAG in facts.tags:
        return f"it is tagged as {facts.tags[TENANT_TAG]}, and as whom it runs is not known: its model was deleted"
    of_role = next((arn.removeprefix(prefix) for prefix in role_prefixes if arn.startswith(prefix)), None)
    of_tag = facts.tags.get(TENANT_TAG)
    if of_role is None or of_role == of_tag:
        return None
    return f"it runs as tenant {of_role} and is tagged as {of_tag or 'none'}"
