"""trainyard: run the service from a terminal.

The flow of a command: `main` reads what was typed against the syntax, `perform` runs the command's function and
prints its answer, and whatever goes wrong comes back here to be said in one line, with an exit code.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli.arguments import Arguments
from cli.codes import BROKEN_PIPE, DONE, INTERRUPTED, REFUSED, USAGE
from cli.syntax import costs, requests, service, tenants
from cli.syntax.command import STACK, Group, Performer, argument, choice
from cli.text import say, tolerate
from cli.version import version

if TYPE_CHECKING:
    from cli.deployment import Deployment
    from cli.show import Answer

EXAMPLES = (
    "trainyard tenant create acme --tier premium --target churned",
    "trainyard check churn.csv --target churned",
    "trainyard upload acme churn.csv --data-set churn",
    "trainyard requests acme",
    "trainyard why 0124550c",
    "trainyard models acme",
    "trainyard costs --by tier --month 2026-11",
    "trainyard simulate --policy candidate.yaml",
    "trainyard pause tenant acme",
)
NOTES = (
    f"The deployment is selected by its stack: --stack NAME, else TRAINYARD_STACK, else {STACK}. Credentials and "
    "Region come from the AWS SDK's environment.",
    "Exit codes: 0 done; 1 refused, with the reason; 2 mistyped; 3 no deployment, no credentials or no "
    "connection; 4 the training did not succeed (--wait); 130 interrupted; 141 the reader of the output left.",
)


def _completion(ctx: click.Context, parameter: click.Parameter, shell: str) -> None:
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, shell
    print(made(TRAINYARD, {}, "trainyard", COMPLETION_VARIABLE).source())
    ctx.exit()


COMPLETION_VARIABLE = "_TRAINYARD_COMPLETE"
"""Set by a shell that asks for completions."""
COMPLETION = click.Command(
    "completion",
    params=[argument("shell", "bash|zsh|fish", type=choice("bash", "zsh", "fish"), callback=_completion)],
    help="Print a script that completes commands and options; put it into the shell's start-up file as:\n\n"
    '    eval "$(trainyard completion bash)"',
)


def _version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        print(f"trainyard {version()}")
        ctx.exit()


TRAINYARD = Group(
    "trainyard",
    tenants.TENANT,
    tenants.ALGORITHM,
    tenants.WAVE,
    *requests.COMMANDS,
    *service.COMMANDS,
    costs.COSTS,
    costs.PRICES,
    COMPLETION,
    help="Run the training scheduler from a terminal.",
    examples=EXAMPLES,
    notes=NOTES,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version.",
        )
    ],
)


class _Printed(Performer):
    """Carries a command out, and prints what it answers or why it failed."""

    def perform(self, run: str, stack: str, arguments: Arguments, as_json: bool) -> int:
        from cli.perform import perform

        return perform(run, stack, arguments, as_json=as_json)


class _Answered(Performer):
    """Carries a command out on a deployment, and hands over what it answers."""

    def __init__(self, deployment: "Deployment") -> None:
        self.deployment = deployment

    def perform(self, run: str, stack: str, arguments: Arguments, as_json: bool) -> "Answer | None":
        from cli.perform import call

        return call(run, self.deployment, arguments)


def answer(deployment: "Deployment", *words: str) -> "Answer | None":
    """Return what a command answers about a deployment, without printing it; raises its errors."""
    with TRAINYARD.make_context("trainyard", list(words), obj=_Answered(deployment)) as context:
        answered: Answer | None = TRAINYARD.invoke(context)
    return answered


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    tolerate()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        return _left(BROKEN_PIPE)
    except OSError as error:
        say(f"trainyard: the output could not be written: {error.strerror}; what the command did stays done")
        return _left(REFUSED)
    return code


def _run(arguments: list[str]) -> int:
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(TRAINYARD, {}, "trainyard", COMPLETION_VARIABLE, instruction)
    try:
        with TRAINYARD.make_context("trainyard", arguments, obj=_Printed()) as context:
            return int(TRAINYARD.invoke(context) or DONE)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return USAGE
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.UsageError as error:
        say(f"trainyard: {error.format_message()}")
        if error.ctx is not None:
            say(f"usage: {' '.join(error.ctx.get_usage().removeprefix('Usage: ').split())}")
            say(f"see: {error.ctx.command_path} --help")
        return USAGE
    except KeyboardInterrupt:
        say("trainyard: interrupted")
        return INTERRUPTED


def _left(code: int) -> int:
    """Return the code, once nothing more is written to the standard output, not even by the interpreter."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
