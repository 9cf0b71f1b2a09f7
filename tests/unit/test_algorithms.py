"""The catalogue: what a tenant may choose, and how entries are added to the policy's text."""

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from testing.service import DEFAULTS
from tests.build import content, policy, request, tenant, tier
from trainyard.application.tenancy.tenants import changed
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.policy_file import parse_policy, with_entry
from trainyard.contracts.shipped_quality import shipped_quality, typical_quality_of
from trainyard.domain.algorithms import (
    ALGORITHM_NAME,
    BUILT_IN,
    Algorithm,
    Hyperparameter,
    InstanceChoice,
    Kind,
    TypicalQuality,
    family_of,
)
from trainyard.domain.arrivals import check_welcome
from trainyard.domain.errors import Refused
from trainyard.domain.parameters import images_of, pipeline_parameters
from trainyard.domain.tenants import TrainingSettings

SHIPPED = DEPLOYED.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("known", "value", "objection"),
    [
        (Hyperparameter(kind=Kind.INTEGER, minimum=1, maximum=5), 5, None),
        (Hyperparameter(kind=Kind.INTEGER, minimum=1, maximum=5), 6, "6 is out of bounds"),
        (Hyperparameter(kind=Kind.INTEGER, minimum=1), 0, "a whole number of at least 1"),
        (Hyperparameter(kind=Kind.INTEGER), True, "True is not of type integer"),
        (Hyperparameter(kind=Kind.INTEGER), 1.5, "1.5 is not of type integer"),
        (Hyperparameter(kind=Kind.NUMBER, maximum=1), 1, None),
        (Hyperparameter(kind=Kind.NUMBER, maximum=1), 1.01, "a number of at most 1"),
        (Hyperparameter(kind=Kind.NUMBER), "1", "'1' is not of type number"),
        (Hyperparameter(kind=Kind.TEXT, choices=("a", "b")), "c", "one of a, b"),
        (Hyperparameter(kind=Kind.TEXT), 7, "7 is not of type text"),
        (Hyperparameter(kind=Kind.BOOLEAN), 1, "true or false"),
        (Hyperparameter(kind=Kind.BOOLEAN), False, None),
    ],
)
def test_a_value_is_taken_or_the_allowed_ones_are_named(
    known: Hyperparameter, value: Any, objection: str | None
) -> None:
    said = known.objection(value)
    assert said is None if objection is None else objection in str(said)


def test_defaults_hold_where_nothing_is_chosen_and_an_unknown_name_is_told_the_known_ones() -> None:
    boosting = policy().algorithm("gradient-boosting")
    chosen = boosting.chosen({"max_iter": 50})
    assert (chosen["max_iter"], chosen["learning_rate"]) == (50, 0.1)
    with pytest.raises(Refused, match="it has early_stopping, l2_regularization, learning_rate"):
        boosting.chosen({"depth": 3})
    with pytest.raises(Refused, match="the catalogue has gradient-boosting, linear"):
        policy().algorithm("magic")


def test_an_algorithms_own_instances_come_before_the_tiers_and_its_formats_are_asked_for() -> None:
    large = InstanceChoice(
        data_mb_max=1,
        processing_instance_type="ml.t3.medium",
        training_instance_types=("ml.g5.xlarge",),
        training_instance_count=2,
        training_volume_gb=50,
    )
    limits = policy(
        algorithms={
            "deep": Algorithm(name="deep", instances=(large,), suffixes=(".csv",), training_image_uri="own:1")
        }
    )
    assert limits.profile_for(tier(), "deep", 10).training == ("ml.g5.xlarge",)
    assert limits.profile_for(tier(), "linear", 10).training == ("ml.m5.large",)
    settings = TrainingSettings(algorithm="deep", target="y")
    owner = tenant(settings=settings)
    check_welcome(owner, content(), limits)
    with pytest.raises(Refused, match=r"deep reads csv from objects that end in \.csv"):
        check_welcome(owner, content("incoming/x/data.parquet"), limits)
    with pytest.raises(Refused, match="at most 1,048,576"):
        check_welcome(owner, content(size_bytes=2_000_000), limits)
    assert "own:1" in images_of(owner, limits, DEFAULTS)
    assert "own:1" not in images_of(tenant(), limits, DEFAULTS)


def test_entries_are_put_in_replaced_and_taken_out_and_all_else_stays_as_it_was() -> None:
    text = SHIPPED
    for name, values in (("acme", {"weight": 3}), ("acme-1", {"running_max": 2}), ("123", {"budget_usd": "9.50"})):
        text = with_entry(text, "tenants", name, values)
    text = with_entry(text, "tenants", "acme", {"weight": 5})
    found = parse_policy(text, 1)
    assert {name: found.tenant(name).weight for name in ("acme", "acme-1", "other")} == {
        "acme": 5,
        "acme-1": 1,
        "other": 1,
    }
    budget = found.tenant("123").budget
    assert budget is not None
    assert str(budget.limit_usd) == "9.50"
    assert all(line in text for line in SHIPPED.splitlines()), "comments stay"
    for name in ("acme", "123", "acme-1", "nobody"):
        text = with_entry(text, "tenants", name, None)
    assert yaml.safe_load(text) == yaml.safe_load(SHIPPED)


