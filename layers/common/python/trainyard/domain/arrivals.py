"""Arrivals: a tenant's upload becomes a request, or is refused with a reason."""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from trainyard.domain.algorithms import HYPERPARAMETERS_LENGTH_MAX, Algorithm
from trainyard.domain.announcements import APPLICATION_SOURCE
from trainyard.domain.errors import Malformed, Refused
from trainyard.domain.names import FOLDERS, URI_LENGTH_MAX, is_data_set, request_id
from trainyard.domain.policy import ANY_TENANT, Policy, TierPolicy
from trainyard.domain.requests import Content, Overrides, RequestKind, Tuning, trials_of
from trainyard.domain.resources import ResourceProfile
from trainyard.domain.retraining import BatchEnd, Trigger
from trainyard.domain.tenants import Tenant, TenantState, TrainingSettings
from trainyard.domain.tuning import check_plan, ranges_of

INCOMING = "incoming/"
"""The only folder below a tenant's root that starts training."""

NO_DATA_SET = "_rejected"
"""Stands for the data set of an upload that names none; cannot be the name of a real one."""

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadArrived:
    """An object was created in a bucket of `account_id`."""

    account_id: str
    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingAsked:
    """Somebody asked to train again; `data_set` None stands for all of the tenant's."""

    account_id: str
    event_id: str
    tenant_id: str
    data_set: str | None
    ready_by: datetime | None = None
    """When the models are to be ready; None for what the data sets' settings say."""
    priority: int | None = None
    """None for what the data sets' settings say."""
    overrides: Overrides | None = None
    trigger: Trigger = Trigger.PERSON
    detail: str = ""
    """What is known of the trigger, as who asked wrote it."""
    source: str = APPLICATION_SOURCE
    """Of the event."""
    is_forced: bool = False
    """Whether to train although neither data nor settings have changed."""
    accepts_drift: bool = False
    """Whether to train however far the data has moved from that of the last training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformAsked:
    """Somebody asked to predict the stored rows of a data set."""

    account_id: str
    event_id: str
    tenant_id: str
    data_set: str
    priority: int | None = None
    """None for what the data set's settings say."""
    source: str = APPLICATION_SOURCE
    """Of the event."""
    is_forced: bool = False
    """Whether to predict also rows that the same version has predicted before."""


def delay_within(spread: timedelta, asked: RetrainingAsked) -> int:
    """Return after how many seconds a training is asked for, of those over which many are spread: the same for the
    same tenant and data set.
    """
    seconds = int(spread.total_seconds())
    digest = sha256(f"{asked.tenant_id}/{asked.data_set}".encode()).hexdigest()
    return int(digest[:8], 16) % seconds if seconds else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRang:
    """A CloudWatch alarm of `account_id` went into the state ALARM."""

    account_id: str
    event_id: str
    name: str


def retraining_id(tenant_id: str, data_set: str | None, event_id: str) -> str:
    """Return what names a retraining of a data set; None stands for those of a tenant without any.

    The data that it will find is not part of it: whoever asks knows it at once, and an event that is delivered
    again after an upload, or after a move, still names the same request.
    """
    return request_id(tenant_id=tenant_id, bucket="", key=f"{INCOMING}{data_set or ''}", revision=event_id)


def is_incoming(tenant: Tenant, key: str) -> bool:
    """Tell whether a key lies in the folder that starts training."""
    return key.startswith(tenant.root + INCOMING)


def has_plain_key(key: str) -> bool:
    """Tell whether a key is free of control characters, which no manifest or parameter can carry."""
    return _CONTROL_CHARACTERS.search(key) is None


def names_a_path(key: str) -> bool:
    """Tell whether a key is also a valid relative path, so that a job can store the object under it.

    For S3, `a/../b`, `a/./b` and `a//b` are ordinary keys; a file system resolves them to other paths.
    """
    return not any(segment in ("", ".", "..") for segment in key.split("/"))


def is_marker(key: str) -> bool:
    """Tell whether an object is a marker of the tool that wrote the data, not data itself.

    Names that begin with "_" or "." are hidden to Spark, Hive and Hadoop, which write them (`_SUCCESS`,
    `_committed_…`, `_temporary/…`, `.part-0.csv.crc`); `.DS_Store` and `._data.csv` are macOS's.
    """
    *folders, name = key.split("/")
    return name.endswith(".crc") or any(
        segment[:1] in ("_", ".") and segment[:2] != ".." for segment in [*folders, name]
    )


