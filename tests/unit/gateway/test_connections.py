"""Clients of the gateway's port that say too little, too much or nothing: the clock jumps when all wait."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from oqtod.errors import Refusal
from oqtod.gateway import heads, limits
from oqtod.gateway.engine import SWEEP
from oqtod.store.database import StorageFull
from tests.unit.gateway.parts import everything, house, read_until, status

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers with the length of the body that it got."""
    size = 0
    match scope["path"]:
        case "/refuse":
            raise Refusal("not_found", "there is nothing")
        case "/full":
            raise StorageFull("there is no space left for the database")
        case "/bug":
            raise KeyError("a secret of ours")
        case "/unread":
            more = False
        case _:
            more = True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"x" * 50_000_000 if scope["path"] == "/long" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connected() -> AsyncIterator[trio.SocketStream]:
    """A client of a gateway on a TCP port of loopback."""
    async with house(application) as here:
        yield await here.client()


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
async def test_half_a_head_and_silence_is_closed(said: bytes, autojump_clock: MockClock) -> None:
    async with connected() as stream:
        if said:
            await stream.send_all(said)
        began = trio.current_time()
        answer = await everything(stream)
        assert status(answer) == 408 if said else answer == b""
        passed = trio.current_time() - began
        assert limits.IDLE_TIMEOUT - SWEEP <= passed <= limits.IDLE_TIMEOUT + limits.LINGER + 2 * SWEEP


async def test_a_head_that_comes_letter_by_letter_is_closed_in_time(autojump_clock: MockClock) -> None:
    async with connected() as stream, trio.open_nursery() as nursery:

        async def dribble() -> None:
            try:
                await stream.send_all(b"GET / HTTP/1.1\r\n")
                while True:
                    await stream.send_all(b"x: y\r\n")
                    await trio.sleep(5)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(dribble)
        began = trio.current_time()
        assert status(await everything(stream)) == 408
        assert trio.current_time() - began <= limits.IDLE_TIMEOUT + limits.LINGER + SWEEP
        nursery.cancel_scope.cancel()


async def test_half_a_head_and_the_end_is_told(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHos")
        await stream.send_eof()
        assert status(await everything(stream)) == 400


OVERSIZED = [
    b"GET /" + b"a" * heads.MAX_HEAD,
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 20_000,
    b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + b"c" * 200_000,
]


@pytest.mark.parametrize("head", OVERSIZED, ids=["target", "many", "long"])
async def test_an_oversized_head_is_refused_and_the_reason_arrives(
    head: bytes, autojump_clock: MockClock
) -> None:
    async with connected() as stream:
        await stream.send_all(head)
        answer = await everything(stream)
        assert status(answer) in (414, 431)
        assert b"connection: close" in answer.lower()
        error = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert error["error_code"] in ("uri_too_long", "head_too_large")
        assert error["request_id"]


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS on the plain port
    b"\0\1\2\3\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
]


@pytest.mark.parametrize("said", GARBAGE)
async def test_garbage_is_refused(said: bytes, autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(said)
        assert status(await everything(stream)) in (400, 408, 413, 501)


@settings(deadline=None, max_examples=150)
@given(said=st.lists(st.binary(max_size=40) | st.sampled_from(GARBAGE), max_size=4).map(b"".join))
def test_whatever_is_said_the_connection_ends_in_order(said: bytes) -> None:
    async def say() -> bytes:
        async with connected() as stream:
            await stream.send_all(said)
            await stream.send_eof()
            return await everything(stream)

    answer = trio.run(say)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert b"Traceback" not in answer


async def test_a_body_that_does_not_come(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        began = trio.current_time()
        answer = await everything(stream)
        assert status(answer) == 408
        assert trio.current_time() - began <= limits.BODY_TIMEOUT + limits.LINGER


async def test_a_body_that_never_ends_is_refused_and_the_reason_arrives(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await stream.send_all(head)
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        for _ in range(limits.MAX_API_BODY // 0x10000 + 8):
            await stream.send_all(piece)
        assert status(await everything(stream)) == 413


async def test_all_bodies_together_are_bounded(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(limits, "MAX_API_BODIES", 20_000)
    async with house(application) as here:
        head = b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 15000\r\n\r\n"
        slow, quick = await here.client(), await here.client()
        await slow.send_all(head + bytes(14_999))
        await trio.sleep(0.1)
        await quick.send_all(head + bytes(15_000))
        assert status(await read_until(quick, b"}")) == 503
        await slow.send_all(b"y")
        assert status(await read_until(slow, b"15000")) == 200
        await trio.sleep(0.1)
        assert here.front.bodies == 0


async def test_a_client_that_takes_no_answer_is_let_go(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stream.send_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.sleep(limits.SEND_TIMEOUT + limits.LINGER + 1)
        answer = b""
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            while True:
                data = await stream.receive_some()
                if not data:
                    raise EOFError
                answer += data
        assert len(answer) < 50_000_000


async def test_requests_follow_each_other_on_one_connection(autojump_clock: MockClock) -> None:
    async with connected() as stream:
        one = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        await stream.send_all(one + one + b"GET /unread HTTP/1.1\r\nHost: a\r\n\r\n" + last)
        answer = await everything(stream)
        assert answer.count(b"HTTP/1.1 200") == 4
        assert [x[:1] for x in answer.split(b"\r\n\r\n")[1:]] == [b"3", b"3", b"0", b"0"]


@pytest.mark.parametrize(("path", "expected"), [("/refuse", 404), ("/full", 503), ("/bug", 500)])
async def test_what_goes_wrong_is_one_answer(path: str, expected: int, autojump_clock: MockClock) -> None:
    async with connected() as stream:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode())
        answer = await everything(stream)
        assert status(answer) == expected
        assert b"a secret of ours" not in answer
        assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) >= {"error", "code", "error_code"}
