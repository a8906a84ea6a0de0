"""One direction of a connection: bytes moved from one end to the other for as long as both are ready.

What the sink doesn't take holds the source back. Long stretches that nobody has to look at are spliced; all
else goes through one buffer, which is used by one flow at a time and empty between two.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from oqtod.gateway.bodies import Framing
from oqtod.gateway.engine import End, Engine
from oqtod.gateway.splicing import Pipe, Pipes

SPLICE = 64 * 1024
"""Bytes that are worth a pipe."""

_TURN = 4 * 1024 * 1024
"""Bytes that are moved before others have their turn."""

_buffer = bytearray(64 * 1024)
_view = memoryview(_buffer)


class Needs(Enum):
    """What a flow waits for."""

    SOURCE = "bytes of the source"
    SINK = "room in the sink"
    TURN = "its next turn"
    NOTHING = "it is done"
    MORE = "bytes of the source, which has ended"


# A member of an enumeration by its name is a call in Python 3.11.
SOURCE, SINK, TURN, NOTHING, MORE = Needs


class SourceFailed(Exception):
    """The source's connection broke."""


class SinkFailed(Exception):
    """The sink's connection broke."""


class Flow:
    """Moves one message's bytes. `pending` is what goes out first; `excess` what came after the end."""

    __slots__ = ("_pipe", "_pipes", "excess", "framing", "moved", "pending", "sink", "source", "watch")

    def __init__(self, source: End, sink: End, framing: Framing, pipes: Pipes | None) -> None:
        """Without `pipes` nothing is spliced."""
        self.source = source
        self.sink = sink
        self.framing = framing
        self.pending: bytes | memoryview = b""
        self.excess = b""
        self.moved = 0
        self.watch: Callable[[memoryview], None] | None = None
        self._pipes = pipes
        self._pipe: Pipe | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes that were read from the source already. Raises BadBody."""
        view = memoryview(data)
        piece = self.framing.feed(view)
        if len(piece):
            self.pending = bytes(self.pending) + bytes(piece) if self.pending else bytes(piece)
        if excess := self.framing.excess:
            self.excess = data[len(data) - excess :]

    def pump(self) -> Needs:
        """Move what can be moved. Raises BadBody, SourceFailed, SinkFailed."""
        budget = _TURN
        while budget > 0:
            if self.pending:
                sent = self._write(self.pending)
                budget -= sent
                if sent < len(self.pending):
                    self.pending = self.pending[sent:]
                    return SINK
                self.pending = b""
            if self._pipe is not None and self._pipe.held:
                try:
                    count = self._pipe.empty(self.sink.fd)
                except BlockingIOError:
                    return SINK
                except OSError as error:
                    raise SinkFailed(str(error)) from error
                budget -= count
                continue
            if self.framing.done:
                self.close()
                return NOTHING
            if not self.source.readable:
                return SOURCE
            if self._pipes is not None and self.framing.ahead >= SPLICE:
                read = self._fill(self._pipes)
            else:
                read = self._copy()
            if read is None:
                return SOURCE
            if read == 0:
                self.close()
                return NOTHING if self.framing.end() else MORE
            budget -= read // 8
        return TURN

    def waits(self, needs: Needs, engine: Engine) -> bool:
        """Have the engine tell when it can go on, where it can; say whether it can."""
        if needs is SINK:
            engine.wait_for_room(self.sink)
        elif needs is TURN:
            engine.again(self.source)
        return needs in (SOURCE, SINK, TURN)

    def close(self) -> None:
        """Give the pipe back."""
        if self._pipe is not None:
            assert self._pipes is not None
            self._pipes.give(self._pipe)
            self._pipe = None

    def _write(self, data: bytes | memoryview) -> int:
        try:
            sent = self.sink.write(data)
        except OSError as error:
            raise SinkFailed(str(error)) from error
        self.moved += sent
        return sent

    def _fill(self, pipes: Pipes) -> int | None:
        if self._pipe is None:
            try:
                self._pipe = pipes.take()
            except OSError:  # no descriptors are left: then as without pipes
                self._pipes = None
                return self._copy()
        try:
            count = self._pipe.fill(self.source.fd, self.framing.ahead)
        except BlockingIOError:
            self.source.readable = False
            if self._pipe.held == 0:
                self.close()
            return None
        except OSError as error:
            raise SourceFailed(str(error)) from error
        self.framing.moved(count)
        self.moved += count
        return count

    def _copy(self) -> int | None:
        try:
            count = self.source.read_into(_buffer)
        except OSError as error:
            raise SourceFailed(str(error)) from error
        if not count:
            return count
        piece = self.framing.feed(_view[:count])
        if excess := self.framing.excess:
            self.excess = bytes(_view[count - excess : count])
        if self.watch is not None:
            self.watch(_view[:count])
        if len(piece):
            sent = self._write(piece)
            if sent < len(piece):
                self.pending = bytes(piece[sent:])
        return count
