"""Requests that no client of ours sends: odd bytes in paths, queries and bodies, numbers out of any range."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.integration.accounts import Host, running


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    page = tmp_path_factory.mktemp("page")
    (page / "index.html").write_text("the page")
    folder = tmp_path_factory.mktemp("odd")
    with running(folder, OQTO_FRONTEND_DIR=str(page)) as running_host:
        yield running_host


def send(host: Host, method: str, target: bytes, body: bytes = b"", *headers: bytes) -> tuple[int, bytes]:
    """Send bytes as an administrator; return the status and the body."""
    with socket.create_connection(("127.0.0.1", host.port), timeout=20) as connection:
        lines = [
            method.encode() + b" " + target + b" HTTP/1.1",
            b"Host: 127.0.0.1:%d" % host.port,
            b"Authorization: Bearer " + (host.admin.token or "").encode(),
            b"Content-Length: %d" % len(body),
            b"Connection: close",
            *headers,
        ]
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), content


def refused(answer: tuple[int, bytes], *statuses: int) -> bool:
    """Whether it is an error of the one shape, and one of these."""
    status, body = answer
    said = json.loads(body)
    assert {"error", "code", "error_code", "request_id"} <= set(said)
    return status in statuses


PARTS = [
    b"%00",
    b"%0a",
    b"%0d%0aSet-Cookie:%20a=b",
    b"%7f",
    b"%ff",
    b"%c0%af",
    b"%ed%a0%80",
    b"%f0%9f%98%80",
    b"%",
    b"%zz",
    b"%2f",
    b"%2e%2e",
    b"..",
    b"*",
    b"%E2%80%AE",
    b"a" * 20_000,
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[:20].decode())
def test_in_a_path(host: Host, part: bytes) -> None:
    for path in (
        b"/api/%s",
        b"/api/sessions/%s",
        b"/api/sessions/%s/terminal/",
        b"/api/sessions/x/terminal/static/%s",
        b"/api/sessions/%s/files/tree",
        b"/api/admin/users/%s",
        b"/api/admin/sessions/%s",
        b"/api/admin/invite-codes/%s",
    ):
        assert refused(send(host, "GET", path.replace(b"%s", part)), 400, 404), path
    assert refused(send(host, "DELETE", b"/api/keys/" + part), 400, 404)
    status, body = send(host, "GET", b"/" + part)
    assert (status, body) == (200, b"the page") or refused((status, body), 400)


def test_a_line_feed_is_no_end_of_a_path(host: Host) -> None:
    """Python's `$` matches before one: /api/me%0a is not /api/me."""
    for path in (b"/api/me", b"/api/health", b"/api/sessions", b"/api/admin/users"):
        assert send(host, "GET", path)[0] == 200
        assert refused(send(host, "GET", path + b"%0a"), 400)


@pytest.mark.parametrize(
    "query",
    [
        b"user=%00",
        b"user=%ff",
        b"user=%ed%a0%80",
        b"user=" + b"9" * 10_000,
        b"user",
        b"status=",
        b"status=null",
        b"status=running&status=stopped",
        b"usage=2",
        b"usage=%31%00",
    ],
    ids=lambda query: query[:30].decode(),
)
def test_in_a_query(host: Host, query: bytes) -> None:
    assert refused(send(host, "GET", b"/api/admin/sessions?" + query), 404, 422)


@pytest.mark.parametrize(
    "query", [b"&&&=", b"%", b"=&" * 5000, b"x=1&x=2", b"\xff"], ids=lambda x: repr(x[:8])
)
def test_what_nobody_asks_for_in_a_query(host: Host, query: bytes) -> None:
    assert send(host, "GET", b"/api/admin/sessions?" + query)[0] in (200, 400)


BODIES = [
    b"\xff",
    b"\x00",
    b"NaN",
    b"{",
    b"{}{}",
    b"\xef\xbb\xbf{}",
    '{"name": "x"}'.encode("utf-16"),
    b'{"name": "\\ud800"}',
    b'{"name": "\xed\xa0\x80"}',
    b'{"name": "a\\u0000b"}',
    b'{"name": "x", "scopes": ["\\udfff"]}',
    b"[" * 100_000,
    b'{"name": ' + b"[" * 100_000,
    b'{"name": "x", "x": ' + b"[" * 100_000,
    b'{"name": 1e400}',
    b'{"name": ' + b"9" * 5000 + b"}",
    b'{"name": "x", "expires_at": "0001-01-01T00:00:00+23:59"}',
    b'{"name": "x", "expires_at": "9999-12-31T23:59:59-23:59"}',
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:40]))
def test_in_a_body(host: Host, body: bytes) -> None:
    assert refused(send(host, "POST", b"/api/keys", body), 400, 422)


@pytest.mark.parametrize(
    "number", ["-1", "0", "1.5", "1e3", "1e400", "9223372036854775808", "-9223372036854775809", "9" * 400]
)
@pytest.mark.parametrize("field", ["count", "uses_per_code", "expires_in_secs"])
def test_numbers(host: Host, field: str, number: str) -> None:
    rest = '"count": 1, ' if field != "count" else ""
    body = f'{{{rest}"{field}": {number}}}'.encode()
    assert refused(send(host, "POST", b"/api/admin/invite-codes/batch", body), 400, 422)


@pytest.mark.parametrize(
    "body",
    [
        {"workspace_path": "\0"},
        {"workspace_path": "../../x"},
        {"workspace_path": "/etc"},
        {"workspace_path": "a" * 300},
        {"workspace_path": "a/" * 5000},
        {"env": {"A": "\0"}},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {f"A{number}": "" for number in range(200)}},
    ],
    ids=lambda body: json.dumps(body)[:30],
)
def test_in_a_session(host: Host, body: dict[str, object]) -> None:
    assert refused(send(host, "POST", b"/api/sessions", json.dumps(body).encode()), 400)


def test_bodies_that_are_too_large(host: Host) -> None:
    assert refused(send(host, "POST", b"/api/keys", b" " * 1_100_000), 413)


def test_in_headers(host: Host) -> None:
    cookie = b"Cookie: \xff\x80=;;;=\x09"
    assert send(host, "GET", b"/api/me", b"", cookie)[0] == 200
    assert refused(send(host, "GET", b"/api/me", b"", b"Authorization: Bearer \xff"), 401)
    assert send(host, "PUT", b"/api/me", b"{}", b"Origin: http://\xff")[0] == 200  # its own token: no page's


def test_a_head_leaves_the_connection_usable(host: Host) -> None:
    with socket.create_connection(("127.0.0.1", host.port), timeout=20) as connection:
        for method in (b"HEAD", b"GET"):
            close = b"Connection: close\r\n" if method == b"GET" else b""
            connection.sendall(
                method + b" /api/health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n" % (host.port, close)
            )
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.count(b'{"status":"ok"') == 1
