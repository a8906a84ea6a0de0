"""Requests on their way to a service: how long each side may take."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from oqtod.gateway.engine import SWEEP
from oqtod.gateway.limits import RESPONSE_TIMEOUT
from tests.unit.gateway.parts import house, read_until

PIECE = b"x" * 1000


PATH = "/api/sessions/s/files/"


@asynccontextmanager
async def exchange(head: str) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A client that has sent a request, and the service that it is for."""
    async with house() as here:
        client = await here.client()
        await client.send_all(head.encode())
        yield client, await here.service()


async def test_an_upload_may_take_longer_than_an_answer(autojump_clock: MockClock) -> None:
    count = 5
    head = f"PUT {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {count * len(PIECE)}\r\n\r\n"
    async with exchange(head) as (client, service), trio.open_nursery() as nursery:

        async def upload() -> None:
            for _ in range(count):
                await trio.sleep(RESPONSE_TIMEOUT * 0.8)
                await client.send_all(PIECE)

        nursery.start_soon(upload)
        await read_until(service, PIECE * count)
        await service.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await read_until(client, b"\r\n\r\n")).startswith(b"HTTP/1.1 204")


async def test_a_service_that_is_silent_is_given_up(autojump_clock: MockClock) -> None:
    async with exchange(f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n") as (client, service):
        began = trio.current_time()
        answer = await read_until(client, b"}")
        assert answer.startswith(b"HTTP/1.1 502")
        assert b"did not go on answering" in answer
        assert trio.current_time() - began < RESPONSE_TIMEOUT + 2 * SWEEP
        await read_until(service, b"\r\n\r\n")
        assert await service.receive_some() == b""


async def test_a_service_that_closes_or_babbles_is_said_so(autojump_clock: MockClock) -> None:
    for said in (b"", b"babble\r\n\r\n"):
        async with exchange(f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n") as (client, service):
            await read_until(service, b"\r\n\r\n")
            if said:
                await service.send_all(said)
            await service.send_eof()
            assert (await read_until(client, b"}")).startswith(b"HTTP/1.1 502")
