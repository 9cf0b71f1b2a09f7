"""What was given on the command line."""

from types import SimpleNamespace


class Arguments(SimpleNamespace):
    """A command's arguments and options by name: `--data-set` is `data_set`; None or empty where not given."""
