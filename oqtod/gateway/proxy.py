"""The way to a session's services: the request goes over a descriptor that the account's runner connected."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

import h11
import trio

from oqtod.accounts.authenticator import Asked
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from runner.protocol.messages import ServiceName

if TYPE_CHECKING:
    from oqtod.gateway.front import Connection

RESPONSE_TIMEOUT = 60.0
"""Seconds a service may take until its response begins."""

_TARGET = re.compile(rb"/api/sessions/([A-Za-z0-9_-]{1,64})/(terminal|files)(/[^?]*)?(?:\?(.*))?", re.DOTALL)

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
    """What a request asks for: a session, one of its services, and a path there."""

    session: str
    service: ServiceName
    path: bytes
    query: bytes


class Proxy:
    """Forwards requests to services."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def target(self, request: h11.Request) -> Target | None:
        """Return what a request asks of a service, or None when it is the API's.

        The terminal's page is ours: what a user's program sends never runs on our origin.
        """
        match = _TARGET.fullmatch(request.target)
        if match is None:
            return None
        service = cast(ServiceName, match[2].decode())
        path = match[3] or b"/"
        page = path == b"/" or path.startswith(b"/static/")
        if service == "terminal" and page and not _is_upgrade(request):
            return None
        return Target(match[1].decode(), service, path, match[4] or b"")

    async def forward(self, client: Connection, request: h11.Request, target: Target) -> None:
        """Send a request to its service, and the response back. Raises Refusal."""
        asked = Asked.of(request.method.decode(), target.query, request.headers)
        self._gateway.authenticator.check_host(asked)
        principal = self._gateway.authenticator.authenticate(asked)
        session = self._gateway.sessions.records.find(principal.user.id, target.session)
        connected = await self._gateway.sessions.open(session, target.service)
        async with _stream(connected) as service:
            await self._gateway.sessions.records.touch(session.id)
            if _is_upgrade(request):
                await _upgrade(client, service, request, target)
            else:
                await _exchange(client, service, request, target)


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
        (b"x-forwarded-proto", b"http"),
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


def _response_headers(response: h11.Response) -> list[tuple[bytes, bytes]]:
    dropped = _HOP_BY_HOP | _NEVER_BACK | _named_by_connection(response.headers)
    dropped |= {b"content-security-policy", b"x-content-type-options"}
    kept = [(name, value) for name, value in response.headers if name not in dropped]
    framing = [(n, v) for n, v in response.headers if n == b"transfer-encoding"]
    return [
        *kept,
        *framing,
        (b"content-security-policy", b"sandbox"),
        (b"x-content-type-options", b"nosniff"),
    ]


async def _exchange(
    client: Connection, service: trio.SocketStream, request: h11.Request, target: Target
) -> None:
    http = h11.Connection(h11.CLIENT)
    try:
        await service.send_all(
            http.send(_request_head(client, request, target, [(b"connection", b"close")])) or b""
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_body, client, service, http)
            await _send_response(client, service, http, request)
            nursery.cancel_scope.cancel()
    except* h11.RemoteProtocolError as group:
        raise Refusal("bad_gateway", f"the service's answer is no HTTP: {group.exceptions[0]}") from group
    except* (trio.BrokenResourceError, trio.ClosedResourceError) as group:
        raise trio.BrokenResourceError("one side of the exchange closed") from group


async def _send_body(client: Connection, service: trio.SocketStream, http: h11.Connection) -> None:
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
                await service.send_all(data)
            if isinstance(event, h11.EndOfMessage):
                return
    except trio.BrokenResourceError:
        return  # the service answers before it has read everything: its answer goes back


async def _send_response(
    client: Connection, service: trio.SocketStream, http: h11.Connection, request: h11.Request
) -> None:
    begun = False
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            with trio.fail_after(RESPONSE_TIMEOUT):
                data = await service.receive_some(65536)
            if not data and not begun:
                raise Refusal("bad_gateway", "the service closed before it answered", "try again")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            begun = True
            headers = _response_headers(event)
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
    client: Connection, service: trio.SocketStream, request: h11.Request, target: Target
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
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, client.stream, service, early_client, nursery.cancel_scope)
        nursery.start_soon(_pump, service, client.stream, early_service, nursery.cancel_scope)


async def _pump(
    source: trio.SocketStream, sink: trio.SocketStream, early: bytes, scope: trio.CancelScope
) -> None:
    try:
        if early:
            await sink.send_all(early)
        while data := await source.receive_some(65536):
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # either end may go at any time: then both do
    scope.cancel()
