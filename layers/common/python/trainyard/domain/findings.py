"""Findings: what is wrong with a deployment, or will be, and what to do about it."""

from dataclasses import dataclass

GOOD, WARNING, BAD, UNKNOWN = "ok", "warning", "BAD", "unknown"
"""Results of a check."""


@dataclass(frozen=True)
class Finding:
    """What a check found; a remedy unless all is well."""

    check: str
    result: str
    text: str
    remedy: str = ""
