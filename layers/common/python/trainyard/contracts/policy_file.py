"""The policy file: YAML, validated before use; errors are reported with their line."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated, Any

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from trainyard.contracts.overrides import TRIALS_MAX
from trainyard.contracts.policy_instances import (
    InstanceEntry,
    InstanceQuotas,
    check_instances,
    check_quota_names,
    check_spot,
)
from trainyard.contracts.policy_parts import Misplaced, Slots, SomeSlots, StartRate, Strict, TierName
from trainyard.contracts.policy_retraining import RetrainingEntry
from trainyard.contracts.policy_values import hyperparameter_of, policy_of
from trainyard.contracts.policy_windows import WINDOWS_MAX, WindowEntry, check_windows
from trainyard.contracts.violations import reason_of
from trainyard.domain.algorithms import ALGORITHM_NAME, Hyperparameter, Kind
from trainyard.domain.errors import Refused
from trainyard.domain.names import is_tenant_id
from trainyard.domain.policy import BudgetMode, Policy, Storage

LENDING_SHARE_MAX = 0.8
"""Largest share of a quota to lend: a tier that lent everything would wait for the longest borrowed run."""

_ImageUri = Annotated[
    str, Field(pattern=r"^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.[a-z.]+/[a-z0-9._/-]+([:@][A-Za-z0-9._:-]+)?$")
]
_Uploads = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
_AlgorithmName = Annotated[str, Field(pattern=ALGORITHM_NAME)]
_HyperparameterName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


def _in_dollars(value: Any) -> Any:
    """Refuse anything that is not a positive number."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise ValueError(f"must be an amount of US dollars, such as 500 or 9.50, got {value!r}")
    if amount <= 0:
        raise ValueError("must be greater than 0; to run nothing, pause the tenant or the tier")
    return value


BudgetUsd = Annotated[
    Decimal, BeforeValidator(_in_dollars), Field(ge=Decimal("0.000001"), le=100_000_000, allow_inf_nan=False)
]
"""Of a month."""


class HyperparameterEntry(Strict):
    kind: Kind
    default: bool | int | float | str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str] = Field(default_factory=list, max_length=50)
    search: tuple[float, float] | None = None

    def to_hyperparameter(self) -> Hyperparameter:
        return hyperparameter_of(self.model_dump(mode="json"))


class QualityEntry(Strict):
    data: str = Field(min_length=1, max_length=100)
    rows: int = Field(ge=1, le=10**12, strict=True)
    metric: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    quality: float = Field(allow_inf_nan=False)
    baseline: float | None = Field(default=None, allow_inf_nan=False)


class AlgorithmEntry(Strict):
    description: str = Field(default="", max_length=256)
    training_image: _ImageUri | None = None
    processing_image: _ImageUri | None = None
    code: str | None = Field(default=None, pattern=r"^s3://[a-z0-9.-]{3,63}/[A-Za-z0-9._/-]{1,200}$")
    hyperparameters: dict[_HyperparameterName, HyperparameterEntry] = Field(default_factory=dict, max_length=50)
    instances: list[InstanceEntry] = Field(default_factory=list)
    suffixes: list[Annotated[str, Field(pattern=r"^\.[a-z0-9.]{1,15}$")]] = Field(default_factory=list)
    input_format: str = Field(default="csv", pattern=r"^[a-z0-9-]{1,32}$")
    quality_metric: str = Field(default="auto", pattern=r"^[a-z0-9_]{1,64}$")
    typical_quality: list[QualityEntry] = Field(default_factory=list, max_length=20)
    spot: bool | None = Field(default=None, strict=True)
    checkpoints: bool = Field(default=False, strict=True)
    network_isolation: bool | None = Field(default=None, strict=True)
    traffic_encryption: bool | None = Field(default=None, strict=True)


class TierEntry(Strict):
    storage: Storage = Storage.SILO
    quota: SomeSlots
    borrowing_limit: Slots = 0
    lending_limit: Slots = 0
    running_max_per_tenant: SomeSlots
    running_ceiling_per_tenant: SomeSlots | None = None
    runtime_max_minutes: int = Field(ge=1, le=12_960)  # ProcessingMaxRuntimeInSeconds ≤ 777,600
    hold_age_minutes: float = Field(default=15, ge=0, le=1440)
    quality_min: float = Field(default=0.0, ge=0.0, le=1.0)
    budget_usd: BudgetUsd | None = None
    budget_mode: BudgetMode = BudgetMode.HARD
    spot: bool = Field(default=False, strict=True)
    spot_wait_minutes: int = Field(default=30, ge=1, le=1440, strict=True)
    tuning_trials_max: int = Field(default=0, ge=0, le=TRIALS_MAX, strict=True)
    instances: list[InstanceEntry] = Field(min_length=1)


