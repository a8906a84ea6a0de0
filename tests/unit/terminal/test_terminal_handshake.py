"""What may become a terminal, by its head alone."""

from __future__ import annotations

import h11
import pytest

from runner.terminal.handshake import HandshakeRefusedError, OriginRule, accept

ANY = OriginRule(same_origin=False, loopback_host=False)
SAME = OriginRule(same_origin=True, loopback_host=False)
LOOPBACK = OriginRule(same_origin=True, loopback_host=True)

GOOD = {
    "Host": "localhost:7681",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "other, tty",
}


def request(method: str = "GET", version: str = "1.1", **changes: str | None) -> h11.Request:
    changed = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = [(name, value) for name, value in {**GOOD, **changed}.items() if value is not None]
    return h11.Request(method=method, target="/ws", headers=headers, http_version=version)


def test_the_answer() -> None:
    answer = accept(request(), ANY)
    assert answer.status_code == 101
    assert dict(answer.headers) == {
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        b"sec-websocket-protocol": b"tty",
    }


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (request(method="POST"), 405),
        (request(version="1.0"), 400),
        (request(Upgrade=None), 426),
        (request(Upgrade="h2c"), 426),
        (request(Connection="close"), 426),
        (request(Sec_WebSocket_Version="8"), 426),
        (request(Sec_WebSocket_Version=None), 426),
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
        (request(Sec_WebSocket_Protocol=None), 400),
        (request(Sec_WebSocket_Protocol="mqtt"), 400),
    ],
)
def test_what_is_no_handshake(bad: h11.Request, status: int) -> None:
    with pytest.raises(HandshakeRefusedError) as caught:
        accept(bad, ANY)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:7681", None),
        ("localhost:7681", "http://localhost:7681"),
        ("LOCALHOST:7681", "http://localhost:7681"),
        ("127.0.0.1:7681", "http://127.0.0.1:7681"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("127.0.0.1:443", "https://127.0.0.1"),
        ("[::1]:7681", "http://[::1]:7681"),
        ("me.localhost:1", "http://me.localhost:1"),
    ],
)
def test_our_own_page_is_welcome(host: str, origin: str | None) -> None:
    accept(request(Host=host, Origin=origin), LOOPBACK)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:7682",
        "https://localhost",
        "http://localhost:7681.evil.example",
        "http://localhost:7681@evil.example",
        "http://localhost:port",
        "http://localhost:99999",
        "http://[::1",
        "http://",
        "null",
        "",
        "file://",
        "chrome-extension://localhost:7681",
    ],
)
def test_a_page_of_somebody_elses_is_not(origin: str) -> None:
    with pytest.raises(HandshakeRefusedError) as caught:
        accept(request(Origin=origin), SAME)
    assert caught.value.status == 403
    accept(request(Origin=origin), ANY)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:7681",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "128.0.0.1",
        "",
        "[::",
    ],
)
def test_a_name_that_somebody_pointed_at_us_is_not(host: str) -> None:
    bad = request(Host=host, Origin=f"http://{host}")
    with pytest.raises(HandshakeRefusedError) as caught:
        accept(bad, LOOPBACK)
    assert caught.value.status == 403


def test_two_origins_are_none() -> None:
    bad = request()
    headers = [
        *bad.headers.raw_items(),
        (b"Origin", b"http://localhost:7681"),
        (b"Origin", b"http://evil.example"),
    ]
    with pytest.raises(HandshakeRefusedError):
        accept(h11.Request(method="GET", target="/ws", headers=headers), SAME)
