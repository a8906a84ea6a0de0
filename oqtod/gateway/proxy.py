"""The way to a session's services: the request goes over a descriptor that the account's runner connected."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

import h11
import trio

from oqtod.accounts.authenticator import Asked
from oqtod.errors import Refusal
from oqtod.gateway.keystrokes import Keystrokes
from oqtod.gateway.visit import Visit
from oqtod.sessions import ports
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session
from runner.protocol.messages import ServiceName

if TYPE_CHECKING:
    from oqtod.gateway.front import Connection

RESPONSE_TIMEOUT = 60.0
"""Seconds a service may take until its response begins."""

_TARGET = re.compile(
    rb"/api/sessions/([A-Za-z0-9_-]{1,64})/(?:(terminal|files)|ports/([0-9]{1,5}))(/[^?]*)?(?:\?(.*))?",
    re.DOTALL,
)
_BROWSER = re.compile(rb"/api/sessions?/([A-Za-z0-9_-]{1,64})/browser/stream(?:\?(.*))?", re.DOTALL)

# What a user's program sends never runs on our origin: `sandbox` gives it one of its own that nobody else
# has. A preview is there to be run; a file is not.
_FILE_POLICY = b"sandbox"
_PREVIEW_POLICY = b"sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"

_HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
_OURS = {b"cookie", b"authorization", b"x-api-key", b"forwarded", b"expect"}
_NEVER_BACK = {b"set-cookie", b"clear-site-data", b"strict-transport-security", b"service-worker-allowed"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a request asks for: a session, one of its services or a port of its block, and a path there."""

    session: str
    service: ServiceName | None
    port: int | None
    path: bytes
    query: bytes

    @property
    def prefix(self) -> bytes:
        """The path that the service's own paths are below, for programs that make links."""
        place = self.service if self.service is not None else f"ports/{self.port}"
        return f"/api/sessions/{self.session}/{place}".encode()


class Proxy:
    """Forwards requests to services."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def target(self, request: h11.Request) -> Target | None:
        """Return what a request asks of a service, or None when it is the API's.

        The terminal's page is ours: what a user's program sends never runs on our origin.
        """
        browser = _BROWSER.fullmatch(request.target)
        if browser is not None and _is_upgrade(request):
            return Target(browser[1].decode(), "browser", None, b"/stream", browser[2] or b"")
        match = _TARGET.fullmatch(request.target)
        if match is None:
            return None
        service = cast(ServiceName, match[2].decode()) if match[2] is not None else None
        port = int(match[3]) if match[3] is not None else None
        path = match[4] or b"/"
        page = path == b"/" or path.startswith(b"/static/")
        if service == "terminal" and page and not _is_upgrade(request):
            return None
        return Target(match[1].decode(), service, port, path, match[5] or b"")

    async def forward(self, client: Connection, request: h11.Request, target: Target) -> None:
        """Send a request to its service, and the response back. Raises Refusal."""
        asked = Asked.of(request.method.decode(), target.query, request.headers)
        path = unquote_to_bytes(target.prefix + target.path).decode("utf-8", "replace")
        visit = Visit(self._gateway, client.request_id, client.client[0], asked.method, path, target.session)
        principal = await visit.admit(asked, client.principal)
        sessions = self._gateway.sessions
        session = sessions.records.find(principal.user.id, target.session)
        if target.service is not None:
            connected = await sessions.open(session, target.service)
        else:
            connected = await sessions.open_port(session, _port_of(session, target))
        note = partial(sessions.activity.note, session.id)
        async with _stream(connected) as service:
            with self._gateway.accounts.connections.held(principal):
                if _is_upgrade(request):
                    with visit.websocket(principal):
                        await _upgrade(client, service, request, target, note)
                else:
                    await _exchange(client, service, request, target, note)


def _port_of(session: Session, target: Target) -> int:
    assert target.port is not None
    if session.port_base is None or target.port not in ports.preview_ports(session.port_base):
        raise Refusal(
            "not_found",
            f"port {target.port} is none of the session's",
            "its ports are in $OQTO_PORTS, and in the session's preview_ports",
        )
    return target.port


def _stream(connected: socket.socket) -> trio.SocketStream:
    connected.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(connected))


def _is_upgrade(request: h11.Request) -> bool:
    return any(name == b"upgrade" for name, _ in request.headers)


def _request_head(client: Connection, request: h11.Request, target: Target, extra: list[Any]) -> h11.Request:
    dropped = _HOP_BY_HOP | _OURS | _named_by_connection(request.headers)
    kept = [
        (name, value)
        for name, value in request.headers
        if name not in dropped and not name.startswith(b"x-forwarded-")
    ]
    body = [(n, v) for n, v in request.headers if n == b"transfer-encoding"]
    host = next((value for name, value in request.headers if name == b"host"), b"")
    forwarded = [
        (b"x-forwarded-for", client.client[0].encode()),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", (client.scheme or "http").encode()),
        (b"x-forwarded-prefix", target.prefix),
    ]
    query = b"&".join(x for x in target.query.split(b"&") if _query_name(x) not in (b"token", b"ticket"))
    path = target.path + (b"?" + query if query else b"")
    return h11.Request(method=request.method, target=path, headers=[*kept, *body, *forwarded, *extra])


def _query_name(parameter: bytes) -> bytes:
    return unquote_to_bytes(parameter.partition(b"=")[0].replace(b"+", b" "))


def _named_by_connection(headers: Any) -> set[bytes]:
    return {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }


def _response_headers(response: h11.Response, target: Target) -> list[tuple[bytes, bytes]]:
    dropped = _HOP_BY_HOP | _NEVER_BACK | _named_by_connection(response.headers)
    dropped |= {b"x-content-type-options"}
    # Beside a policy of the service's own, if it has one: a browser obeys both.
    policy = _FILE_POLICY if target.service is not None else _PREVIEW_POLICY
    kept = [(name, value) for name, value in response.headers if name not in dropped]
    framing = [(n, v) for n, v in response.headers if n == b"transfer-encoding"]
    return [
        *kept,
        *framing,
        (b"content-security-policy", policy),
        (b"x-content-type-options", b"nosniff"),
    ]


async def _exchange(
    client: Connection,
    service: trio.SocketStream,
    request: h11.Request,
    target: Target,
    note: Callable[[], None],
) -> None:
    http = h11.Connection(h11.CLIENT)
    try:
        await service.send_all(
            http.send(_request_head(client, request, target, [(b"connection", b"close")])) or b""
        )
        patience = _Patience()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_body, client, service, http, note, patience)
            await _send_response(client, service, http, target, patience)
            nursery.cancel_scope.cancel()
    except* h11.RemoteProtocolError as group:
        raise Refusal("bad_gateway", f"the service's answer is no HTTP: {group.exceptions[0]}") from group
    except* trio.TooSlowError as group:
        message = f"the service did not go on answering for {RESPONSE_TIMEOUT:g} seconds"
        raise Refusal("bad_gateway", message, "try again") from group
    except* Refusal as group:
        raise group.exceptions[0] from None
    except* (trio.BrokenResourceError, trio.ClosedResourceError) as group:
        raise trio.BrokenResourceError("one side of the exchange closed") from group


class _Patience:
    """How long a service may be silent: RESPONSE_TIMEOUT since it last took a piece of the request."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    async def wait_for(self, service: trio.SocketStream) -> bytes:
        """Return what the service sends next. Raises trio.TooSlowError."""
        with trio.fail_after(RESPONSE_TIMEOUT) as self._scope:
            return bytes(await service.receive_some(65536))

    def renew(self) -> None:
        """A long upload goes on: nobody can expect an answer yet."""
        self._scope.deadline = trio.current_time() + RESPONSE_TIMEOUT


