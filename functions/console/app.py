"""Console: the files of the page in which tenants and operators see and do what the HTTP API can.

Anybody may fetch them: they hold no data, and the function has no rights. What a user sees comes from the HTTP
API, with the user's own token.
"""

import base64
import gzip
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
PAGE, SETTINGS = "index.html", "settings.json"


def handler(event: dict[str, Any], _: object) -> dict[str, Any]:
    """Return a file, as a payload of format 2.0 of API Gateway."""
    if event["requestContext"]["http"]["method"] == "OPTIONS":
        return {"statusCode": 204}  # API Gateway adds what a page of another origin may do
    name = (event.get("pathParameters") or {}).get("file") or ""
    body = _content(name)
    if body is None:
        return {"statusCode": 404, "headers": _headers(".json"), "body": json.dumps({"message": "Not Found"})}
    sent = event.get("headers") or {}
    headers = {**_headers(Path(name or PAGE).suffix), "ETag": f'W/"{_digest(body)}"'}
    if _digest(body) in sent.get("if-none-match", ""):
        return {"statusCode": 304, "headers": headers}
    if "gzip" in sent.get("accept-encoding", ""):
        headers["Content-Encoding"], body = "gzip", _compressed(body)
    return {
        "statusCode": 200,
        "headers": headers,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


@cache
def _files() -> dict[str, bytes]:
    """Return all files by their names below the folder: whatever a caller names is only looked up here."""
    files = (path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES)
    return {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in files}


@cache
def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


@cache
def _version() -> str:
    return _digest(b"".join(_files().values()))


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _content(name: str) -> bytes | None:
    """Return what a name below /console stands for, or None; the page itself has none: its links begin there."""
    if name == SETTINGS:
        return json.dumps(_settings()).encode()
    return _files().get(name or PAGE) if name != PAGE else None


def _settings() -> dict[str, str]:
    """Return where users sign in, and the client's id there; at another issuer than Cognito, the console may have
    none. The version is that of the files: by it, a page that is open notices that another one was deployed.
    """
    issuer = os.environ["TRAINYARD_ISSUER"]
    return {
        "client": os.environ["TRAINYARD_USERS_CLIENT"],
        "issuer": issuer,
        "users": "" if issuer else _users_address(),
        "version": _version(),
    }


def _sign_in_origin() -> str:
    """Return where the page may sign users in."""
    issuer = urlsplit(os.environ["TRAINYARD_ISSUER"])
    return f"{issuer.scheme}://{issuer.netloc}" if issuer.netloc else _users_address()


def _users_address() -> str:
    """Return where Cognito answers; the SDKs' variable says where a substitute for AWS does."""
    region, suffix = os.environ["AWS_REGION"], os.environ["TRAINYARD_URL_SUFFIX"]
    return os.environ.get("AWS_ENDPOINT_URL") or f"https://cognito-idp.{region}.{suffix}"


def _storage_addresses() -> str:
    """Return where the buckets of tenants answer: files are put there directly."""
    region, suffix = os.environ["AWS_REGION"], os.environ["TRAINYARD_URL_SUFFIX"]
    # In this Region alone, SDKs sign addresses without its name.
    return f"https://*.s3.{suffix}" if region == "us-east-1" else f"https://*.s3.{region}.{suffix}"


def _headers(suffix: str) -> dict[str, str]:
    return {
        "Content-Type": TYPES[suffix],
        # Revalidated before each use, which costs an answer without a body.
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {_sign_in_origin()} {_storage_addresses()}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; trusted-types 'none'; "
        "require-trusted-types-for 'script'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=31536000",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
    }
