"""The daemon's socket: commands over HTTP, and the upgrade that leads to the stream.

Every connection is bounded: a head by HEAD_LIMIT bytes, a request by REQUEST_SECONDS, a body by BODY_LIMIT,
an answer by SEND_SECONDS, the number of connections by MAX_CONNECTIONS.
"""

from __future__ import annotations

import hmac
import sys
import traceback
from typing import Annotated, Any, Final

import h11
import msgspec
import trio

from runner.browser.daemon import Daemon
from runner.browser.errors import Failed
from runner.browser.other import Other
from runner.websocket import accept_key

HEAD_LIMIT: Final = 16 << 10
BODY_LIMIT: Final = 1 << 20
REQUEST_SECONDS: Final = 20.0
SEND_SECONDS: Final = 60.0
MAX_CONNECTIONS: Final = 128

_RECEIVE_SIZE: Final = 1 << 16


class _Command(msgspec.Struct):
    """The body of POST /command."""

    args: Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    timeout: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    person: bool = False
    """Whether a person asks for it, and no agent."""


class _Refused(Exception):
    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


class Server:
    """Serves a daemon on listeners, until cancelled."""

    def __init__(self, daemon: Daemon | Other) -> None:
        self._daemon = daemon
        self._connections = 0
        self.closed = trio.Event()
        """Set when a command that ends the daemon has been answered."""

    async def serve(self, listener: trio.SocketListener, *, token: str | None = None) -> None:
        """Serve everything to who can connect; with a token, only the stream to who brings it."""

        async def handle(stream: trio.SocketStream) -> None:
            await self._connection(stream, token)

        await trio.serve_listeners(handle, [listener])

    async def _connection(self, stream: trio.SocketStream, token: str | None) -> None:
        if self._connections >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            async with stream:
                await _Connection(self._daemon, stream, token).run()
                if self._daemon.closing:
                    self.closed.set()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer has gone, which is its right at any time
        except Exception:  # a fault of ours must not end the browser
            traceback.print_exc()
        finally:
            self._connections -= 1


class _Connection:
    """Requests one after the other on one connection, until it closes or becomes a viewer's."""

    def __init__(self, daemon: Daemon | Other, stream: trio.SocketStream, token: str | None) -> None:
        self._daemon = daemon
        self._stream = stream
        self._token = token
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)

    async def run(self) -> None:
        try:
            while (received := await self._next_request()) is not None:
                request, body = received
                try:
                    if await self._handle(request, body):
                        return
                except _Refused as refused:
                    await self._answer(refused.status, {"error": str(refused)}, refused.headers)
                if self._daemon.closing:
                    return
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except _Refused as refused:
            await self._answer(refused.status, {"error": str(refused)}, refused.headers)
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._answer(error.error_status_hint, {"error": str(error)})

    async def _next_request(self) -> tuple[h11.Request, bytes] | None:
        """Return a request; None if the peer ends, or takes too long."""
        request: h11.Request | None = None
        body = bytearray()
        with trio.move_on_after(REQUEST_SECONDS):
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        await self._stream.send_all(self._http.send(go_on) or b"")
                    self._http.receive_data(bytes(await self._stream.receive_some(_RECEIVE_SIZE)))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > BODY_LIMIT:
                        raise _Refused(413, f"a body has at most {BODY_LIMIT} bytes")
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    return request, bytes(body)
                else:
                    return None
        return None

    async def _handle(self, request: h11.Request, body: bytes) -> bool:
        """Answer a request; True if it became a viewer, which has gone by then."""
        path = request.target.partition(b"?")[0]
        headers = dict(request.headers)
        if self._token is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), b"Bearer " + self._token.encode()
        ):
            raise _Refused(401, "this stream needs its token", (("WWW-Authenticate", "Bearer"),))
        if path in (b"/", b"/stream"):
            await self._watch(request, headers)
            return True
        if self._token is not None:
            raise _Refused(404, "there is only the stream here")
        if path == b"/status":
            _only(request, b"GET")
            await self._answer(200, await self._daemon.command(["status"], 1))
        elif path == b"/command":
            _only(request, b"POST")
            try:
                command = msgspec.json.decode(body, type=_Command)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _Refused(400, f"not a command: {error}") from None
            await self._answer(
                200, await self._daemon.command(command.args, command.timeout, person=command.person)
            )
        else:
            raise _Refused(404, "there is nothing here; see docs/browser.md")
        return False

    async def _watch(self, request: h11.Request, headers: dict[bytes, bytes]) -> None:
        _only(request, b"GET")
        upgrade = {part.strip().lower() for part in headers.get(b"upgrade", b"").split(b",")}
        if b"websocket" not in upgrade or headers.get(b"sec-websocket-version") != b"13":
            wanted = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
            raise _Refused(426, "the stream speaks WebSocket only", wanted)
        try:
            key = accept_key(headers.get(b"sec-websocket-key", b""))
        except ValueError as error:
            raise _Refused(400, str(error)) from None
        if isinstance(self._daemon, Other):
            try:
                await self._daemon.watch(self._stream, _handshake(headers) + self._http.trailing_data[0])
            except Failed as error:
                raise _Refused(502, str(error)) from None
            return
        answer = h11.InformationalResponse(
            status_code=101,
            reason=b"Switching Protocols",
            headers=[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", key.decode()),
            ],
        )
        head = self._http.send(answer) or b""
        received = self._http.trailing_data[0]
        await self._stream.send_all(head)
        await self._daemon.serve_viewer(self._stream, received)

    async def _answer(self, status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        body = msgspec.json.encode(value)
        response = h11.Response(
            status_code=status,
            headers=[
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                *headers,
            ],
        )
        parts = [response, h11.Data(data=body), h11.EndOfMessage()]
        with trio.move_on_after(SEND_SECONDS):
            await self._stream.send_all(b"".join(self._http.send(part) or b"" for part in parts))


def _handshake(headers: dict[bytes, bytes]) -> bytes:
    """Return the head of a handshake to another daemon: what is of WebSocket, and nobody's credentials."""
    lines = [b"%b: %b\r\n" % field for field in headers.items() if field[0].startswith(b"sec-websocket-")]
    start = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return start + b"".join(lines) + b"\r\n"


def _only(request: h11.Request, method: bytes) -> None:
    if request.method != method:
        raise _Refused(405, f"only {method.decode()} is known here", (("Allow", method.decode()),))


def report(text: str) -> None:
    """Say a line about the daemon itself, on standard error."""
    print(f"oqto-browserd: {text}", file=sys.stderr, flush=True)
