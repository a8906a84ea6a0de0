"""A listening socket: who knocks is welcomed, many at a time, until the gateway stops."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from oqtod.gateway.engine import End, Engine

log = logging.getLogger(__name__)

_TOGETHER = 64
"""Connections that are accepted before others have their turn."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Entrance:
    """Accepts on a listener, and gives each socket, non-blocking, and its peer to `welcome`."""

    def __init__(
        self, engine: Engine, listener: socket.socket, welcome: Callable[[socket.socket, Any], None]
    ) -> None:
        self._engine = engine
        self._end = End(listener, self)
        self._welcome = welcome
        self._waits = False
        """Whether there was no room for one more: the kernel tells of those who came meanwhile no more."""
        engine.add(self._end)

    def ready(self, end: End) -> None:
        """Accept those who wait."""
        for _ in range(_TOGETHER):
            try:
                sock, peer = end.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    if not self._waits:
                        log.warning("no connection can be accepted for now: %s", error.strerror)
                    self._waits = True
                    return
                continue  # others are of one connection that is gone already: accept(2)
            sock.setblocking(False)
            self._welcome(sock, peer)
        self._engine.again(end)

    def sweep(self) -> None:
        """Try again where there was no room."""
        if self._waits:
            self._waits = False
            self.ready(self._end)

    def failed(self) -> None:
        """Others may knock all the same, in a moment."""
        self._waits = True

    def close(self) -> None:
        """Let nobody in any more. The socket stays open: who knocks now waits for the next gateway."""
        self._engine.forget(self._end)
