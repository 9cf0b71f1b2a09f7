"""The command line itself: options and clear refusals; what the commands do is tested end to end."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli.__main__ import build_parser, main
from cli.deployment import Deployment
from cli.requests import _not_waiting
from cli.service import refuse_what_jobs_may_not
from cli.shorthand import written_out
from cli.tenants import _data_set, _hyperparameter
from tests.build import NOW, after, choice, policy, request, tier
from trainyard.domain.errors import Refused
from trainyard.domain.requests import State


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--stack", "s", "status"],
        ["status", "--json", "--stack", "s"],
        ["--stack", "s", "status", "--json"],
    ],
)
def test_common_options_stand_before_or_behind_the_command(arguments: list[str]) -> None:
    parsed = build_parser().parse_args(arguments)
    assert (parsed.stack, parsed.json) == ("s", True)


def test_the_stack_comes_from_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_STACK", "trainyard-prod")
    assert build_parser().parse_args(["status"]).stack == "trainyard-prod"
    assert build_parser().parse_args(["tenant", "list", "--stack", "s"]).json is False


def test_every_command_has_help_and_the_top_one_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["--help"], ["tenant", "create", "--help"], ["dlq", "redrive", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(command)
        assert caught.value.code == 0
    assert "trainyard upload acme churn.csv --data-set churn" in capsys.readouterr().out


def test_a_hyperparameter_keeps_its_type() -> None:
    pairs = [_hyperparameter(text) for text in ("max_iter=200", "alpha=0.5", "solver=lbfgs", "warm_start=true")]
    assert dict(pairs) == {"max_iter": 200, "alpha": 0.5, "solver": "lbfgs", "warm_start": True}
    with pytest.raises(Refused, match="write NAME=VALUE"):
        _hyperparameter("max_iter")


def test_a_data_sets_settings_name_only_what_differs() -> None:
    name, settings = _data_set("sales:target=revenue,train_on=whole-prefix")
    assert (name, settings) == ("sales", {"target": "revenue", "train_on": "whole-prefix"})
    with pytest.raises(Refused, match="write NAME:KEY=VALUE"):
        _data_set("sales:colour=red")


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "apply", "/no/such/policy.yaml", "--dry-run"]) == 1
    assert "/no/such/policy.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["models", "acme"], ["models", "list", "acme"]),
        (["--json", "models", "acme"], ["--json", "models", "list", "acme"]),
        (["models", "fetch", "acme", "1"], ["models", "fetch", "acme", "1"]),
        (["models", "list", "list"], ["models", "list", "list"]),
        (["status"], ["status"]),
        (["costs"], ["costs", "report"]),
        (["costs", "--by", "tenant"], ["costs", "report", "--by", "tenant"]),
        (["--stack", "s", "costs", "budgets"], ["--stack", "s", "costs", "budgets"]),
        (["retrain", "acme", "--data-set", "costs"], ["retrain", "acme", "--data-set", "costs"]),
        (["upload", "models", "costs"], ["upload", "models", "costs"]),
        (["--stack", "costs", "status"], ["--stack", "costs", "status"]),
        ([], []),
        (["--json"], ["--json"]),
    ],
)
def test_models_of_a_tenant_need_no_verb(given: list[str], meant: list[str]) -> None:
    assert written_out(given) == meant


DEPLOYED = {
    "AllowedInstanceTypes": "ml.t3.*,ml.m5.large,ml.m5.xlarge",
    "JobRuntimeMaxSeconds": "3600",
    "TrainingTypesMax": "5",
    "SpotTraining": "true",
}


@pytest.mark.parametrize(
    ("deployed", "entry", "reason"),
    [
        ({"AllowedInstanceTypes": "ml.t3.*"}, {}, "JobInstanceTypes"),
        ({"JobRuntimeMaxSeconds": "3599"}, {"runtime_max": timedelta(hours=1)}, "JobRuntimeMaxSeconds"),
        (
            {"TrainingTypesMax": "1"},
            {"instances": (choice(training="ml.m5.large,ml.m5.xlarge"),)},
            "InstancePreferences=true",
        ),
        ({"SpotTraining": "false"}, {"spot": True, "spot_wait": timedelta(minutes=1)}, "SpotTraining=true"),
    ],
)
def test_a_policy_that_a_deployment_is_not_made_for_is_refused_with_the_parameter_that_would_be(
    deployed: dict[str, str], entry: dict[str, Any], reason: str
) -> None:
    wanted = policy(tier(**entry))
    refuse_what_jobs_may_not(cast(Deployment, SimpleNamespace(outputs=DEPLOYED)), wanted)
    with pytest.raises(Refused, match=reason):
        refuse_what_jobs_may_not(cast(Deployment, SimpleNamespace(outputs=DEPLOYED | deployed)), wanted)


@pytest.mark.parametrize("state", State)
def test_why_explains_every_state_with_commands_that_can_be_pasted(state: State) -> None:
    ended = request(
        state=state,
        reason="Preprocess: there is no column 'y'" if state in (State.FAILED, State.REJECTED) else None,
        admitted_at=NOW,
        started_at=NOW,
        ends_by=after(3600),
        superseded_by="2" * 32,
    )
    lines = list(_not_waiting(ended))
    assert lines[-1].endswith(f"trainyard request {ended.request_id}")
    commands = [line.partition("trainyard ")[2].split() for line in lines if "trainyard " in line]
    for command in commands:
        words = command[:2] if command[0] == "request" else command
        build_parser().parse_args(words)
    if state in (State.FAILED, State.REJECTED):
        assert "there is no column 'y'" in lines[0]
        assert any(command[0] == "retrain" for command in commands) is (state is State.FAILED)
