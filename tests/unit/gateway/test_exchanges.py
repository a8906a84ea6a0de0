"""Requests on their way to a service: how long each side may take."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import h11
import trio
from trio.testing import MockClock

from oqtod.gateway import proxy
from oqtod.gateway.forwarded import TrustedProxies
from oqtod.gateway.front import Connection
from oqtod.gateway.proxy import RESPONSE_TIMEOUT, Proxy, Target

PIECE = b"x" * 1000


class OneService:
    """Sends every request to the socket that it was given."""

    def __init__(self, service: trio.SocketStream) -> None:
        self._service = service

    def target(self, request: h11.Request) -> Target:
        return Target("session", "files", None, b"/", b"")

    async def forward(self, client: Connection, request: h11.Request, target: Target) -> None:
        async with self._service:
            await proxy._exchange(client, self._service, request, target, lambda: None)


@asynccontextmanager
async def exchange() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A client's stream to the gateway, and the service's end of the gateway's stream to it."""
    streams = [trio.SocketStream(x) for _ in range(2) for x in trio.socket.socketpair()]
    client, front, back, service = streams
    one = cast(Proxy, OneService(back))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(front, _nothing, one, TrustedProxies([])).run)
        async with client, service:
            yield client, service
        nursery.cancel_scope.cancel()


async def _nothing(*_: object) -> None:
    raise AssertionError("this is no request to the API")


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    seen = b""
    with trio.fail_after(1000):
        while mark not in seen:
            data = await stream.receive_some()
            assert data, seen
            seen += data
    return seen


async def test_an_upload_may_take_longer_than_an_answer(autojump_clock: MockClock) -> None:
    async with exchange() as (client, service), trio.open_nursery() as nursery:
        count = 5

        async def upload() -> None:
            head = f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {count * len(PIECE)}\r\n\r\n"
            await client.send_all(head.encode())
            for _ in range(count):
                await trio.sleep(RESPONSE_TIMEOUT * 0.8)
                await client.send_all(PIECE)

        nursery.start_soon(upload)
        await read_until(service, PIECE * count)
        await service.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await read_until(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 204")


async def test_a_service_that_is_silent_is_given_up(autojump_clock: MockClock) -> None:
    async with exchange() as (client, service):
        await client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        began = trio.current_time()
        answer = await read_until(client, b"}")
        assert answer.startswith(b"HTTP/1.1 502")
        assert b"did not go on answering" in answer
        assert trio.current_time() - began < RESPONSE_TIMEOUT + 1
        await read_until(service, b"\r\n\r\n")
        assert await service.receive_some() == b""


async def test_a_service_that_closes_or_babbles_is_said_so(autojump_clock: MockClock) -> None:
    for said in (b"", b"babble\r\n\r\n"):
        async with exchange() as (client, service):
            await client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await read_until(service, b"\r\n\r\n")
            if said:
                await service.send_all(said)
            await service.send_eof()
            assert (await read_until(client, b"}")).startswith(b"HTTP/1.1 502")