class TenantEntry(Strict):
    weight: int = Field(default=1, ge=1, le=1000, strict=True)
    running_max: SomeSlots | None = None
    running_ceiling: SomeSlots | None = None
    budget_usd: BudgetUsd | None = None
    budget_mode: BudgetMode = BudgetMode.HARD
    uploads_per_hour: _Uploads | None = None


class RetriesEntry(Strict):
    attempts_max: int = Field(default=3, ge=1, le=10)
    delay_seconds: float = Field(default=120, ge=1, le=3600)


class PolicyFile(Strict):
    running_max: SomeSlots
    quiet_period_seconds: float = Field(ge=0, le=900)
    delay_max_seconds: float = Field(ge=0, le=86_400)
    start_retry_delay_seconds: float = Field(default=60, ge=1, le=900)
    starts_per_second: StartRate | None = None
    starts_burst: int = Field(default=5, ge=1, le=1000)
    retries: RetriesEntry = RetriesEntry()
    tiers: dict[TierName, TierEntry] = Field(min_length=1)
    uploads_per_hour: _Uploads = 10_000
    instance_quotas: InstanceQuotas = Field(default_factory=dict)
    tenants: dict[str, TenantEntry] = Field(default_factory=dict)
    algorithms: dict[_AlgorithmName, AlgorithmEntry] = Field(default_factory=dict)
    windows: list[WindowEntry] = Field(default_factory=list, max_length=WINDOWS_MAX)
    retraining: RetrainingEntry = RetrainingEntry()
    budget_thresholds: list[Annotated[int, Field(ge=1, le=1000, strict=True)]] = Field(
        default=[50, 80, 100], max_length=10
    )

    @model_validator(mode="after")
    def _agrees(self) -> "PolicyFile":
        self._check_limits({})
        check_quota_names((), self.instance_quotas)
        for number, window in enumerate(self.windows):
            check_quota_names(("windows", number), window.instance_quotas)
        check_windows(self.windows, list(self.tiers), self._check_limits)
        for tenant_id in self.tenants:
            if not is_tenant_id(tenant_id):
                raise Misplaced(("tenants", tenant_id), "is not a valid tenant id")
        for name, algorithm in self.algorithms.items():
            _check_algorithm(name, algorithm)
        chosen = {("tiers", name): tier.instances for name, tier in self.tiers.items()}
        chosen |= {("algorithms", name): algorithm.instances for name, algorithm in self.algorithms.items()}
        for path, instances in chosen.items():
            check_instances(path, instances, self.instance_quotas)
        check_spot(self.tiers, self.algorithms, self.instance_quotas)
        if self.budget_thresholds != sorted(set(self.budget_thresholds)):
            raise Misplaced(("budget_thresholds",), f"must be in ascending order, got {self.budget_thresholds}")
        for tenant_id, tenant in self.tenants.items():
            if tenant.budget_usd is None and "budget_mode" in tenant.model_fields_set:
                raise Misplaced(("tenants", tenant_id, "budget_mode"), "has no effect without a budget_usd")
            if tenant.running_ceiling is not None and tenant.running_ceiling < (tenant.running_max or 1):
                raise Misplaced(
                    ("tenants", tenant_id, "running_ceiling"),
                    f"is {tenant.running_ceiling}, which is below running_max ({tenant.running_max})",
                )
        return self

    def _check_limits(self, sets: Mapping[tuple[str, str], Any]) -> None:
        """Raise Misplaced when the limits do not agree while windows set some of them.

        `sets` is (tier or "", name) → value.
        """
        running_max = sets.get(("", "running_max"), self.running_max)
        tiers: dict[str, TierEntry] = {}
        for name, tier in self.tiers.items():
            own = {key: value for (of, key), value in sets.items() if of == name and key in TierEntry.model_fields}
            tiers[name] = tier.model_copy(update=own)
            _check_tier(name, tiers[name], running_max)
        quotas = [tier.quota for tier in tiers.values()]
        if sum(quotas) > running_max:
            raise Misplaced(
                ("running_max",),
                f"is {running_max}, and the quotas of the tiers, which are guaranteed, add up to "
                f"{' + '.join(map(str, quotas))} = {sum(quotas)}",
            )


