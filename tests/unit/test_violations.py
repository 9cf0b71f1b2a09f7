"""Errors in documents are reported in plain words, not in pydantic's."""

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core.core_schema import ErrorType

from trainyard.contracts.arrivals import parse_arrival
from trainyard.contracts.compiled_policy import DEPLOYED
from trainyard.contracts.events import explain
from trainyard.contracts.messages import parse_training_request
from trainyard.contracts.money import parse_billing_command
from trainyard.contracts.policy_file import parse_policy
from trainyard.contracts.price_file import parse_prices
from trainyard.contracts.results import parse_evaluation, parse_profile
from trainyard.contracts.statuses import parse_execution_status, parse_record_step
from trainyard.contracts.tenants import parse_step_command
from trainyard.contracts.violations import reason_of
from trainyard.domain.errors import Malformed, Refused

FOREIGN = re.compile(
    r"[Ii]nput (should|must)|Field required|Value error|should (be|have|match)|Extra inputs|validation error"
    r"|pydantic|Unable to|Invalid JSON|Datetimes|parsing a string"
)
WRONG: tuple[Any, ...] = (None, "x", "", -1, 0, 1.5, 1e400, [], {}, True, "2026-13-40", ["x"], {"x": "y"}, 10**30)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a document, its containers included."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield from places(value, (*path, name))


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a document with another value at one place."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = with_value(copy[path[0]], path[1:], value)
    return copy


def said(parse: Callable[[], Any]) -> str:
    try:
        parse()
    except (Refused, Malformed) as error:
        return str(error)
    return ""


def test_no_value_at_any_place_of_a_policy_is_refused_in_foreign_words() -> None:
    shipped = yaml.safe_load(DEPLOYED.read_text(encoding="utf-8"))
    every = list(places(shipped))
    texts = [
        said(lambda document=document: parse_policy(yaml.safe_dump(document), 1))  # type: ignore[misc]
        for path in every[:: max(1, len(every) // 60)]
        for value in WRONG
        for document in [with_value(shipped, path, value)]
    ]
    assert sum(map(bool, texts)) > 300
    assert [text for text in texts if FOREIGN.search(text) or "is invalid," in text] == []


@pytest.mark.parametrize(
    "parse",
    [
        parse_arrival,
        parse_execution_status,
        parse_training_request,
        lambda text: parse_evaluation(text.encode()),
        lambda text: parse_profile(text.encode()),
        parse_prices,
    ],
)
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"detail-type": 1}', '{"detail-type": "Object Created"}']
)
def test_no_text_is_refused_in_foreign_words(parse: Callable[[str], Any], text: str) -> None:
    words = said(lambda: parse(text))
    assert words
    assert FOREIGN.search(words) is None


@pytest.mark.parametrize("parse", [parse_billing_command, parse_record_step, parse_step_command])
@pytest.mark.parametrize("value", WRONG)
def test_no_command_is_refused_in_foreign_words(parse: Callable[[Any], Any], value: Any) -> None:
    names = ("statement", "export", "RequestId", "Attempt", "ModelPackageArn", "step", "change", "tenant")
    words = said(lambda: parse(dict.fromkeys(names, value)))
    assert FOREIGN.search(words) is None


def test_every_type_of_violation_has_words() -> None:
    for kind in get_args(ErrorType):
        words = reason_of({"type": kind, "msg": "Value error, ours"})
        assert words
        assert FOREIGN.search(words) is None


class Limits(BaseModel):
    count: int = Field(ge=1, le=9, default=1)
    name: str = Field(min_length=2, max_length=3, pattern="^[a-z]+$", default="ab")
    many: list[int] = Field(max_length=1, default=[])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, "count: must be at least 1"),
        ({"count": 10}, "count: must be at most 9"),
        ({"count": "many"}, "count: must be a whole number"),
        ({"name": "a"}, "name: must have at least 2 characters"),
        ({"name": "abcd"}, "name: must have at most 3 characters"),
        ({"name": "AB"}, "name: must match the pattern ^[a-z]+$"),
        ({"many": [1, 2]}, "many: must have at most 1 entry"),
    ],
)
def test_limits_are_named(values: Any, words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(Limits).validate_python(values)
    assert explain(raised.value) == words
