"""The runner's socket: who may connect, what is answered, and when the runner ends."""

from __future__ import annotations

import logging
import os
import pwd
import socket
from collections.abc import Sequence
from typing import Any

import trio

from runner.protocol import messages, rpc
from runner.protocol.wire import Peer, Wire, WireError, peer_of
from runner.registry import Registry

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Connections at a time; further ones wait in the listen queue."""


class Server:
    """Answers the runner protocol on one listening socket."""

    def __init__(
        self, listener: trio.socket.SocketType, registry: Registry, *, runner_id: str, linger: float
    ):
        self._listener = listener
        self._registry = registry
        self._runner_id = runner_id
        self._linger = linger
        self._calls = 0
        self._last_call = trio.current_time()
        self._allowed = {0, os.getuid()} | _gateway_uid()

    async def run(self) -> None:
        """Serve until there has been no session and no call for `linger` seconds (0: for ever)."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._accept, nursery)
            while True:
                await trio.sleep(self._pause())
                if self._idle():
                    break
            nursery.cancel_scope.cancel()

    def _idle(self) -> bool:
        if self._linger == 0 or self._calls or len(self._registry):
            return False
        return trio.current_time() - self._last_call >= self._linger

    def _pause(self) -> float:
        if self._linger == 0:
            return 3600
        left = self._last_call + self._linger - trio.current_time()
        return left if left > 0 else self._linger

    async def _accept(self, nursery: trio.Nursery) -> None:
        slots = trio.Semaphore(MAX_CONNECTIONS)
        while True:
            await slots.acquire()
            connection, _ = await self._listener.accept()
            nursery.start_soon(self._serve, connection, slots)

    async def _serve(self, connection: trio.socket.SocketType, slots: trio.Semaphore) -> None:
        try:
            peer = peer_of(connection)
            if peer.uid not in self._allowed:
                log.warning("refused a connection of uid %d (pid %d)", peer.uid, peer.pid)
                connection.close()
                return
            await rpc.serve(Wire(connection), messages.RUNNER, self._answer, program="oqto-runner")
        except rpc.NeverSpoke as error:
            log.debug("closed a connection: %s", error)
        except WireError as error:
            log.warning("closed a connection: %s", error)
        finally:
            slots.release()

    async def _answer(self, call: Any, peer: Peer) -> tuple[Any, Sequence[int]]:
        self._calls += 1
        try:
            match call:
                case messages.StartSession(session=spec):
                    return await self._registry.start(spec), ()
                case messages.StopSession(session_id=session_id):
                    await self._registry.stop(session_id)
                    return None, ()
                case messages.OpenService(session_id=session_id, service=service, start=start):
                    status, connected = await self._registry.open(session_id, service, start=start)
                    return status, [connected.detach()] if connected is not None else ()
                case messages.StopService(session_id=session_id, service=service):
                    await self._registry.stop_service(session_id, service)
                    return None, ()
                case messages.ForgetSession(session_id=session_id):
                    await self._registry.forget(session_id)
                    return None, ()
                case messages.OpenPort(session_id=session_id, port=port):
                    return None, [await self._registry.open_port(session_id, port)]
                case messages.SessionLog(session_id=session_id):
                    return messages.Logs(self._registry.logs(session_id)), ()
                case messages.ListSessions():
                    return messages.Sessions(self._runner_id, self._registry.statuses()), ()
            raise AssertionError(f"{call} is in the protocol, and nobody answers it")
        finally:
            self._calls -= 1
            self._last_call = trio.current_time()


def _gateway_uid() -> set[int]:
    """Return the uid of the gateway's account, where the host has one."""
    try:
        return {pwd.getpwnam("oqtod").pw_uid}
    except KeyError:
        return set()


def listener_at(path: str) -> socket.socket:
    """Listen at `path` (mode 0600); a stale socket file is replaced, a live one refused.

    Raises OSError.
    """
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(1)
        probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    else:
        raise OSError(f"{path} is in use by another runner")
    finally:
        probe.close()
    if os.path.lexists(path):
        os.unlink(path)  # noqa: PTH108  a string, as bind takes it
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(128)
    return listener


def listener_from_systemd() -> socket.socket | None:
    """Return the socket that systemd passed, sd_listen_fds(3), or None."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if os.environ.get("LISTEN_FDS") != "1":
        raise OSError(
            f"systemd passed {os.environ.get('LISTEN_FDS')} sockets, the unit must pass exactly one"
        )
    os.set_inheritable(3, False)
    return socket.socket(fileno=3)