def batch_end_of(tenant: Tenant, key: str) -> str | None:
    """Return the data set whose batch of files an object ends; None for an object that ends none."""
    data_set, _, rest = key.removeprefix(tenant.root + INCOMING).partition("/")
    if not is_data_set(data_set) or not rest:
        return None
    closed_by = tenant.settings_for(data_set).retraining.closed_by
    return data_set if closed_by is not BatchEnd.NONE and rest.rpartition("/")[2] == closed_by else None


def check_sender(asked: RetrainingAsked | TransformAsked, tenant: Tenant, policy: Policy, account_id: str) -> None:
    """Raise Malformed unless whoever sent an event may ask for a tenant; `account_id` is the service's own."""
    if asked.account_id != account_id:
        if tenant.account_id != asked.account_id:
            raise Malformed(
                f"the event is of account {asked.account_id}, which is not that of tenant {tenant.tenant_id}"
            )
        return
    allowed = policy.retraining_sources.get(asked.source, ())
    if asked.source != APPLICATION_SOURCE and not {tenant.tenant_id, ANY_TENANT} & set(allowed):
        raise Malformed(
            f"events of source {asked.source!r} may not ask for tenant {tenant.tenant_id}: the policy allows it "
            "under retraining: sources"
        )


def is_data(key: str, folder: str) -> bool:
    """Tell whether the key of an object below a data set's folder is one that a run can read."""
    below = key.removeprefix(folder)
    return (
        bool(below)
        and not below.endswith("/")
        and has_plain_key(key)
        and names_a_path(below)
        and not is_marker(below)
    )


def check_file_name(name: str) -> None:
    """Raise Refused for the name of a file, below its data set, whose upload would not start a training."""
    if not is_data(name, ""):
        raise Refused(
            f"{name!r} would not start a training: names that begin with _ or ., or end in .crc, are treated as "
            "markers of the tool that wrote the data; no part of a name may be empty, . or .., and none may have "
            "control characters"
        )


def data_set_of(tenant: Tenant, key: str) -> str:
    """Return the data set that an incoming key belongs to.

    Raises Refused when the key names none.
    """
    below = key.removeprefix(tenant.root + INCOMING)
    data_set, slash, rest = below.partition("/")
    if not slash:
        raise Refused(
            f"{below!r} is not in a data set: put it into {INCOMING}<data set>/, for example "
            f"{INCOMING}churn/data.csv",
            kind="no data set",
        )
    if not is_data_set(data_set):
        raise Refused(
            f"{data_set!r} is not a valid data set name: 1 to 63 letters, digits, dots, hyphens or underscores, "
            f"starting with a letter or digit, and none of {', '.join(FOLDERS)}",
            kind="data set name",
        )
    if not rest or key.endswith("/"):
        raise Refused("a folder was created, not data: put a file into it", kind="folder")
    return data_set


def check_welcome(tenant: Tenant, content: Content, policy: Policy, overrides: Overrides | None = None) -> None:
    """Raise Refused, with the reason its sender reads, unless this upload may become a request."""
    tier = _tier_of(tenant, policy)
    if not has_plain_key(content.key):
        raise Refused("the key contains control characters: rename the object", kind="key characters")
    if not names_a_path(content.key):
        raise Refused('the key has a segment that is empty, "." or "..": rename the object', kind="key segments")
    if len(content.uri) > URI_LENGTH_MAX:
        raise Refused(
            f"s3://<bucket>/<key> has {len(content.uri)} characters, at most {URI_LENGTH_MAX} fit: "
            "use a shorter key",
            kind="key length",
        )
    if content.size_bytes == 0:
        raise Refused("the object is empty: upload a CSV file with a header line and rows", kind="empty")
    data_set = data_set_of(tenant, content.key)
    if overrides is not None:
        check_overrides(tenant, data_set, overrides, policy)
    algorithm = policy.algorithm(tenant.settings_for(data_set, overrides).algorithm)
    if not algorithm.reads(content.key):
        raise Refused(
            f"{algorithm.name} reads {algorithm.input_format} from objects that end in "
            f"{' or '.join(algorithm.suffixes)}: rename or convert it",
            kind="format",
        )
    trials = trials_of(overrides)
    _check_quota(policy.profile_for(tier, algorithm.name, content.size_bytes, trials=trials), policy)
    largest = policy.data_bytes_max(tier, algorithm.name)
    if content.size_bytes > largest:
        raise Refused(
            f"the object has {content.size_bytes:,} bytes; tier {tier.name} allows at most "
            f"{largest:,}: split it, or move to a larger tier",
            kind="too large",
        )


