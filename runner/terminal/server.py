"""The HTTP side of oqto-ttyd: the page, the token, and the upgrade that leads to the terminal.

Every connection is bounded: a head by HEAD_LIMIT bytes and HEAD_SECONDS, an answer by SEND_SECONDS, the
number of connections by MAX_CONNECTIONS. A request with a body is refused, because nothing here takes one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import h11
import trio

from runner.terminal import assets, protocol
from runner.terminal.connection import TerminalConnection
from runner.terminal.handshake import HandshakeRefusedError, OriginRule, accept
from runner.terminal.process import PtyProcess
from runner.terminal.terminal import Terminal

HEAD_LIMIT: Final = 16 << 10
"""Bytes of a request's head."""

HEAD_SECONDS: Final = 10.0
"""From the connection, or the end of the last answer, to the end of a head."""

SEND_SECONDS: Final = 30.0
"""For an answer to be taken by the peer."""

MAX_CONNECTIONS: Final = 512

# systemd's are about this process, not its children; the size is the terminal's to tell.
_SYSTEMD_VARIABLES: Final = frozenset(
    ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
)
_OWN_VARIABLES: Final = _SYSTEMD_VARIABLES | {"COLUMNS", "LINES"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line decides.

    max_clients 0 is no limit; ping_seconds 0 is no pings; index replaces the page; separate gives each client
    a process of its own, which ends with the connection; once takes a single client in all, and stops after
    it; exit_when_unused stops when the last client of several has gone.
    """

    command: tuple[str, ...]
    cwd: str | None = None
    writable: bool = False
    terminal_type: str = "xterm-256color"
    preferences: Mapping[str, object] = field(default_factory=dict)
    max_clients: int = 0
    index: bytes | None = None
    separate: bool = False
    once: bool = False
    exit_when_unused: bool = False
    check_origin: bool = False
    ping_seconds: float = 30.0


class TerminalServer:
    """Serves a terminal on listeners until cancelled, or until its settings say that it has done its work."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connections = 0
        self._viewers = 0
        self._served = 0
        self._terminal: Terminal | None = None  # the one that new viewers come to
        self._terminals: trio.Nursery | None = None
        self._done = trio.CancelScope()
        self._title = f"{' '.join(settings.command)} ({socket.gethostname()})"

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Accept and serve; at the end every terminal is closed and its process reaped."""
        with self._done:
            async with trio.open_nursery() as self._terminals:
                await trio.serve_listeners(self._serve_connection, listeners)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        if self._connections >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            async with stream:
                await _HttpConnection(self, stream).run()
        except OSError:
            pass  # closing a socket that is broken already
        except Exception:  # a fault of ours must not take down the other terminals
            traceback.print_exc()
        finally:
            self._connections -= 1

    @property
    def settings(self) -> Settings:
        """The settings that it was made with."""
        return self._settings

    def refuse_terminal(self) -> str | None:
        """Say why no further client may come, or None if one may."""
        if self._settings.once and self._served:
            return "this terminal was for one client, who has come already"
        if 0 < self._settings.max_clients <= self._viewers:
            return f"no more than {self._settings.max_clients} clients at a time; close one first"
        return None

    async def run_terminal(self, stream: trio.SocketStream, received: bytes) -> None:
        """Serve a connection that has been upgraded, to its end."""
        self._viewers += 1
        self._served += 1
        try:
            await TerminalConnection(
                stream,
                received,
                terminal=self._terminal_for,
                greeting=(
                    protocol.title(self._title),
                    protocol.preferences(dict(self._settings.preferences)),
                ),
                writable=self._settings.writable,
                ping_seconds=self._settings.ping_seconds,
            ).run()
        finally:
            self._viewers -= 1
            if self._viewers == 0 and (self._settings.once or self._settings.exit_when_unused):
                self._done.cancel()

    def _terminal_for(self, columns: int, rows: int) -> Terminal:
        """Return the terminal for a new viewer, started if need be. Raises SpawnError."""
        settings = self._settings
        shared = not settings.separate
        if shared and self._terminal is not None and not self._terminal.is_over:
            return self._terminal
        environment = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
        environment["TERM"] = settings.terminal_type
        process = PtyProcess.spawn(
            settings.command, columns=columns, rows=rows, cwd=settings.cwd, env=environment
        )
        terminal = Terminal(process, columns, rows, keep=shared and not settings.once)
        assert self._terminals is not None, "connections are served in this nursery"
        self._terminals.start_soon(terminal.run)
        if shared:
            self._terminal = terminal
        return terminal

    def origin_rule(self, stream: trio.SocketStream) -> OriginRule:
        """What to ask of a handshake on this connection.

        No browser reaches a Unix socket: who connects there is a program of the same account, or a proxy that
        has checked the origin against its own address, which we don't know.
        """
        if stream.socket.family == socket.AF_UNIX:
            return OriginRule(same_origin=self._settings.check_origin, loopback_host=False)
        address = stream.socket.getsockname()[0]
        return OriginRule(same_origin=True, loopback_host=address == "::1" or address.startswith("127."))


class _HttpConnection:
    """Requests one after the other on one connection, until it closes or becomes a terminal."""

    def __init__(self, server: TerminalServer, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._body_is_unwanted = False  # the request is a HEAD

    async def run(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                if request.target.partition(b"?")[0] == b"/ws":
                    if await self._upgrade(request):
                        return
                else:
                    await self._answer_get(request)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._answer(error.error_status_hint, "text/plain", f"{error}\n".encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer has gone, which is its right at any time

    async def _next_request(self) -> h11.Request | None:
        """Return the next request's head; None if the peer ends, or takes too long to say anything.

        Raises h11.RemoteProtocolError for what isn't HTTP, or has a body.
        """
        with trio.move_on_after(HEAD_SECONDS):
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(bytes(await self._stream.receive_some(HEAD_LIMIT)))
            if not isinstance(event, h11.Request):
                return None
            if type(self._http.next_event()) is not h11.EndOfMessage:
                raise h11.RemoteProtocolError("a request here has no body", error_status_hint=413)
            self._body_is_unwanted = event.method == b"HEAD"
            return event
        return None

    async def _answer_get(self, request: h11.Request) -> None:
        if request.method not in (b"GET", b"HEAD"):
            await self._answer(405, "text/plain", b"only GET is known here\n", (("Allow", "GET, HEAD"),))
            return
        path = request.target.partition(b"?")[0].decode("latin-1")
        index = self._server.settings.index
        found: tuple[bytes, str] | None
        if path == "/token":
            # What ttyd's own page asks for first; there is no credential here, as access is the socket's
            # matter.
            found = json.dumps({"token": ""}).encode(), "application/json"
        elif path == "/" and index is not None:
            found = index, "text/html; charset=utf-8"
        elif path == "/":
            found = assets.asset("index.html")
        else:
            found = assets.asset(path.removeprefix("/static/")) if path.startswith("/static/") else None
        if found is None:
            await self._answer(404, "text/plain", b"there is nothing here\n")
            return
        # A page of the administrator's may hold its script inside, as ttyd's does.
        policy = (
            ()
            if path == "/" and index is not None
            else (("Content-Security-Policy", assets.CONTENT_SECURITY_POLICY),)
        )
        await self._answer(200, found[1], found[0], policy)

    async def _upgrade(self, request: h11.Request) -> bool:
        """Answer a handshake; True if it became a terminal, which has ended by then."""
        try:
            answer = accept(request, self._server.origin_rule(self._stream))
            refusal = self._server.refuse_terminal()
            if refusal is not None:
                raise HandshakeRefusedError(503, refusal)
        except HandshakeRefusedError as error:
            await self._answer(error.status, "text/plain", f"{error}\n".encode(), error.headers)
            return False
        head = self._http.send(answer)
        received = self._http.trailing_data[0]
        del self._http
        await self._send(head)
        await self._server.run_terminal(self._stream, received)
        return True

    async def _answer(
        self, status: int, media_type: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        if media_type == "text/plain":
            media_type += "; charset=utf-8"
        response = h11.Response(
            status_code=status,
            headers=[
                ("Content-Type", media_type),
                ("Content-Length", str(len(body))),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store" if media_type == "application/json" else "no-cache"),
                *headers,
            ],
        )
        parts = [response, h11.Data(data=b"" if self._body_is_unwanted else body), h11.EndOfMessage()]
        await self._send(b"".join(self._http.send(part) or b"" for part in parts))

    async def _send(self, data: bytes) -> None:
        with trio.move_on_after(SEND_SECONDS) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the peer doesn't take its answer")


def report(text: str) -> None:
    """Say a line about the server itself, on standard error."""
    print(f"oqto-ttyd: {text}", file=sys.stderr, flush=True)
