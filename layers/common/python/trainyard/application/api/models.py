"""A tenant's models: the versions that its trainings have registered, and what became of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from trainyard.application.ports import ParallelMap
from trainyard.application.serving.ports import ModelPackage, ModelPackages
from trainyard.domain.aliases import Alias, percent_of
from trainyard.domain.approval_links import COMMENT_LENGTH_MAX, Decision
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion
from trainyard.domain.principals import Principal
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.requests import Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A version of a data set's model."""

    package: ModelPackage
    request: Request | None
    """By which it was trained; None once its record is deleted."""
    deployed: ModelVersion | None
    """What became of it after its approval; None where it was never to be deployed."""
    role: str | None
    """What it does: "live", "canary", "testing", or "previous", to which one can go back; None for nothing."""
    percent: int = 0
    """Of the calls in production that it answers."""


class TenantResults(Protocol):
    """What trainings have written for a tenant, reached with credentials of that tenant alone."""

    def addresses(self, tenant: Tenant, keys: Sequence[str]) -> tuple[list[str], datetime]:
        """Return where objects of the tenant can be fetched, and until when; raises Refused."""
        ...

    def read(self, tenant: Tenant, key: str, bytes_max: int) -> bytes | None:
        """Return an object of the tenant, None where there is none; raises Refused, also for a larger one."""
        ...


class ModelFiles(NamedTuple):
    """Where the files of a model can be fetched."""

    model: str
    card: str
    """A page that says how good it is."""
    expires_at: datetime


class ModelPage(NamedTuple):
    """Some of a tenant's models, newest first."""

    models: list[Model]
    before: int | None
    """The version before which the next page begins; None when nothing is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    packages: ModelPackages
    arn_of: Callable[[str, int], str]
    """Returns the ARN of a model package of a group by its version."""
    requests: Requests
    aliases: Aliases
    versions: ModelVersions
    results: TenantResults
    parallel_map: ParallelMap = map

    def of_tenant(self, tenant: Tenant, *, limit: int, before: int | None = None) -> ModelPage:
        """Return models of a tenant: of `limit` version numbers, those that exist."""
        newest = self.packages.newest(tenant.model_group)
        top = newest if before is None else min(before - 1, newest)
        numbers = list(range(top, max(top - limit, 0), -1))
        arns = [self.arn_of(tenant.model_group, number) for number in numbers]
        packages = [package for package in self.parallel_map(self.packages.get, arns) if package is not None]
        packages = [package for package in packages if package.tenant_id == tenant.tenant_id]
        requests = {r.request_id: r for r in self.requests.get_all([package.request_id for package in packages])}
        aliases = {name: self.aliases.get(tenant.tenant_id, name) for name in {p.data_set for p in packages}}
        models = [self._model(p, requests.get(p.request_id), aliases[p.data_set]) for p in packages]
        return ModelPage(models, numbers[-1] if numbers and numbers[-1] > 1 else None)

    def get(self, tenant: Tenant, version: int) -> Model | None:
        """Return one of a tenant's models, or None."""
        package = self.packages.get(self.arn_of(tenant.model_group, version))
        if package is None or package.tenant_id != tenant.tenant_id:
            return None
        request = self.requests.get(package.request_id)
        return self._model(package, request, self.aliases.get(tenant.tenant_id, package.data_set))

    def files(self, tenant: Tenant, model: Model) -> ModelFiles:
        """Return where a model and its card can be fetched; raises Refused where they are not the tenant's."""
        uri = model.package.model_uri
        if not tenant.owns(uri):
            raise Refused(f"the files of version {model.package.version} are not where the tenant's data is")
        key = uri.removeprefix(f"s3://{tenant.bucket}/")
        (archive, card), expires_at = self.results.addresses(tenant, [key, f"{key.rpartition('/')[0]}/card.html"])
        return ModelFiles(archive, card, expires_at)

    def decide(self, model: Model, decision: Decision, reason: str, by: Principal) -> None:
        """Approve or reject a model, which is recorded with whoever did and why; raises Refused and Throttled."""
        comment = f"{decision.past} by {by.signature}" + (f": {reason}" if reason else "")
        if len(reason) > COMMENT_LENGTH_MAX or not comment.isprintable():
            raise Refused(f"a reason is one line of at most {COMMENT_LENGTH_MAX} printable characters")
        decide = self.packages.approve if decision is Decision.APPROVE else self.packages.reject
        decide(model.package.arn, comment)

    def _model(self, package: ModelPackage, request: Request | None, alias: Alias) -> Model:
        deployed = self.versions.get(package.tenant_id, package.data_set, package.version)
        return Model(
            package=package,
            request=request,
            deployed=deployed,
            role=_role(package.version, alias),
            percent=percent_of(alias, package.version),
        )


def _role(version: int, alias: Alias) -> str | None:
    roles = {
        alias.previous: "previous",
        alias.testing: "testing",
        alias.canary: "canary",
        alias.live: "live",
    }
    return roles.get(version)
