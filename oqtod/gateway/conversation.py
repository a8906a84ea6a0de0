"""A request to the API, as ASGI wants it: the body awaited, the answer framed and sent, in a task."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import trio

from oqtod.errors import Refusal
from oqtod.gateway import limits
from oqtod.gateway.bodies import BadBody, Chunked, Framing, Length
from oqtod.gateway.heads import RequestHead

if TYPE_CHECKING:
    from oqtod.gateway.connection import Connection

Application = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]

_PAGE_POLICY = (
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)
_READ = 64 * 1024
_REST = 64 * 1024
"""Bytes of a body that nobody read, which are read for the next request's sake."""

_REST_TIMEOUT = 1.0
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t \x21-\x7e\x80-\xff]*")


class Gone(Exception):
    """The client is gone, or takes nothing."""


class Conversation:
    """One request to the API and its answer."""

    def __init__(self, connection: Connection, head: RequestHead) -> None:
        self._connection = connection
        self._head = head
        self._framing: Framing = Chunked(plain=True) if head.chunked else Length(head.length)
        self._received = 0
        self._state: dict[str, Any] = {"request_id": connection.request_id, "principal": connection.principal}
        self._waits = head.waits
        self._told_all = False
        self._said_close = False
        self._deadline = trio.current_time() + limits.BODY_TIMEOUT
        self._chunks = False
        self._start = b""
        self._ended = False
        self.begun = False
        """Whether the client got a part of the answer."""
        self.lasting = False
        """Whether the answer is an event stream, which has no end of its own."""

    @property
    def complete(self) -> bool:
        """Whether the whole request was read."""
        return self._framing.done

    @property
    def reusable(self) -> bool:
        """Whether another request can follow."""
        return self._ended and self.complete and not self._said_close

    async def hold(self, application: Application) -> None:
        """Have the application answer. Raises Gone, and what the application raises."""
        connection, head = self._connection, self._head
        path, _, query = head.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1" if head.minor else "1.0",
            "method": head.method.decode(),
            "scheme": "http",
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(head.fields),
            "client": (connection.client, connection.peer[1]),
            "forwarded_scheme": connection.scheme,
            "server": None,
            "state": self._state,
        }
        try:
            await application(scope, self._receive, self._send)
        finally:
            connection.front.bodies -= self._received
            if self.lasting:
                connection.front.engine.tasks += 1

    def last_words(self) -> bytes:
        """Return what ends an answer that is not over."""
        return b"0\r\n\r\n" if self._chunks and self.begun and not self._ended else b""

    async def _receive(self) -> dict[str, Any]:
        if self._told_all:
            await trio.sleep_forever()
        body = b""
        if not self._framing.done:
            await self._want_body()
            with trio.move_on_at(self._deadline) as patience:
                piece = await self._piece()
            if patience.cancelled_caught:
                message = f"the body did not come within {limits.BODY_TIMEOUT:g} seconds"
                raise Refusal("request_timeout", message)
            if piece is None:
                return {"type": "http.disconnect"}
            body = piece
            self._received += len(body)
            self._connection.front.bodies += len(body)
            self._check_size(self._received)
            if self._connection.front.bodies > limits.MAX_API_BODIES:
                raise Refusal("unavailable", "too much is being sent at the same time", retry_after=5)
        self._told_all = self._framing.done
        return {"type": "http.request", "body": body, "more_body": not self._told_all}

    async def _want_body(self) -> None:
        """Say that the body may come, where the client waits for that: RFC 9110 section 10.1.1."""
        self._check_size(self._head.length)
        if self._waits and not self._connection.data:
            await self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._waits = False

    def _check_size(self, size: int) -> None:
        known = self._state.get("principal") is not None
        most = limits.MAX_API_BODY if known else limits.MAX_STRANGERS_BODY
        if size > most:
            raise Refusal("payload_too_large", f"the body is over {most} bytes")

    async def _piece(self) -> bytes | None:
        """Return what comes of the body, None when no more of it does. Raises Refusal."""
        connection = self._connection
        data, connection.data = connection.data, b""
        if not data:
            data = await self._read()
        if not data:
            return None
        try:
            piece = bytes(self._framing.feed(memoryview(data)))
        except BadBody as error:
            raise Refusal("bad_request", f"not a request: {error}") from error
        if self._framing.excess:
            connection.data = data[-self._framing.excess :]
        return piece

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            await self._read_the_rest()
            self._connection.front.traffic.answered(self._connection.kind, message["status"])
            self._start = self._answer(message["status"], list(message.get("headers", [])))
            if self.lasting:
                self._connection.front.engine.tasks -= 1  # from now on it waits for events
                await self._write(b"")
            return
        body = b"" if self._head.method == b"HEAD" else message.get("body", b"")
        last = not message.get("more_body", False)
        if self._chunks:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"0\r\n\r\n" if last else b"")
        if body or last:
            await self._write(body)
        self._ended = last

    def _answer(self, status: int, fields: list[tuple[bytes, bytes]]) -> bytes:
        names = {name.lower() for name, _ in fields}
        bodiless = status in (204, 304) or self._head.method == b"HEAD"
        self._chunks = b"content-length" not in names and not bodiless and self._head.minor == 1
        self.lasting = any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in fields
        )
        fields += [
            (b"x-request-id", self._connection.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
            (b"content-security-policy", _PAGE_POLICY),
        ]
        if self._chunks:
            fields.append((b"transfer-encoding", b"chunked"))
        self._said_close = self._head.close or not self.complete or self._connection.front.draining
        if self._said_close:
            fields.append((b"connection", b"close"))
        lines = [b"%b: %b" % field for field in fields]
        if (bad := next((line for line in lines if not _FIELD.fullmatch(line)), None)) is not None:
            raise ValueError(f"the API made a field that is none: {bad[:100]!r}")
        return b"HTTP/1.1 %d \r\n%b\r\n\r\n" % (status, b"\r\n".join(lines))

    async def _read_the_rest(self) -> None:
        """Read what is left of a small body that nobody wanted, so that the connection can go on."""
        if (
            self.complete
            or self._waits
            or self._head.close
            or self._head.length > _REST
            or self._head.chunked
        ):
            return
        with trio.move_on_after(_REST_TIMEOUT):
            while not self.complete and await self._piece() is not None:
                pass

    async def _read(self) -> bytes:
        end = self._connection.end
        try:
            while (data := end.read(_READ)) is None:
                await trio.lowlevel.wait_readable(end.sock)
        except (OSError, trio.ClosedResourceError) as error:
            raise Gone(str(error)) from error
        return data

    async def _write(self, data: bytes) -> None:
        """Send, with the head of the answer before it. Raises Gone."""
        end = self._connection.end
        if self._start:
            data, self._start, self.begun = self._start + data, b"", True
        view = memoryview(data)
        with trio.move_on_after(limits.SEND_TIMEOUT) as patience:
            try:
                while view:
                    sent = end.write(view)
                    view = view[sent:]
                    if view:
                        await trio.lowlevel.wait_writable(end.sock)
            except (OSError, trio.ClosedResourceError) as error:
                raise Gone(str(error)) from error
        if patience.cancelled_caught:
            raise Gone(f"it took nothing for {limits.SEND_TIMEOUT:g} seconds")
