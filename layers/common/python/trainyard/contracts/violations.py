"""What is wrong with a document, in plain words: pydantic's violations as sentences for the sender.

Types of violations: pydantic documentation, "Validation Errors".
"""

from collections.abc import Mapping
from typing import Any

_TYPES = {
    "bool": "must be true or false",
    "date": "must be a date, for example 2026-11-20",
    "datetime": "must be a date and time, for example 2026-11-20T08:00:00Z",
    "decimal": "must be a number",
    "dict": "must be a mapping",
    "float": "must be a number",
    "int": "must be a whole number",
    "list": "must be a list",
    "mapping": "must be a mapping",
    "model": "must be a mapping",
    "string": "must be text",
    "tuple": "must be a list",
}
"""The beginning of a violation's type, as far as its first "_" → what the value must be."""

_KINDS = {
    "enum": "must be {expected}",
    "extra_forbidden": "is unknown; check the spelling",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "json_invalid": "is not valid JSON",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "timezone_aware": "must have a time zone, for example 2026-11-20T08:00:00Z",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "union_tag_invalid": "must have {discriminator} set to one of {expected_tags}",
    "union_tag_not_found": "must have a field {discriminator}",
}
"""Type of a violation → what is wrong; in braces the limit, as pydantic's context names it."""


def reason_of(violation: Mapping[str, Any]) -> str:
    """Return what is wrong with one value, such as "must be at least 1"; never the value itself."""
    kind = str(violation["type"])
    if kind in ("value_error", "assertion_error"):  # a validator of our own, with words of its own
        return str(violation["msg"]).partition(", ")[2]
    if kind in _KINDS:
        limits = {name: str(limit).replace("'", "") for name, limit in violation.get("ctx", {}).items()}
        reason = _KINDS[kind].format_map(_Limits(limits))
        return reason.replace(" 1 characters", " 1 character").replace(" 1 entries", " 1 entry")
    return _TYPES.get(kind.partition("_")[0], "is invalid")


class _Limits(dict[str, str]):
    """The limits of a violation; one that is not told reads as "another value"."""

    def __missing__(self, name: str) -> str:
        return "another value"
