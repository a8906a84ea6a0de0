"""What one viewer of a terminal has still to get: a bounded queue, and whether it is worth waiting for."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

QUEUE_LIMIT: Final = 1 << 20
"""Bytes of output that wait for a viewer; one that falls further behind starts anew from the scrollback."""

_READY_LIMIT: Final = 1 << 17  # bytes: enough to keep its socket busy
_PORTION: Final = 1 << 16


class Viewer:
    """A viewer's size (columns, rows), its queue, and whether it has said pause."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self.paused = False
        self.is_behind = False
        """The queue was too long and is gone: the viewer must be shown the scrollback first."""
        self._replay: deque[bytes] = deque()  # what it is shown first
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._woken = trio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether there is room for a good portion of output, and the viewer keeps up."""
        return self._queued < _READY_LIMIT and not self.is_behind

    def offer(self, data: bytes) -> None:
        """Queue output; one that is behind has no use for it."""
        if self.is_behind or not data:
            return
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > QUEUE_LIMIT:
            self._replay.clear()
            self._queue.clear()
            self._queued = 0
            self.is_behind = True
        self.wake()

    def show(self, replay: bytes) -> None:
        """Let the viewer see this first; from now on it gets what comes."""
        self._replay.extend(replay[start : start + _PORTION] for start in range(0, len(replay), _PORTION))
        self.is_behind = False
        self.wake()

    def take(self) -> bytes:
        """Return the next portion, b"" if there is none."""
        if self._replay:
            return self._replay.popleft()
        portion = bytearray()
        while self._queue and (not portion or len(portion) + len(self._queue[0]) <= _PORTION):
            portion += self._queue.popleft()
        self._queued -= len(portion)
        return bytes(portion)

    def wake(self) -> None:
        """Let `wait` return."""
        self._woken.set()

    async def wait(self) -> None:
        """Wait until something may have changed since the last time this returned."""
        await self._woken.wait()
        self._woken = trio.Event()
