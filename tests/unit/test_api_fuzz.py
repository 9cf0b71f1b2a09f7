"""The HTTP API under calls that schemathesis makes up from its description: no answer of 5xx, none undescribed."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.build import after
from tests.http_api import OPERATIONS, Api, wsgi
from trainyard.domain.requests import State

DESCRIBED = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api(monkeypatch)
    for number in range(1, 4):
        api.enlist(number, data_set=f"d{number}")
        api.register(number)
    api.put(9, state=State.FAILED, finished_at=after(9))
    return api


@pytest.mark.parametrize("calls", [6, pytest.param(200, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in OPERATIONS])
def test_no_call_breaks_the_api_or_is_answered_in_another_way_than_described(
    api: Api, method: str, path: str, mode: GenerationMode, calls: int
) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", wsgi(api, "operators"))

    @seed(7)
    @settings(
        max_examples=calls,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def call(case: "Case[Any]") -> None:
        case.path_parameters = {**(case.path_parameters or {}), **of_acme(case)}
        response = case.call()
        assert response.status_code < 500, (case.as_curl_command(), response.text)
        case.validate_response(response, checks=DESCRIBED)

    call()


def of_acme(case: "Case[Any]") -> dict[str, Any]:
    """Return that a call is about a tenant that exists, so that it is not refused for that alone."""
    return {"tenant_id": "acme"} if "{tenant_id}" in case.path else {}
