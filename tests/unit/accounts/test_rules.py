"""The tables and rules without I/O: access, origins, trusted proxies, where a login may go back to."""

from __future__ import annotations

import pytest

from oqtod.accounts import access
from oqtod.accounts.oidc_login import local_path
from oqtod.accounts.origins import Origins
from oqtod.gateway.forwarded import TrustedProxies


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/api/health", "public"),
        ("POST", "/api/health", "person"),
        ("POST", "/api/auth/login", "public"),
        ("GET", "/api/me", "anyone"),
        ("PUT", "/api/me", "person"),
        ("GET", "/api/keys", "person"),
        ("GET", "/api/sessions", "sessions:read"),
        ("HEAD", "/api/sessions", "sessions:read"),
        ("POST", "/api/sessions", "sessions:write"),
        ("POST", "/api/sessions/get-or-create", "sessions:write"),
        ("DELETE", "/api/sessions/x", "sessions:write"),
        ("GET", "/api/sessions/x/terminal/ws", "terminal"),
        ("GET", "/api/sessions/x/files/tree", "files:read"),
        ("PUT", "/api/sessions/x/files/file", "files:write"),
        ("POST", "/api/workspace/files/file", "files:write"),
        ("GET", "/api/sessions/x/ports/80/", "previews"),
        ("GET", "/api/admin", "admin"),
        ("GET", "/api/admin/users\n", "admin"),
        ("BREW", "/api/admin/users", "admin"),
        ("GET", "/api/sessions/x/what", "person"),
        ("GET", "/api/what", "person"),
    ],
)
def test_what_a_route_needs(method: str, path: str, need: str) -> None:
    found = access.needed(method, path)
    assert need in (found.level, *found.scopes)


def test_scopes_by_default_are_all_but_administration() -> None:
    assert set(access.SCOPES) - {"admin"} == access.DEFAULT_SCOPES


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode()) for value in values]


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("10.0.0.9", forwarded("1.2.3.4"), "1.2.3.4"),
        ("10.0.0.9", forwarded("6.6.6.6, 1.2.3.4"), "1.2.3.4"),  # the client made up the first
        ("10.0.0.9", forwarded("6.6.6.6, 1.2.3.4, 10.0.0.8"), "1.2.3.4"),
        ("10.0.0.9", forwarded("6.6.6.6", "1.2.3.4"), "1.2.3.4"),
        ("10.0.0.9", forwarded("1.2.3.4:5678"), "1.2.3.4"),
        ("10.0.0.9", forwarded("[2001:db8::1]:5678"), "2001:db8::1"),
        ("10.0.0.9", forwarded("garbage"), "10.0.0.9"),
        ("10.0.0.9", forwarded("6.6.6.6, garbage"), "10.0.0.9"),
        ("10.0.0.9", forwarded(""), "10.0.0.9"),
        ("10.0.0.9", [], "10.0.0.9"),
        ("5.5.5.5", forwarded("1.2.3.4"), "5.5.5.5"),
        ("::1", forwarded("1.2.3.4"), "1.2.3.4"),
        ("local", forwarded("1.2.3.4"), "local"),
    ],
)
def test_where_a_request_comes_from(peer: str, headers: list[tuple[bytes, bytes]], client: str) -> None:
    assert TrustedProxies(["10.0.0.0/24", "::1"]).client(peer, headers) == client
    assert TrustedProxies([]).client(peer, headers) == peer


def test_what_the_client_spoke() -> None:
    proxies = TrustedProxies(["10.0.0.9"])
    https = [(b"x-forwarded-proto", b"https")]
    assert proxies.scheme("10.0.0.9", https) == "https"
    assert proxies.scheme("5.5.5.5", https) is None
    assert proxies.scheme("10.0.0.9", [(b"x-forwarded-proto", b"javascript")]) is None


@pytest.mark.parametrize(
    ("origin", "host", "may"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("https://oqto.example", "oqto.example", True),
        ("https://oqto.example", "oqto.example:443", True),
        ("https://ui.example", "oqto.example", True),
        ("http://ui.example", "oqto.example", False),
        ("http://localhost:8081", "localhost:8080", False),
        ("http://127.0.0.1:8080", "localhost:8080", False),
        ("null", "localhost:8080", False),
        ("", "localhost:8080", False),
        ("http://", "", False),
        ("http://[", "[", False),
        ("http://localhost:99999", "localhost:99999", False),
        ("http://evil@localhost:8080", "localhost:8080", False),
        ("http://localhost:8080", "evil@localhost:8080", False),
        ("http://localhost:8080/", "localhost:8080", False),
        ("file://", "localhost:8080", False),
        ("http://localhost:8080", None, False),
    ],
)
def test_which_pages_may_act(origin: str, host: str | None, may: bool) -> None:
    assert Origins(["https://ui.example"], dev_mode=True).may_act(origin, host) is may


@pytest.mark.parametrize("path", ["/", "/a/b?c=d#e", "/%2f%2fevil", "/a//b"])
def test_ways_back(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "path",
    [None, "", "a", "//evil", "/\\evil", "\\\\evil", "https://evil", "/a\n", "/\t/e", "/é", "/" * 2000],
)
def test_ways_elsewhere(path: str | None) -> None:
    assert local_path(path) == "/"
