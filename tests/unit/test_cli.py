"""The command line itself: options and clear refusals; what the commands do is tested end to end."""

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args, get_type_hints

import click
import jsonschema
import pytest

from cli.app import TRAINYARD, main
from cli.arguments import Arguments
from cli.costs import BY_DAY
from cli.deployment import Deployment
from cli.requests import _not_waiting
from cli.syntax.command import Command, Performer
from cli.syntax.costs import BY
from cli.syntax.requests import STATES
from cli.tenants import _data_set, _entry
from cli.values import hyperparameter
from tests.build import NOW, after, choice, policy, request, step, tier
from trainyard.application.billing.reports import By
from trainyard.application.scheduling.policy_changes import JobLimits
from trainyard.domain.algorithms import Algorithm
from trainyard.domain.errors import Refused
from trainyard.domain.requests import Outcome, Request, State
from trainyard.domain.scheduling import Expedited


class Typed(Performer):
    """Remembers what was typed instead of carrying it out."""

    def perform(self, run: str, stack: str, arguments: Arguments, as_json: bool) -> int:
        self.run, self.stack, self.arguments, self.as_json = run, stack, arguments, as_json
        return 0


def typed(*words: str) -> Typed:
    typed = Typed()
    with TRAINYARD.make_context("trainyard", list(words), obj=typed) as context:
        TRAINYARD.invoke(context)
    return typed


