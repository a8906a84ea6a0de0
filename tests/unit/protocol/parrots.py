"""A protocol for tests: a parrot that says what it is told, and the bytes that its callers send."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from runner.protocol import rpc
from runner.protocol.wire import Peer, Wire, WireError
from tests.unit.protocol.conftest import Ends


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


def connect(
    path: str, *, protocol: rpc.Protocol = PARROT, uid: int | None = None
) -> AbstractAsyncContextManager[rpc.Client]:
    uid = os.getuid() if uid is None else uid
    return rpc.connect(path, protocol, program="test", uid=uid, timeout=5)
