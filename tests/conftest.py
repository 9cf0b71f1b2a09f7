"""The environment, set before anything is imported: Powertools reads it when a handler module is imported."""

import os
from typing import Any

from botocore.loaders import JSONFileLoader

from local.sagemaker.interpreter import described, is_images
from testing.browser import CHROMIUM, MISSING

os.environ |= {
    "POWERTOOLS_METRICS_NAMESPACE": "Trainyard",
    "POWERTOOLS_SERVICE_NAME": "trainyard-tests",
    "POWERTOOLS_LOG_LEVEL": "WARNING",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "123456789012",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "TRAINYARD_DEBUG": "1",
}
for name in (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SAGEMAKER",
    "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME",
    "AWS_ENDPOINT_URL_SERVICE_QUOTAS",
    "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
):
    os.environ.pop(name, None)


def pytest_report_header() -> str:
    return described()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say it at the end too, where a quiet run prints no header."""
    if not is_images():
        terminalreporter.write_line(described(), yellow=True)
    if CHROMIUM is None:
        terminalreporter.write_line(MISSING, yellow=True)


_load_file = JSONFileLoader.load_file
_loaded: dict[str, Any] = {}


def _load_once(loader: JSONFileLoader, file_path: str) -> Any:
    """Read each of botocore's service models once, not once for every test that makes clients of its own."""
    if file_path not in _loaded:
        _loaded[file_path] = _load_file(loader, file_path)
    return _loaded[file_path]


JSONFileLoader.load_file = _load_once
