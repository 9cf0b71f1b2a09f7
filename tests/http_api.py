"""The function of the HTTP API over a store in memory: whatever it needs of AWS is in memory too."""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import jsonschema
import pytest

from testing.memory_ports import MemoryReports, MemoryRetrainings, MemoryTenants
from testing.memory_serving import MemoryModelPackages
from testing.memory_store import MemoryStore
from testing.openapi import FILE
from testing.service import ACCOUNT, Service, policies_in_force
from tests.build import NOW, after, choice, execution, policy, request, soft, submission, tenant, tier
from tests.unit.test_functions import Context, load
from trainyard.application.api.bulk_actions import BulkRequests, BulkSelections, BulkWork
from trainyard.application.api.dead_letters import DeadLetterOffice
from trainyard.application.api.keys import ApiKeys
from trainyard.application.api.models import Models
from trainyard.application.api.overview import Overview
from trainyard.application.api.quotes import Quotes
from trainyard.application.api.request_pages import RequestPages
from trainyard.application.api.runs import LogLine, LogPosition, Runs
from trainyard.application.api.settings_changes import ChangeState, ChangeStatus, SettingsChanges
from trainyard.application.api.trainings import Trainings
from trainyard.application.api.tunings import Tunings
from trainyard.application.api.uploads import Part, PartAddress, Upload, Uploads
from trainyard.application.health import Health
from trainyard.application.scheduling.expedite import Expedite
from trainyard.application.scheduling.explain import Explain
from trainyard.application.scheduling.pauses import Pauses
from trainyard.application.scheduling.policy_changes import JobLimits, PolicyChanges
from trainyard.application.serving.deployed_models import DeployedModels
from trainyard.application.serving.ports import ModelPackage
from trainyard.application.tenancy.wave_commands import WaveCommands
from trainyard.domain.admission import decide
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.api_keys import ApiKey
from trainyard.domain.bulk_actions import BulkAction, BulkKind
from trainyard.domain.dead_letters import Letter
from trainyard.domain.errors import Refused
from trainyard.domain.executions import JobFacts
from trainyard.domain.model_versions import ModelVersion, VersionState
from trainyard.domain.names import is_tenant_id
from trainyard.domain.policy import Policy
from trainyard.domain.principals import Role
from trainyard.domain.requests import Request
from trainyard.domain.tenants import Tenant, TenantState
from trainyard.domain.waves import Judged, Member, MemberState, Verdict, Wave, WaveState
from trainyard.entrypoints import bootstrap
from trainyard.persistence.aliases import Aliases
from trainyard.persistence.api_keys import StoredKeys
from trainyard.persistence.arrival_limits import ArrivalLimits
from trainyard.persistence.book import Book, Totals, booking_keys, bookings
from trainyard.persistence.bulk_actions import BulkActions
from trainyard.persistence.call_limits import CallLimits
from trainyard.persistence.idempotency_keys import REUSED, IdempotencyKeys
from trainyard.persistence.inference import InferenceBook
from trainyard.persistence.journal import Journal
from trainyard.persistence.model_versions import ModelVersions
from trainyard.persistence.store import Update
from trainyard.persistence.transactions import read_items
from trainyard.persistence.waves import Waves

LIMITS = policy(
    tier(
        "basic",
        quota=1,
        budget=soft("1000"),
        instances=(choice(10), choice(100, training="ml.m5.xlarge")),
    ),
    quiet_period=timedelta(0),
    algorithms={"linear@2": Algorithm(name="linear@2")},
)


