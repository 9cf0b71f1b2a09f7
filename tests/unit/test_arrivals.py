from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.build import content, policy, tenant
from trainyard.domain.arrivals import check_welcome, data_set_of, is_data, is_incoming, is_marker
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import TenantState


@pytest.mark.parametrize(
    ("key", "data_set"),
    [
        ("incoming/churn/data.csv", "churn"),
        ("incoming/churn/2026/11/part-0.csv", "churn"),
        ("incoming/churn/with space +%2F ü.csv", "churn"),
        ("incoming/a.b_c-d/x", "a.b_c-d"),
    ],
)
def test_the_data_set_is_the_folder_below_incoming_and_keys_stay_raw(key: str, data_set: str) -> None:
    assert data_set_of(tenant(), key) == data_set


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("incoming/data.csv", "is not in a data set"),
        ("incoming/churn/", "folder was created"),
        ("incoming/churn/sub/", "folder was created"),
        ("incoming/receipts/x.csv", "is not a valid data set name"),
        ("incoming/my churn/x.csv", "is not a valid data set name"),
        ("incoming//x.csv", "is not a valid data set name"),
    ],
)
def test_a_key_that_names_no_data_set_is_refused_with_the_way_out(key: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        data_set_of(tenant(), key)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("acme/incoming/x/y", True),
        ("acme10/incoming/x/y", False),
        ("acme/receipts/x/y", False),
        ("incoming/x/y", False),
        ("acme/incoming", False),
    ],
)
def test_in_a_shared_bucket_only_the_tenants_own_incoming_counts(key: str, expected: bool) -> None:
    assert is_incoming(tenant(root="acme/"), key) is expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size_bytes": 0}, "the object is empty"),
        ({"size_bytes": 100 * 1024 * 1024 + 1}, "allows at most 104,857,600"),
        ({"key": "incoming/churn/a\nb.csv"}, "control characters"),
        ({"key": "incoming/churn/a\u2028b.csv"}, "control characters"),
        ({"key": "incoming/churn/" + "x" * 1009}, "at most 1024 fit"),
    ],
)
def test_an_object_that_cannot_be_used_is_refused_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        check_welcome(tenant(), content(**changes), policy())


@pytest.mark.parametrize("state", [TenantState.SUSPENDED, TenantState.CREATING])
def test_only_an_active_tenant_is_welcome(state: TenantState) -> None:
    with pytest.raises(Refused, match=f"is {state.lower()}"):
        check_welcome(tenant(state=state), content(), policy())


def test_the_largest_object_that_fits_is_welcome() -> None:
    check_welcome(tenant(), content(size_bytes=100 * 1024 * 1024), policy())


def test_a_tenant_of_a_tier_that_the_policy_lacks_is_refused() -> None:
    with pytest.raises(Refused, match="no tier 'gold'"):
        check_welcome(tenant(tier="gold"), content(), policy())


ODD_SEGMENTS = (
    "",
    ".",
    "..",
    "...",
    "a",
    "a.csv",
    "_a",
    ".a",
    "..a",
    "a..",
    "~",
    " ",
    "a b",
    "ä",
    "-",
    "%2e%2e",
    "a:b",
)


def test_every_accepted_key_resolves_inside_its_data_sets_folder() -> None:
    """A job's disk is a file system: what S3 takes for a name, it may take for another place."""
    accepted = refused = 0
    for seed in range(3000):
        random = Random(seed)
        segments = [random.choice(ODD_SEGMENTS) for _ in range(random.randrange(1, 5))]
        root = random.choice(["", "acme/"])
        owner = tenant(root=root)
        key = f"{root}incoming/" + "/".join([random.choice(["churn", "..", ".", "a.b"]), *segments])
        try:
            data_set = data_set_of(owner, key)
            check_welcome(owner, content(key), policy())
        except Refused:
            refused += 1
            continue
        accepted += 1
        folder = Path("/opt/ml/input") / data_set
        below = key.removeprefix(f"{root}incoming/{data_set}/")
        assert (folder / below) == (folder / below).resolve(), key
        assert (folder / below).resolve().is_relative_to(folder), key
    assert accepted > 100
    assert refused > 100


@pytest.mark.parametrize(
    "key",
    [
        "incoming/churn/../x.csv",
        "incoming/churn/./x.csv",
        "incoming/churn//x.csv",
        "incoming//x.csv",
        "incoming/../x",
    ],
)
def test_a_key_with_a_segment_that_names_no_file_is_refused(key: str) -> None:
    with pytest.raises(Refused):
        check_welcome(tenant(), content(key), policy())


@pytest.mark.parametrize(
    ("below", "marker"),
    [
        ("_SUCCESS", True),
        ("_committed_5184", True),
        ("_started_5184", True),
        ("_temporary/0/part-0.csv", True),
        ("_delta_log/00.json", True),
        (".part-0.csv.crc", True),
        ("part-0.csv.crc", True),
        (".DS_Store", True),
        ("2026/._data.csv", True),
        ("part-0.csv", False),
        ("year=2026/part-0.csv", False),
        ("a_b.csv", False),
        ("a.b/c.csv", False),
        ("crc.csv", False),
    ],
)
def test_markers_of_the_tools_that_write_data_are_no_data(below: str, marker: bool) -> None:
    assert is_marker(below) is marker
    assert is_data(f"incoming/churn/{below}", "incoming/churn/") is not marker
