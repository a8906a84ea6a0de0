"""Who wants to know when a session changes: one bell for each listener, rung by whoever changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Events:
    """The listeners of one gateway. A bell says only *that* something changed, so none can pile up."""

    def __init__(self) -> None:
        self._bells: dict[str, set[trio.MemorySendChannel[None]]] = {}

    def ring(self, session_id: str) -> None:
        """Tell the listeners of a session that it has changed."""
        for bell in self._bells.get(session_id, ()):
            try:
                bell.send_nowait(None)
            except trio.WouldBlock:
                pass  # it has been told, and hasn't looked yet

    @contextmanager
    def listen(self, session_id: str) -> Iterator[trio.MemoryReceiveChannel[None]]:
        """Hear of changes of a session for as long as the block lasts."""
        bell, heard = trio.open_memory_channel[None](1)
        listeners = self._bells.setdefault(session_id, set())
        listeners.add(bell)
        try:
            yield heard
        finally:
            listeners.discard(bell)
            if not listeners:
                self._bells.pop(session_id, None)