class MemoryUploads:
    """The buckets of tenants: each address says whose it is."""

    def __init__(self) -> None:
        self.begun: dict[str, str] = {}
        """Upload in parts → bucket and key."""
        self.completed: list[tuple[str, tuple[Part, ...]]] = []
        self.empty: set[str] = set()
        """Data sets without files."""
        self.names = {"acme": ["churn"], "acme1": ["theirs"]}

    def data_sets(self, tenant: Tenant) -> list[str]:
        return self.names.get(tenant.tenant_id, [])

    def has_data(self, tenant: Tenant, data_set: str) -> bool:
        return data_set not in self.empty

    def whole(self, tenant: Tenant, key: str, size_bytes: int) -> Upload:
        return Upload(key=key, expires_at=NOW, url=f"https://{tenant.bucket}/{key}?{size_bytes}")

    def in_parts(self, tenant: Tenant, key: str, sizes: list[int]) -> Upload:
        upload_id = f"{tenant.tenant_id}.{len(self.begun)}"
        self.begun[upload_id] = f"{tenant.bucket}/{key}"
        parts = [PartAddress(number=n, size_bytes=size, url=f"https://{n}") for n, size in enumerate(sizes, 1)]
        return Upload(key=key, expires_at=NOW, upload_id=upload_id, parts=tuple(parts))

    def complete(self, tenant: Tenant, key: str, upload_id: str, parts: list[Part]) -> None:
        if self.begun.get(upload_id) != f"{tenant.bucket}/{key}":
            raise Refused("there is no such upload: it was completed or discarded")
        del self.begun[upload_id]
        self.completed.append((key, tuple(parts)))

    def abort(self, tenant: Tenant, key: str, upload_id: str) -> None:
        if self.begun.get(upload_id) == f"{tenant.bucket}/{key}":
            del self.begun[upload_id]


class MemoryDeadLetterQueue:
    def __init__(self, name: str) -> None:
        self.name = name
        self.letters: list[Letter] = []
        self.sent_back: list[Letter] = []

    def count(self) -> int:
        return len(self.letters)

    def read(self, limit: int, done: Callable[[int], bool]) -> list[Letter]:
        return [] if done(0) else self.letters[:limit]

    def redrive(self, reason: str | None, done: Callable[[int], bool]) -> int:
        before = list(self.letters)
        number = self.drop(reason, done)
        self.sent_back += [letter for letter in before if letter not in self.letters]
        return number

    def drop(self, reason: str | None, done: Callable[[int], bool]) -> int:
        number = 0
        for letter in list(self.letters):
            if letter.tells(reason):
                self.letters.remove(letter)
                number += 1
            if done(number):
                break
        return number


class MemoryBulkStarts:
    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.carry_out: Callable[[str, str], object] = lambda owner, action_id: None

    def begin(self, owner: str, action_id: str) -> None:
        self.begun.append((owner, action_id))
        self.carry_out(owner, action_id)


class MemoryTenantUpdates:
    """Runs of the state machine that changes tenants: name → payload, and how each stands."""

    def __init__(self) -> None:
        self.payloads: dict[str, Mapping[str, Any]] = {}
        self.statuses: dict[str, ChangeStatus] = {}

    def start(self, name: str, payload: Mapping[str, Any]) -> None:
        if self.payloads.get(name, payload) != payload:
            raise Refused("the idempotency key was used for another change", kind=REUSED)
        self.payloads[name] = payload
        self.statuses[name] = ChangeStatus(ChangeState.RUNNING, None)

    def status(self, name: str) -> ChangeStatus | None:
        return self.statuses.get(name)


class MemoryJobLogs:
    """What jobs printed: job's ARN → its lines, a second apart."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}

    def read(self, job: JobFacts, position: LogPosition, limit: int) -> tuple[list[LogLine], LogPosition, bool]:
        first = position.milliseconds // 1000 + position.skipped
        lines = self.lines.get(job.arn, [])[first : first + limit]
        shown = [LogLine(after(first + number), text) for number, text in enumerate(lines)]
        following = LogPosition((first + len(lines) - 1) * 1000, 1) if lines else position
        return shown, following, len(lines) < limit


NOT_MOVED: dict[str, Any] = {
    "version": 1,
    "rows_before": 10,
    "rows": 12,
    "columns": [],
    "target": None,
    **{name: [] for name in ("absent", "changed", "added", "emptied", "swapped")},
}


class MemoryResults:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        """Bucket and key → body."""
        self.default: bytes | None = json.dumps(NOT_MOVED).encode()
        """What all other objects are."""

    def addresses(self, tenant: Tenant, keys: Sequence[str]) -> tuple[list[str], datetime]:
        if tenant.state is not TenantState.ACTIVE:
            raise Refused(f"tenant {tenant.tenant_id} is {tenant.state.lower()}")
        return [f"https://{tenant.bucket}/{key}" for key in keys], NOW

    def read(self, tenant: Tenant, key: str, bytes_max: int) -> bytes | None:
        self.addresses(tenant, [])
        body = self.objects.get((tenant.bucket, key), self.default)
        if body is not None and len(body) > bytes_max:
            raise Refused(f"it has more than {bytes_max:,} bytes")
        return body


class MemoryPredictions:
    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.error: Exception | None = None

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.asked.append(command)
        return {"predictions": ["yes"], "version": 3, "milliseconds": 5}


class MemoryKeyUsers:
    """Users of the pool that are API keys: id → secret."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.error: Exception | None = None

    def make(self, key: ApiKey) -> str:
        if self.error:
            raise self.error
        self.secrets[key.key_id] = f"secret of {key.key_id}"
        return self.secrets[key.key_id]

    def delete(self, key_id: str) -> None:
        if self.error:
            raise self.error
        self.secrets.pop(key_id, None)


