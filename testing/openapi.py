"""Write docs/openapi.json from the routes of its functions (make openapi)."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs/openapi.json"


FUNCTIONS = ("api", "operations")


def _loaded(function: str) -> ModuleType:
    path = ROOT / f"functions/{function}/app.py"
    specification = importlib.util.spec_from_file_location(f"{function}_app", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def described() -> str:
    """Return the description of the HTTP API in OpenAPI 3.1."""
    api: dict[str, Any] = {}
    for function in FUNCTIONS:
        app = _loaded(function).app
        part = json.loads(app.get_openapi_json_schema(title="Trainyard", version="1"))
        api = api or part
        api["paths"] |= part["paths"]
        api["components"]["schemas"] |= part["components"]["schemas"]
    api["servers"] = [{"url": "{address}", "variables": {"address": {"default": "https://example.com"}}}]
    for path in api["paths"].values():
        for operation in path.values():
            for status in ("204", "304"):
                operation["responses"].get(status, {}).pop("content", None)
            of_powertools = json.dumps(operation["responses"].get("422", ""))
            if "HTTPValidationError" in of_powertools:
                del operation["responses"]["422"]  # such errors are 400 here
    components = api.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    receipt = json.loads((ROOT / "docs/receipt.schema.json").read_text(encoding="utf-8"))
    receipt["properties"].pop("written_at")
    receipt["required"].remove("written_at")
    schemas["Receipt"] = {name: value for name, value in receipt.items() if not name.startswith("$")}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    api["security"] = [{"token": []}]
    return json.dumps(api, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(described(), encoding="utf-8")
    sys.exit(0)
