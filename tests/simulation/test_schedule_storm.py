"""Schedules of many tenants that are due at once, and an outage at midnight: a few hundred of them."""

import pytest

from simulation.schedule_storm import RUNNING_MAX, SCENARIOS, Scenario, simulate

TENANTS = 120


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_schedules_that_are_due_at_once_are_each_trained_on_once(scenario: Scenario) -> None:
    result = simulate(scenario, TENANTS)
    assert result.wrong == []
    assert (result.trainings, result.next_night) == (TENANTS, 0)
    assert result.running_most <= RUNNING_MAX
    assert (result.made_up_for > 0) == (scenario.lost > 0)
