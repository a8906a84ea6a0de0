"""Much at once: long bodies in little memory, thousands of slow clients, and what is over the limits."""

from __future__ import annotations

import os
import socket
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from oqtod.gateway import headers, limits
from oqtod.gateway.engine import SWEEP
from tests.unit.gateway.parts import House, everything, house, is_over, read_until, status

PATH = "/api/sessions/s/files/file"
LONG = 300 * 1024 * 1024
PIECE = bytes(range(256)) * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MOST_MEMORY = 4 * 1024 * 1024


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def blocking(stream: trio.SocketStream) -> socket.socket:
    """The same connection for a thread."""
    sock = socket.socket(fileno=socket.dup(stream.socket.fileno()))
    sock.setblocking(True)
    sock.settimeout(60)
    return sock


def pour(sock: socket.socket, size: int) -> None:
    with sock:
        for _ in range(size // len(PIECE)):
            sock.sendall(PIECE)


def drink(sock: socket.socket, size: int, found: list[bool]) -> None:
    """Read so many bytes, and say whether they were the right ones."""
    buffer, right = bytearray(len(PIECE)), True
    with sock:
        for _ in range(size // len(PIECE)):
            view = memoryview(buffer)
            while view:
                count = sock.recv_into(view)
                if not count:
                    return
                view = view[count:]
            right = right and buffer == PIECE
    found.append(right)


async def moved(source: trio.SocketStream, sink: trio.SocketStream) -> int:
    """Move a long body from one to the other; return how many bytes of memory that took at its most."""
    found: list[bool] = []
    tracemalloc.start()
    try:
        threads = [
            in_thread(lambda: pour(blocking(source), LONG)),
            in_thread(lambda: drink(blocking(sink), LONG, found)),
        ]
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
        assert found == [True]
        for stream in (source, sink):
            os.set_blocking(stream.socket.fileno(), False)  # the threads' copies share that
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def begun(here: House, head: str) -> tuple[trio.SocketStream, trio.SocketStream]:
    client = await here.client()
    await client.send_all(head.encode())
    service = await here.service()
    await read_until(service, b"\r\n\r\n")
    return client, service


async def test_a_long_download_takes_no_memory() -> None:
    async with house() as here:
        client, service = await begun(here, f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n")
        await service.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        head = await client.receive_some(len(b"HTTP/1.1 200 OK\r\n"))
        assert head == b"HTTP/1.1 200 OK\r\n"
        while not head.endswith(b"\r\n\r\n"):
            head += await client.receive_some(1)
        assert await moved(service, client) < MOST_MEMORY
        await client.send_all(f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await read_until(service, b"\r\n\r\n")
        assert here.front.traffic.bytes_to_clients >= LONG


async def test_a_long_upload_takes_no_memory() -> None:
    async with house() as here:
        head = f"PUT {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n"
        client, service = await begun(here, head)
        assert await moved(client, service) < MOST_MEMORY
        await service.send_all(OK)
        assert status(await read_until(client, b"ok")) == 200
        assert here.front.traffic.bytes_from_clients >= LONG
        assert here.services.guests[0].notes > 1


async def test_long_chunks() -> None:
    async with house() as here:
        client, service = await begun(here, f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n")
        size = 1_000_000
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await service.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for number in range(20):
                    await service.send_all(b"%x\r\n%b\r\n" % (size, bytes([number]) * size))
                await service.send_all(b"0\r\n\r\n")

            nursery.start_soon(answer)
            head = await read_until(client, b"\r\n\r\n")
            body = bytearray(head.partition(b"\r\n\r\n")[2])
            while not body.endswith(b"\r\n0\r\n\r\n"):
                body += await client.receive_some()
        expected = b"".join(b"%x\r\n%b\r\n" % (size, bytes([n]) * size) for n in range(20)) + b"0\r\n\r\n"
        assert body == expected


async def test_a_client_that_takes_nothing_is_let_go(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service = await begun(here, f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n")
        began = trio.current_time()
        await service.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await service.send_all(PIECE)
        assert trio.current_time() - began <= limits.STREAM_TIMEOUT + 2 * SWEEP
        await client.aclose()


async def test_slow_clients_are_nobodys_trouble() -> None:
    count = 1500
    async with house() as here:
        slow = [socket.create_connection(here.address) for _ in range(count)]
        try:
            for sock in slow:
                sock.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
            client, service = await begun(here, f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n")
            await service.send_all(OK)
            await read_until(client, b"ok")
            for _ in range(50):
                for sock in slow[:20]:
                    sock.send(b"y")
                await client.send_all(f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                await read_until(service, b"\r\n\r\n")
                await service.send_all(OK)
                await read_until(client, b"ok")
            assert here.front.traffic.connections_open == count + 1
        finally:
            for sock in slow:
                sock.close()


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_a_big_head_is_not_kept_while_a_connection_waits() -> None:
    head = b"GET /api/health HTTP/1.1\r\nHost: a\r\nCookie: %b\r\n\r\n"
    async with house(hello) as here:
        tracemalloc.start()
        try:
            for number in range(300):
                client = await here.client()
                await client.send_all(head % (b"%d" % number * 10_000)[:30_000])
                await read_until(client, b"ok")
            assert here.front.traffic.connections_open == 300
            assert tracemalloc.get_traced_memory()[0] < 5_000_000
        finally:
            tracemalloc.stop()


async def test_one_address_has_its_share(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(limits, "household", lambda address: address)
    monkeypatch.setattr(limits, "MAX_PER_ADDRESS", 3)
    async with house() as here:
        inside = [await here.client() for _ in range(3)]
        await trio.sleep(0.1)
        assert status(await everything(await here.client())) == 429
        assert here.front.traffic.refused_connections == 1
        await inside[0].aclose()
        await trio.sleep(0.1)
        another = await here.client()
        await another.send_all(b"nonsense\n")
        assert status(await everything(another)) == 400
    async with house(trusted=("127.0.0.1",)) as here:
        many = [await here.client() for _ in range(10)]
        await trio.sleep(0.1)
        assert here.front.traffic.connections_open == len(many)


async def test_all_together_have_theirs(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(limits, "max_connections", lambda: 2)
    async with house() as here:
        for _ in range(2):
            await here.client()
        await trio.sleep(0.1)
        assert status(await everything(await here.client())) == 503


async def test_one_user_has_a_share(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(limits, "MAX_PER_USER", 2)
    async with house() as here:
        head = f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n"
        first, _ = await begun(here, head)
        await begun(here, head)
        third = await here.client()
        await third.send_all(head.encode())
        answer = await read_until(third, b"}")
        assert (status(answer), b"retry-after: " in answer) == (429, True)
        await first.send_all(b"garbage that nobody reads")
        await first.aclose()
        await trio.sleep(limits.HALF_CLOSED_TIMEOUT + 2 * SWEEP)
        await begun(here, head)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.9", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("local", None),
    ],
)
def test_households(address: str, expected: str | None) -> None:
    assert limits.household(address) == expected


async def test_a_bug_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with house() as here:
        client, service = await begun(here, f"GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n")
        with monkeypatch.context() as broken:
            broken.delattr(headers, "response_for")
            await service.send_all(OK)
            await is_over(client)
        assert "a connection failed" in caplog.text
        other, service = await begun(here, f"GET {PATH}/2 HTTP/1.1\r\nHost: a\r\n\r\n")
        await service.send_all(OK)
        await read_until(other, b"ok")
