"""The supervisor's socket: who may connect, and what each call does."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from oqtod import config as configuration
from oqtod.config import Config
from oqtod.supervisor import messages, units
from oqtod.supervisor.accounts import AccountTable
from oqtod.supervisor.registry import RegistryError, Row
from runner.protocol import rpc
from runner.protocol.wire import Peer, Wire, WireError, peer_of

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
GATEWAY_ACCOUNT = "oqtod"
ADMIN_GROUP = "oqto-admin"


class Broker:
    """Answers the gateway. One call at a time changes anything."""

    def __init__(self, accounts: AccountTable, config: Config) -> None:
        self._accounts = accounts
        self._config = config
        self._changing = trio.Lock()
        self._limited: set[str] = set()
        self._allowed = {0, pwd.getpwnam(GATEWAY_ACCOUNT).pw_uid}

    async def serve(self, listener: trio.socket.SocketType) -> None:
        """Accept and answer for ever."""
        slots = trio.Semaphore(MAX_CONNECTIONS)
        async with trio.open_nursery() as nursery:
            while True:
                await slots.acquire()
                connection, _ = await listener.accept()
                nursery.start_soon(self._serve, connection, slots)

    async def _serve(self, connection: trio.socket.SocketType, slots: trio.Semaphore) -> None:
        try:
            peer = peer_of(connection)
            if peer.uid not in self._allowed:
                log.warning("refused a connection of uid %d (pid %d)", peer.uid, peer.pid)
                connection.close()
                return
            await rpc.serve(Wire(connection), messages.BROKER, self._answer, program="oqtod supervise")
        except rpc.NeverSpoke as error:
            log.debug("closed a connection: %s", error)
        except WireError as error:
            log.warning("closed a connection: %s", error)
        finally:
            slots.release()

    async def _answer(self, call: Any, peer: Peer) -> tuple[Any, Sequence[int]]:
        try:
            if isinstance(call, messages.ListenForAdministrators):
                return None, [self._listen_for_administrators()]
            return await self._result(call), ()
        except RegistryError as error:
            log.error("%s", error)
            raise rpc.CallFailed("account_failed", str(error)) from error

    async def _result(self, call: Any) -> Any:
        timeout = float(self._config.runtime.timeout)
        match call:
            case messages.EnsureAccount(user_id=user_id):
                async with self._changing:
                    return self._described(await self._accounts.ensure(user_id))
            case messages.DeleteAccount(account=name, remove_home=remove_home):
                async with self._changing:
                    self._accounts.named(name)
                    await units.end_all(name, timeout=timeout)
                    return await self._accounts.delete(name, remove_home=remove_home)
            case messages.ListAccounts():
                return messages.Accounts([self._described(row) for row in self._accounts.live()])
            case messages.StartRunner(account=name):
                row = self._accounts.named(name)
                if name not in self._limited:
                    await units.limit(name, self._config.limits, timeout=timeout)
                    self._limited.add(name)
                if self._config.local.runner_socket_pattern not in (None, configuration.HOST_SOCKET):
                    await units.listen_at(name, self._described(row).socket, timeout=timeout)
                await units.start(units.socket_unit(name), timeout=timeout)
                return await self._status(name, timeout)
            case messages.StopRunner(account=name, sessions=sessions):
                self._accounts.named(name)
                await (units.end_all if sessions else units.stop_runner)(name, timeout=timeout)
                return await self._status(name, timeout)
            case messages.StatusOfRunner(account=name):
                self._accounts.named(name)
                return await self._status(name, timeout)
        raise AssertionError(f"{call} is in the protocol, and nobody answers it")

    def _listen_for_administrators(self) -> int:
        path = Path(self._config.server.admin_socket_path)
        gateway, group = pwd.getpwnam(GATEWAY_ACCOUNT).pw_uid, grp.getgrnam(ADMIN_GROUP).gr_gid
        try:
            return listen(path, owner=gateway, group=group).detach()
        except OSError as error:
            raise rpc.CallFailed("listen_failed", f"can't listen at {path}: {error}") from error

    def _described(self, row: Row) -> messages.Account:
        path = configuration.runner_socket(self._config, user=row.name, uid=row.uid)
        return messages.Account(row.user_id, row.name, row.uid, f"/home/{row.name}", path)

    async def _status(self, name: str, timeout: float) -> messages.RunnerStatus:
        service = units.service_unit(name)
        found = await units.service_properties(service, timeout=timeout)
        return messages.RunnerStatus(
            await units.active_state(units.socket_unit(name), timeout=timeout),
            await units.active_state(service, timeout=timeout),
            str(found["Result"]),
            found["MainPID"] or None,
            _moment(found["ExecMainStartTimestamp"]),
        )


def _moment(microseconds: int) -> str | None:
    """Return a time of systemd's as RFC 3339; 0 is none."""
    if not microseconds:
        return None
    return (
        datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )


def listen(path: Path, *, owner: int, group: int) -> socket.socket:
    """Listen at `path`, for `owner` and `group` (0660), in place of whatever was there. Raises OSError.

    The folder is root's. The socket gets its owner and mode under a name of its own, and then its place:
    nobody ever sees it open wider.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(fresh))
    finally:
        os.umask(mask)
    os.chown(fresh, owner, group)
    fresh.chmod(0o660)
    listener.listen(MAX_CONNECTIONS)
    fresh.rename(path)
    return listener
