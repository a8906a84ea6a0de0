"""Sessions on this host's runners: the calls of the runner protocol, with errors made for people."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio

from oqtod import config as configuration
from oqtod.config import Config
from oqtod.errors import Refusal
from oqtod.placements import browser
from oqtod.placements.accounts import RunnerAddress, RunnerDirectory
from oqtod.placements.link import Link, only_socket
from oqtod.sessions import ports
from oqtod.sessions.model import Session
from oqtod.supervisor.messages import Account, RunnerStatus
from runner.protocol import messages
from runner.protocol.messages import ServiceName, SessionStatus
from runner.protocol.rpc import Call, CallFailed, ConnectionLost

log = logging.getLogger(__name__)

A = TypeVar("A")


class Unanswered(Refusal):
    """Nobody knows whether what was asked for has been done."""


_REFUSALS = {
    "bad_request": "bad_request",
    "bad_workspace": "bad_request",
    "sandbox_refused": "unprocessable",
    "no_session": "conflict",
    "no_service": "not_found",
    "no_listener": "bad_gateway",
    "foreign_listener": "forbidden",
}
"""Codes of runner and broker that are the caller's to mend; all others mean that we can't serve now."""


class Runners:
    """The runners of all users, by account."""

    def __init__(self, directory: RunnerDirectory, config: Config, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._config = config
        self._nursery = nursery
        self._timeout = float(config.runtime.timeout)
        self._links: dict[str, tuple[RunnerAddress, Link]] = {}
        self._reconnections_before = 0
        self._locating: dict[str, trio.Lock] = {}

    async def address(self, user_id: str) -> RunnerAddress:
        """Return where a user's sessions run; makes the account if need be. Raises Refusal."""
        with self._explained("the account"):
            address, _ = await self._link(user_id)
            return address

    def workspace_root(self, user_id: str, address: RunnerAddress) -> str:
        """Return the folder that a user's workspaces are in: `local.workspace_dir`."""
        return configuration.workspace_root(self._config, user_id=user_id, home=address.home)

    async def start(self, session: Session) -> SessionStatus:
        """Make the session ready at its runner. Raises Refusal."""
        environment = dict(session.environment)
        if session.port_base is not None:
            previews = [str(port) for port in ports.preview_ports(session.port_base)]
            environment |= {"PORT": previews[0], "OQTO_PORTS": ",".join(previews)}
        if self._config.runner.runner_id is not None:
            environment["OQTO_RUNNER_ID"] = self._config.runner.runner_id
        address = await self.address(session.user_id)
        spec = messages.SessionSpec(
            id=session.id,
            workspace=session.workspace_path,
            workspace_root=self.workspace_root(session.user_id, address),
            environment=environment,
            ttyd_binary=self._config.local.ttyd_binary,
            fileserver_binary=self._config.local.fileserver_binary,
            max_upload_size_mb=self._config.server.max_upload_size_mb,
            browser=browser.spec(self._config, session),
        )
        return await self._call(session.user_id, messages.StartSession(spec))

    async def stop(self, session: Session) -> None:
        """End the session's processes. Raises Refusal."""
        await self.stop_by_id(session.user_id, session.id)

    async def stop_by_id(self, user_id: str, session_id: str) -> None:
        """End the processes of a session that may not be on record. Raises Refusal."""
        await self._call(user_id, messages.StopSession(session_id))

    async def statuses(self, user_id: str) -> dict[str, SessionStatus]:
        """Return the sessions that a user's runner has, by id. Raises Refusal."""
        answer = await self._call(user_id, messages.ListSessions())
        return {status.id: status for status in answer.sessions}

    async def open(self, session: Session, service: ServiceName) -> socket.socket:
        """Return a socket connected to a service of the session, started if need be. Raises Refusal."""
        return await self._opened(session, messages.OpenService(session.id, service))

    async def open_running(self, session: Session, service: ServiceName) -> socket.socket | None:
        """Return a socket connected to a service of the session, None if it doesn't run. Raises Refusal."""
        with self._explained("the runner"):
            _, link = await self._link(session.user_id)
            call = messages.OpenService(session.id, service, start=False)
            _, descriptors = await link.call_for_descriptors(call, timeout=self._timeout)
            return only_socket(descriptors) if descriptors else None

    async def stop_service(self, session: Session, service: ServiceName) -> None:
        """End one service of the session; the next use starts it again. Raises Refusal."""
        await self._call(session.user_id, messages.StopService(session.id, service))

    async def forget(self, session: Session) -> None:
        """Remove what is kept of a session that has ended. Raises Refusal."""
        await self._call(session.user_id, messages.ForgetSession(session.id))

    async def open_port(self, session: Session, port: int) -> socket.socket:
        """Return a socket connected to a program of the account's that listens there. Raises Refusal."""
        return await self._opened(session, messages.OpenPort(session.id, port))

    async def logs(self, session: Session) -> dict[str, str]:
        """Return what the session's services reported of late, by name. Raises Refusal."""
        return (await self._call(session.user_id, messages.SessionLog(session.id))).services

    async def accounts(self) -> list[Account]:
        """Return all accounts that have a runner. Raises Refusal."""
        with self._explained("the supervisor"):
            return await self._directory.accounts(timeout=self._timeout)

    async def status_of(self, account: str) -> RunnerStatus:
        """Return how an account's runner is. Raises Refusal."""
        with self._explained("the supervisor"):
            return await self._directory.runner_status(account, timeout=self._timeout)

    async def restart(self, account: str) -> RunnerStatus:
        """End an account's runner, and have it there again. Raises Refusal.

        In host mode its sessions go on, and the next runner takes them over; in personal mode they end.
        """
        with self._explained("the supervisor"):
            return await self._directory.restart_runner(account, timeout=self._timeout)

    async def end(self, user_id: str, *, remove: bool, remove_home: bool) -> None:
        """End everything that a user's account runs; with `remove`, the account too. Raises Refusal."""
        with self._explained("the supervisor"):
            self._forget(user_id)
            await self._directory.end(user_id, remove=remove, remove_home=remove_home, timeout=self._timeout)

    async def _opened(self, session: Session, call: Call[Any]) -> socket.socket:
        with self._explained("the runner"):
            _, link = await self._link(session.user_id)
            try:
                _, descriptors = await link.call_for_descriptors(call, timeout=self._timeout)
            except OSError:
                link = await self._link_anew(session.user_id)
                _, descriptors = await link.call_for_descriptors(call, timeout=self._timeout)
            return only_socket(descriptors)

    async def _call(self, user_id: str, call: Call[A]) -> A:
        with self._explained("the runner"):
            _, link = await self._link(user_id)
            try:
                return await link.call(call, timeout=self._timeout)
            except OSError:
                # Nobody listens where somebody did: the account or its units were changed behind our back.
                link = await self._link_anew(user_id)
                return await link.call(call, timeout=self._timeout)

    async def _link_anew(self, user_id: str) -> Link:
        self._forget(user_id)
        _, link = await self._link(user_id)
        return link

    @property
    def reconnections(self) -> int:
        """How often a runner was connected to anew: it had ended, crashed, or been upgraded."""
        return self._reconnections_before + sum(link.reconnections for _, link in self._links.values())

    def _forget(self, user_id: str) -> None:
        known = self._links.pop(user_id, None)
        if known is not None:
            self._reconnections_before += known[1].reconnections

    async def _link(self, user_id: str) -> tuple[RunnerAddress, Link]:
        async with self._locating.setdefault(user_id, trio.Lock()):
            if user_id not in self._links:
                address = await self._directory.locate(user_id, timeout=self._timeout)
                link = Link(address.socket, messages.RUNNER, uid=address.uid, nursery=self._nursery)
                self._links[user_id] = address, link
            return self._links[user_id]

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except CallFailed as failed:
            code = _REFUSALS.get(failed.code, "unavailable")
            raise Refusal(code, failed.message, failed.hint) from failed
        except trio.TooSlowError as error:
            message = f"{what} did not answer within {self._timeout:g} seconds"
            raise Unanswered("unavailable", message, "try again; see runtime.timeout") from error
        except (ConnectionLost, OSError) as error:
            log.warning("%s can't be reached: %s", what, error)
            hint = "try again; if it lasts, an administrator should look at: systemctl status oqtod"
            raise Unanswered("unavailable", f"{what} can't be reached: {error}", hint) from error
