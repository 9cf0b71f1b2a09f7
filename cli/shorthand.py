"""Commands that people write shorter than they are."""

from collections.abc import Sequence

MODEL_ACTIONS = ("list", "approve", "reject", "fetch")
HELP = ("-h", "--help")
COST_ACTIONS = ("report", "budgets", "estimates", "statement", "export", "tags", "reconcile")


def written_out(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `models TENANT` written out as `models list TENANT`, `costs` as `costs report`."""
    written, at = list(arguments), _command_at(arguments)
    if at is None:
        return written
    behind = at + 1
    if written[at] == "costs" and written[behind : behind + 1] not in [[name] for name in (*COST_ACTIONS, *HELP)]:
        written.insert(behind, "report")
    if written[at] == "models" and len(written) > behind and written[behind] not in (*MODEL_ACTIONS, *HELP):
        written.insert(behind, "list")
    return written


def _command_at(arguments: Sequence[str]) -> int | None:
    """Return the position of the command: the first word that is neither an option nor an option's value."""
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        position += 2 if arguments[position] == "--stack" else 1
    return position if position < len(arguments) else None