class MemoryPromotionRuns:
    """Runs that follow promotions up."""

    def __init__(self) -> None:
        self.started: list[str] = []
        """Model packages."""
        self.error: str | None = None

    def start(self, package_arn: str, revision: str) -> str | None:
        if self.error is None:
            self.started.append(package_arn)
        return self.error


DESCRIPTION: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DESCRIPTION["paths"].items()
    for method, operation in operations.items()
]
"""Method, path and description of each operation."""


@cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{[a-z_]+\}", "[^/]+", path))


def check_described(method: str, path: str, status: int, body: Any) -> None:
    """Assert that an answer is one that the description of the API allows."""
    for described, template, operation in OPERATIONS:
        if described == method and _pattern(template).fullmatch(path):
            assert str(status) in operation["responses"], f"{method} {template} answers {status}: {body}"
            for content in operation["responses"][str(status)].get("content", {}).values():
                schema = {**content["schema"], "components": DESCRIPTION["components"]}
                assert list(jsonschema.Draft202012Validator(schema).iter_errors(body)) == [], (path, body)
            return
    assert status == 404, f"{method} {path} is not described, and answers {status}"


def arn_of(group: str, version: int) -> str:
    return f"{group}/{version}"


class Api:
    """The function, what it works on, and calls of it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, store: MemoryStore | None = None, limits: Policy = LIMITS
    ) -> None:
        self.store = store or MemoryStore()
        self.tenants = MemoryTenants(
            tenant(), tenant("acme1"), tenant("gone", state=TenantState.DELETED), store=self.store
        )
        self.service = Service(
            store=self.store, policies=policies_in_force(self.store, limits), tenants=self.tenants
        )
        self.requests = self.service.scheduler.tables.requests
        self.pages = RequestPages(requests=self.requests)
        self.retrainings = MemoryRetrainings()
        self.packages, self.predictions, self.storage = MemoryModelPackages(), MemoryPredictions(), MemoryUploads()
        self.book = Book(store=self.store)
        self.logs, self.reports = MemoryJobLogs(), MemoryReports()
        self.counted: list[Update] = []
        self.totals: list[Totals] = []
        self.limits = CallLimits(update=self.counted.append)
        self.functions = {name: load(name) for name in ("api", "operations")}
        self.headers: dict[str, str] = {}
        self.claims: dict[str, str] = {}
        """Of the caller's token, besides those of its group."""
        explain = Explain(policies=self.service.policies, scheduler=self.service.scheduler)
        keys = IdempotencyKeys(self.store)
        self.trainings = Trainings(
            account_id=ACCOUNT,
            policies=self.service.policies,
            arrival_limits=ArrivalLimits(self.store, lambda _: None),
            retrainings=self.retrainings,
            keys=keys,
        )
        pauses = Pauses(
            policies=self.service.policies,
            tenants=self.tenants,
            scheduler=self.service.scheduler,
            bell=self.service.bell,
        )
        policy_changes = PolicyChanges(
            policies=self.service.policies,
            tenants=self.tenants,
            bell=self.service.bell,
            jobs=JobLimits(
                instance_types=("ml.t3.*", "ml.m5.*"),
                runtime_max_seconds=3600,
                training_types_max=1,
                has_spot=False,
            ),
            has_tier_queue=lambda tier: tier != "queueless",
        )
        self.journal = Journal(self.store)
        self.updates = MemoryTenantUpdates()
        self.alarms: list[tuple[str, str]] = []
        self.bulk_starts = MemoryBulkStarts()
        names = ("uploads", "status", "undelivered", "tier-basic")
        self.dead_letters = [MemoryDeadLetterQueue(f"trainyard-{name}-dlq") for name in names]
        selections = BulkSelections(requests=self.requests, held=self.service.scheduler.tables.held)
        self.waited: list[float] = []
        """Seconds for which bulk actions would have waited."""
        self.bulk_work = BulkWork(
            actions=BulkActions(self.store),
            requests=self.requests,
            tenants=self.tenants,
            stop=self.service.stop,
            trainings=self.trainings,
            clock=lambda: NOW,
            pause=self.waited.append,
        )
        self.wave_commands = WaveCommands(
            policies=self.service.policies, tenants=self.tenants, waves=Waves(self.store)
        )
        self.key_users = MemoryKeyUsers()
        self.api_keys = ApiKeys(keys=StoredKeys(self.store), users=self.key_users)
        self.promotions = MemoryPromotionRuns()
        self.deployed_models = DeployedModels(
            aliases=Aliases(self.store, lambda _: None),
            versions=ModelVersions(self.store),
            packages=self.packages,
            calls=InferenceBook(store=self.store, retention=timedelta(days=400)),
            runs=self.promotions,
        )
        self.results = MemoryResults()
        models = Models(
            packages=self.packages,
            arn_of=arn_of,
            requests=self.requests,
            aliases=Aliases(self.store, lambda _: None),
            versions=ModelVersions(self.store),
            results=self.results,
        )
        for name, value in {
            "request_pages": lambda: self.pages,
            "claim_names": dict,
            "book": lambda: SimpleNamespace(
                totals=self._of_month, executions_of_month=self.book.executions_of_month
            ),
            "call_limits": lambda: self.limits,
            "existing_tenant": self._existing,
            "explain": lambda: explain,
            "overview": lambda: Overview(explain=explain),
            "tenants": lambda: self.tenants,
            "pauses": lambda: pauses,
            "expedite": lambda: Expedite(
                scheduler=self.service.scheduler, explain=explain, bell=self.service.bell
            ),
            "policy_changes": lambda: policy_changes,
            "settings_changes": lambda: SettingsChanges(policies=self.service.policies, updates=self.updates),
            "journal": lambda: self.journal,
            "health": lambda: Health(
                tables=self.service.scheduler.tables,
                tenants=self.tenants.all,
                letters=lambda: {queue.name: queue.count() for queue in self.dead_letters},
                alarms=lambda: self.alarms,
            ),
            "dead_letter_office": lambda: DeadLetterOffice(queues=lambda: list(self.dead_letters)),
            "bulk_selections": lambda: selections,
            "wave_commands": lambda: self.wave_commands,
            "bulk_requests": lambda: BulkRequests(
                actions=BulkActions(self.store), starts=self.bulk_starts, keys=keys, pause=self.waited.append
            ),
            "bulk_work": lambda: self.bulk_work,
            "runs": lambda: Runs(book=self.book, reports=self.reports, logs=self.logs),
            "quotes": lambda: Quotes(explain=explain),
            "trainings": lambda: self.trainings,
            "tunings": lambda: Tunings(store=self.store),
            "uploads": lambda: Uploads(policies=self.service.policies, storage=self.storage),
            "stop": lambda: self.service.stop,
            "models": lambda: models,
            "tenant_results": lambda: self.results,
            "api_keys": lambda: self.api_keys,
            "deployed_models": lambda: self.deployed_models,
            "predictions": lambda: self.predictions,
        }.items():
            monkeypatch.setattr(bootstrap, name, value)

    def _existing(self, tenant_id: str) -> Tenant | None:
        assert is_tenant_id(tenant_id), "DynamoDB refuses to look for keys that are too long"
        found = self.tenants.get(tenant_id)
        return found if found is not None and found.state is not TenantState.DELETED else None

    def _of_month(self, month: str, tenant_id: str | None) -> list[Totals]:
        if not self.totals:
            return list(self.book.totals(month, tenant_id))
        return [each for each in self.totals if each.month == month and tenant_id in (None, each.tenant_id)]

    def record(self, of: Request, **changes: Any) -> None:
        """Book an attempt of a request."""
        record = execution(of, **changes)
        items = read_items(self.store, booking_keys([record]))
        self.store.transact(bookings([record], items, NOW, 0))

    def put(self, number: int, tenant_id: str = "acme", **fields: Any) -> Request:
        """Store a request as it is, outside all queues."""
        added = replace(request(number), tenant_id=tenant_id, arrived_at=after(number // 3), **fields)
        self.store.transact([self.requests.put(added)])
        return added

    def enlist(self, number: int, **fields: Any) -> Request:
        """Let a request wait in its queue."""
        return self.service.scheduler.enlister.enlist(submission(number, **fields), LIMITS, NOW).request

    def admit(self, limits: Policy = LIMITS) -> None:
        """Let what fits have a slot."""
        admitter = self.service.scheduler.admitter
        read_set = admitter.read(limits, NOW)
        admitter.commit(decide(read_set.snapshot, limits, NOW), read_set, limits, NOW)

    def register(self, version: int, tenant_id: str = "acme", request_id: str = "") -> ModelPackage:
        """Register a model of a tenant."""
        group = self.tenants.get(tenant_id).model_group  # type: ignore[union-attr]
        package = ModelPackage(
            arn=arn_of(group, version),
            group=group,
            version=version,
            is_approved=False,
            changed_at=NOW,
            tenant_id=tenant_id,
            data_set="churn",
            request_id=request_id or f"{version:032x}",
            model_uri=f"s3://trainyard-t-{tenant_id}/models/churn/{version}/model.tar.gz",
            image_uri="image",
            is_pending=True,
            created_at=NOW,
        )
        self.packages.packages[package.arn] = package
        return package

    def deploy(
        self,
        version: int,
        tenant_id: str = "acme",
        data_set: str = "churn",
        state: VersionState = VersionState.READY,
        **roles: Any,
    ) -> ModelVersion:
        """Store a deployed version, and what its data set's alias says then: nothing else than its `roles`."""
        package = replace(self.register(version, tenant_id), is_approved=True, is_pending=False)
        self.packages.packages[package.arn] = package
        deployed = ModelVersion(
            tenant_id=tenant_id,
            data_set=data_set,
            version=version,
            package_arn=package.arn,
            request_id=package.request_id,
            model_uri=package.model_uri,
            state=state,
            since=NOW,
            approved_at=NOW,
            endpoint="shared",
        )
        ModelVersions(self.store).put(deployed)
        self.deployed_models.aliases.change(
            tenant_id, data_set, lambda alias: replace(alias, **(roles or {"live": version})), NOW
        )
        return deployed

    def make_key(self, tenant_id: str = "acme", key_id: str = "", **fields: Any) -> ApiKey:
        """Store a key of a tenant."""
        key = ApiKey(
            **{
                "key_id": key_id or f"{len(self.store.items):016x}",
                "tenant_id": tenant_id,
                "name": "nightly",
                "role": Role.TENANT_READER,
                "created_at": NOW,
                "created_by": "tenant-admin ada",
                "expires_at": datetime.now(UTC) + timedelta(days=1),
                **fields,
            }
        )
        self.api_keys.keys.add(key)
        return key

    def wave(self, wave_id: str, **changes: Any) -> Wave:
        """Store a wave that runs, of one tenant."""
        values: dict[str, Any] = {"version": "linear@2", "state": WaveState.RUNNING, "begun_by": "operator s"}
        wave = Wave(wave_id=wave_id, begun_at=NOW, stage_since=NOW, **values | changes)
        waves = self.wave_commands.waves
        waves.add(wave)
        before = {"": "linear"}
        judged = Judged(data_set="churn", verdict=Verdict.WORSE, request_id="1", metric="r2", gain=-0.3)
        members = (
            Member(tenant_id="acme", stage=0, state=MemberState.MOVED, since=NOW, before=before),
            Member(
                tenant_id="acme1",
                stage=0,
                state=MemberState.MOVED,
                since=NOW,
                before=before,
                data_sets=("churn",),
                judged=(judged,),
            ),
        )
        for member in members:
            waves.put_member(wave, member)
        return wave

    def bulk_action(
        self, owner: str, request_ids: Sequence[str], kind: BulkKind = BulkKind.CANCEL, **changes: Any
    ) -> BulkAction:
        """Store a bulk action on requests."""
        action = BulkAction(
            **{
                "action_id": f"{len(self.store.items):032x}",
                "owner": owner,
                "kind": kind,
                "by": "operator s",
                "why": "",
                "created_at": NOW,
                "progress_at": NOW,
                "total": len(request_ids),
                **changes,
            }
        )
        BulkActions(self.store).add(action, request_ids)
        return action

    def get(self, path: str, group: str = "tenant-readers", **event: Any) -> tuple[int, Any]:
        return self.call("GET", path, group, **event)

    def post(
        self, path: str, body: Any = None, group: str = "tenant-admins", key: str | None = None, **event: Any
    ) -> tuple[int, Any]:
        """Send a body: text as it is, anything else as JSON."""
        headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key is not None else {})
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        return self.call("POST", path, group, **({"headers": headers, "body": text} | event))

    def call(self, method: str, path: str, group: str, **event: Any) -> tuple[int, Any]:
        """Return status and body of an answer; its headers are kept."""
        path, _, query = path.partition("?")
        if query:
            named = dict(part.split("=", 1) for part in query.split("&"))
            event = {"rawQueryString": query, "queryStringParameters": named} | event
        answer = self.raw(method, path, group, **event)
        self.headers, status = answer["headers"], answer["statusCode"]
        check_described(method, path, status, json.loads(answer.get("body") or "null"))
        is_shown = status == 200 and method == "GET"
        assert self.headers["Cache-Control"] == ("private, no-cache" if is_shown or status == 304 else "no-store")
        if not answer.get("body"):
            assert status in (204, 304)
            return status, None
        assert self.headers["X-Content-Type-Options"] == "nosniff"
        kind = "application/json" if status < 300 else "application/problem+json"
        assert self.headers["Content-Type"] == kind
        return status, json.loads(answer["body"])

    def raw(self, method: str, path: str, group: str, **event: Any) -> dict[str, Any]:
        """Return what the function answers."""
        claims = {"sub": "s", "cognito:groups": f"[{group}]", "custom:tenant": "acme"} | self.claims
        context = {"http": {"method": method, "path": path}, "stage": "$default", "requestId": "r"}
        whole = {
            "version": "2.0",
            "routeKey": "ANY /v1/{path+}",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {},
            "requestContext": context | {"authorizer": {"jwt": {"claims": claims, "scopes": []}}},
            "isBase64Encoded": False,
        }
        is_of_service = path == "/v1/service" or path.startswith("/v1/service/")
        function: ModuleType = self.functions["operations" if is_of_service else "api"]
        answer: dict[str, Any] = function.handler(whole | event, Context())
        return answer


def wsgi(api: Api, group: str) -> Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]:
    """Return the function as a WSGI application, called by a user of a group as API Gateway would pass it on."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        if path == "/openapi.json":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [FILE.read_bytes()]
        query: dict[str, str] = {}
        for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
            query[name] = f"{query[name]},{value}" if name in query else value
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "CONTENT_TYPE"
        }
        sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        is_text = headers.get("content-type", "").startswith(("application/json", "text/"))
        event: dict[str, Any] = {
            "headers": headers,
            "queryStringParameters": query,
            "rawQueryString": environ.get("QUERY_STRING", ""),
        }
        if sent:
            try:
                body = sent.decode() if is_text else None
            except UnicodeDecodeError:
                body = None
            event["body"] = b64encode(sent).decode() if body is None else body
            event["isBase64Encoded"] = body is None
        answer = api.raw(environ["REQUEST_METHOD"], path, group, **event)
        phrase = HTTPStatus(answer["statusCode"]).phrase
        start_response(f"{answer['statusCode']} {phrase}", list(answer["headers"].items()))
        return [(answer.get("body") or "").encode()]

    return application
