"""Calls: greeted by version and by the kernel's word, matched by id, refused and lost in good order."""

from __future__ import annotations

import json
import os
import struct
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runner.protocol import rpc
from runner.protocol.wire import Wire
from tests.unit.protocol.conftest import Ends
from tests.unit.protocol.parrots import (
    PARROT,
    Fetch,
    Say,
    Wait,
    connect,
    framed,
    listening,
    read,
    send,
)
from tests.unit.protocol.test_frames import send_with


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
