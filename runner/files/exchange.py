"""HTTP/1.1 on one connection of oqto-files: heads and bodies in and out, whatever they are for."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import h11
import trio

from runner.files.errors import STATUS, FileError

MAX_HEAD = 32 * 1024
IDLE_TIMEOUT = 60.0
"""Seconds until the whole head of a (further) request must be there."""

BODY_TIMEOUT = 60.0
"""Seconds that the other side may do nothing in the middle of a body."""

CHUNK = 256 * 1024
_LINGER = 2.0
_SENDFILE = 4 * 1024 * 1024

SAFE = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox")]
"""What a person's file can't do on whatever origin it is shown."""

Headers = list[tuple[bytes, bytes]]


class Exchange:
    """One client's connection, and one request after another on it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def next_request(self) -> h11.Request | None:
        """Return the next request, None when there is none any more. Raises h11.RemoteProtocolError."""
        if self.http.our_state is h11.DONE:
            if self.http.their_state is not h11.DONE:
                return None
            self.http.start_next_cycle()
        with trio.move_on_after(IDLE_TIMEOUT):
            request = await self.receive()
            return request if isinstance(request, h11.Request) else None
        return None

    @property
    def can_go_on(self) -> bool:
        """Whether both sides are done with this request, and the connection lives."""
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    async def receive(self) -> Any:
        """Return the client's next event. Raises h11.RemoteProtocolError, BrokenResourceError on silence."""
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self.http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            with trio.move_on_after(BODY_TIMEOUT):
                self.http.receive_data(await self.stream.receive_some(CHUNK))
                continue
            raise trio.BrokenResourceError("the client went silent")

    async def body(self) -> Any:
        """Return the next piece of the request's body, None at its end."""
        event = await self.receive()
        if isinstance(event, h11.Data):
            return event.data
        if isinstance(event, h11.EndOfMessage):
            return None
        raise trio.BrokenResourceError("the client went away in the middle of a body")

    async def send(self, event: Any) -> None:
        """Send an event, in bounded time."""
        data = self.http.send(event)
        if data:
            await self.send_raw(data)

    async def send_raw(self, data: bytes) -> None:
        """Send bytes that h11 knows of already, in bounded time."""
        with trio.fail_after(BODY_TIMEOUT):
            await self.stream.send_all(data)

    async def respond(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send a whole answer."""
        # A 304 says nothing of a length; it has no body anyway.
        length = [] if status == 304 else [(b"content-length", str(len(body)).encode())]
        head = self.begin(status, [*headers, *length])
        payload = (self.http.send(h11.Data(data=body)) or b"") if body else b""
        end = self.http.send(h11.EndOfMessage()) or b""
        await self.send_raw(head + payload + end)

    def begin(self, status: int, headers: Headers) -> bytes:
        """Return the head of an answer; the connection ends with it where a body is still to come."""
        if self.http.their_state is h11.SEND_BODY and not self._drained():
            headers = [*headers, (b"connection", b"close")]
        return self.http.send(h11.Response(status_code=status, headers=headers)) or b""

    async def json(self, content: Any, *, status: int = 200, headers: Headers | None = None) -> None:
        """Send a JSON answer; odd bytes of names are lone surrogates, escaped."""
        body = json.dumps(content).encode()
        kind = (b"content-type", b"application/json")
        await self.respond(status, [kind, *(headers or []), *SAFE], body)

    async def refuse(self, error: FileError) -> None:
        """Answer with an error, where no answer has begun."""
        if self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = {"error": str(error), "code": error.code}
            await self.json(body, status=STATUS[error.code], headers=[*error.headers])

    async def send_file(self, descriptor: int, start: int, end: int) -> None:
        """Send bytes of a file as the body, sendfile(2): from the page cache into the socket, past Python."""
        sock = self.stream.socket
        while start < end:
            try:
                sent = os.sendfile(sock.fileno(), descriptor, start, min(_SENDFILE, end - start))
            except BlockingIOError:
                with trio.fail_after(BODY_TIMEOUT):
                    await trio.lowlevel.wait_writable(sock)
                continue
            except (BrokenPipeError, ConnectionResetError) as error:
                raise trio.BrokenResourceError("the client went away") from error
            if sent == 0:
                raise trio.BrokenResourceError("the file became shorter while it was sent")
            start += sent
            await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        """Close in order: what is still coming is read for a moment, so that our answer isn't reset away."""
        with trio.move_on_after(_LINGER, shield=True):
            try:
                await self.stream.send_eof()
                while await self.stream.receive_some(CHUNK):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it went first
        await trio.aclose_forcefully(self.stream)

    def _drained(self) -> bool:
        """Take in the end of a body that nobody wants, if it is here already."""
        return isinstance(self.http.next_event(), h11.EndOfMessage)


def prepare(stream: trio.SocketStream) -> None:
    """Have small answers sent at once where the connection is TCP."""
    if stream.socket.family != socket.AF_UNIX:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
