"""The console and the HTTP API on loopback, over memory: for what the local cloud would take long for."""

from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.http_api import Api, wsgi
from tests.loopback import listening
from tests.unit.test_functions import Context, load


class ConsoleServer:
    """Answers as API Gateway does, to users of one group; what a test sets fails."""

    def __init__(self, api: Api, group: str) -> None:
        self.api, self.group = api, group
        self.console = load("console")
        self.status: int | None = None
        """With which calls of the API are answered, instead of what they ask for."""
        self.calls: list[str] = []
        self.keys: list[str] = []
        """Of the calls that had one, their idempotency keys."""
        self.address = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path == "/console" or path.startswith("/console/"):
            return self._file(path.removeprefix("/console").removeprefix("/"), environ, start_response)
        self.calls.append(f"{environ['REQUEST_METHOD']} {path}")
        self.keys += [environ["HTTP_IDEMPOTENCY_KEY"]] if "HTTP_IDEMPOTENCY_KEY" in environ else []
        if self.status is not None:
            start_response(f"{self.status} -", [("Content-Type", "application/json")])
            return [b'{"message": "-"}']
        return wsgi(self.api, self.group)(environ, start_response)

    def _file(self, name: str, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        headers = {"accept-encoding": environ.get("HTTP_ACCEPT_ENCODING", "")}
        event = {"pathParameters": {"file": name}, "headers": headers}
        event["requestContext"] = {"http": {"method": "GET"}}
        answer = self.console.handler(event, Context())
        start_response(f"{answer['statusCode']} -", list(answer["headers"].items()))
        return [b64decode(answer["body"]) if answer.get("isBase64Encoded") else answer["body"].encode()]


@contextmanager
def serving(server: ConsoleServer) -> Iterator[ConsoleServer]:
    """Let it listen on loopback."""
    with listening(server) as server.address:
        yield server
