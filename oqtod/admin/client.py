"""The way to a running oqtod: where its API is, requests to it, and what can come of them."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oqtod import config
from oqtod.commands.exits import FAILED, FORBIDDEN, UNREACHABLE, USAGE
from oqtod.config.expansion import HOST_ADMIN_SOCKET

TIMEOUT = 120.0
"""Seconds for an answer: what the daemon itself waits for (runtime.timeout), and some."""

_CONNECT_TIMEOUT = 10.0
_MAX_TOKEN = 16_384
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EXITS = {400: USAGE, 401: FORBIDDEN, 403: FORBIDDEN}
_UCRED = struct.Struct("3i")


class Trouble(Exception):
    """What ends a command: a text, what to do about it, and the exit code."""

    exit_code = FAILED
    code = "failed"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON, in the shape that the API's have."""
        found = {"error": str(self), "code": self.code.upper(), "error_code": self.code}
        return found if self.hint is None else found | {"hint": self.hint}


class Unreachable(Trouble):
    """No daemon answers."""

    exit_code = UNREACHABLE
    code = "unreachable"


class NotPermitted(Trouble):
    """The kernel lets us not near the daemon's socket, or there is no token where one is needed."""

    exit_code = FORBIDDEN
    code = "forbidden"


class Refused(Trouble):
    """The daemon answered with an error. `status` is the HTTP status, `body` the error as it sent it."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("error", f"HTTP {status}")), body.get("hint"))
        self.status = status
        self.code = str(body.get("error_code", "failed"))
        self.exit_code = _EXITS.get(status, FAILED)
        self._body = body

    @property
    def body(self) -> dict[str, Any]:
        """The error as the daemon sent it."""
        return self._body


@dataclass(frozen=True, slots=True)
class Where:
    """What the command line says of where the daemon is. For what it doesn't, there are variables."""

    server: str | None = None
    admin_socket: str | None = None
    token_file: str | None = None


class Daemon:
    """A running oqtod. Looked for when it is first asked something."""

    def __init__(self, where: Where) -> None:
        self._where = where

    def ask(self, method: str, path: str, document: object = None, *, timeout: float = TIMEOUT) -> Any:
        """Send a request, and return the JSON of its answer, None where it is empty.

        `document` becomes the JSON body. Raises Unreachable, NotPermitted, Refused.
        """
        connection = self._connected(timeout)
        try:
            answer = self._send(connection, method, path, document)
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        finally:
            connection.close()
        return _decoded(answer.status, raw)

    def stream(self, path: str, *, timeout: float | None = None) -> Iterator[bytes]:
        """Get something that goes on, a line at a time, without the line's end.

        `timeout` bounds the wait for each line; without it, that takes as long as it takes. Raises as `ask`.
        """
        connection = self._connected(timeout)
        try:
            answer = self._send(connection, "GET", path, None)
            if answer.status >= 400:
                _decoded(answer.status, answer.read())
            while line := answer.readline():
                yield line.rstrip(b"\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        finally:
            connection.close()

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, document: object
    ) -> http.client.HTTPResponse:
        headers = dict(self._headers)
        body = None
        if document is not None:
            body, headers["content-type"] = json.dumps(document).encode(), "application/json"
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def _broken(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"the connection to oqtod broke: {error or type(error).__name__}",
            "nobody knows whether what was asked for has been done: look, and try again",
        )

    @cached_property
    def _url(self) -> str | None:
        """The URL to use, None where it is the admin socket."""
        where = self._where
        if where.server is not None or where.admin_socket is not None:
            return where.server
        if os.environ.get("OQTO_ADMIN_SOCKET"):
            return None
        return os.environ.get("OQTO_SERVER_URL") or None

    @cached_property
    def _headers(self) -> dict[str, str]:
        if self._url is None:
            return {"host": "localhost"}
        return {"authorization": f"Bearer {_token(self._where)}"}

    def _connected(self, timeout: float | None) -> http.client.HTTPConnection:
        if self._url is not None:
            _ = self._headers  # no token: nothing to connect for
            return _connected_to(self._url, timeout)
        explicit = self._where.admin_socket or os.environ.get("OQTO_ADMIN_SOCKET")
        if explicit:
            return _connected_at([explicit], timeout, explicit=True)
        return _connected_at(_places(), timeout, explicit=False)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a socket that is connected already."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = connected


