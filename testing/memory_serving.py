"""Memory adapters of what serving needs of the platform."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from trainyard.application.serving.ports import EndpointState, ModelPackage, OwnEndpoint, Response
from trainyard.domain.challenge import Challenge
from trainyard.domain.errors import Refused
from trainyard.domain.model_versions import ModelVersion, target_of
from trainyard.domain.smoke_test import Sample
from trainyard.domain.tenants import Tenant


class MemoryModelPackages:
    def __init__(self) -> None:
        self.packages: dict[str, ModelPackage] = {}

    def get(self, arn: str) -> ModelPackage | None:
        return self.packages.get(arn)

    def approve(self, arn: str, comment: str) -> None:
        self._decide(arn, comment, is_approved=True)

    def reject(self, arn: str, comment: str) -> None:
        self._decide(arn, comment, is_approved=False)

    def leave_pending(self, arn: str, comment: str) -> None:
        self.packages[arn] = replace(self.packages[arn], comment=comment)

    def approved(self, group: str) -> list[str]:
        return self._listed(group, lambda package: package.is_approved)

    def newest(self, group: str) -> int:
        return max((package.version for package in self.packages.values() if package.group == group), default=0)

    def pending(self, group: str) -> list[str]:
        return self._listed(group, lambda package: package.is_pending)

    def _decide(self, arn: str, comment: str, *, is_approved: bool) -> None:
        package = self.packages[arn]
        self.packages[arn] = replace(package, is_approved=is_approved, is_pending=False, comment=comment)

    def _listed(self, group: str, fits: Callable[[ModelPackage], bool]) -> list[str]:
        packages = [package for package in self.packages.values() if package.group == group and fits(package)]
        return [package.arn for package in sorted(packages, key=lambda package: -package.version)]


class MemoryComparisons:
    def __init__(self) -> None:
        self.of_request: dict[str, Challenge | None] = {}
        """Request → how its model stands; without an entry, its evaluation cannot be read."""

    def read(self, tenant: Tenant, data_set: str, request_id: str) -> Challenge | None:
        if request_id not in self.of_request:
            raise Refused("evaluation.json is gone")
        return self.of_request[request_id]


class MemorySamples:
    def __init__(self) -> None:
        self.sample: Sample | None = Sample(
            content_type="application/jsonlines",
            rows='{"a": 1}\n{"a": 2}\n',
            is_regression=False,
            classes=("no", "yes"),
        )

    def read(self, tenant: Tenant, data_set: str, request_id: str) -> Sample | None:
        return self.sample


class MemoryHost:
    """Endpoints that are ready when they are looked at the second time: shared ones, or one for each version."""

    def __init__(self) -> None:
        self.placed: dict[tuple[str, str], str] = {}
        """Endpoint and target → the archive that was copied there."""
        self.gone: set[str] = set()
        """Archives that do not exist any more."""
        self.answers: dict[int, object] = {}
        """Version → what it answers instead of a right answer."""
        self.failure = ""
        """Why no endpoint can be created."""
        self.meanwhile: Callable[[], None] = lambda: None
        """Called within each operation, for what others do at the same time."""
        self.afterwards: Callable[[], None] = lambda: None
        """Called when a model has answered, before its answer is returned."""
        self.deleted: set[str] = set()
        """Endpoints that somebody has deleted."""
        self._looked_at: set[str] = set()

    def located(self, version: ModelVersion) -> ModelVersion:
        if version.serving.is_own:
            name = f"own-{version.tenant_id}-{version.data_set}-{version.version}"
            return replace(version, endpoint=name, target="")
        target = target_of(version.tenant_id, version.data_set, version.version, version.request_id)
        return replace(version, endpoint=f"shared-{version.algorithm}", target=target)

    def ensure(self, version: ModelVersion, tenant: Tenant) -> tuple[EndpointState, str]:
        endpoint = version.endpoint
        if self.failure:
            return EndpointState.FAILED, self.failure
        if endpoint in self._looked_at and endpoint not in self.deleted:
            return EndpointState.READY, ""
        self.deleted.discard(endpoint)
        self._looked_at.add(endpoint)
        return EndpointState.COMING, ""

    def is_missing(self, version: ModelVersion) -> bool:
        return version.endpoint in self.deleted

    def put(self, version: ModelVersion) -> int:
        self.meanwhile()
        if version.model_uri in self.gone:
            raise Refused(f"there is no model at {version.model_uri}")
        self.placed[version.endpoint, version.target] = version.model_uri
        return 1000

    def remove(self, version: ModelVersion) -> None:
        self.meanwhile()
        self.placed.pop((version.endpoint, version.target), None)

    def ask(self, version: ModelVersion, tenant: Tenant, rows: str, content_type: str) -> Response:
        self.meanwhile()
        if (version.endpoint, version.target) not in self.placed:
            raise Refused("Failed to download model data")
        count = rows.count("\n")
        self.afterwards()
        answer = self.answers.get(version.version, {"predictions": ["yes"] * count})
        return Response(json.dumps(answer).encode(), 12)


class MemoryOwnModels:
    """What there is of own endpoints on a host."""

    def __init__(self, host: MemoryHost) -> None:
        self._host = host
        self.creating: set[str] = set()
        """Endpoints that cannot be removed yet."""

    def existing(self) -> Iterator[OwnEndpoint]:
        for name, _ in list(self._host.placed):
            if name.startswith("own-"):
                _, tenant_id, data_set, version = name.split("-")
                yield OwnEndpoint(name=name, tenant_id=tenant_id, data_set=data_set, version=int(version))

    def remove(self, endpoint: OwnEndpoint) -> bool:
        if endpoint.name in self.creating:
            return False
        self._host.placed.pop((endpoint.name, ""), None)
        return True
