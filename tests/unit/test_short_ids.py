"""A request is named by any beginning of its id that no other has, as a commit is in git."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli.deployment import Deployment
from tests.build import request
from trainyard.domain.errors import Refused

IDS = ["0124550c" + "0" * 24, "0124550d" + "0" * 24, "abcd" + "1" * 28]


class Requests:
    def get(self, request_id: str) -> Any:
        return request(request_id=request_id) if request_id in IDS else None

    def ids_beginning(self, beginning: str, *, limit: int) -> list[str]:
        return [i for i in IDS if i.startswith(beginning)][:limit]


class OfThree(Deployment):
    @property
    def scheduler(self) -> Any:
        return cast(Any, SimpleNamespace(tables=SimpleNamespace(requests=Requests())))


@pytest.mark.parametrize("name", [IDS[0], "0124550c", "0124550C", IDS[0][:9]])
def test_a_beginning_that_one_request_has_names_it(name: str) -> None:
    assert OfThree("s").request(name).request_id == IDS[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("0124550", f"several requests begin with '0124550': {IDS[0]}, {IDS[1]}; write more"),
        ("ffff", "none that begins with it"),
        ("f" * 32, "none that begins with it"),
        ("abc", "at least 4"),
        ("acme", "not the id of a request"),
        ("", "not the id of a request"),
        ("0" * 33, "not the id of a request"),
        ("\x1b[31m", "not the id of a request"),
    ],
)
def test_a_name_that_no_request_or_several_have_is_refused_with_what_to_write(name: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason.replace("(", "\\(")):
        OfThree("s").request(name)
