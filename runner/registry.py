"""The sessions of one runner: started, listed, stopped, and taken over from an earlier runner."""

from __future__ import annotations

import logging
import os
import pwd
import re
import shutil
import socket
from functools import partial
from pathlib import Path

import msgspec
import trio

from runner import browsers
from runner.cgroups import Cgroup
from runner.protocol.messages import ServiceName, ServiceStatus, SessionSpec, SessionStatus
from runner.protocol.rpc import MALFORMED, CallFailed
from runner.sessions import Record, Session

log = logging.getLogger(__name__)

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Registry:
    """All sessions of this runner, by id."""

    def __init__(self, folder: Path, cgroup: Cgroup | None, nursery: trio.Nursery, *, personal: bool) -> None:
        self._folder = folder
        self._cgroup = cgroup
        self._make = partial(Session, personal=personal, nursery=nursery)
        self._sessions: dict[str, Session] = {}
        self._locks: dict[str, trio.Lock] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def statuses(self) -> list[SessionStatus]:
        """Return every session's state."""
        return [session.status for session in self._sessions.values()]

    async def start(self, spec: SessionSpec) -> SessionStatus:
        """Make a session ready; one that is there already stays as it is. Raises CallFailed."""
        if not _ID.fullmatch(spec.id):
            raise CallFailed("bad_request", "a session id has 1 to 64 letters, digits, - or _")
        async with self._locks.setdefault(spec.id, trio.Lock()):
            if spec.id not in self._sessions:
                session = self._make(spec, self._folder / spec.id, self._group(spec.id))
                session.prepare()
                self._sessions[spec.id] = session
                log.info("session started", extra={"SESSION_ID": spec.id})
            return self._sessions[spec.id].status

    async def open(
        self, session_id: str, service: ServiceName, *, start: bool = True
    ) -> tuple[ServiceStatus, socket.socket | None]:
        """Return a service's state and a socket connected to it; see `Session.open`. Raises CallFailed."""
        return await self._found(session_id).open(service, start=start)

    async def stop_service(self, session_id: str, service: ServiceName) -> None:
        """End one service of a session. Raises CallFailed."""
        await self._found(session_id).stop_service(service)

    async def open_port(self, session_id: str, port: int) -> int:
        """Return a descriptor connected to a program of the account that listens there. Raises CallFailed."""
        return (await self._found(session_id).open_port(port)).detach()

    def logs(self, session_id: str) -> dict[str, str]:
        """Return what a session's services reported of late, by name. Raises CallFailed."""
        return {name: service.log.text() for name, service in self._found(session_id).services.items()}

    async def forget(self, session_id: str) -> None:
        """Remove what is kept of a session that has ended; fine when there is nothing. Raises CallFailed."""
        if not _ID.fullmatch(session_id) or session_id in self._sessions:
            raise CallFailed("bad_request", "only what is kept of a session that has ended can be removed")
        profile = browsers.profile_of(session_id, Path(pwd.getpwuid(os.getuid()).pw_dir))
        try:
            await trio.to_thread.run_sync(shutil.rmtree, profile)
        except FileNotFoundError:
            pass  # it never had a browser
        except OSError as error:
            raise CallFailed("service_failed", f"{profile} can't be removed: {error.strerror}") from error

    def _found(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise CallFailed("no_session", "the session does not run here")
        return session

    async def stop(self, session_id: str) -> None:
        """End a session; fine when there is none."""
        async with self._locks.setdefault(session_id, trio.Lock()):
            session = self._sessions.pop(session_id, None)
            if session is not None:
                await session.end()
                log.info("session stopped", extra={"SESSION_ID": session_id})
        self._locks.pop(session_id, None)

    async def stop_all(self) -> None:
        """End every session."""
        async with trio.open_nursery() as nursery:
            for session_id in list(self._sessions):
                nursery.start_soon(self.stop, session_id)

    def adopt(self) -> None:
        """Take over what an earlier runner left, and clear away what can't be taken over."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            try:
                record = msgspec.json.decode((folder / "session.json").read_bytes(), type=Record)
                if self._cgroup is None:
                    raise OSError("there is no control group to find its processes by")
                session = self._make(record.spec, folder, self._group(record.spec.id))
                session.adopt(record.services)
            except (OSError, *MALFORMED, CallFailed) as error:
                log.warning("clearing away the session in %s: %s", folder, error)
                if (group := self._group(folder.name)) is not None:
                    group.kill()
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._sessions[record.spec.id] = session
            log.info("session taken over", extra={"SESSION_ID": record.spec.id})

    def _group(self, session_id: str) -> Cgroup | None:
        return self._cgroup.child(f"session-{session_id}") if self._cgroup else None
