"""The far end in tests: what a browser or curl says to oqtod, over sockets that the test hands in.

Nothing here knows oqtod's code; it follows the published interface only. Everything is blocking and has a
timeout, so that a test which waits for something that never comes fails instead of hanging.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import wsproto
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

Connect = Callable[[], socket.socket]
"""Opens a new connection to the gateway: over TCP, or inside a machine's network."""

TIMEOUT = 15.0
"""Seconds that one answer may take; a first one includes starting a runner and a service."""


@dataclass(frozen=True)
class Response:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """One person's HTTP client: a connection for each request, and the token once logged in."""

    def __init__(self, connect: Connect, *, host: str = "127.0.0.1:8080") -> None:
        self.connect = connect
        self.host = host
        self.token: str | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        document: object | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send `body`, or `document` as JSON, and read the whole answer."""
        sent = {"Host": self.host, **(headers or {})}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if document is not None:
            body = json.dumps(document).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.host, timeout=TIMEOUT)
        connection.sock = self.connect()
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Response:
        return self.request("GET", path)

    def post(self, path: str, document: object | None = None) -> Response:
        return self.request("POST", path, document=document if document is not None else {})

    def login(self, username: str, password: str) -> Response:
        """Log in, and use the token from then on if that worked."""
        answer = self.post("/api/auth/login", {"username": username, "password": password})
        if answer.status == 200:
            self.token = answer.json()["token"]
        return answer

    def websocket(self, path: str, *, subprotocols: tuple[str, ...] = ()) -> WebSocket:
        """Upgrade with the token as a browser can't, but curl and programs do: in `Authorization`."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return WebSocket(self.connect(), self.host, path, subprotocols=subprotocols, headers=headers)

    def terminal(self, session_id: str) -> Terminal:
        """Open the session's terminal."""
        return Terminal(self.websocket(f"/api/sessions/{session_id}/terminal/ws", subprotocols=("tty",)))


class Refused(Exception):
    """The upgrade was answered with an ordinary HTTP response."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"upgrade refused with {status}: {body[:200]!r}")
        self.status = status
        self.body = body


@dataclass
class WebSocket:
    """A blocking WebSocket client over a connected socket, which it owns.

    Raises `Refused` when the server does not upgrade, `TimeoutError` when an answer takes too long.
    """

    sock: socket.socket
    host: str
    target: str
    subprotocols: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    accepted_subprotocol: str | None = field(default=None, init=False)
    close_code: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.sock.settimeout(TIMEOUT)
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._events: list[Event] = []
        self._at_end = False
        try:
            self.sock.sendall(
                self._protocol.send(
                    Request(
                        host=self.host,
                        target=self.target,
                        subprotocols=list(self.subprotocols),
                        extra_headers=[(k.encode(), v.encode()) for k, v in self.headers.items()],
                    )
                )
            )
            match self._next_event():
                case AcceptConnection(subprotocol=subprotocol):
                    self.accepted_subprotocol = subprotocol
                case RejectConnection(status_code=status, has_body=has_body):
                    raise Refused(status, self._rejected_body() if has_body else b"")
                case event:
                    raise AssertionError(f"expected an answer to the upgrade, got {event}")
        except BaseException:
            self.sock.close()
            raise

    def _rejected_body(self) -> bytes:
        body = b""
        while True:
            event = self._next_event()
            if not isinstance(event, RejectData):
                raise AssertionError(f"expected the body of a refusal, got {event}")
            body += event.data
            if event.body_finished:
                return body

    def _next_event(self) -> Event | None:
        """The next event, or None when the peer has closed the connection."""
        while not self._events:
            if self._at_end:
                return None
            data = self.sock.recv(65536)
            if data:
                self._protocol.receive_data(data)
            else:
                self._at_end = True
                if self._protocol.state is not wsproto.connection.ConnectionState.CLOSED:
                    self._protocol.receive_data(None)
            self._events.extend(self._protocol.events())
        return self._events.pop(0)

    def send(self, message: str | bytes) -> None:
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        self.sock.sendall(self._protocol.send(event))

    def receive(self) -> str | bytes | None:
        """The next whole message; None once the server has closed (see `close_code`)."""
        parts: list[Any] = []
        while True:
            match self._next_event():
                case None:
                    return None
                case Ping() if self._protocol.state is not wsproto.connection.ConnectionState.OPEN:
                    pass  # nobody answers after the goodbye
                case Ping() as ping:
                    if self._protocol.state is not wsproto.connection.ConnectionState.OPEN:
                        continue  # we have said goodbye already
                    self.sock.sendall(self._protocol.send(ping.response()))
                case CloseConnection(code=code) as closing:
                    self.close_code = code
                    if self._protocol.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                        try:
                            self.sock.sendall(self._protocol.send(closing.response()))
                        except OSError:
                            pass  # the server said goodbye without waiting for ours
                    return None
                case (
                    TextMessage(data=data, message_finished=finished)
                    | BytesMessage(data=data, message_finished=finished)
                ):
                    parts.append(data)
                    if finished:
                        return "".join(parts) if isinstance(data, str) else b"".join(parts)

    def close(self) -> None:
        """Say goodbye and wait for the server's."""
        try:
            if self._protocol.state is wsproto.connection.ConnectionState.OPEN:
                self.sock.sendall(self._protocol.send(CloseConnection(code=1000)))
                while self.receive() is not None:
                    pass
        except OSError:
            pass  # it is gone already
        finally:
            self.sock.close()

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_marks = itertools.count(random.randrange(10**6, 10**7))
_ESCAPES = re.compile(r"\x1b(\[[0-9;?>=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[(][0B]|[=>78c])")


