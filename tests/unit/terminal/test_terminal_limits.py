"""Clients that say too little: the clock jumps ahead when nobody has anything to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request

from runner.terminal import server
from runner.terminal.connection import HELLO_SECONDS
from runner.terminal.server import Settings, TerminalServer


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[trio.SocketStream]:
    """A client's stream to a server on a TCP port of loopback."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(TerminalServer(settings).serve, listeners)
        stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
        async with stream:
            yield stream
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET /token HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_a_client_that_says_no_more_is_closed(
    autojump_clock: trio.testing.MockClock, said: bytes
) -> None:
    async with connected(Settings(command=("false",))) as stream:
        start = trio.current_time()
        if said:
            await stream.send_all(said)
        answer = b""
        with trio.fail_after(1000):
            while data := await stream.receive_some():
                answer += data
        assert trio.current_time() - start == pytest.approx(server.HEAD_SECONDS, abs=0.01)
        assert answer.startswith(b"HTTP/1.1 200 ") if b"token" in said else answer == b""


async def test_bytes_that_trickle_in_gain_no_time(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(Settings(command=("false",))) as stream:
        start = trio.current_time()
        with trio.fail_after(1000):
            while True:
                try:
                    await stream.send_all(b"x")
                except trio.BrokenResourceError:
                    break
                await trio.sleep(0.5)
        assert trio.current_time() - start == pytest.approx(server.HEAD_SECONDS, abs=1.5)


async def test_a_terminal_without_a_first_message_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(Settings(command=("false",))) as stream:
        peer = WSConnection(ConnectionType.CLIENT)
        await stream.send_all(peer.send(Request(host="127.0.0.1", target="/ws", subprotocols=["tty"])))
        start = trio.current_time()
        events: list[object] = []
        with trio.fail_after(1000):
            while not any(isinstance(event, CloseConnection) for event in events):
                peer.receive_data(bytes(await stream.receive_some()))
                events += peer.events()
        assert isinstance(events[0], AcceptConnection)
        assert isinstance(events[-1], CloseConnection)
        assert events[-1].code == 1008
        assert trio.current_time() - start == pytest.approx(HELLO_SECONDS, abs=0.01)


async def test_a_crowd_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 0)
    async with connected(Settings(command=("false",))) as stream:
        with trio.fail_after(10):
            try:
                assert await stream.receive_some() == b""
            except trio.BrokenResourceError:
                pass