def check_overrides(tenant: Tenant, data_set: str, overrides: Overrides, policy: Policy) -> None:
    """Raise Refused, naming what is possible, unless a single training of a tenant may have these."""
    settings = tenant.settings_for(data_set, overrides)
    try:
        algorithm = policy.algorithm(settings.algorithm)
        chosen = algorithm.chosen(dict(settings.hyperparameters))
    except Refused as refusal:
        raise Refused(str(refusal), kind="overrides") from refusal
    if len(json.dumps(chosen, separators=(",", ":"))) > HYPERPARAMETERS_LENGTH_MAX:
        raise Refused(
            "the hyperparameters, with those of the data set's settings and the defaults, take more than "
            f"{HYPERPARAMETERS_LENGTH_MAX} characters as JSON: shorten them",
            kind="overrides",
        )
    if overrides.tuning is not None:
        _check_tuning(tenant, settings, overrides.tuning, algorithm, policy)
    set_before = {each.algorithm for each in (tenant.settings, *tenant.data_sets.values())}
    # Its jobs could write over models that were trained by other code, and its images are not theirs to pull.
    if algorithm.brings_code and algorithm.name not in set_before:
        raise Refused(
            f"algorithm {algorithm.name} runs code of its own, which trainings of {tenant.tenant_id} may not use "
            "until it is the algorithm of one of its data sets: ask the provider to set it for one",
            kind="overrides",
        )


def _check_tuning(
    tenant: Tenant, settings: TrainingSettings, tuning: Tuning, algorithm: Algorithm, policy: Policy
) -> None:
    tier = _tier_of(tenant, policy)
    profile = policy.profile_for(tier, algorithm.name, 0, trials=tuning.trials)
    try:
        ranges_of(tuning, algorithm, settings)
        check_plan(tuning, tier, profile, policy.prices, tier.runtime_max)
    except Refused as refusal:
        raise Refused(str(refusal), kind="tuning") from refusal


def check_transform(tenant: Tenant, data_set: str, size_bytes: int, policy: Policy) -> None:
    """Raise Refused, with the reason its sender reads, unless so many bytes of rows may be predicted."""
    tier = _tier_of(tenant, policy)
    algorithm = policy.algorithm(tenant.settings_for(data_set).algorithm)
    _check_quota(policy.profile_for(tier, algorithm.name, size_bytes, kind=RequestKind.TRANSFORM), policy)
    largest = policy.data_bytes_max(tier, algorithm.name)
    if size_bytes > largest:
        raise Refused(
            f"the rows have {size_bytes:,} bytes in all; tier {tier.name} allows at most {largest:,}: remove "
            "those that are predicted already, or move to a larger tier",
            kind="too large",
        )


def _tier_of(tenant: Tenant, policy: Policy) -> TierPolicy:
    """Return the tier of an active tenant; raises Refused."""
    if tenant.state is not TenantState.ACTIVE:
        raise Refused(
            f"tenant {tenant.tenant_id} is {tenant.state.lower()}: uploads are refused", kind="tenant not active"
        )
    tier = policy.tier(tenant.tier)
    if tier is None:
        raise Refused(
            f"the policy has no tier {tenant.tier!r}: the operator must add it or move the tenant", kind="tier"
        )
    return tier


def _check_quota(profile: ResourceProfile, policy: Policy) -> None:
    resource = policy.lacking(profile)
    if resource is not None:
        raise Refused(
            f"it needs {profile.instances_by_type[resource]} instances of {resource}, and the policy's quota "
            f"is {policy.instance_quotas[resource]}: the operator must raise it",
            kind="instance quota",
        )
