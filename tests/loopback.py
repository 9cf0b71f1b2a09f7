"""A WSGI application that listens on loopback, as a context manager."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def listening(application: Callable[..., Any]) -> Iterator[str]:
    """Answer calls on a free port until the context ends, and yield the address: `http://127.0.0.1:<port>`."""
    http = make_server("127.0.0.1", 0, application, request_handler=_Quiet)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