def _connected_at(places: list[str], timeout: float | None, *, explicit: bool) -> http.client.HTTPConnection:
    """Connect to the first of these sockets that somebody listens at."""
    tried, is_closed = [], False
    for place in places:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(_CONNECT_TIMEOUT)
            connected.connect(place)
            if not explicit:
                _check_listener(connected)
        except OSError as error:
            connected.close()
            is_closed |= isinstance(error, PermissionError)
            tried.append(f"{place}: {error.strerror or error}")
            continue
        connected.settimeout(timeout)
        return _UnixConnection(connected)
    told = "; ".join(tried)
    if is_closed:
        raise NotPermitted(
            f"oqtod's admin socket is not open to you ({told})",
            "it is for root and for members of the group oqto-admin: use sudo, or: adduser NAME oqto-admin",
        )
    raise Unreachable(
        f"oqtod can't be reached ({told})",
        "does it run? systemctl status oqtod; elsewhere than usual: --admin-socket PATH or --server URL",
    )


def _check_listener(connected: socket.socket) -> None:
    """Refuse a socket that neither root nor we ourselves listen at: what is sent there may be secret.

    With sudo, a HOME that was kept leads to the place of another account's own oqtod.
    """
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    if uid not in (0, os.geteuid()):
        raise OSError(f"belongs to uid {uid}, so it is used only with --admin-socket")


def _places() -> list[str]:
    """Return where the admin socket may be: as configured, else the host's place, else one's own."""
    places = []
    for overrides in ({}, {"local.enabled": True, "local.single_user": True}):
        try:
            places.append(config.admin_socket(config.load(overrides=overrides).config))
        except config.ConfigRefused:
            pass  # its file is for the daemon to read, not for every administrator
        places.append(HOST_ADMIN_SOCKET)
    return list(dict.fromkeys(places))


def _connected_to(url: str, timeout: float | None) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise _usage(f"{url!r} is no URL of a server", "like https://oqto.example.org")
    if parts.username is not None or parts.password is not None:
        raise _usage("the URL must carry no password", "a token goes into $OQTO_TOKEN or --token-file")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise _usage(
            "a token isn't sent over a network in the clear",
            f"use https, or a tunnel: ssh -L 8080:127.0.0.1:8080 {parts.hostname}",
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=_CONNECT_TIMEOUT)
        connection.connect()
    except (OSError, ValueError) as error:
        raise Unreachable(
            f"oqtod can't be reached ({url}: {error})", "is the URL right, and does oqtod run there?"
        ) from error
    connection.sock.settimeout(timeout)
    return connection


def _token(where: Where) -> str:
    """Return the API key for a server: from a file, else from $OQTO_TOKEN."""
    text = os.environ.get("OQTO_TOKEN", "")
    if where.token_file is not None:
        try:
            with Path(where.token_file).open("rb") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and os.fstat(file.fileno()).st_mode & 0o007:
                    raise NotPermitted(
                        f"{where.token_file} is open to everybody on this host",
                        f"chmod o= {where.token_file}; and make a new key, if others have accounts here",
                    )
                text = file.read(_MAX_TOKEN).decode("ascii", "replace")
        except OSError as error:
            raise _usage(f"{where.token_file} can't be read: {error.strerror}") from error
    text = text.strip()
    if not text:
        raise NotPermitted(
            "a server wants a token",
            "make an API key with the scope admin (oqtoctl key create, at the server), "
            "and put it into $OQTO_TOKEN or a file for --token-file",
        )
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _usage("the token has characters that no token has")
    return text


def _usage(message: str, hint: str | None = None) -> Trouble:
    trouble = Trouble(message, hint)
    trouble.exit_code, trouble.code = USAGE, "usage"
    return trouble


def _decoded(status: int, raw: bytes) -> Any:
    try:
        document = json.loads(raw) if raw else None
    except ValueError as error:
        raise Unreachable(
            f"what answered is not oqtod: HTTP {status}, and no JSON", "is the URL right?"
        ) from error
    if status >= 400:
        raise Refused(status, document if isinstance(document, dict) else {})
    return document
