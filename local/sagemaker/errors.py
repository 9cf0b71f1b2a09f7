"""Error responses of the local SageMaker."""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An error response of the API; `more` are fields of it beside the message."""

    def __init__(self, code: str, message: str, status: int = 400, more: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.status, self.more = code, status, dict(more or {})
