"""Connections to services that are between two requests.

Each is watched: what a service closes, or says without being asked, ends it here. A key names a session
*since its start*, so that no connection is used for what was started after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from oqtod.gateway.engine import End, Engine
from oqtod.gateway.heads import KEPT

IDLE = 4.0
"""Seconds; many servers close after five."""

MOST_EACH = 128
MOST = 2048


class Pool:
    """The idle connections of one gateway, those that were used last first."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: OrderedDict[End, tuple[Hashable, float]] = OrderedDict()
        self._of: dict[Hashable, list[End]] = {}

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, key: Hashable, *, certain: bool) -> End | None:
        """Return a connection that was open when it was last heard of, None where there is none.

        With `certain` it is asked again whether it is: for requests that can't be sent twice.
        """
        ends = self._of.get(key)
        while ends:
            end = ends.pop()
            del self._idle[end]
            if not certain or end.is_quiet():
                return end
            self._engine.close(end)
        return None

    def give(self, key: Hashable, end: End) -> None:
        """Keep a connection whose last response is over."""
        ends = self._of.setdefault(key, [])
        if len(ends) >= MOST_EACH or len(self._idle) >= MOST:
            self._engine.close(end)
            return
        end.handler = self
        if end.heard is not None and len(end.heard.data) > KEPT:
            end.heard = None
        ends.append(end)
        self._idle[end] = key, self._engine.now

    def sweep(self) -> None:
        """Close what was idle for too long."""
        while self._idle:
            end, (_, since) = next(iter(self._idle.items()))
            if self._engine.now - since < IDLE:
                break
            self._drop(end)
        for key in [key for key, ends in self._of.items() if not ends]:
            del self._of[key]

    def ready(self, end: End) -> None:
        """It was closed, or babbles: nobody asked. Or what is told now was read before."""
        if not end.is_quiet():
            self._drop(end)

    def failed(self) -> None:
        """There is nothing more to let go of."""

    def close(self) -> None:
        """Close all."""
        for end in list(self._idle):
            self._drop(end)

    def _drop(self, end: End) -> None:
        key, _ = self._idle.pop(end)
        self._of[key].remove(end)
        self._engine.close(end)
