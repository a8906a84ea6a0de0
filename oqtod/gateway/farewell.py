"""The end of a client's connection: the last bytes are sent, and the client has a moment to read them."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import trio

from oqtod.gateway import limits
from oqtod.gateway.engine import End

if TYPE_CHECKING:
    from oqtod.gateway.front import Front

_READ = 64 * 1024
_READS = 16
"""Pieces that are thrown away before others have their turn."""

_RESET = struct.pack("ii", 1, 0)


class Farewell:
    """A connection that gets these bytes, and nothing more.

    What still comes is read: closing a connection with unread bytes resets it, answer and all.
    """

    __slots__ = ("_data", "_end", "_front", "_household", "deadline")

    def __init__(self, front: Front, end: End, household: str | None, data: bytes) -> None:
        self._front = front
        self._end = end
        self._household = household
        self._data = data
        self.deadline = trio.current_time() + limits.SEND_TIMEOUT
        end.handler = self

    def begin(self) -> None:
        """Send, and close when that is done."""
        self._front.connections.add(self)
        self._send()

    def ready(self, end: End) -> None:
        """There is room, or something to throw away."""
        if self._data:
            self._send()
        else:
            self._discard()

    def failed(self) -> None:
        """Close it."""
        self.close()

    def overdue(self) -> None:
        """It had its time."""
        self.close()

    def drain(self) -> None:
        """The gateway stops: so does this, soon."""

    def close(self) -> None:
        """Close it; with bytes that were not taken, so that it is seen."""
        if self not in self._front.connections:
            return
        if self._data:
            reset(self._end.sock)
        self._front.engine.close(self._end)
        self._front.left(self._household)
        self._front.forget(self)

    def _send(self) -> None:
        try:
            self._data = self._data[self._end.write(self._data) :]
            if self._data:
                self._front.engine.wait_for_room(self._end)
                return
            self._end.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.deadline = trio.current_time() + limits.LINGER
        self._discard()

    def _discard(self) -> None:
        for _ in range(_READS):
            if not self._end.readable:
                return
            try:
                over = self._end.read(_READ) == b""
            except OSError:
                over = True
            if over:
                self.close()
                return
        self._front.engine.again(self._end)


def reset(sock: socket.socket) -> None:
    """Have a connection reset when it is closed, so that nobody takes a part for the whole: socket(7)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
