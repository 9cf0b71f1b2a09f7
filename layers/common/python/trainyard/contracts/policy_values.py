"""Conversion of a validated policy's plain values into the policy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from trainyard.contracts.shipped_prices import prices_of
from trainyard.domain.algorithms import Algorithm, Hyperparameter, InstanceChoice, Kind, TypicalQuality
from trainyard.domain.policy import (
    AlarmMapping,
    Budget,
    BudgetMode,
    Policy,
    Retries,
    Storage,
    TenantPolicy,
    TierPolicy,
)
from trainyard.domain.prices import NO_PRICES, Prices
from trainyard.domain.windows import Window, when_of

Values = Mapping[str, Any]


def policy_of(values: Values, version: int, region: str = "") -> Policy:
    """Return the policy that checked values stand for, with a region's prices of the instances that it names."""
    algorithms = {name: _algorithm(name, entry) for name, entry in values["algorithms"].items()}
    some_on_spot = any(algorithm.spot for algorithm in algorithms.values())
    tiers = tuple(_tier(name, entry, some_on_spot) for name, entry in values["tiers"].items())
    choices = [choice for tier in tiers for choice in tier.instances]
    choices += [choice for algorithm in algorithms.values() for choice in algorithm.instances]
    return Policy(
        version=version,
        running_max=values["running_max"],
        quiet_period=timedelta(seconds=values["quiet_period_seconds"]),
        delay_max=timedelta(seconds=values["delay_max_seconds"]),
        start_retry_delay=timedelta(seconds=values["start_retry_delay_seconds"]),
        starts_per_second=values["starts_per_second"],
        starts_burst=values["starts_burst"],
        uploads_per_hour=values["uploads_per_hour"],
        instance_quotas=dict(values["instance_quotas"]),
        tenants={
            tenant_id: TenantPolicy(
                weight=entry["weight"],
                running_max=entry["running_max"],
                running_ceiling=entry["running_ceiling"],
                budget=_budget(entry),
                uploads_per_hour=entry["uploads_per_hour"],
            )
            for tenant_id, entry in values["tenants"].items()
        },
        windows=tuple(_window(entry, list(values["tiers"])) for entry in values["windows"]),
        retries=Retries(
            attempts_max=values["retries"]["attempts_max"],
            delay=timedelta(seconds=values["retries"]["delay_seconds"]),
        ),
        algorithms=algorithms,
        thresholds=tuple(values["budget_thresholds"]),
        retraining_sources={name: tuple(ids) for name, ids in values["retraining"]["sources"].items()},
        alarms=tuple(
            AlarmMapping(name=entry["name"], tenant_id=entry["tenant"], data_set=entry["data_set"])
            for entry in values["retraining"]["alarms"]
        ),
        prices=_of(choices, prices_of(region)) if region else NO_PRICES,
        tiers=tiers,
    )


def _of(choices: Sequence[InstanceChoice], prices: Prices) -> Prices:
    """Return the prices of some instances only, since a policy is kept with each pass."""
    names = {choice.processing_instance_type for choice in choices}
    names |= {choice.transform_instance_type for choice in choices}
    names |= {name for choice in choices for name in choice.training_instance_types}
    hourly = {
        kind: {name: price for name, price in table.items() if name in names}
        for kind, table in prices.hourly.items()
    }
    return replace(prices, hourly=hourly)


def _tier(name: str, entry: Values, some_on_spot: bool) -> TierPolicy:
    return TierPolicy(
        name=name,
        quota=entry["quota"],
        borrowing_limit=entry["borrowing_limit"],
        lending_limit=entry["lending_limit"],
        running_max_per_tenant=entry["running_max_per_tenant"],
        running_ceiling_per_tenant=entry["running_ceiling_per_tenant"],
        runtime_max=timedelta(minutes=entry["runtime_max_minutes"]),
        hold_age=timedelta(minutes=entry["hold_age_minutes"]),
        quality_min=entry["quality_min"],
        storage=Storage(entry["storage"]),
        budget=_budget(entry),
        instances=_instances(entry["instances"]),
        spot=entry["spot"],
        spot_wait=timedelta(minutes=entry["spot_wait_minutes"] if entry["spot"] or some_on_spot else 0),
        tuning_trials_max=entry["tuning_trials_max"],
    )


def _algorithm(name: str, entry: Values) -> Algorithm:
    unmanaged = bool(entry["training_image"] or entry["processing_image"])
    return Algorithm(
        name=name,
        description=entry["description"],
        training_image_uri=entry["training_image"],
        processing_image_uri=entry["processing_image"],
        code_uri=entry["code"],
        hyperparameters={key: hyperparameter_of(value) for key, value in entry["hyperparameters"].items()},
        instances=_instances(entry["instances"]),
        suffixes=tuple(entry["suffixes"]),
        input_format=entry["input_format"],
        quality_metric=entry["quality_metric"],
        typical_quality=tuple(TypicalQuality(**each) for each in entry["typical_quality"]),
        spot=entry["spot"],
        checkpoints=entry["checkpoints"],
        # Code in a third-party image gets a tenant's data, but no network access to send it anywhere.
        network_isolation=_given(entry["network_isolation"], unmanaged),
        traffic_encryption=_given(entry["traffic_encryption"], unmanaged),
    )


def _given(value: bool | None, otherwise: bool) -> bool:
    return otherwise if value is None else value


def hyperparameter_of(entry: Values) -> Hyperparameter:
    return Hyperparameter(
        kind=Kind(entry["kind"]),
        default=entry["default"],
        minimum=entry["minimum"],
        maximum=entry["maximum"],
        choices=tuple(entry["choices"]),
        search=tuple(entry["search"]) if entry["search"] else None,
    )


def _instances(entries: Sequence[Values]) -> tuple[InstanceChoice, ...]:
    return tuple(
        InstanceChoice(
            data_mb_max=entry["data_mb_max"],
            processing_instance_type=entry["processing"],
            training_instance_types=tuple(entry["training"]),
            training_instance_count=entry["count"],
            training_volume_gb=entry["volume_gb"],
            transform_instance_type=entry["transform"],
        )
        for entry in entries
    )


def _budget(entry: Values) -> Budget | None:
    limit = entry["budget_usd"]
    return None if limit is None else Budget(Decimal(limit), BudgetMode(entry["budget_mode"]))


def _window(entry: Values, tiers: Sequence[str]) -> Window:
    closed = {tier: {"closed": entry["closed"]} for tier in tiers if entry["closed"] is not None}
    own = {tier: _given_values(values) for tier, values in entry["tiers"].items()}
    return Window(
        name=entry["name"],
        when=when_of(entry["begins"], entry["ends"], entry["days"], entry["zone"]),
        limits=_given_values({name: entry[name] for name in ("running_max", "starts_per_second")}),
        instance_quotas=dict(entry["instance_quotas"]),
        tiers={tier: closed.get(tier, {}) | own.get(tier, {}) for tier in tiers if tier in closed or tier in own},
    )


def _given_values(values: Values) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
