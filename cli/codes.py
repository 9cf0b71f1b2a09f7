"""Exit codes: the same for every command."""

DONE = 0
REFUSED = 1
"""Refused or failed, for the reason that was printed; nothing more happens."""
USAGE = 2
"""Mistyped: no such command, option or value."""
UNREACHABLE = 3
"""No deployment of that name, no credentials that AWS accepts, or no connection."""
UNSUCCESSFUL = 4
"""What was waited for ended, and not well."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells count."""
BROKEN_PIPE = 141
"""The reader of the output left: 128 + SIGPIPE."""