class Terminal:
    """A person at a ttyd: types lines, reads what comes back."""

    def __init__(self, websocket: WebSocket, *, columns: int = 200, rows: int = 50) -> None:
        self.websocket = websocket
        websocket.send(json.dumps({"AuthToken": "", "columns": columns, "rows": rows}).encode())

    def type(self, text: str) -> None:
        self.websocket.send(b"0" + text.encode())

    def resize(self, columns: int, rows: int) -> None:
        self.websocket.send(b"1" + json.dumps({"columns": columns, "rows": rows}).encode())

    def output(self) -> bytes | None:
        """The next piece of output, None once the terminal is closed."""
        while (message := self.websocket.receive()) is not None:
            data = message.encode() if isinstance(message, str) else message
            if data[:1] == b"0":
                return data[1:]
        return None

    def run(self, command: str, *, timeout: float = 2 * TIMEOUT) -> str:
        """Type `command` and return what it printed within `timeout` seconds, without the echo and colours.

        The marks around the output are computed by the shell, so the echo of what was typed isn't taken
        for them; and they are new each time, as a terminal shows earlier output again when it is opened.
        """
        mark = next(_marks)
        self.type(f'echo "<"$(({mark}+0))">"; {command}; echo "</"$(({mark}+0))">"\n')
        seen = ""
        deadline = time.monotonic() + timeout
        while True:
            if time.monotonic() > deadline:
                raise AssertionError(f"no end of {command!r} within {timeout:g} s: {seen!r}")
            piece = self.output()
            if piece is None:
                raise AssertionError(f"the terminal closed while waiting for {command!r}: {seen!r}")
            seen += piece.decode(errors="replace")
            if f"</{mark}>" not in seen:
                continue
            # tmux may draw the whole screen again in between: what counts is what comes last.
            before, end, _ = _ESCAPES.sub("", seen).partition(f"</{mark}>")
            _, begin, printed = before.rpartition(f"<{mark}>")
            if begin and end:
                return printed.replace("\r\n", "\n").strip()

    def close(self) -> None:
        self.websocket.close()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