def leaves(command: click.Command = TRAINYARD, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that does something."""
    if not isinstance(command, click.Group):
        yield words
        return
    for name, child in command.commands.items():
        yield from leaves(child, (*words, name))


def command_of(words: tuple[str, ...]) -> click.Command:
    command: click.Command = TRAINYARD
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "--stack", "s", "status"],
        ["status", "--json", "--stack", "s"],
        ["--stack", "s", "status", "--json"],
        ["--stack", "s", "costs", "--json", "budgets"],
        ["costs", "--stack", "s", "--json"],
    ],
)
def test_common_options_stand_before_or_behind_the_command(words: list[str]) -> None:
    given = typed(*words)
    assert (given.stack, given.as_json) == ("s", True)


def test_the_stack_comes_from_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed("status").stack == "trainyard-dev"
    monkeypatch.setenv("TRAINYARD_STACK", "trainyard-prod")
    assert typed("status").stack == "trainyard-prod"
    assert typed("tenant", "list", "--stack", "s").stack == "s"
    assert typed("tenant", "list").as_json is False


@pytest.mark.parametrize("words", list(leaves()), ids=" ".join)
def test_every_command_has_help_and_examples_that_can_be_typed(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: trainyard {' '.join(words)} ")
    command = command_of(words)
    assert command.help
    assert command.help.partition("\n")[0].endswith((".", ":"))
    if not isinstance(command, Command):
        return
    module, _, function = command.run.partition(":")
    assert callable(getattr(importlib.import_module(f"cli.{module}"), function))
    examples = re.split(r"(?<![\w-])trainyard ", " ".join(command.examples))[1:]
    assert examples, "each command has an example"
    for example in examples:
        words_of_it = shlex.split(example.partition(" | ")[0].removesuffix(')"').replace("\\ ", " "))
        assert typed(*words_of_it).run == command.run
        assert " ".join(example.split()) in " ".join(said.split())


def test_choices_are_the_values_that_the_service_knows() -> None:
    assert set(STATES) == {state.value for state in State}
    assert set(BY) == {by.value for by in By} | {BY_DAY}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["tenannt", "list"], "Did you mean 'tenant'?"),
        (["costs", "report", "--mnth", "2026-11"], "Did you mean '--month'?"),
        (["tenant", "creat"], "Did you mean 'create'?"),
        (["costs", "budgts"], "Did you mean 'budgets'?"),
        (["models", "aprove", "acme", "3"], "Did you mean 'approve'?"),
        (["policy"], "Usage: trainyard policy"),
        (["request"], "Missing argument 'REQUEST'"),
        (["requests", "--limit", "0"], "0 is not in the range"),
        (["prices", "update", "--volume-gb-month", "\x1b[31m"], r"\x1b[31m"),
        (["\x1b]0;title\x07"], r"\x1b]0;title\x07"),
        ([], "Usage: trainyard"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_was_meant(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = "".join(capsys.readouterr())
    assert hint in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], None),
        (["--clear-hyperparameters"], {}),
        (["--hyperparameter", "max_iter=9"], {"max_iter": 9}),
        (["--clear-hyperparameters", "--hyperparameter", "max_iter=9"], {"max_iter": 9}),
    ],
)
def test_hyperparameters_are_kept_cleared_or_replaced(words: list[str], asked: dict[str, Any] | None) -> None:
    assert _entry(typed("tenant", "update", "acme", *words).arguments).get("hyperparameters") == asked


def test_a_hyperparameter_keeps_its_type() -> None:
    pairs = [hyperparameter(text) for text in ("max_iter=200", "alpha=0.5", "solver=lbfgs", "warm_start=true")]
    assert dict(pairs) == {"max_iter": 200, "alpha": 0.5, "solver": "lbfgs", "warm_start": True}
    with pytest.raises(Refused, match="write NAME=VALUE"):
        hyperparameter("max_iter")


def test_a_data_sets_settings_name_only_what_differs() -> None:
    name, settings = _data_set("sales:target=revenue,train_on=whole-prefix")
    assert (name, settings) == ("sales", {"target": "revenue", "train_on": "whole-prefix"})
    with pytest.raises(Refused, match="write NAME:KEY=VALUE"):
        _data_set("sales:colour=red")


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "apply", "--yes", "/no/such/policy.yaml", "--dry-run"]) == 1
    assert "/no/such/policy.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "run"),
    [
        (["models", "acme"], "models:list_models"),
        (["--json", "models", "acme"], "models:list_models"),
        (["models", "--json", "acme"], "models:list_models"),
        (["models", "fetch", "acme", "1"], "models:fetch"),
        (["models", "--json", "approve", "acme", "1"], "models:approve"),
        (["models", "list", "list"], "models:list_models"),
        (["costs"], "costs:report"),
        (["costs", "--by", "tenant"], "costs:report"),
        (["--stack", "s", "costs", "budgets"], "costs:budgets"),
        (["costs", "--stack", "budgets", "budgets"], "costs:budgets"),
        (["costs", "--month", "2026-11"], "costs:report"),
        (["costs", "--by", "tier", "--json"], "costs:report"),
        (["retrain", "acme", "--data-set", "costs"], "retraining:retrain"),
        (["upload", "models", "costs"], "tenants:upload"),
        (["--stack", "costs", "status"], "status:status"),
        (["cancel", "0124550c"], "stopping:stop"),
    ],
)
def test_models_of_a_tenant_and_costs_need_no_verb(given: list[str], run: str) -> None:
    assert typed(*given).run == run


DEPLOYED = {
    "AllowedInstanceTypes": "ml.t3.*,ml.m5.large,ml.m5.xlarge",
    "JobRuntimeMaxSeconds": "3600",
    "TrainingTypesMax": "5",
    "SpotTraining": "true",
}


def allowed(outputs: dict[str, str]) -> JobLimits:
    """Return what a deployment with these outputs allows."""
    described = Deployment.job_limits.fget  # type: ignore[attr-defined]
    return cast(JobLimits, described(SimpleNamespace(outputs=outputs)))


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
    allowed(DEPLOYED).check(wanted)
    with pytest.raises(Refused, match=reason):
        allowed(DEPLOYED | deployed).check(wanted)


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
    lines = list(_not_waiting(ended, step=step(started_at=NOW)))
    assert lines[-1].endswith(f"trainyard request {ended.request_id[:8]}")
    commands = [line.partition("trainyard ")[2].split() for line in lines if "trainyard " in line]
    for command in commands:
        words = command[:2] if command[0] == "request" else command
        assert typed(*words).run
    assert any(command[:1] == ["logs"] for command in commands) is (state is State.RUNNING)
    if state in (State.FAILED, State.REJECTED):
        assert "there is no column 'y'" in lines[0]
        assert any(command[0] == "retrain" for command in commands) is (state is State.FAILED)


def test_every_command_has_a_schema_of_what_it_prints_as_json() -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs/cli.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    commands = {" ".join(words) for words in leaves() if isinstance(command_of(words), Command)}
    shared = {name for name in schema["$defs"] if name.startswith(("a ", "an "))}
    assert set(schema["$defs"]) - shared == commands - {"logs", "top"}
    expedited = {field.name for field in fields(Expedited)}
    assert set(schema["$defs"]["expedite"]["required"]) == expedited, "which no end-to-end test prints"


@pytest.mark.parametrize(
    ("path", "described"),
    [
        (("a request",), Request),
        (("a request", "result"), Outcome),
        (("an algorithm",), Algorithm),
    ],
)
def test_what_may_be_unknown_may_be_null_in_the_schema(path: tuple[str, ...], described: type[Any]) -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs/cli.schema.json").read_text(encoding="utf-8"))
    part = schema["$defs"][path[0]]
    for name in path[1:]:
        part = part["properties"][name]
    optional = {name for name, hint in get_type_hints(described).items() if type(None) in get_args(hint)}
    checked = optional & set(part["properties"]) - {"notes"}  # printed as a list of lines, which may be empty
    assert checked
    never_null = {
        name for name in checked if not jsonschema.Draft202012Validator(part["properties"][name]).is_valid(None)
    }
    assert never_null == set()
