"""Frames: whole ones arrive as they were sent, all else ends the connection and leaves nothing open."""

from __future__ import annotations

import array
import os
import socket
import struct
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from runner.protocol import wire as wires
from runner.protocol.wire import Frame, Wire, WireError
from tests.unit.protocol.conftest import Ends


def head(length: int, descriptors: int = 0) -> bytes:
    return struct.pack(">IB", length, descriptors)


async def send_with(raw: trio.socket.SocketType, data: bytes, count: int) -> None:
    """Send bytes with `count` descriptors of a file that nobody has otherwise open."""
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    try:
        rights = array.array("i", opened).tobytes()
        await raw.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    finally:
        for descriptor in opened:
            os.close(descriptor)


async def received(ends: Ends) -> Frame:
    frame = await ends.wire.receive()
    assert frame is not None
    return frame


async def test_frames_arrive_in_order_with_their_descriptors(ends: Ends) -> None:
    await send_with(ends.raw, head(3, 1) + b"one" + head(0) + head(3, 2), 3)
    await ends.raw.send(b"two")
    first, second, third = [await received(ends) for _ in range(3)]
    assert [(x.payload, len(x.descriptors)) for x in (first, second, third)] == [
        (b"one", 1),
        (b"", 0),
        (b"two", 2),
    ]
    for frame in (first, third):
        assert all(Path(f"/proc/self/fd/{x}").readlink() == Path("/dev/null") for x in frame.descriptors)
        assert not any(os.get_inheritable(x) for x in frame.descriptors)
        frame.close()


@given(payloads=st.lists(st.binary(max_size=200), max_size=5), cut=st.integers(1, 50))
def test_it_does_not_matter_how_the_bytes_are_cut(payloads: list[bytes], cut: int) -> None:
    async def both_ends() -> list[bytes]:
        ours, theirs = trio.socket.socketpair()
        wire = Wire(ours)
        data = b"".join(head(len(payload)) + payload for payload in payloads)
        found: list[bytes] = []

        async def send_in_pieces() -> None:
            for start in range(0, len(data), cut):
                await theirs.send(data[start : start + cut])
                await trio.lowlevel.checkpoint()
            theirs.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_in_pieces)
            while (frame := await wire.receive()) is not None:
                found.append(frame.payload)
        wire.close()
        return found

    assert trio.run(both_ends) == payloads


async def test_what_a_wire_sends_a_wire_reads(ends: Ends) -> None:
    other = Wire(ends.raw)
    payload = os.urandom(wires.MAX_FRAME)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.wire.send, payload)
        frame = await other.receive()
    assert frame is not None
    assert frame.payload == payload


async def test_a_close_between_frames_is_an_end_and_within_one_an_error(ends: Ends) -> None:
    await ends.raw.send(head(1) + b"x")
    ends.raw.shutdown(socket.SHUT_WR)
    assert (await received(ends)).payload == b"x"
    assert await ends.wire.receive() is None


@pytest.mark.parametrize("half", [head(4)[:2], head(4), head(4) + b"abc"])
async def test_half_a_frame_and_the_end(ends: Ends, half: bytes) -> None:
    await ends.raw.send(half)
    ends.raw.close()
    with pytest.raises(WireError, match="in the middle of a frame"):
        await ends.wire.receive()


@pytest.mark.parametrize("half", [head(4)[:2], head(4), head(4) + b"abc"])
async def test_half_a_frame_and_silence(ends: Ends, half: bytes, autojump_clock: MockClock) -> None:
    await ends.raw.send(half)
    began = trio.current_time()
    with pytest.raises(WireError, match="nothing more for 10 seconds"):
        await ends.wire.receive()
    assert trio.current_time() - began == pytest.approx(wires.FRAME_TIMEOUT)


async def test_silence_between_frames_is_no_error(ends: Ends, autojump_clock: MockClock) -> None:
    with trio.move_on_after(24 * 3600) as day:
        await ends.wire.receive()
    assert day.cancelled_caught


@pytest.mark.parametrize("length", [wires.MAX_FRAME + 1, 2**32 - 1])
async def test_an_oversized_frame_is_refused_before_it_is_read(ends: Ends, length: int) -> None:
    await ends.raw.send(head(length))
    with pytest.raises(WireError, match=f"a frame of {length} bytes is over the limit"):
        await ends.wire.receive()


async def test_our_own_oversized_frame_is_not_sent(ends: Ends) -> None:
    with pytest.raises(WireError, match="over the limit"):
        await ends.wire.send(bytes(wires.MAX_FRAME + 1))
    await ends.wire.send(b"still good")
    assert await ends.raw.recv(100) == head(10) + b"still good"


async def test_more_descriptors_than_a_frame_may_announce(ends: Ends) -> None:
    await ends.raw.send(head(0, wires.MAX_DESCRIPTORS + 1))
    with pytest.raises(WireError, match="5 descriptors is over the limit"):
        await ends.wire.receive()


async def test_announced_descriptors_that_do_not_come(ends: Ends) -> None:
    await send_with(ends.raw, head(0, 2), 1)
    with pytest.raises(WireError, match="without the descriptors that it announces"):
        await ends.wire.receive()


async def test_a_flood_of_descriptors_at_once(ends: Ends) -> None:
    await send_with(ends.raw, head(0), 100)
    with pytest.raises(WireError, match="more descriptors than a frame may carry"):
        await ends.wire.receive()


async def test_a_flood_of_descriptors_one_by_one(ends: Ends) -> None:
    for _ in range(4 * wires.MAX_DESCRIPTORS + 1):
        await send_with(ends.raw, head(0), 1)
    with pytest.raises(WireError, match="more descriptors than a frame may carry"):
        while True:
            await received(ends)


async def test_a_peer_that_reads_nothing(ends: Ends, autojump_clock: MockClock) -> None:
    with pytest.raises(WireError, match="the peer took no frame for 10 seconds"):
        while True:
            await ends.wire.send(bytes(wires.MAX_FRAME))
    with pytest.raises(trio.BrokenResourceError):
        await ends.wire.send(b"too late")


async def test_a_frame_that_its_sender_gives_up_half_way_ends_the_connection(ends: Ends) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.wire.send, b"x" * wires.MAX_FRAME)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.BrokenResourceError):
        await ends.wire.send(b"this would be read as the rest of the other")


async def test_a_peer_that_is_gone(ends: Ends) -> None:
    ends.raw.close()
    with pytest.raises(trio.BrokenResourceError, match="the peer is gone"):
        await ends.wire.send(b"hello")


async def test_the_kernel_names_the_peer(ends: Ends) -> None:
    assert (ends.wire.peer.pid, ends.wire.peer.uid, ends.wire.peer.gid) == (
        os.getpid(),
        os.getuid(),
        os.getgid(),
    )