async def _send_body(
    client: Connection,
    service: trio.SocketStream,
    http: h11.Connection,
    note: Callable[[], None],
    patience: _Patience,
) -> None:
    try:
        while True:
            event = await client.receive()
            if isinstance(event, h11.ConnectionClosed):
                await service.aclose()
                return
            if not isinstance(event, h11.Data | h11.EndOfMessage):
                return
            data = http.send(event)
            if data:
                note()
                await service.send_all(data)
                patience.renew()
            if isinstance(event, h11.EndOfMessage):
                return
    except trio.BrokenResourceError:
        return  # the service answers before it has read everything: its answer goes back


async def _send_response(
    client: Connection,
    service: trio.SocketStream,
    http: h11.Connection,
    target: Target,
    patience: _Patience,
) -> None:
    begun = False
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await patience.wait_for(service)
            if not data and not begun:
                raise Refusal("bad_gateway", "the service closed before it answered", "try again")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            begun = True
            headers = _response_headers(event, target)
            if client.http.their_state is h11.SEND_BODY:
                headers.append((b"connection", b"close"))
            await client.send(
                h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
            )
        elif isinstance(event, h11.Data):
            await client.send(event)
        elif isinstance(event, h11.EndOfMessage):
            await client.send(h11.EndOfMessage())
            return
        elif isinstance(event, h11.ConnectionClosed):
            raise trio.BrokenResourceError("the service closed in the middle of its answer")


async def _upgrade(
    client: Connection,
    service: trio.SocketStream,
    request: h11.Request,
    target: Target,
    note: Callable[[], None],
) -> None:
    protocol = next(value for name, value in request.headers if name == b"upgrade")
    if not isinstance(await client.receive(), h11.EndOfMessage):
        raise Refusal("bad_request", "an upgrade has no body")
    http = h11.Connection(h11.CLIENT)
    extra = [(b"connection", b"Upgrade"), (b"upgrade", protocol)]
    await service.send_all(http.send(_request_head(client, request, target, extra)) or b"")
    await service.send_all(http.send(h11.EndOfMessage()) or b"")
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            with trio.fail_after(RESPONSE_TIMEOUT):
                data = await service.receive_some(65536)
            if not data:
                raise Refusal("bad_gateway", "the service closed before it answered", "try again")
            http.receive_data(data)
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            break
        elif isinstance(event, h11.Response):
            raise Refusal("bad_gateway", f"the service refused the upgrade with status {event.status_code}")
    dropped = _NEVER_BACK | {b"connection", b"upgrade"}
    headers = [(name, value) for name, value in event.headers if name not in dropped] + extra
    await client.send(h11.InformationalResponse(status_code=101, headers=headers, reason=event.reason))
    early_service, _ = http.trailing_data
    early_client, _ = client.http.trailing_data
    keystrokes = Keystrokes(target.service)

    def watch(data: bytes) -> None:
        if keystrokes.seen(data):
            note()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, client.stream, service, early_client, nursery.cancel_scope, watch)
        nursery.start_soon(_pump, service, client.stream, early_service, nursery.cancel_scope)


async def _pump(
    source: trio.SocketStream,
    sink: trio.SocketStream,
    early: bytes,
    scope: trio.CancelScope,
    watch: Callable[[bytes], None] | None = None,
) -> None:
    try:
        data = early or bytes(await source.receive_some(65536))
        while data:
            if watch is not None:
                watch(data)
            await sink.send_all(data)
            data = bytes(await source.receive_some(65536))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # either end may go at any time: then both do
    scope.cancel()
