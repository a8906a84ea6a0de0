"""A front with real sockets and services that a test plays itself; who asks is whoever the test says."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import trio

from oqtod.accounts.connections import Connections
from oqtod.accounts.principal import Principal
from oqtod.accounts.users import User
from oqtod.errors import Refusal
from oqtod.gateway.forwarded import TrustedProxies
from oqtod.gateway.front import Front
from oqtod.gateway.heads import RequestHead
from oqtod.gateway.targets import Target, target_of
from oqtod.gateway.visit import Visit
from oqtod.telemetry.traffic import Traffic

USER = User("u", "u", "u@example.com", "U", None, "user", True, None, "database", 1, 0, "", None)
PRINCIPAL = Principal(USER, "token", "t")


class Guest:
    """A visit of somebody who may come in."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.principal = PRINCIPAL
        self.key = (target.session, target.service, target.port)
        self.notes = 0
        self.log: list[str] = []

    def admit_at_once(self, head: RequestHead, known: Principal | None) -> bool:
        if b"x-nobody" in head.found:
            raise Refusal("unauthorized", "not logged in")
        return b"x-slowly" not in head.found

    async def admit(self, head: RequestHead) -> None:
        await trio.lowlevel.checkpoint()

    def note(self) -> None:
        self.notes += 1

    def opened(self) -> None:
        self.log.append("opened")

    def closed(self) -> None:
        self.log.append("closed")


@dataclass
class Services:
    """Each connection that the front makes to a service is one that the test gets the other end of."""

    made: trio.MemorySendChannel[trio.SocketStream]
    guests: list[Guest] = field(default_factory=list)
    refuses: Refusal | None = None

    def target(self, head: RequestHead) -> Target | None:
        return target_of(head.target, upgrade=head.upgrade is not None)

    def visit(self, request_id: str, address: str, head: RequestHead, target: Target) -> Visit:
        guest = Guest(target)
        self.guests.append(guest)
        return cast(Visit, guest)

    def check(self, visit: Visit) -> None:
        pass

    async def connect(self, visit: Visit) -> socket.socket:
        if self.refuses is not None:
            raise self.refuses
        await trio.lowlevel.checkpoint()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.made.send_nowait(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        return ours


@dataclass
class House:
    """A running front."""

    front: Front
    services: Services
    held: Connections
    made: trio.MemoryReceiveChannel[trio.SocketStream]
    address: tuple[str, int]
    streams: list[trio.SocketStream] = field(default_factory=list)

    async def client(self) -> trio.SocketStream:
        """Connect to the gateway."""
        stream = await trio.open_tcp_stream(*self.address)
        self.streams.append(stream)
        return stream

    async def service(self) -> trio.SocketStream:
        """Return the service's end of the next connection to one."""
        with trio.fail_after(1000):
            stream = await self.made.receive()
        self.streams.append(stream)
        return stream


PATH = "/api/sessions/s/ports/41823/"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def request(path: str = "", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Return the head of a request to a service."""
    return "\r\n".join([f"{method} {PATH}{path} HTTP/{version}", "Host: a", *fields, "", ""]).encode()


async def asked(here: House, data: bytes) -> tuple[trio.SocketStream, trio.SocketStream, bytes]:
    """A client that has sent this, the service, and what arrived there up to the end of a head."""
    client = await here.client()
    await client.send_all(data)
    service = await here.service()
    return client, service, await read_until(service, b"\r\n\r\n")


Application = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]


async def no_api(*_: object) -> None:
    raise AssertionError("this is no request to the API")


@asynccontextmanager
async def house(application: Application = no_api, trusted: tuple[str, ...] = ()) -> AsyncIterator[House]:
    """A front at a TCP port of loopback, for as long as the block lasts."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    send, receive = trio.open_memory_channel[trio.SocketStream](64)
    services, held = Services(send), Connections()
    front = Front(application, services, TrustedProxies(trusted), held, Traffic())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(front.serve, [listener])
        found = House(front, services, held, receive, listener.getsockname())
        try:
            yield found
        finally:
            nursery.cancel_scope.cancel()
    listener.close()
    send.close()
    for stream in [*found.streams, *[stream async for stream in receive]]:
        await stream.aclose()


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    """Return what comes, up to a mark and what came with it."""
    seen = b""
    with trio.fail_after(1000):
        while mark not in seen:
            data = await stream.receive_some()
            assert data, seen
            seen += data
    return seen


async def everything(stream: trio.SocketStream) -> bytes:
    """Return what comes until the other side closes; within a quarter of an hour."""
    answer = b""
    with trio.fail_after(900):
        while data := await stream.receive_some():
            answer += data
    return answer


async def is_over(stream: trio.SocketStream) -> None:
    """Return when the other side has closed, in order or not, and said nothing more."""
    try:
        assert await everything(stream) == b""
    except trio.BrokenResourceError:
        pass


def status(answer: bytes) -> int:
    """Return the status of a response."""
    match = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", answer)
    assert match is not None, answer
    return int(match[1])
