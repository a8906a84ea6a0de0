"""What can be done with a session: create, open, stop, resume, delete; and setting the record straight.

The intent is in the database before anything is done, and the outcome after it. One lock a session.
"""

from __future__ import annotations

import logging
import posixpath
import socket

import trio

from oqtod.config import Config
from oqtod.errors import Refusal
from oqtod.placements.runners import Runners
from oqtod.sessions import model
from oqtod.sessions.model import Session
from oqtod.sessions.records import Records
from runner.protocol.messages import ServiceName, SessionStatus

log = logging.getLogger(__name__)

_SHUTDOWN_TIMEOUT = 20.0
_ENDED_MEANWHILE = "the session ended while oqtod was not running"


class Lifecycle:
    """The sessions of one gateway."""

    def __init__(self, records: Records, runners: Runners, config: Config) -> None:
        self.records = records
        self._runners = runners
        self._config = config
        self._locks: dict[str, trio.Lock] = {}

    async def create(
        self,
        user_id: str,
        *,
        workspace_path: str | None = None,
        image: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> Session:
        """Make and start a session. Raises Refusal; one that could not start stays on record as failed."""
        address = await self._runners.address(user_id)
        root = self._runners.workspace_root(user_id, address)
        session = model.new(
            user_id=user_id,
            workspace_path=_workspace(root, workspace_path),
            image=image or self._config.container.default_image,
            environment=environment or {},
        )
        session = await self.records.add(session)
        return await self._start(session, linux_user=address.account)

    async def get_or_create(self, user_id: str, *, workspace_path: str | None = None) -> Session:
        """Return the user's running session, else resume the newest stopped one, else create one.

        With a workspace, only sessions of that workspace count. `sessions.auto_attach` says how far to go:
        `off` always creates, `attach` takes a running one only, `resume` and `on` all three. Raises Refusal.
        """
        async with self._lock(f"user {user_id}"):
            mode = self._config.sessions.auto_attach
            address = await self._runners.address(user_id)
            root = self._runners.workspace_root(user_id, address)
            wanted = _workspace(root, workspace_path) if workspace_path is not None else None
            fitting = [x for x in self.records.of_user(user_id) if wanted in (None, x.workspace_path)]
            running = next((x for x in fitting if x.status == "running"), None)
            if running is not None and mode != "off":
                return running
            stopped = next((x for x in fitting if x.status == "stopped"), None)
            if stopped is not None and mode in ("resume", "on"):
                return await self.resume(stopped)
            return await self.create(user_id, workspace_path=workspace_path)

    async def resume(self, session: Session) -> Session:
        """Start a stopped or failed session again; a running one is returned as it is. Raises Refusal."""
        async with self._lock(session.id):
            session = self.records.get(session.id)
            if session.status == "running":
                return session
            if session.live:
                raise Refusal(
                    "conflict", f"the session {session.readable_id} is {session.status}", "try again"
                )
            return await self._start(session)

    async def stop(self, session: Session) -> Session:
        """End a session's processes and release what it holds; fine when it is stopped. Raises Refusal."""
        async with self._lock(session.id):
            session = self.records.get(session.id)
            if session.status in ("stopped", "failed"):
                return session
            return await self._stop(session)

    async def delete(self, session: Session) -> None:
        """Forget a session. Raises Refusal (conflict) while it is live."""
        async with self._lock(session.id):
            await self.records.delete(session)
        self._locks.pop(session.id, None)

    async def open(self, session: Session, service: ServiceName) -> socket.socket:
        """Return a socket connected to a service of a running session. Raises Refusal."""
        if session.status != "running":
            raise Refusal(
                "conflict",
                f"the session {session.readable_id} is {session.status}",
                f"resume it: POST /api/sessions/{session.id}/resume",
            )
        try:
            return await self._runners.open(session, service)
        except Refusal as refusal:
            if refusal.code != "conflict":
                raise
            # The runner doesn't know it: it ended behind our back, say with the account's processes.
            await self._ended(session)
            raise

    async def services(self, user_id: str) -> dict[str, SessionStatus]:
        """Return what a user's runner says of his sessions; nothing when there is none to ask."""
        return await self._runners.statuses(user_id)

    async def _start(self, session: Session, *, linux_user: str | None = None) -> Session:
        session = await self.records.move(session, "starting", linux_user=linux_user)
        try:
            await self._runners.start(session)
        except Refusal as refusal:
            with trio.CancelScope(shield=True):
                await self.records.move(session, "failed", error=refusal.message)
            raise
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._stop(session)
            raise
        log.info("session running", extra={"SESSION_ID": session.id, "LINUX_USER": session.linux_user})
        return await self.records.move(session, "running")

    async def _stop(self, session: Session, *, error: str | None = None) -> Session:
        if session.status != "stopping":
            session = await self.records.move(session, "stopping")
        await self._runners.stop(session)
        session = await self.records.move(session, "stopped", error=error)
        log.info("session stopped", extra={"SESSION_ID": session.id, "LINUX_USER": session.linux_user})
        return session

    async def _ended(self, session: Session) -> None:
        async with self._lock(session.id):
            session = self.records.get(session.id)
            if session.status == "running":
                await self._stop(session, error="the session's processes are gone")

    def _lock(self, key: str) -> trio.Lock:
        return self._locks.setdefault(key, trio.Lock())

    async def reconcile(self) -> None:
        """Make the record and the runners agree, once at start. `local.cleanup_on_startup` ends all."""
        users = dict.fromkeys(session.user_id for session in self.records.live())
        async with trio.open_nursery() as nursery:
            for user_id in users:
                nursery.start_soon(self._reconcile_user, user_id)

    async def _reconcile_user(self, user_id: str) -> None:
        try:
            known = await self._runners.statuses(user_id)
            recorded = [session for session in self.records.of_user(user_id) if session.live]
            for session in recorded:
                if session.id not in known or session.status == "stopping":
                    await self._stop(session, error=None if session.id in known else _ENDED_MEANWHILE)
                elif self._config.local.cleanup_on_startup:
                    await self._stop(session, error="stopped at start: local.cleanup_on_startup")
                elif session.status != "running":
                    starting = session
                    if session.status == "pending":
                        starting = await self.records.move(session, "starting")
                    await self.records.move(starting, "running")
            for unknown in known.keys() - {session.id for session in recorded}:
                await self._runners.stop_by_id(user_id, unknown)
        except Refusal as refusal:
            log.error("the sessions of %s could not be looked at: %s", user_id, refusal)

    async def shut_down(self) -> None:
        """At our end: end all sessions where `local.stop_sessions_on_shutdown` says so, in bounded time."""
        if not self._config.local.stop_sessions_on_shutdown:
            return
        with trio.move_on_after(_SHUTDOWN_TIMEOUT, shield=True):
            async with trio.open_nursery() as nursery:
                for session in self.records.live():
                    nursery.start_soon(self._stop_at_shutdown, session)

    async def _stop_at_shutdown(self, session: Session) -> None:
        try:
            await self._stop(session)
        except Refusal as refusal:
            log.error("could not be stopped: %s", refusal, extra={"SESSION_ID": session.id})


def _workspace(root: str, asked: str | None) -> str:
    """Return the absolute path of the workspace that was asked for, within the user's root.

    The runner looks again, with all links resolved, as the account itself.
    """
    if asked is None:
        return root
    if "\0" in asked:
        raise Refusal("bad_request", "a workspace path has no NUL")
    path = posixpath.normpath(posixpath.join(root, asked))
    if path != root and not path.startswith(root.rstrip("/") + "/"):
        raise Refusal("bad_request", f"the workspace {asked} is not in {root}", "see local.workspace_dir")
    return path
