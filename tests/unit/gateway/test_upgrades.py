"""WebSockets and what else is no request and answer: bytes both ways, its end, and the end of the gateway."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from oqtod.gateway import limits
from oqtod.gateway.engine import SWEEP
from tests.unit.gateway.parts import OK, House, asked, everything, house, is_over, read_until, request, status

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
SWITCH = (
    b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\n"
)


async def upgraded(here: House) -> tuple[trio.SocketStream, trio.SocketStream]:
    client, service, head = await asked(here, request("ws", *UPGRADE))
    assert b"connection: Upgrade\r\nupgrade: websocket\r\n" in head
    assert b"sec-websocket-key: x\r\n" in head
    await service.send_all(SWITCH)
    assert b"sec-websocket-accept: y\r\n" in await read_until(client, b"\r\n\r\n")
    return client, service


async def test_another_protocol(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("ws", *UPGRADE) + b"early")
        await service.send_all(SWITCH.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n") + b"\x81\x02hi")
        answer = await read_until(client, b"hi")
        assert answer.startswith(b"HTTP/1.1 101 Switching\r\nconnection: Upgrade\r\nupgrade: websocket\r\n")
        assert b"content-length" not in answer
        assert await read_until(service, b"early") == b"early"
        (guest,) = here.services.guests
        assert guest.log == ["opened"]
        assert (len(here.front.connections), len(here.front.relays)) == (0, 1)
        noted = guest.notes
        await client.send_all(b"\x8a\x80abcd")  # a pong
        assert await read_until(service, b"abcd")
        assert guest.notes == noted
        await client.send_all(b"\x81\x81abcdx")
        await read_until(service, b"abcdx")
        assert guest.notes == noted + 1
        payload = bytes(range(256)) * 4000
        async with trio.open_nursery() as nursery:
            for source, sink in ((client, service), (service, client)):
                nursery.start_soon(source.send_all, payload)
                nursery.start_soon(read_exactly, sink, payload)
        await client.send_eof()
        assert await everything(service) == b""
        await service.send_all(b"last words")
        await service.aclose()
        assert await everything(client) == b"last words"
        await trio.sleep(0.1)
        assert guest.log == ["opened", "closed"]
        traffic = here.front.traffic
        assert (len(here.front.relays), traffic.connections_open, traffic.websockets_open) == (0, 0, 0)


async def read_exactly(stream: trio.SocketStream, expected: bytes) -> None:
    seen = b""
    while len(seen) < len(expected):
        data = await stream.receive_some()
        assert data
        seen += data
    assert seen == expected


async def test_who_ends_first_waits_for_the_other_but_not_long(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service = await upgraded(here)
        await service.send_eof()
        began = trio.current_time()
        assert await everything(client) == b""
        assert await everything(service) == b""
        assert trio.current_time() - began <= limits.RELAY_LINGER + 2 * SWEEP


async def test_a_side_that_takes_nothing_holds_the_other_back(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service = await upgraded(here)
        with trio.move_on_after(60):
            while True:
                await service.send_all(bytes(100_000))
        (relay,) = here.front.relays
        assert len(relay._down.pending) <= 65536
        await client.aclose()
        await trio.sleep(0.1)
        assert not here.front.relays


async def test_another_protocol_refused(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("ws", *UPGRADE))
        await service.send_all(b"HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno")
        assert status(await read_until(client, b"no")) == 426
        assert here.services.guests[0].log == []
        await client.send_all(request("next"))
        assert b"/next" in await read_until(service, b"\r\n\r\n")


async def test_what_is_revoked_is_cut_off(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service = await upgraded(here)
        waiting, idle, _ = await asked(here, request())
        here.held.cut(lambda principal: principal.credential == "another")
        await client.send_all(b"\x81\x81abcdx")
        await read_until(service, b"abcdx")
        here.held.cut(lambda principal: principal.credential == "t")
        for stream in (client, service, waiting, idle):
            await is_over(stream)
        assert not here.front.relays
        assert not here.front.connections
        assert here.services.guests[0].log == ["opened", "closed"]


async def test_stopping_lets_requests_end_and_takes_no_more(autojump_clock: MockClock) -> None:
    async with house() as here:
        idle = await here.client()
        relayed, _ = await upgraded(here)
        client, service, _ = await asked(here, request())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.front.drain)
            assert await everything(idle) == b""
            assert await everything(relayed) == b""
            await trio.sleep(3)
            await service.send_all(OK)
            answer = await everything(client)
            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"ok")


async def test_stopping_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with house() as here:
        await asked(here, request())
        began = trio.current_time()
        await here.front.drain()
        assert trio.current_time() - began <= limits.DRAIN_TIMEOUT + 1
