"""Both ends of a real Unix socket: a wire on one, bare bytes on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from runner.protocol.wire import Wire


@dataclass
class Ends:
    """`wire` is what is tested; `raw` is the peer, who may send what it likes."""

    wire: Wire
    raw: trio.socket.SocketType


def open_descriptors() -> set[str]:
    """What this process has open, by number and by what it is."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{link.name} {link.readlink()}")
        except FileNotFoundError:
            continue  # the one that lists the folder
    return found


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """Both ends; a test that leaves a descriptor open, beside these two, fails."""
    before = open_descriptors()
    ours, theirs = trio.socket.socketpair()
    pair = Ends(Wire(ours), theirs)
    yield pair
    pair.wire.close()
    pair.raw.close()
    assert open_descriptors() == before
