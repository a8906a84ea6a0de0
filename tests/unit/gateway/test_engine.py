"""The loop that all bytes go through: who is told, also when nothing comes from outside."""

from __future__ import annotations

import socket

import trio
from trio.testing import wait_all_tasks_blocked

from oqtod.gateway.engine import End, Engine


class Counting:
    """A handler that counts what it is told, and wants its turn again a few times."""

    def __init__(self, engine: Engine, turns: int = 0) -> None:
        self.engine = engine
        self.turns = turns
        self.told = 0

    def ready(self, end: End) -> None:
        self.told += 1
        if self.turns:
            self.turns -= 1
            self.engine.again(end)

    def failed(self) -> None:
        raise AssertionError


async def test_who_wants_another_turn_has_it_whoever_asks(nursery: trio.Nursery) -> None:
    engine = Engine()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        handler = Counting(engine)
        end = End(ours, handler)
        engine.add(end)
        nursery.start_soon(engine.run, lambda: None)
        await wait_all_tasks_blocked()
        assert handler.told == 0
        handler.turns = 3
        engine.again(end)  # from a task, while the engine waits
        with trio.fail_after(10):
            while handler.told < 4:
                await trio.lowlevel.checkpoint()
        theirs.send(b"x")
        with trio.fail_after(10):
            while handler.told < 5:
                await trio.lowlevel.checkpoint()
        engine.close(end)
        engine.again(end)  # it is gone: nobody is told
        await wait_all_tasks_blocked()
        assert handler.told == 5
        nursery.cancel_scope.cancel()
        engine.shut()
