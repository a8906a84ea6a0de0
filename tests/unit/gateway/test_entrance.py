"""Who is let in, when there is no room for a while, and when nobody is let in any more."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from oqtod.gateway.engine import Engine
from oqtod.gateway.entrance import Entrance


class Listener(socket.socket):
    """A listener that has no descriptors left for the first connections."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


@contextmanager
def listening(*failures: int) -> Iterator[Listener]:
    with Listener() as listener:
        listener.failures = list(failures)
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        listener.setblocking(False)
        yield listener


async def until(holds: list[socket.socket], count: int) -> None:
    with trio.fail_after(100):
        while len(holds) < count:
            await trio.sleep(0.1)


async def test_without_descriptors_it_is_tried_again(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    welcomed: list[socket.socket] = []
    with caplog.at_level(logging.WARNING), listening(errno.EMFILE, errno.ENOBUFS) as listener:
        engine = Engine()
        entrance = Entrance(engine, listener, lambda sock, _: welcomed.append(sock))
        nursery.start_soon(engine.run, entrance.sweep)
        with socket.create_connection(listener.getsockname()):
            await until(welcomed, 1)
        assert len(caplog.records) == 2, "once for each time that there were none"
        nursery.cancel_scope.cancel()
        engine.shut()
    for sock in welcomed:
        sock.close()


async def test_one_that_is_gone_already_keeps_nobody_out(nursery: trio.Nursery) -> None:
    welcomed: list[socket.socket] = []
    with listening(errno.ECONNABORTED) as listener:
        engine = Engine()
        Entrance(engine, listener, lambda sock, _: welcomed.append(sock))
        nursery.start_soon(engine.run, lambda: None)
        with socket.create_connection(listener.getsockname()):
            await until(welcomed, 1)
        assert welcomed[0].getblocking() is False
        nursery.cancel_scope.cancel()
        engine.shut()
    for sock in welcomed:
        sock.close()


async def test_more_than_are_accepted_at_a_time(nursery: trio.Nursery) -> None:
    welcomed: list[socket.socket] = []
    with listening() as listener:
        engine = Engine()
        Entrance(engine, listener, lambda sock, _: welcomed.append(sock))
        clients = [socket.create_connection(listener.getsockname()) for _ in range(150)]
        nursery.start_soon(engine.run, lambda: None)
        await until(welcomed, 150)
        nursery.cancel_scope.cancel()
        engine.shut()
    for sock in [*welcomed, *clients]:
        sock.close()


async def test_who_comes_after_the_close_waits_for_the_next_gateway(nursery: trio.Nursery) -> None:
    welcomed: list[socket.socket] = []
    with listening() as listener:
        engine = Engine()
        nursery.start_soon(engine.run, lambda: None)
        entrance = Entrance(engine, listener, lambda sock, _: welcomed.append(sock))
        entrance.close()
        entrance.close()
        with socket.create_connection(listener.getsockname()):
            await trio.testing.wait_all_tasks_blocked()
            assert welcomed == []
            Entrance(engine, listener, lambda sock, _: welcomed.append(sock))
            await until(welcomed, 1)
        nursery.cancel_scope.cancel()
        engine.shut()
    for sock in welcomed:
        sock.close()