def _check_tier(name: str, tier: TierEntry, running_max: int) -> None:
    path = ("tiers", name)
    if tier.quota > running_max:
        raise Misplaced((*path, "quota"), f"is {tier.quota}, which exceeds running_max ({running_max})")
    if tier.quota + tier.borrowing_limit > running_max:
        raise Misplaced(
            (*path, "borrowing_limit"),
            f"is {tier.borrowing_limit}: with the quota of {tier.quota} it exceeds running_max ({running_max})",
        )
    if tier.lending_limit > LENDING_SHARE_MAX * tier.quota:
        raise Misplaced(
            (*path, "lending_limit"),
            f"is {tier.lending_limit}, at most {int(LENDING_SHARE_MAX * tier.quota)} "
            f"({LENDING_SHARE_MAX:.0%} of the quota) may be lent",
        )
    ceiling = tier.running_ceiling_per_tenant
    if ceiling is not None and ceiling < tier.running_max_per_tenant:
        raise Misplaced(
            (*path, "running_ceiling_per_tenant"),
            f"is {ceiling}, which is below running_max_per_tenant ({tier.running_max_per_tenant})",
        )


def _check_algorithm(name: str, entry: AlgorithmEntry) -> None:
    path = ("algorithms", name)
    for key, hyperparameter in entry.hyperparameters.items():
        default = hyperparameter.default
        objection = None if default is None else hyperparameter.to_hyperparameter().objection(default)
        if objection is not None:
            raise Misplaced((*path, "hyperparameters", key, "default"), objection)
        _check_search((*path, "hyperparameters", key, "search"), hyperparameter)


def _check_search(path: tuple[str, ...], entry: HyperparameterEntry) -> None:
    if entry.search is None:
        return
    if entry.kind not in (Kind.INTEGER, Kind.NUMBER):
        raise Misplaced(path, f"only numbers are searched, and this is of type {entry.kind}")
    low, high = entry.search
    if not low < high:
        raise Misplaced(path, f"is empty: {low:g} is not below {high:g}")
    parameter = entry.to_hyperparameter()
    for end in entry.search:
        is_whole = entry.kind is Kind.INTEGER and float(end).is_integer()
        objection = parameter.objection(int(end) if is_whole else end)
        if objection is not None:
            raise Misplaced(path, objection)


_DECIMAL = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0b[0-1_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN))$"
    ),
}
"""Numbers of YAML 1.1, without those of base 60."""

_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C where there is libyaml: the shipped policy is read at each cold start."""


DEPTH_MAX = 20
"""Levels of lists and mappings: a policy has eight."""
FINDINGS_MAX = 20
"""Wrong entries that a refusal names."""


class _Loader(_Base):  # type: ignore[misc, valid-type]
    """Rejects duplicate keys; plain YAML silently keeps the last one. Leaves 22:00 as it is, which YAML 1.1 reads
    as a number of base 60.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class that it derives from
        first: [
            (tag, _DECIMAL[tag] if tag in _DECIMAL and ":" in pattern.pattern else pattern)
            for tag, pattern in resolvers
        ]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise Refused(f"line {key_node.start_mark.line + 1}: duplicate key {key!r}")
        seen.add(key)
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@lru_cache(maxsize=8)
def parse_policy(text: str, version: int, region: str = "") -> Policy:
    """Return the policy in a YAML text, with a region's prices; raises Refused, naming line, entry and reason."""
    return policy_of(checked_values(text), version, region)


def checked_values(text: str) -> dict[str, Any]:
    """Return the values of a YAML text, with all defaults; raises like `parse_policy`."""
    return validate_policy_file(text).model_dump(mode="json")


