"""An upgraded connection: bytes in both directions until one side has enough. Nothing of it is understood.

It costs what its objects cost: no task and no buffer of its own.
"""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING

from oqtod.gateway import limits
from oqtod.gateway.bodies import Endless
from oqtod.gateway.engine import End
from oqtod.gateway.flows import Flow, SinkFailed, SourceFailed
from oqtod.gateway.keystrokes import watched_of
from oqtod.gateway.visit import Visit

if TYPE_CHECKING:
    from oqtod.gateway.connection import Connection


_MESSAGE = 4096
"""Bytes that are looked for first."""


class Relay:
    """Two ends, and what goes from each to the other."""

    __slots__ = ("_down", "_front", "_household", "_is_activity", "_up", "_visit", "deadline")

    def __init__(self, connection: Connection, service: End, visit: Visit) -> None:
        """Takes the client's end over from its connection."""
        client = connection.end
        self._front = connection.front
        self._visit = visit
        self._household = connection.household
        self._is_activity = watched_of(visit.target.service)
        self._up = Flow(client, service, Endless(), None)
        self._down = Flow(service, client, Endless(), None)
        self._up.watch = self._watch
        self._up.pending = connection.data
        self.deadline = math.inf
        client.handler = service.handler = self
        connection.leave()

    def begin(self, to_client: bytes) -> None:
        """Move bytes from now on; these, and what the client has said already, are the first."""
        front = self._front
        front.relays.add(self)
        front.hold(self, self._visit.principal)
        front.traffic.websockets_open += 1
        front.traffic.websockets_total += 1
        front.traffic.answered(self._visit.target.kind, 101)
        self._visit.opened()
        if self._up.pending:
            self._watch(memoryview(self._up.pending))
        self._down.pending = to_client
        for end in (self._up.source, self._down.source):
            end.readable = True  # as nobody has looked since
            front.engine.again(end)

    def ready(self, end: End) -> None:
        """One of the ends has something, or room."""
        up, down = self._up, self._down
        away, here = (up, down) if end is up.source else (down, up)
        try:
            if end.readable and not away.pending:
                self._pass(away)
            if end.readable or away.pending:
                self._pump(away)
            if here.pending:
                self._pump(here)
        except (SourceFailed, SinkFailed, OSError):
            self.cancel()

    def failed(self) -> None:
        """Let go of everything."""
        self.cancel()

    def overdue(self) -> None:
        """The second side did not end."""
        self.cancel()

    def cancel(self) -> None:
        """Close both ends."""
        front = self._front
        if self not in front.relays:
            return
        front.relays.discard(self)
        front.drop(self)
        front.users.give(self._visit.principal.user.id)
        front.left(self._household)
        front.traffic.websockets_open -= 1
        for end in (self._up.source, self._up.sink):
            front.engine.close(end)
        self._visit.closed()

    def _pass(self, flow: Flow) -> None:
        """Move a short message for which there is room, as mostly is; leave the rest. Raises OSError."""
        data = flow.source.read(_MESSAGE)
        if not data:
            return
        if flow is self._up:
            self._front.traffic.bytes_from_clients += len(data)
            self._watch(memoryview(data))
        else:
            self._front.traffic.bytes_to_clients += len(data)
        sent = flow.sink.write(data)
        if sent < len(data):
            flow.pending = data[sent:]

    def _pump(self, flow: Flow) -> None:
        """Move what can be moved in one direction. Raises SourceFailed, SinkFailed, OSError."""
        if flow.framing.done:
            return
        before = flow.moved
        needs = flow.pump()
        if flow is self._up:
            self._front.traffic.bytes_from_clients += flow.moved - before
        else:
            self._front.traffic.bytes_to_clients += flow.moved - before
        if flow.waits(needs, self._front.engine):
            return
        if self._up.framing.done and self._down.framing.done:
            self.cancel()
        else:
            flow.sink.sock.shutdown(socket.SHUT_WR)
            self.deadline = self._front.engine.now + limits.RELAY_LINGER

    def _watch(self, piece: memoryview) -> None:
        if self._is_activity(piece):
            self._visit.note()
