"""The gateway's own epoll(7): who is told when bytes can be moved. One task for all connections.

Sockets are registered once, edge-triggered: an `End` remembers that there is something to read until a read
has found the end of it. Handlers are called without a task of their own and never wait.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from oqtod.gateway.heads import ResponseHead

log = logging.getLogger(__name__)

SWEEP = 1.0
"""Seconds between two looks at what is overdue."""

_LINGER = 0.005
"""Seconds that more is waited for where something was just moved. The kernel ticks about as often anyway;
for less, each wait would set its clock, which takes as long as moving a message."""

_STAY = 0.01
"""Seconds after which other tasks have their turn, all the same."""

_MOST_EVENTS = 256

_READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_WRITE = select.EPOLLOUT
_BOTH = _READ | _WRITE
_BROKEN = select.EPOLLHUP | select.EPOLLERR
_HUNG = select.EPOLLRDHUP | _BROKEN


class Handler(Protocol):
    """Who is told of an end of a connection."""

    def ready(self, end: End) -> None:
        """There may be something to read, or room to write."""

    def failed(self) -> None:
        """Let go of everything: there was a bug, and the journal has it."""


class End:
    """One end of a connection, non-blocking, and what is known of it."""

    __slots__ = ("broken", "fd", "handler", "heard", "hung", "readable", "sock", "waits")

    def __init__(self, sock: socket.socket, handler: Handler) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.handler = handler
        self.readable = True
        """Whether a read may find something."""
        self.hung = False
        """Whether the other side has closed: then only a read that finds nothing is the end."""
        self.broken = False
        """Whether neither side can send any more; what was sent before may still be there."""
        self.waits = False
        """Whether room to write is waited for."""
        self.heard: ResponseHead | None = None
        """The head of a service's last response."""

    def read(self, size: int) -> bytes | None:
        """Return what there is: None for nothing yet, b"" at the end. Raises OSError."""
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            self.readable = False
            return None
        if len(data) < size and not self.hung:
            self.readable = False  # a short read means that there was no more: epoll(7)
        return data

    def read_into(self, buffer: bytearray) -> int | None:
        """As `read`, into a buffer."""
        try:
            count = self.sock.recv_into(buffer)
        except BlockingIOError:
            self.readable = False
            return None
        if count < len(buffer) and not self.hung:
            self.readable = False
        return count

    def is_quiet(self) -> bool:
        """Say whether the other side is there, and has said nothing that wasn't read."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self.readable = False
            return True
        except OSError:
            pass  # it was reset
        return False

    def write(self, data: bytes | memoryview) -> int:
        """Return how much of it could be written. Raises OSError."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0


class Engine:
    """The ends that bytes are moved between."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN | select.EPOLLET)
        self._inside = False
        self._ends: dict[int, End] = {}
        self._again: list[End] = []
        self.tasks = 0
        """How many tasks do something for somebody: while there are any, nothing is waited for here."""
        self._clock = trio.lowlevel.current_clock()
        self.now = 0.0
        """The time of the present round, of trio's clock."""

    def add(self, end: End) -> None:
        """Tell the end's handler from now on. What is there already is told at once."""
        self._ends[end.fd] = end
        self._epoll.register(end.fd, _READ)

    def forget(self, end: End) -> bool:
        """Tell of an end no more, but leave it open; say whether it was told of."""
        known = self._ends.pop(end.fd, None) is not None
        if known:
            self._epoll.unregister(end.fd)
        return known

    def close(self, end: End) -> None:
        """Close an end."""
        # Closing alone would not do where another process has a copy, as the runner that passed it may.
        if self.forget(end):
            end.sock.close()

    def wait_for_room(self, end: End) -> None:
        """Tell the handler also when the end can be written to again."""
        if not end.waits:
            end.waits = True
            self._epoll.modify(end.fd, _BOTH)

    def again(self, end: End) -> None:
        """Tell the handler in the next round: it has had its turn for now."""
        self._again.append(end)
        if not self._inside:
            os.eventfd_write(self._bell, 1)

    async def run(self, sweep: Callable[[], None]) -> None:
        """Tell handlers for ever, and `sweep` once a SWEEP."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep, sweep)
            while True:
                if self._again:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._inside = True
                self._rounds()
                self._inside = False

    def shut(self) -> None:
        """Close what is left."""
        for end in list(self._ends.values()):
            self.close(end)
        self._epoll.close()
        os.close(self._bell)

    async def _sweep(self, sweep: Callable[[], None]) -> None:
        while True:
            await trio.sleep(SWEEP)
            self.now = trio.current_time()
            sweep()

    def _rounds(self) -> None:
        """Tell the handlers of all ends that are ready.

        Where bytes go to and fro the next ones come soon, and cost less if they are waited for right here.
        """
        begun = self.now = self._clock.current_time()
        patience = 0.0
        while True:
            events = self._epoll.poll(patience, _MOST_EVENTS)
            again, self._again = self._again, []
            if not events and not again:
                return
            for fd, mask in events:
                end = self._ends.get(fd)
                if end is None:
                    continue
                if mask & _HUNG:
                    end.hung = True
                    end.broken = mask & _BROKEN != 0
                if mask & _WRITE:
                    end.waits = False
                    self._epoll.modify(fd, _READ)
                if mask != _WRITE:
                    end.readable = True
                self._tell(end)
            for end in again:
                if self._ends.get(end.fd) is end:
                    self._tell(end)
            self.now = self._clock.current_time()
            if self.tasks or self.now - begun > _STAY:
                return
            patience = 0.0 if self._again else _LINGER

    def _tell(self, end: End) -> None:
        try:
            end.handler.ready(end)
        except Exception:
            log.exception("a connection failed")
            try:
                end.handler.failed()
            except Exception:
                log.exception("a connection that failed can't be ended in order")
                self.close(end)
