"""An OpenID Connect issuer on loopback, as strict as the specifications: for signing in elsewhere than at Cognito.

Sources: OpenID Connect Core 1.0, section 3.1; RFC 6749, sections 4.1 and 6; RFC 7636, section 4.6; RFC 7009.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

from tests.loopback import listening

SHARED = [("Access-Control-Allow-Origin", "*")]
NEEDED = ("response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge")


def _encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def id_token(**claims: Any) -> str:
    """Return a token that nobody has signed: API Gateway would refuse it."""
    header, payload = ({"alg": "RS256", "kid": "k"}, {"sub": "s", "iat": 1000, "exp": 2800} | claims)
    return f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(payload).encode())}.c2ln"


class Issuer:
    """Signs in whoever follows the link on its page."""

    def __init__(self) -> None:
        self.address = ""
        self.client = "console"
        self.codes: dict[str, dict[str, str]] = {}
        """Code → what it was asked for with."""
        self.refresh_tokens: set[str] = set()
        self.grants: list[str] = []
        self.prompts: list[str | None] = []
        self.nonce: str | None = None
        """In the place of the one that was asked for."""
        self.token_address: str | None = None
        """In the place of its own."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(sent).items()}
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        if environ["PATH_INFO"] == "/favicon.ico":
            start_response("204 No Content", [])
            return []
        routes: dict[str, Callable[[dict[str, str]], tuple[str, Any]]] = {
            "/.well-known/openid-configuration": self._described,
            "/authorize": self._authorize,
            "/token": self._token,
            "/revoke": self._revoke,
        }
        route = routes.get(environ["PATH_INFO"])
        status, answer = route(form or query) if route else ("404 Not Found", {})
        kind = "text/html" if isinstance(answer, str) else "application/json"
        start_response(status, [("Content-Type", kind), *SHARED])
        return [answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()]

    def _described(self, _: dict[str, str]) -> tuple[str, Any]:
        return "200 OK", {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": self.token_address or f"{self.address}/token",
            "revocation_endpoint": f"{self.address}/revoke",
            "scopes_supported": ["openid", "email", "profile", "offline_access"],
        }

    def _authorize(self, query: dict[str, str]) -> tuple[str, Any]:
        missing = [name for name in NEEDED if not query.get(name)]
        wrong = query.get("code_challenge_method") != "S256" or query.get("client_id") != self.client
        if missing or wrong or "openid" not in query["scope"].split():
            return "400 Bad Request", f"<p>refused: {missing}</p>"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        self.prompts.append(query.get("prompt"))
        back = query["redirect_uri"]
        signed_in = urlencode({"code": code, "state": query["state"]})
        denied = urlencode({"error": "access_denied", "error_description": "no <b>", "state": query["state"]})
        return "200 OK", f'<a href="{back}?{signed_in}">Ada</a> <a href="{back}?{denied}">Nobody</a>'

    def _token(self, form: dict[str, str]) -> tuple[str, Any]:
        kind = form.get("grant_type", "")
        self.grants.append(kind)
        if form.get("client_id") != self.client:
            return "401 Unauthorized", {"error": "invalid_client"}
        if kind == "refresh_token":
            if form.get("refresh_token") not in self.refresh_tokens:
                return "400 Bad Request", {"error": "invalid_grant"}
            return "200 OK", {"id_token": id_token(renewed=len(self.grants)), "expires_in": 1}
        asked = self.codes.pop(form.get("code", ""), None)  # a code is good for once
        verifier = _encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        is_right = asked and (asked["code_challenge"], asked["redirect_uri"]) == (verifier, form["redirect_uri"])
        if not asked or not is_right:
            return "400 Bad Request", {"error": "invalid_grant", "error_description": "the code is not valid"}
        refresh = f"refresh-{len(self.refresh_tokens)}"
        self.refresh_tokens.add(refresh)
        token = id_token(nonce=self.nonce or asked["nonce"])
        return "200 OK", {"id_token": token, "refresh_token": refresh, "token_type": "Bearer"}

    def _revoke(self, form: dict[str, str]) -> tuple[str, Any]:
        self.refresh_tokens.discard(form.get("token", ""))
        return "200 OK", {}


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Let it listen on loopback."""
    issuer = Issuer()
    with listening(issuer) as issuer.address:
        yield issuer
