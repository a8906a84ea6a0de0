"""The socket on which a session's own programs ask for one of its services to be started.

Whoever connects reads to the end: nothing, and the service runs; text, and that is why it doesn't.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from runner.protocol.rpc import CallFailed
from runner.protocol.wire import peer_of

log = logging.getLogger(__name__)

_AT_A_TIME = 4
"""Callers that are answered at a time; further ones wait in the listen queue."""

_ANSWER_TIMEOUT = 5.0


class Doorbell:
    """Listens in `folder`, which is made, for as long as `serve` runs. `start` may raise CallFailed."""

    def __init__(self, folder: Path, start: Callable[[], Awaitable[None]]) -> None:
        self.socket = folder / "s.sock"
        self._start = start
        self._scope = trio.CancelScope()

    async def serve(self) -> None:
        """Answer until `close`."""
        with self._scope, self._listener() as listener:
            async with trio.open_nursery() as nursery:
                slots = trio.Semaphore(_AT_A_TIME)
                while True:
                    await slots.acquire()
                    caller, _ = await listener.accept()
                    nursery.start_soon(self._answer, caller, slots)

    def close(self) -> None:
        """Answer nobody any more."""
        self._scope.cancel()

    def _listener(self) -> trio.socket.SocketType:
        """Listen in the socket's place, where an earlier runner's may still be."""
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self.socket))
        finally:
            os.umask(mask)
        listener.listen(_AT_A_TIME)
        return trio.socket.from_stdlib_socket(listener)

    async def _answer(self, caller: trio.socket.SocketType, slots: trio.Semaphore) -> None:
        answer = ""
        try:
            with caller:
                if peer_of(caller).uid != os.getuid():
                    return
                try:
                    await self._start()
                except CallFailed as failed:
                    answer = f"{failed.message}; {failed.hint}" if failed.hint else failed.message
                with trio.move_on_after(_ANSWER_TIMEOUT):
                    await caller.send(answer.encode())
        except OSError as error:
            log.debug("a caller at %s went away: %s", self.socket, error)
        finally:
            slots.release()
