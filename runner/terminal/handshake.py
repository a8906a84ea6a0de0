"""Whether a request may become a terminal: the opening handshake (RFC 6455, 4.2) and where it came from.

Pure functions on heads that h11 has parsed. A page of any web site may open a WebSocket to any address that
the browser reaches, and browsers don't apply the same-origin policy to it; so on TCP the Origin must be ours.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import h11

from runner.terminal.protocol import SUBPROTOCOL
from runner.websocket import accept_key

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class HandshakeRefusedError(Exception):
    """The request can't be upgraded: answer with `status`, the text as its body, and `headers`."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class OriginRule:
    """What a handshake's Origin and Host must be.

    same_origin: an Origin, if there is one, must name the host and port that the Host header names.
    loopback_host: Host must be a loopback address or localhost. That is what tells a page that had its own
    name resolve to 127.0.0.1 (DNS rebinding) from our own page.
    """

    same_origin: bool
    loopback_host: bool

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raises HandshakeRefusedError if the headers (lower-case names) don't keep the rule."""
        host = headers.get(b"host", b"").decode("latin-1")
        if self.loopback_host and not _is_loopback(_authority(f"//{host}", None)[0]):
            raise HandshakeRefusedError(403, f"this terminal is served on loopback only, not as {host!r}")
        origin = headers.get(b"origin")
        if self.same_origin and origin is not None:
            scheme = origin.partition(b":")[0].decode("latin-1").lower()
            if scheme not in _DEFAULT_PORTS or _authority(origin.decode("latin-1"), scheme) != _authority(
                f"//{host}", scheme
            ):
                raise HandshakeRefusedError(
                    403, "this page may not open a terminal here: its origin is not ours"
                )


def _authority(url: str, scheme: str | None) -> tuple[str, int | None]:
    """Host in lower case and port of a URL; ("", None) for what isn't one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", None
    if port is None and scheme is not None:
        port = _DEFAULT_PORTS[scheme]
    return (parts.hostname or "").rstrip("."), port


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost") or host == "::1":
        return True
    try:
        return socket.inet_pton(socket.AF_INET, host)[0] == 127
    except OSError:
        return False


def accept(request: h11.Request, rule: OriginRule) -> h11.InformationalResponse:
    """Return the 101 answer to a terminal's handshake.

    Raises HandshakeRefusedError with the status that says what is wrong.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in request.headers:
        headers[name] = headers[name] + b"," + value if name in headers else value
    if request.method != b"GET":
        raise HandshakeRefusedError(405, "a WebSocket starts with GET", (("Allow", "GET"),))
    if request.http_version != b"1.1":
        raise HandshakeRefusedError(400, "a WebSocket starts with HTTP/1.1")
    if b"websocket" not in _tokens(headers, b"upgrade") or b"upgrade" not in _tokens(headers, b"connection"):
        raise HandshakeRefusedError(426, "this address speaks WebSocket only", (("Upgrade", "websocket"),))
    if headers.get(b"sec-websocket-version") != b"13":
        raise HandshakeRefusedError(
            426, "only WebSocket version 13 is spoken here", (("Sec-WebSocket-Version", "13"),)
        )
    try:
        key = accept_key(headers.get(b"sec-websocket-key", b""))
    except ValueError as error:
        raise HandshakeRefusedError(400, str(error)) from None
    if SUBPROTOCOL.encode() not in _tokens(headers, b"sec-websocket-protocol"):
        raise HandshakeRefusedError(400, f"a terminal needs the subprotocol {SUBPROTOCOL!r}")
    rule.check(headers)
    return h11.InformationalResponse(
        status_code=101,
        reason=b"Switching Protocols",
        headers=[
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", key.decode()),
            ("Sec-WebSocket-Protocol", SUBPROTOCOL),
        ],
    )


def _tokens(headers: dict[bytes, bytes], name: bytes) -> set[bytes]:
    return {token.strip().lower() for token in headers.get(name, b"").split(b",")}
