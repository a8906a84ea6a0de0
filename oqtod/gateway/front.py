"""The HTTP/1.1 front: accepts connections, counts them, and lets go of them in order."""

from __future__ import annotations

import itertools
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from oqtod.accounts.connections import Connections
from oqtod.gateway import admin_socket, limits
from oqtod.gateway.connection import Connection
from oqtod.gateway.conversation import Application
from oqtod.gateway.engine import Engine
from oqtod.gateway.entrance import Entrance
from oqtod.gateway.farewell import Farewell
from oqtod.gateway.forwarded import TrustedProxies
from oqtod.gateway.pool import Pool
from oqtod.gateway.relay import Relay
from oqtod.gateway.services import Way
from oqtod.gateway.splicing import Pipes
from oqtod.telemetry.traffic import Traffic
from runner.protocol.wire import peer_of

log = logging.getLogger(__name__)

_FULL = b"HTTP/1.1 %b\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n"


class Front:
    """Serves connections. `application` is ASGI; `way` says what belongs to a session's service."""

    def __init__(
        self,
        application: Application,
        way: Way,
        trusted: TrustedProxies,
        held: Connections,
        traffic: Traffic,
    ) -> None:
        self.application = application
        self.way = way
        self.trusted = trusted
        self.engine = Engine()
        self.pool = Pool(self.engine)
        self.pipes = Pipes()
        self.traffic = traffic
        self.users = limits.Shares(limits.MAX_PER_USER)
        self.connections: set[Connection | Farewell] = set()
        self.relays: set[Relay] = set()
        self.bodies = 0
        """Bytes of bodies that the API has been given and may still hold."""
        self.draining = False
        """Whether the gateway stops: no connection takes another request."""
        self.hold = held.hold
        self.drop = held.drop
        self._most = limits.max_connections()
        self._households = limits.Shares(min(limits.MAX_PER_ADDRESS, self._most // 2))
        self._nursery: trio.Nursery | None = None
        self._ids = itertools.count()
        self._id_prefix = secrets.token_hex(4)
        self._serving = trio.Event()
        self._entrances: list[Entrance] = []
        self._drained = trio.Event()

    # Running

    async def serve(self, listeners: list[socket.socket]) -> None:
        """Accept connections for ever, at TCP."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self.engine.run, self._sweep)
                self._serving.set()
                self._entrances += (Entrance(self.engine, x, self._welcome) for x in listeners)
                await trio.sleep_forever()
        finally:
            self._close_all()

    async def serve_administrators(self, listener: socket.socket, *, personal: bool) -> None:
        """Accept connections at the admin socket for ever; the kernel says who they are of.

        With `personal`, the account that we run as may administrate too.
        """

        async def identify(sock: socket.socket) -> None:
            principal = await admin_socket.principal_of(
                peer_of(trio.socket.from_stdlib_socket(sock)).uid, personal=personal
            )
            self._add(Connection(self, sock, ("local", 0), None, principal, closed_to_others=True))

        await self._serving.wait()
        with listener:
            listener.setblocking(False)
            entrance = Entrance(self.engine, listener, lambda sock, _: self.start(identify, sock))
            self._entrances.append(entrance)
            try:
                await trio.sleep_forever()
            finally:
                entrance.close()

    async def drain(self) -> None:
        """Take no new connection or request; return when what goes on is over, within DRAIN_TIMEOUT.

        What has no end of its own is ended: WebSockets and event streams, which connect again by themselves.
        """
        self.draining = True
        for entrance in self._entrances:
            entrance.close()
        for connection in list(self.connections):
            connection.drain()
        for relay in list(self.relays):
            relay.cancel()
        if self.connections:
            with trio.move_on_after(limits.DRAIN_TIMEOUT):
                await self._drained.wait()

    # What connections use

    def start(self, work: Callable[..., Awaitable[None]], argument: Any) -> None:
        """Run something in a task."""
        assert self._nursery is not None
        self.engine.tasks += 1
        self._nursery.start_soon(self._do, work, argument)

    async def _do(self, work: Callable[..., Awaitable[None]], argument: Any) -> None:
        try:
            await work(argument)
        finally:
            self.engine.tasks -= 1

    def next_request_id(self) -> str:
        """Return an id that no other request has."""
        return f"{self._id_prefix}{next(self._ids):08x}"

    def forget(self, connection: Connection | Farewell) -> None:
        """A connection is closed, or became a relay."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._drained.set()

    def left(self, household: str | None) -> None:
        """A connection from there is over."""
        self.traffic.connections_open -= 1
        if household is not None:
            self._households.give(household)

    # Accepting

    def _welcome(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        """Take a connection from TCP, if there is room for it."""
        address = str(peer[0])
        if self.traffic.connections_open >= self._most:
            self._turn_away(sock, b"503 Service Unavailable")
            return
        household = None if self.trusted.is_trusted(address) else limits.household(address)
        if household is not None and not self._households.take(household):
            self._turn_away(sock, b"429 Too Many Requests")
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._add(Connection(self, sock, (address, int(peer[1])), household))

    def _add(self, connection: Connection) -> None:
        self.traffic.connections_total += 1
        self.traffic.connections_open += 1
        self.connections.add(connection)
        self.engine.add(connection.end)

    def _turn_away(self, sock: socket.socket, status: bytes) -> None:
        self.traffic.refused_connections += 1
        with sock:
            try:
                sock.send(_FULL % status)
            except OSError:
                pass  # it is told on the way out only

    # Letting go

    def _sweep(self) -> None:
        now = self.engine.now
        overdue: list[Connection | Farewell | Relay] = [x for x in self.connections if x.deadline <= now]
        overdue += [x for x in self.relays if x.deadline <= now]
        for each in overdue:
            try:
                each.overdue()
            except Exception:
                log.exception("a connection failed")
                each.failed()
        self.pool.sweep()
        for entrance in self._entrances:
            entrance.sweep()

    def _close_all(self) -> None:
        for entrance in self._entrances:
            entrance.close()
        for connection in list(self.connections):
            connection.close()
        for relay in list(self.relays):
            relay.cancel()
        self.pool.close()
        self.pipes.close()
        self.engine.shut()