def validate_policy_file(text: str) -> PolicyFile:
    """Return the checked file; raises Refused, naming each bad entry with its line and the reason."""
    try:
        _check_depth(text)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        return PolicyFile.model_validate(document)
    except yaml.YAMLError as error:
        raise Refused(f"the policy is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        violations = error.errors(include_url=False)
        findings = [_finding(root, dict(violation)) for violation in violations[:FINDINGS_MAX]]
        more = len(violations) - FINDINGS_MAX
        findings += [f"and {more} more"] if more > 0 else []
        raise Refused("the policy is invalid:\n  " + "\n  ".join(findings)) from error


def _check_depth(text: str) -> None:
    """Raise Refused for values that are nested so deeply that to build them could end the process.

    The events of the text are read one after the other, whatever it contains.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise Refused(f"the policy is invalid: values are nested in more than {DEPTH_MAX} levels")


def _finding(root: yaml.Node | None, violation: dict[str, Any]) -> str:
    """Return "line N: entry: reason" of one thing that is wrong."""
    cause = violation.get("ctx", {}).get("error")
    path = cause.path if isinstance(cause, Misplaced) else tuple(violation["loc"])
    path = tuple(part for part in path if part != "[key]")
    message = reason_of(violation)
    named = violation["type"] == "extra_forbidden" or isinstance(cause, Misplaced) or ", got " in message
    if not named and isinstance(violation.get("input"), str | int | float):
        message += f", got {violation['input']!r}"
    return f"line {_line(root, path)}: {'.'.join(map(str, path)) or 'policy'}: {message}"


def _line(node: yaml.Node | None, path: tuple[str | int, ...]) -> int:
    """Return the line of an entry, or of the nearest enclosing one that exists."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in path:
        child: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    child, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
            line = child.start_mark.line + 1
        if child is None:
            break
        node = child
    return line


def entry_of(text: str, section: str, name: str) -> Mapping[str, Any]:
    """Return one entry of a section of a policy's text, {} where there is none."""
    entry: Mapping[str, Any] = (yaml.safe_load(text).get(section) or {}).get(name) or {}
    return entry


def with_entry(text: str, section: str, name: str, values: Mapping[str, Any] | None) -> str:
    """Return a policy's text with one entry of a section set, or removed (None); other lines are unchanged.

    Raises Refused when the text is not a policy.
    """
    validate_policy_file(text)
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), "checked above"
    section_node = next(((key, value) for key, value in root.value if key.value == section), None)
    entry = [] if values is None else _entry_lines(name, values)
    if section_node is None:
        return text if not entry else "\n".join([*lines, "", f"{section}:", *entry]) + "\n"
    key, node = section_node
    if node.flow_style or not isinstance(node, yaml.MappingNode):
        entries = (yaml.safe_load(text) or {}).get(section) or {}
        others = {other: value for other, value in entries.items() if other != name}
        block = [line for other, value in others.items() for line in _entry_lines(other, value)] + entry
        replaced = [f"{section}:", *block] if block else []
        lines[key.start_mark.line : node.end_mark.line + 1] = replaced
        return "\n".join(lines) + "\n"
    indent = " " * node.value[0][0].start_mark.column
    entry = [indent + line.lstrip() for line in entry]
    starts = [k.start_mark.line for k, _ in node.value]
    ends = [*starts[1:], _line_after(root, key, len(lines))]
    position = next((number for number, (k, _) in enumerate(node.value) if k.value == name), None)
    if position is None:
        lines[starts[0] : starts[0]] = entry
    else:
        last = ends[position]
        while last > starts[position] + 1 and lines[last - 1].lstrip()[:1] in ("", "#"):
            last -= 1
        alone = not entry and len(starts) == 1
        lines[key.start_mark.line if alone else starts[position] : last] = entry
    return "\n".join(lines) + "\n"


def _line_after(root: yaml.MappingNode, key: yaml.Node, end: int) -> int:
    """Return the line at which the next section begins."""
    later = [k.start_mark.line for k, _ in root.value if k.start_mark.line > key.start_mark.line]
    return min(later, default=end)


def _entry_lines(name: str, values: Mapping[str, Any]) -> list[str]:
    """Return an entry as one line of YAML's flow style, so that it can be found and replaced."""
    plain = json.loads(json.dumps(values, default=str))
    body = yaml.safe_dump(plain, default_flow_style=True, width=10**6, sort_keys=False).strip()
    plain_name = yaml.safe_load(name) == name  # neither a number nor one of YAML's words
    return [f"  {name if plain_name else json.dumps(name)}: {body}"]
