"""The function that returns the files of the console, and what holds of the files themselves."""

import gzip
import json
import re
from base64 import b64decode
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from local.cloud import REPOSITORY
from tests.unit.test_functions import Context, load

PAGE = REPOSITORY / "functions/console/page"
FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
BYTES_MAX = 200_000
"""Of all files together, as they are sent."""


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name, value in {
        "TRAINYARD_USERS_CLIENT": "client",
        "TRAINYARD_ISSUER": "",
        "TRAINYARD_URL_SUFFIX": "amazonaws.com",
        "AWS_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    return load("console")


def fetch(console: ModuleType, name: str | None, **headers: str) -> dict[str, Any]:
    parameters = {} if name is None else {"pathParameters": {"file": name}}
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    event = {**parameters, "headers": sent, "requestContext": {"http": {"method": "GET"}}}
    return dict(console.handler(event, Context()))


def test_each_file_is_returned_with_its_type_and_as_it_is(console: ModuleType) -> None:
    assert b64decode(fetch(console, None)["body"]) == (PAGE / "index.html").read_bytes()
    for path in (each for each in FILES if each.name != "index.html"):
        name = path.relative_to(PAGE).as_posix()
        answer = fetch(console, name, accept_encoding="br, gzip")
        assert answer["statusCode"] == 200, name
        assert answer["headers"]["Content-Encoding"] == "gzip"
        assert gzip.decompress(b64decode(answer["body"])) == path.read_bytes()
        plain = fetch(console, name)
        assert "Content-Encoding" not in plain["headers"]
        assert b64decode(plain["body"]) == path.read_bytes()
        again = fetch(console, name, if_none_match=f"W/{answer['headers']['ETag']}")
        assert (again["statusCode"], again.get("body")) == (304, None)
    assert {path.suffix for path in FILES} <= set(console.TYPES)


@pytest.mark.parametrize(
    "name",
    [
        "../app.py",
        "../page/index.html",
        "/etc/passwd",
        "views",
        "",
        ".",
        "index.html",
        "index.html/",
        "views/../index.html",
        "x\x00",
        "a" * 9000,
    ],
)
def test_nothing_else_is_returned(console: ModuleType, name: str) -> None:
    answer = fetch(console, name)
    if name == "":
        assert answer["statusCode"] == 200, "the page itself"
    else:
        assert (answer["statusCode"], answer["body"]) == (404, '{"message": "Not Found"}')
        assert "Content-Security-Policy" in answer["headers"]


def test_the_page_can_run_its_own_scripts_and_talk_to_the_deployment_alone(console: ModuleType) -> None:
    headers = fetch(console, None)["headers"]
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy.pop("connect-src").split() == [
        "'self'",
        "https://cognito-idp.eu-west-1.amazonaws.com",
        "https://*.s3.eu-west-1.amazonaws.com",
    ]
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "trusted-types": "'none'",
        "require-trusted-types-for": "'script'",
    }
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-cache", "no-referrer")


def test_settings_say_how_to_sign_in_and_hold_no_secret(
    console: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.loads(b64decode(fetch(console, "settings.json")["body"]))
    version = settings.pop("version")
    assert re.fullmatch("[0-9a-f]{32}", version)
    assert settings == {
        "client": "client",
        "issuer": "",
        "users": "https://cognito-idp.eu-west-1.amazonaws.com",
    }
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert json.loads(b64decode(fetch(console, "settings.json")["body"]))["users"] == "http://127.0.0.1:4566"


def test_another_version_of_any_file_is_another_version_of_the_console(
    console: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = console._version()
    files = dict(console._files())
    for name in files:
        console._version.cache_clear()
        monkeypatch.setattr(console, "_files", lambda changed=name: files | {changed: files[changed] + b" "})
        assert console._version() != first, name


def test_all_files_together_are_small(capsys: pytest.CaptureFixture[str]) -> None:
    sent = {path: len(gzip.compress(path.read_bytes())) for path in FILES}
    with capsys.disabled():
        print(f"\nthe console has {len(sent)} files, {sum(sent.values()) / 1000:.0f} kB compressed")
    assert sum(sent.values()) <= BYTES_MAX


def test_text_is_never_read_as_html_and_nothing_is_inline() -> None:
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(.style"
        )
        assert re.findall(forbidden, text) == [], path
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|\son\w+=|\sstyle=|<script(?![^>]*\ssrc=)|https?:", page) == []


def test_every_module_that_is_imported_exists_and_every_file_is_used() -> None:
    used = {PAGE / "index.html"}
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    used |= {PAGE / name for name in re.findall(r'(?:href|src)="console/([^"]+)"', page)}
    for path in SCRIPTS:
        for name in re.findall(r'(?:from |import\()"(\.[^"]+)"', path.read_text(encoding="utf-8")):
            imported = (path.parent / name).resolve()
            assert imported.is_file(), f"{path}: {name}"
            used.add(imported)
    assert used == set(FILES)


def test_addresses_are_relative_so_that_the_console_works_below_any_path() -> None:
    for path in FILES:
        assert re.findall(r"""(?:fetch\(|href=|src=|import\(|from )["'`]/""", path.read_text("utf-8")) == [], path


def test_lines_are_short_enough_to_be_read() -> None:
    longest = {path.name: max(map(len, Path(path).read_text("utf-8").splitlines())) for path in FILES}
    assert max(longest.values()) <= 115, longest


def test_a_preflight_is_answered_without_anything(console: ModuleType) -> None:
    event = {"requestContext": {"http": {"method": "OPTIONS"}}, "pathParameters": {"path": "me"}, "headers": {}}
    assert console.handler(event, Context()) == {"statusCode": 204}
