"""Peers that say nothing, nonsense or too much: they lose their connection, and nobody else anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from runner.protocol import messages, rpc
from runner.protocol.wire import MAX_FRAME, Peer, Wire, WireError
from tests.unit.protocol.conftest import Ends
from tests.unit.protocol.parrots import (
    HELLO,
    PARROT,
    framed,
    read,
    request,
    send,
    serve,
)
from tests.unit.protocol.test_frames import send_with


async def test_a_client_that_says_nothing(ends: Ends, autojump_clock: MockClock) -> None:
    with pytest.raises(WireError, match="no greeting within 5 seconds"):
        await serve(ends)
    assert await ends.raw.recv(1) == b""


async def test_a_client_that_stays_after_its_greeting(ends: Ends, autojump_clock: MockClock) -> None:
    await send(ends.raw, framed(HELLO))
    with trio.move_on_after(24 * 3600) as day:
        await serve(ends)
    assert day.cancelled_caught


@pytest.mark.parametrize(
    "greeting",
    [
        *(b"", b"{}", b"[]", b"null", b"GET / HTTP/1.1", b"\xff" * 20, b"[" * 100_000),
        *(b'{"protocol":1}', b'{"protocol":"\xff","version":3,"program":"x"}'),
        b'{"protocol":"parrot","version":"3"}',
    ],
)
async def test_a_greeting_that_is_none(ends: Ends, greeting: bytes) -> None:
    await send(ends.raw, framed(greeting))
    with pytest.raises(WireError, match="not a greeting"):
        await serve(ends)


async def test_a_greeting_forges_no_log_line(ends: Ends) -> None:
    forged = "x\nOct 13 oqtod[1]: all is well\x1b[2J" + "y" * 100_000
    await send(ends.raw, framed(json.dumps({"protocol": forged, "version": 1, "program": "x"}).encode()))
    with pytest.raises(WireError) as error:
        await serve(ends)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


BAD_ENVELOPES = [
    b"",
    b"null",
    b"garbage",
    b'{"id":"one","call":{}}',
    b'{"id":-1,"call":{}}',
    b'{"id":1e400,"call":{}}',
    b'{"id":' + b"9" * 30 + b',"call":{}}',
    b'{"id":' + b"9" * 6000 + b',"call":{}}',
    b'{"id":1}',
    b'{"id":1,"call":' + b"[" * 500_000,
    b'{"id":1,"call":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"id":1,"call":"\\ud800"}',
    b"\xff\xfe\x00",
]


@pytest.mark.parametrize("payload", BAD_ENVELOPES, ids=lambda payload: payload[:20])
async def test_what_is_no_request_ends_the_connection(ends: Ends, payload: bytes) -> None:
    await send(ends.raw, framed(HELLO))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, ends.raw, framed(payload))
        with pytest.raises(WireError, match="not a request"):
            await serve(ends)


BAD_CALLS = [
    b"{}",
    b"[]",
    b"null",
    b'{"type":"fly"}',
    b'{"type":"say"}',
    b'{"type":"say","word":1}',
    b'{"type":"say","word":"x","further":1}',
    b'{"type":"say","word":"\xff"}',
    b'{"type":"say","word":' + b"[" * 900 + b"]" * 900 + b"}",
]


@pytest.mark.parametrize("call", BAD_CALLS, ids=lambda call: call[:30])
async def test_a_bad_call_is_refused_and_the_next_is_answered(ends: Ends, call: bytes) -> None:
    await send(ends.raw, framed(HELLO) + framed(b'{"id":1,"call":' + call + b"}"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, ends)
        raw = Wire(ends.raw)
        assert (await read(raw))["protocol"] == "parrot"
        assert (await read(raw))["fault"]["code"] == "bad_request"
        await send(ends.raw, request(2, {"type": "say", "word": "good"}))
        assert await read(raw) == {"id": 2, "result": "good"}
        ends.raw.close()


async def test_descriptors_of_a_call_are_closed(ends: Ends) -> None:
    await send_with(ends.raw, framed(HELLO), 3)
    call = request(1, {"type": "say", "word": "x"})
    await send_with(ends.raw, call[:4] + b"\x02" + call[5:], 2)
    ends.raw.shutdown(trio.socket.SHUT_WR)
    await serve(ends)


async def test_requests_beyond_the_limit_wait_unread(ends: Ends, autojump_clock: MockClock) -> None:
    calls = b"".join(request(number, {"type": "wait"}) for number in range(rpc.MAX_IN_FLIGHT + 20))
    await send(ends.raw, framed(HELLO) + calls)
    running = 0

    async def count(call: Any, peer: Peer) -> tuple[None, Sequence[int]]:
        nonlocal running
        running += 1
        await trio.sleep(1e6)
        return None, ()

    with trio.move_on_after(60):
        await rpc.serve(ends.wire, PARROT, count, program="a parrot")
    assert running == rpc.MAX_IN_FLIGHT


async def test_a_client_that_reads_no_answers_is_let_go(ends: Ends, autojump_clock: MockClock) -> None:
    long = request(1, {"type": "say", "word": "x" * 900_000})

    async def ask_for_ever() -> None:
        await send(ends.raw, framed(HELLO))
        try:
            while True:
                await send(ends.raw, long)
        except OSError:
            pass  # it has let go

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_for_ever)
        with pytest.raises(WireError, match="took no frame"):
            await serve(ends)
        ends.raw.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("protocol", [messages.RUNNER, PARROT], ids=lambda protocol: protocol.name)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_whatever_comes_only_a_wire_error_comes_out(protocol: rpc.Protocol, data: st.DataObject) -> None:
    greeting = framed(protocol.hello("fuzz"))
    json_like = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "call", "type"]), inner),
        max_leaves=8,
    ).map(lambda value: framed(json.dumps(value).encode()))
    sent = data.draw(st.lists(st.binary(max_size=60) | json_like, max_size=4).map(b"".join))
    if data.draw(st.booleans()):
        sent = greeting + sent

    async def nobody(call: Any, peer: Peer) -> tuple[Any, Sequence[int]]:
        raise rpc.CallFailed("no", "no")

    async def exchange() -> None:
        ours, theirs = trio.socket.socketpair()
        await send(theirs, sent)
        theirs.shutdown(trio.socket.SHUT_WR)
        with theirs:
            try:
                await rpc.serve(Wire(ours), protocol, nobody, program="fuzzed")
            except WireError as error:
                assert str(error)

    trio.run(exchange)


def test_a_frame_takes_the_longest_call_and_no_longer() -> None:
    spec = messages.SessionSpec(id="x" * 64, workspace="/w" * 2000, workspace_root="/", environment={})
    assert len(msgspec.json.encode(messages.StartSession(spec))) < MAX_FRAME
