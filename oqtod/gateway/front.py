"""The HTTP/1.1 front: accepts connections, reads heads, and hands requests to the API or the byte path."""

from __future__ import annotations

import json
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import h11
import trio

from oqtod.accounts.principal import Principal
from oqtod.errors import Refusal
from oqtod.gateway import admin_socket
from oqtod.gateway.forwarded import TrustedProxies
from oqtod.gateway.proxy import Proxy
from oqtod.store.database import StorageError
from runner.protocol.wire import peer_of

log = logging.getLogger(__name__)

IDLE_TIMEOUT = 30.0
"""Seconds until the whole head of a (further) request must be there."""

BODY_TIMEOUT = 30.0
"""Seconds until the whole body of a request to the API must be there."""

SEND_TIMEOUT = 60.0
"""Seconds a client may take for one piece of an answer of the API."""

LINGER = 1.0
"""Seconds in which a client may still be told why, before a connection that it is sending on is closed."""

MAX_HEAD = 32 * 1024
MAX_API_BODY = 1024 * 1024
MAX_CONNECTIONS = 4096

Application = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]

_PAGE_POLICY = (
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)


class Front:
    """Serves connections. `application` is ASGI; `proxy` takes what belongs to a session's service."""

    def __init__(self, application: Application, proxy: Proxy, trusted: TrustedProxies) -> None:
        self._application = application
        self._proxy = proxy
        self._trusted = trusted

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Accept connections for ever."""
        slots = trio.CapacityLimiter(MAX_CONNECTIONS)

        async def handle(stream: trio.SocketStream) -> None:
            async with slots:
                await Connection(stream, self._application, self._proxy, self._trusted).run()

        await trio.serve_listeners(handle, listeners)

    async def serve_administrators(self, listener: socket.socket, *, personal: bool) -> None:
        """Accept connections at the admin socket for ever; the kernel says who they are of.

        With `personal`, the account that we run as may administrate too.
        """

        async def handle(stream: trio.SocketStream) -> None:
            principal = await admin_socket.principal_of(peer_of(stream.socket).uid, personal=personal)
            connection = Connection(
                stream, self._application, self._proxy, self._trusted, principal, closed_to_others=True
            )
            await connection.run()

        await trio.serve_listeners(handle, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


class Connection:
    """One client connection, and the requests on it one after another."""

    def __init__(
        self,
        stream: trio.SocketStream,
        application: Application,
        proxy: Proxy,
        trusted: TrustedProxies,
        principal: Principal | None = None,
        *,
        closed_to_others: bool = False,
    ) -> None:
        """With `closed_to_others`, only who comes with a `principal` is served."""
        self.principal = principal
        self._refuses = closed_to_others and principal is None
        self.stream = stream
        self._application = application
        self._proxy = proxy
        self._trusted = trusted
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._peer = _address(stream)
        self.client = self._peer
        """Address and port that the present request comes from, behind the proxies that we trust."""
        self.scheme: str | None = None
        self.request_id = ""

    async def run(self) -> None:
        """Serve until either side is done."""
        try:
            while await self._one_request():
                self.http.start_next_cycle()
            await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError) as error:
            log.debug("a connection of %s ended: %s", self.client[0], error)
        finally:
            with trio.move_on_after(1, shield=True):
                await self.stream.aclose()

    async def _linger(self) -> None:
        """Read what is still coming: closing with unread bytes resets the connection, answer and all."""
        with trio.move_on_after(LINGER):
            await self.stream.send_eof()
            while await self.stream.receive_some(65536):
                pass

    async def receive(self) -> Any:
        """Return the next event of the client. Raises h11.RemoteProtocolError."""
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self.http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self.http.receive_data(await self.stream.receive_some(65536))

    async def send(self, event: Any) -> None:
        """Send an event to the client."""
        data = self.http.send(event)
        if data:
            await self.stream.send_all(data)

    async def _send_soon(self, event: Any) -> None:
        with trio.move_on_after(SEND_TIMEOUT) as patience:
            await self.send(event)
        if patience.cancelled_caught:
            raise trio.BrokenResourceError(f"it took nothing for {SEND_TIMEOUT:g} seconds")

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, where no answer has begun."""
        if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = json.dumps(refusal.body(self.request_id)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(b"cache-control", b"no-store"), (b"x-request-id", self.request_id.encode())]
        if refusal.retry_after is not None:
            headers.append((b"retry-after", str(refusal.retry_after).encode()))
        if self.http.their_state is not h11.DONE:
            headers.append((b"connection", b"close"))
        await self.send(h11.Response(status_code=refusal.status, headers=headers))
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())

    async def _one_request(self) -> bool:
        """Serve one request; say whether the connection can take another."""
        self.request_id = secrets.token_hex(8)
        try:
            with trio.move_on_after(IDLE_TIMEOUT) as patience:
                request = await self.receive()
            if patience.cancelled_caught or not isinstance(request, h11.Request):
                return False
            return await self._dispatch(request)
        except h11.RemoteProtocolError as error:
            await self.refuse(Refusal("bad_request", f"not a request: {error}"))
        return False

    async def _dispatch(self, request: h11.Request) -> bool:
        headers = list(request.headers)
        self.client = (self._trusted.client(self._peer[0], headers), self._peer[1])
        self.scheme = self._trusted.scheme(self._peer[0], headers)
        try:
            if self._refuses:
                raise Refusal("forbidden", *admin_socket.NOT_AN_ADMINISTRATOR)
            target = self._proxy.target(request)
            if target is not None:
                await self._proxy.forward(self, request, target)
            else:
                await self._call_application(request)
        except Refusal as refusal:
            await self.refuse(refusal)
        except StorageError as error:
            await self.refuse(Refusal("unavailable", str(error)))
        except (
            h11.RemoteProtocolError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            h11.LocalProtocolError,
        ):
            raise
        except Exception:
            log.exception("a request failed", extra={"REQUEST_ID": self.request_id})
            await self.refuse(Refusal("internal", "something went wrong", "the journal says what"))
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    async def _call_application(self, request: h11.Request) -> None:
        path, _, query = request.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode(),
            "scheme": "http",
            "path": _unquoted(path),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self.client,
            "forwarded_scheme": self.scheme,
            "server": None,
            "state": {"request_id": self.request_id, "principal": self.principal},
        }
        received = 0
        complete = False
        deadline = trio.current_time() + BODY_TIMEOUT

        async def receive() -> dict[str, Any]:
            nonlocal received, complete
            if complete:
                await trio.sleep_forever()
            with trio.move_on_at(deadline) as patience:
                event = await self.receive()
            if patience.cancelled_caught:
                raise Refusal("request_timeout", f"the body did not come within {BODY_TIMEOUT:g} seconds")
            if isinstance(event, h11.Data):
                received += len(event.data)
                if received > MAX_API_BODY:
                    raise Refusal("payload_too_large", f"the body is over {MAX_API_BODY} bytes")
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            complete = True
            if isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                headers += [
                    (b"x-request-id", self.request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"same-origin"),
                    (b"content-security-policy", _PAGE_POLICY),
                ]
                await self._send_soon(h11.Response(status_code=message["status"], headers=headers))
                return
            body = message.get("body", b"")
            if body:
                await self._send_soon(h11.Data(data=body))
            if not message.get("more_body", False):
                await self._send_soon(h11.EndOfMessage())

        await self._application(scope, receive, send)
        await self._drain()

    async def _drain(self) -> None:
        """Read what is left of a small body, so that the connection can go on."""
        if self.http.their_state is h11.SEND_BODY and not self.http.they_are_waiting_for_100_continue:
            with trio.move_on_after(1):
                while not isinstance(await self.receive(), h11.EndOfMessage | h11.ConnectionClosed):
                    pass


def _address(stream: trio.SocketStream) -> tuple[str, int]:
    name = cast("tuple[Any, ...] | str", stream.socket.getpeername())
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("local", 0)


def _unquoted(path: bytes) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")