@pytest.mark.parametrize(
    "section",
    [
        "tenants: {a: {weight: 2}, b: {weight: 3}}",
        "tenants:\n  a: {weight: 2}\n  b:\n    weight: 3\n",
        "tenants:\n    a:\n        weight: 2  # two\n\n    b: {weight: 3}\n\n# the end",
    ],
)
def test_however_a_section_is_written_an_entry_finds_its_place(section: str) -> None:
    text = f"{SHIPPED}\n{section}\nwindows: []\n"
    for name, expected in (("a", (7, 3, 1)), ("b", (2, 7, 1)), ("c", (2, 3, 7))):
        found = parse_policy(with_entry(text, "tenants", name, {"weight": 7}), 1)
        assert tuple(found.tenant(one).weight for one in "abc") == expected
    for name, left in (("a", [1, 3]), ("b", [2, 1])):
        found = parse_policy(with_entry(text, "tenants", name, None), 1)
        assert [found.tenant(one).weight for one in "ab"] == left


IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/knn:1"


@pytest.mark.parametrize(
    ("entry", "isolated", "encrypted"),
    [
        ({}, False, False),
        ({"training_image": IMAGE}, True, True),
        ({"processing_image": IMAGE}, True, True),
        ({"training_image": IMAGE, "network_isolation": False}, False, True),
        ({"training_image": IMAGE, "traffic_encryption": False}, True, False),
        ({"network_isolation": True}, True, False),
        ({"traffic_encryption": True}, False, True),
    ],
)
def test_an_image_of_somebody_elses_has_no_network_unless_the_catalogue_says_so(
    entry: dict[str, Any], isolated: bool, encrypted: bool
) -> None:
    text = with_entry(SHIPPED, "algorithms", "mine", entry)
    algorithm = parse_policy(text, 1).algorithms["mine"]
    assert (algorithm.network_isolation, algorithm.traffic_encryption) == (isolated, encrypted)
    owner = tenant(settings=TrainingSettings(algorithm="mine", target="y"))
    parameters = pipeline_parameters(request(), owner, tier(), algorithm, defaults=DEFAULTS)
    assert (parameters["NetworkIsolation"], parameters["TrafficEncryption"]) == (str(isolated), str(encrypted))


@pytest.mark.parametrize("value", ["yes", 1, "true"])
def test_what_is_neither_true_nor_false_is_refused_for_the_network(value: object) -> None:
    with pytest.raises(Refused, match="network_isolation"):
        parse_policy(with_entry(SHIPPED, "algorithms", "mine", {"network_isolation": value}), 1)


def test_an_algorithm_that_contradicts_itself_is_told_by_its_line() -> None:
    entry = {"hyperparameters": {"depth": {"kind": "integer", "default": 9, "maximum": 5}}}
    with pytest.raises(Refused, match=r"algorithms\.mine\.hyperparameters\.depth\.default: 9 is out of bounds"):
        parse_policy(with_entry(SHIPPED, "algorithms", "mine", entry), 1)
    with pytest.raises(Refused, match="training_image"):
        parse_policy(with_entry(SHIPPED, "algorithms", "mine", {"training_image": "docker.io/x"}), 1)


@pytest.mark.parametrize(
    ("name", "is_name"),
    [
        ("near", True),
        ("near@2", True),
        ("near@2000", True),
        ("near@", False),
        ("near@0", False),
        ("near@x", False),
    ],
)
def test_a_version_is_part_of_an_algorithms_name(name: str, is_name: bool) -> None:
    assert bool(re.match(ALGORITHM_NAME, name)) is is_name
    assert family_of(name) == "near"


def test_another_version_keeps_the_hyperparameters_and_another_algorithm_does_not() -> None:
    settings = TrainingSettings(algorithm="near", target="y", hyperparameters=(("k", 3),))
    assert changed(settings, {"algorithm": "near@2"}).hyperparameters == (("k", 3),)
    assert changed(settings, {"algorithm": "linear"}).hyperparameters == ()


def test_each_shipped_algorithm_has_examples_of_its_quality() -> None:
    shipped = shipped_quality()
    assert set(shipped) == {algorithm.name for algorithm in BUILT_IN}
    for algorithm in BUILT_IN:
        examples = typical_quality_of(algorithm)
        assert len(examples) >= 10
        assert len({each.data for each in examples}) == len(examples)
        for each in examples:
            assert each.metric in ("roc_auc", "balanced_accuracy", "r2")
            assert each.rows > 0
            assert each.quality <= 1
            assert each.baseline is not None


def test_an_algorithm_that_replaces_a_shipped_one_does_not_have_its_examples() -> None:
    (linear,) = (each for each in BUILT_IN if each.name == "linear")
    assert typical_quality_of(replace(linear, code_uri="s3://bucket/code/1")) == ()
    own = TypicalQuality(data="ours", rows=10, metric="r2", quality=0.5)
    assert typical_quality_of(replace(linear, typical_quality=(own,))) == (own,)


def test_a_policy_gives_examples_of_an_algorithms_quality() -> None:
    entry = {
        "code": "s3://bucket/code/1",
        "typical_quality": [{"data": "churn", "rows": 7000, "metric": "roc_auc", "quality": 0.81}],
    }
    registered = parse_policy(with_entry(SHIPPED, "algorithms", "knn", entry), 1).algorithm("knn")
    assert typical_quality_of(registered) == (
        TypicalQuality(data="churn", rows=7000, metric="roc_auc", quality=0.81),
    )
    for wrong in ({"rows": 0}, {"metric": "ROC AUC"}, {"quality": float("nan")}, {"data": ""}, {"more": 1}):
        bad = entry | {"typical_quality": [entry["typical_quality"][0] | wrong]}  # type: ignore[operator]
        with pytest.raises(Refused, match="typical_quality"):
            parse_policy(with_entry(SHIPPED, "algorithms", "knn", bad), 1)
