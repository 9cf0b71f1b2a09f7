"""The kinds of command: each with its examples, the options that all have, and its code imported when it runs.

Nothing here imports the AWS SDK, so that help, completion and a mistyped command are answered at once.
"""

import os
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from cli.arguments import Arguments
from cli.text import printable

STACK = "trainyard-dev"
ALIASES = {"cancel": "stop"}
"""What people type of other schedulers → our command."""

HELP_NAMES = ["-h", "--help"]
SETTINGS = {"help_option_names": HELP_NAMES, "max_content_width": 110}


class Performer:
    """Carries commands out: "module:function" on a stack with arguments, whether JSON is wanted or not."""

    def perform(self, run: str, stack: str, arguments: Arguments, as_json: bool) -> Any:
        raise NotImplementedError


class _Documented(click.Command):
    """A command whose help ends with examples, as they are typed."""

    examples: Sequence[str] = ()
    notes: Sequence[str] = ()

    def get_help_option(self, ctx: click.Context) -> click.Option:
        return click.Option(
            HELP_NAMES, is_flag=True, is_eager=True, expose_value=False, callback=_help, help="Print this help."
        )

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first paragraph of the help, uncut: a list of commands wraps it."""
        return (self.help or "").partition("\n\n")[0]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            formatter.write_paragraph()
            formatter.write("Examples:\n")
            for example in self.examples:
                formatter.write(f"  {example}\n")
        for note in self.notes:
            formatter.write_paragraph()
            formatter.write_text(note)


class Command(_Documented):
    """A command; `run` names the function that carries it out, as "module:function" of the package `cli`.

    The function takes a Deployment and Arguments. It returns an Answer, which is printed; or None, when it has
    printed what there was to print.
    """

    def __init__(
        self,
        name: str,
        run: str,
        *params: click.Parameter,
        help: str,
        examples: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(name, params=[*params, *_common()], help=help, context_settings=SETTINGS)
        self.run, self.examples, self.notes = run, examples, notes

    def invoke(self, ctx: click.Context) -> Any:
        """Carry the command out, by the function that the context was made with."""
        carry_out = ctx.find_object(Performer)
        assert carry_out is not None, "the context was made without a way to perform commands"
        as_json = bool(ctx.meta.get("json"))
        return carry_out.perform(self.run, stack_of(ctx), Arguments(**ctx.params, as_json=as_json), as_json)


class Group(_Documented, click.Group):
    """A command with actions; `default` is the action where none is named."""

    def __init__(
        self,
        name: str,
        *commands: click.Command,
        help: str,
        default: str = "",
        examples: Sequence[str] = (),
        notes: Sequence[str] = (),
        params: Sequence[click.Parameter] = (),
    ) -> None:
        super().__init__(
            name, {str(command.name): command for command in commands}, params=[*params, *_common()], help=help
        )
        self.context_settings = SETTINGS
        self.default, self.examples, self.notes = default, examples, notes
        self.no_args_is_help = not default

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are needed, not in the alphabet's."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.default:
            default = self.commands[self.default]
            words = words_of(args, default)
            helped = any(argument in HELP_NAMES for argument in args)
            if words and words[0] not in self.commands and len(words) > _takes(default):
                raise click.NoSuchCommand(words[0], possibilities=self.commands, ctx=ctx)
            if words[:1] not in [[name] for name in self.commands] and not (helped and not words):
                args = [self.default, *args]
        return super().parse_args(ctx, args)


def words_of(args: Sequence[str], command: click.Command) -> list[str]:
    """Return the arguments that are neither options of a command nor the values of options."""
    valued = {
        name
        for param in command.params
        if isinstance(param, click.Option) and not param.is_flag
        for name in param.opts
    }
    words, skip = [], False
    for argument in args:
        if skip:
            skip = False
        elif argument in valued:
            skip = True
        elif not argument.startswith("-"):
            words.append(argument)
    return words


def _takes(command: click.Command) -> int:
    """Return how many words a command takes at most."""
    return sum(isinstance(param, click.Argument) for param in command.params)


def stack_of(ctx: click.Context) -> str:
    return str(ctx.meta.get("stack") or os.environ.get("TRAINYARD_STACK") or STACK)


def _help(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    """Print the help as all else is printed: click's own way forces UTF-8 on terminals that lack it."""
    if asked and not ctx.resilient_parsing:
        print(ctx.get_help())
        ctx.exit()


def _common() -> list[click.Parameter]:
    """Return the options that stand before or behind every command."""
    return [
        click.Option(
            ["--stack"],
            metavar="NAME",
            expose_value=False,
            callback=_remember,
            help=f"The deployment's stack (default: TRAINYARD_STACK, else {STACK}).",
        ),
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_remember, help="Print JSON instead of tables."
        ),
    ]


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        ctx.meta[str(parameter.name)] = value


# --- parameters -----------------------------------------------------------------------------------------------


def argument(name: str, metavar: str | None = None, *, required: bool = True, **more: Any) -> click.Argument:
    return click.Argument([name], metavar=metavar or name.upper(), required=required, **more)


def option(*names: str, help: str = "", **more: Any) -> click.Option:
    return click.Option(list(names), help=help, **more)


def flag(*names: str, help: str, **more: Any) -> click.Option:
    return click.Option(list(names), is_flag=True, help=help, **more)


def path() -> click.Path:
    return click.Path(path_type=Path)


def choice(*values: str) -> click.Choice[str]:
    return click.Choice(values)


class Price(click.ParamType[Decimal]):
    """A price in US dollars, above 0."""

    name = "USD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            price = Decimal(str(value))
        except InvalidOperation:
            price = Decimal(0)
        if not price.is_finite() or price <= 0:
            self.fail(f"{printable(str(value))!r} is not a price: write it as 0.14", param, ctx)
        return price
