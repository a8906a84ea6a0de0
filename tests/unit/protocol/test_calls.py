"""Calls: greeted by version and by the kernel's word, matched by id, never a way to bring a server down."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
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
from tests.unit.protocol.test_frames import send_with


class Say(rpc.Call[str], frozen=True, tag="say"):
    answer = str
    word: str


class Wait(rpc.Call[None], frozen=True, tag="wait"):
    answer = None


class Fetch(rpc.Call[int], frozen=True, tag="fetch"):
    answer = int
    descriptors: int


PARROT = rpc.Protocol("parrot", 3, [Say, Wait, Fetch])
HELLO = b'{"protocol":"parrot","version":3,"program":"test"}'


def framed(payload: bytes) -> bytes:
    return struct.pack(">IB", len(payload), 0) + payload


def request(number: int, call: object) -> bytes:
    return framed(json.dumps({"id": number, "call": call}).encode())


async def parrot(call: Any, peer: Peer) -> tuple[Any, Sequence[int]]:
    assert peer.uid == os.getuid()
    match call:
        case Say(word="no"):
            raise rpc.CallFailed("refused", "the parrot won't say no", "ask it something else")
        case Say(word="bug"):
            raise KeyError("a fault of the parrot's")
        case Say(word=word):
            return word, ()
        case Wait():
            await trio.sleep_forever()
        case Fetch(descriptors=count):
            return count, [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    raise AssertionError(call)


async def read(wire: Wire) -> Any:
    """The next thing that came back."""
    frame = await wire.receive()
    assert frame is not None
    frame.close()
    return json.loads(frame.payload)


async def send(raw: trio.socket.SocketType, data: bytes) -> None:
    """Send all of it."""
    view = memoryview(data)
    while view:
        view = view[await raw.send(view) :]


async def serve(ends: Ends) -> None:
    await rpc.serve(ends.wire, PARROT, parrot, program="a parrot")


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[str]:
    """A parrot at a Unix socket."""
    path = str(folder / "parrot.sock")
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(path)
    listener.listen()

    async def serve_one(connection: trio.socket.SocketType) -> None:
        try:
            await rpc.serve(Wire(connection), PARROT, parrot, program="a parrot")
        except WireError:
            pass

    async def accept() -> None:
        while True:
            connection, _ = await listener.accept()
            nursery.start_soon(serve_one, connection)

    with listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            yield path
            nursery.cancel_scope.cancel()


def connect(path: str, *, protocol: rpc.Protocol = PARROT, uid: int | None = None) -> Any:
    uid = os.getuid() if uid is None else uid
    return rpc.connect(path, protocol, program="test", uid=uid, timeout=5)


async def test_a_call_is_answered(tmp_path: Path) -> None:
    async with listening(tmp_path) as path, connect(path) as client:
        assert client.hello.program == "a parrot"
        assert await client.call(Say("hello"), timeout=1) == "hello"


async def test_a_refusal_keeps_its_words(tmp_path: Path) -> None:
    async with listening(tmp_path) as path, connect(path) as client:
        with pytest.raises(rpc.CallFailed, match="won't say no") as failed:
            await client.call(Say("no"), timeout=1)
        assert (failed.value.code, failed.value.hint) == ("refused", "ask it something else")


async def test_a_handler_that_raises_fails_its_own_call_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path) as path, connect(path) as client:
        with pytest.raises(rpc.CallFailed, match="something went wrong") as failed:
            await client.call(Say("bug"), timeout=1)
        assert failed.value.code == "internal"
        assert "a fault of the parrot's" not in str(failed.value)
        assert await client.call(Say("still there"), timeout=1) == "still there"
    assert "a fault of the parrot's" in caplog.text


async def test_answers_out_of_order_find_their_calls(ends: Ends) -> None:
    found: dict[str, str] = {}
    client = rpc.Client(ends.wire, rpc.Hello("parrot", 3, "test"))

    async def ask(word: str) -> None:
        found[word] = await client.call(Say(word), timeout=5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read_answers)
        async with trio.open_nursery() as asking:
            for word in ("one", "two", "three"):
                asking.start_soon(ask, word)
            raw = Wire(ends.raw)
            requests = [await read(raw) for _ in range(3)]
            for asked in reversed(requests):
                await send(
                    ends.raw,
                    framed(json.dumps({"id": asked["id"], "result": asked["call"]["word"]}).encode()),
                )
        nursery.cancel_scope.cancel()
    assert found == {word: word for word in ("one", "two", "three")}


async def test_one_slow_call_holds_up_no_other(tmp_path: Path) -> None:
    async with listening(tmp_path) as path, connect(path) as client:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(rpc.MAX_IN_FLIGHT - 1):
                    nursery.start_soon(partial(client.call, Wait(), timeout=60))
                await trio.testing.wait_all_tasks_blocked()
                assert await client.call(Say("quick"), timeout=1) == "quick"
                nursery.cancel_scope.cancel()


async def test_a_call_that_takes_too_long_is_given_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with listening(tmp_path) as path, connect(path) as client:
        with pytest.raises(trio.TooSlowError):
            await client.call(Wait(), timeout=3)
        assert await client.call(Say("next"), timeout=3) == "next"


async def test_descriptors_of_an_answer_that_nobody_waits_for_are_closed(ends: Ends) -> None:
    client = rpc.Client(ends.wire, rpc.Hello("parrot", 3, "test"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read_answers)
        answer = b'{"id":7,"result":1}'
        await send_with(ends.raw, struct.pack(">IB", len(answer), 1) + answer, 1)
        await send_with(ends.raw, struct.pack(">IB", 7, 1) + b"garbage", 1)
        with trio.fail_after(5):
            while client.lost is None:
                await trio.lowlevel.checkpoint()
    assert "malformed" in client.lost


async def test_an_answer_given_twice_counts_once(ends: Ends) -> None:
    client = rpc.Client(ends.wire, rpc.Hello("parrot", 3, "test"))
    answer = b'{"id":1,"result":1}'
    frame = struct.pack(">IB", len(answer), 1) + answer
    await send_with(ends.raw, frame, 1)
    await send_with(ends.raw, frame, 1)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            result, descriptors = await client.call_for_descriptors(Fetch(1), timeout=5)
            assert (result, len(descriptors)) == (1, 1)
            os.close(descriptors[0])
            nursery.cancel_scope.cancel()

        nursery.start_soon(ask)
        nursery.start_soon(client.read_answers)


@pytest.mark.parametrize("count", [0, 1, 4])
async def test_descriptors_come_with_the_answer(tmp_path: Path, count: int) -> None:
    async with listening(tmp_path) as path, connect(path) as client:
        result, descriptors = await client.call_for_descriptors(Fetch(count), timeout=1)
        assert result == len(descriptors) == count
        for descriptor in descriptors:
            assert Path(f"/proc/self/fd/{descriptor}").readlink() == Path("/dev/null")
            os.close(descriptor)


async def test_a_lost_connection_ends_every_call(ends: Ends) -> None:
    client = rpc.Client(ends.wire, rpc.Hello("parrot", 3, "test"))
    lost = []

    async def ask() -> None:
        with pytest.raises(rpc.ConnectionLost) as error:
            await client.call(Wait(), timeout=5)
        lost.append(str(error.value))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        nursery.start_soon(client.read_answers)
        await trio.testing.wait_all_tasks_blocked()
        ends.raw.close()
    assert lost == [client.lost] * 3
    with pytest.raises(rpc.ConnectionLost):
        await client.call(Wait(), timeout=5)


async def test_who_answers_must_be_who_it_should_be(tmp_path: Path) -> None:
    async with listening(tmp_path) as path:
        with pytest.raises(rpc.ConnectionLost, match=rf"answered by uid {os.getuid()}, not by uid 4711"):
            async with connect(path, uid=4711):
                raise AssertionError("it let somebody else in")


@pytest.mark.parametrize(("name", "version"), [("parrot", 4), ("cockatoo", 3)])
async def test_another_version_is_told_so(tmp_path: Path, name: str, version: int) -> None:
    other = rpc.Protocol(name, version, [Say])
    async with listening(tmp_path) as path:
        expected = f"a parrot speaks parrot 3, not {name} {version}"
        with pytest.raises(rpc.ConnectionLost, match=expected):
            async with connect(path, protocol=other):
                raise AssertionError("it took another version")


async def test_a_server_of_another_version_is_not_called(ends: Ends, tmp_path: Path) -> None:
    async with listening(tmp_path) as path:
        liar = rpc.Protocol("parrot", 3, [Say])
        liar.version = 3
        async with connect(path, protocol=liar) as client:
            assert client.hello.version == 3
    await send(ends.raw, framed(b'{"protocol":"parrot","version":9,"program":"x"}'))
    with pytest.raises(rpc.ConnectionLost, match="it speaks parrot 9"):
        rpc._greeting_of_server(await ends.wire.receive(), PARROT)


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
