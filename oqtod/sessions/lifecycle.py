"""What can be done with a session: create, open, stop, resume, delete.

The intent is in the database before anything is done, and the outcome after it. One lock a session; one a
user for coming in under the cap, always taken before a session's. What is interrupted half-way
`oqtod.sessions.recovery` finishes.
"""

from __future__ import annotations

import logging
import os
import posixpath
import socket
import weakref
from collections import Counter
from contextlib import AsyncExitStack
from typing import Literal, get_args

import trio

from oqtod.config import Config
from oqtod.errors import Refusal
from oqtod.placements.runners import Runners, Unanswered
from oqtod.sessions import model
from oqtod.sessions.activity import Activity
from oqtod.sessions.events import Events
from oqtod.sessions.model import Session, Status
from oqtod.sessions.records import AtCap, Records
from oqtod.telemetry.durations import Durations
from runner.protocol.messages import ServiceName, SessionStatus

log = logging.getLogger(__name__)

_BUSY_SAMPLE = 0.2
"""Seconds over which the CPU use of a session is looked at before it is stopped to make room."""

_GONE = "its processes ended outside of oqtod"

StartOutcome = Literal["started", "refused", "unanswered"]
StopReason = Literal["asked", "idle", "room", "ended", "unfinished"]
"""Why a session was stopped: somebody said so, nobody used it, it made room for another, it was found without
processes, or something earlier didn't come to its end."""

_START_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Lifecycle:
    """The sessions of one gateway."""

    def __init__(self, records: Records, runners: Runners, activity: Activity, config: Config) -> None:
        self.records = records
        self.runners = runners
        self.activity = activity
        self.events = Events()
        self.config = config
        self.starts: Counter[StartOutcome] = Counter(dict.fromkeys(get_args(StartOutcome), 0))
        self.start_seconds = Durations(_START_BOUNDS)
        self.stops: Counter[StopReason] = Counter(dict.fromkeys(get_args(StopReason), 0))
        self._locks: weakref.WeakValueDictionary[str, trio.Lock] = weakref.WeakValueDictionary()
        self._starts = trio.CapacityLimiter(config.runtime.parallelism or os.cpu_count() or 1)

    def lock(self, key: str) -> trio.Lock:
        """Return the lock of a session id, or of another thing that one task at a time may change."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = trio.Lock()
        return lock

    async def create(
        self,
        user_id: str,
        *,
        workspace_path: str | None = None,
        image: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> Session:
        """Make and start a session. Raises Refusal; one that could not start stays on record as failed.

        At the user's cap, the longest idle of the user's own sessions that is not busy is stopped first.
        """
        address = await self.runners.address(user_id)
        root = self.runners.workspace_root(user_id, address)
        session = model.new(
            user_id=user_id,
            workspace_path=_workspace(root, workspace_path),
            image=image or self.config.container.default_image,
            environment=environment or {},
        )
        async with self.lock(session.id):
            async with self.lock(f"admission of {user_id}"):
                session = await self._admit(session)
            return await self._start(session, linux_user=address.account)

    async def get_or_create(self, user_id: str, *, workspace_path: str | None = None) -> Session:
        """Return the user's running session, else resume the newest stopped one, else create one.

        With a workspace, only sessions of that workspace count. `sessions.auto_attach` says how far to go:
        `off` always creates, `attach` takes a running one only, `resume` and `on` all three.
        `sessions.auto_attach_scan` asks the runner whether the running one really runs. Raises Refusal.
        """
        async with self.lock(f"attaching of {user_id}"):
            mode = self.config.sessions.auto_attach
            address = await self.runners.address(user_id)
            root = self.runners.workspace_root(user_id, address)
            wanted = _workspace(root, workspace_path) if workspace_path is not None else None
            if mode != "off" and self.config.sessions.auto_attach_scan:
                await self.look_after(user_id)
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
        async with AsyncExitStack() as held:
            async with self.lock(f"admission of {session.user_id}"):
                await held.enter_async_context(self.lock(session.id))
                session = self.records.get(session.id)
                if session.status == "running":
                    return session
                if session.live:
                    raise Refusal(
                        "conflict", f"the session {session.readable_id} is {session.status}", "try again"
                    )
                session = await self._admit(session)
            return await self._start(session)

    async def stop(
        self, session: Session, *, reason: str | None = None, why: StopReason = "asked"
    ) -> Session:
        """End a session's processes and release what it holds; fine when it is stopped. Raises Refusal.

        `reason` is for people, `why` is counted.
        """
        async with self.lock(session.id):
            session = self.records.get(session.id)
            if not session.live:
                return session
            return await self.finish_stop(session, why, reason=reason)

    async def delete(self, session: Session) -> None:
        """Forget a session, and what its browser kept. Raises Refusal: conflict while it is live."""
        async with self.lock(session.id):
            session = self.records.get(session.id)
            if not session.live and session.stream_port is not None:  # it may have had a browser
                await self.runners.forget(session)
            await self.records.delete(session)
            self.events.ring(session.id)

    async def open(self, session: Session, service: ServiceName) -> socket.socket:
        """Return a socket connected to a service of a running session. Raises Refusal."""
        if service == "browser" and not self.config.agent_browser.enabled:
            raise Refusal(
                "not_found",
                "sessions have no browser here",
                "an administrator can give them one: agent_browser.enabled = true",
            )
        self._check_running(session)
        return await self._opened(session, await self._attempt(session, service=service))

    async def open_running(self, session: Session, service: ServiceName) -> socket.socket | None:
        """Return a socket connected to a service that runs, else None; counts as no use. Raises Refusal."""
        return await self.runners.open_running(session, service)

    async def stop_service(self, session: Session, service: ServiceName) -> None:
        """End one service of a session; the next use starts it again. Raises Refusal."""
        await self.runners.stop_service(session, service)
        self.events.ring(session.id)

    async def open_port(self, session: Session, port: int) -> socket.socket:
        """Return a socket connected to a program of a running session that listens on a port of its block.

        Raises Refusal.
        """
        self._check_running(session)
        return await self._opened(session, await self._attempt(session, port=port))

    def _check_running(self, session: Session) -> None:
        if session.status != "running":
            raise Refusal(
                "conflict",
                f"the session {session.readable_id} is {session.status}",
                f"resume it: POST /api/sessions/{session.id}/resume",
            )

    async def _attempt(
        self, session: Session, *, service: ServiceName | None = None, port: int | None = None
    ) -> socket.socket:
        try:
            if service is not None:
                return await self.runners.open(session, service)
            assert port is not None
            return await self.runners.open_port(session, port)
        except Refusal as refusal:
            if refusal.code == "conflict":
                # The runner doesn't know it: it ended behind our back, say with the account's processes.
                await self.ended(session)
            raise

    async def _opened(self, session: Session, connected: socket.socket) -> socket.socket:
        self.activity.note(session.id)
        self.events.ring(session.id)
        return connected

    async def look_after(self, user_id: str) -> dict[str, SessionStatus]:
        """Return what a user's runner says of its sessions; what it doesn't know any more has ended."""
        running = [session for session in self.records.of_user(user_id) if session.status == "running"]
        if not running:
            return {}
        known = await self.runners.statuses(user_id)
        for session in running:
            if session.id not in known:
                await self.ended(session)
        return known

    async def ended(self, session: Session) -> None:
        """Record that a session is found to have no processes any more."""
        async with self.lock(session.id):
            session = self.records.get(session.id)
            if session.status == "running":
                await self.finish_stop(session, "ended", reason=_GONE)

    async def _admit(self, session: Session) -> Session:
        """Record a new session, or that an old one is starting; make room for it at the cap."""
        while True:
            try:
                if session.status == "pending":
                    return await self.records.add(session)
                return await self.move(session, "starting")
            except AtCap:
                idlest = await self._idlest(session.user_id)
                if idlest is None:
                    raise
                reason = f"stopped to make room for {session.readable_id}: sessions.max_concurrent_sessions"
                await self.stop(idlest, reason=reason, why="room")

    async def _idlest(self, user_id: str) -> Session | None:
        """Return the user's longest idle running session that is not busy."""
        running = [session for session in self.records.of_user(user_id) if session.status == "running"]
        if not running:
            return None
        before, since = await self.runners.statuses(user_id), trio.current_time()
        await trio.sleep(_BUSY_SAMPLE)
        after, passed = await self.runners.statuses(user_id), trio.current_time() - since
        limit = self.config.sessions.busy_cpu_percent
        for session in sorted(running, key=self.activity.idle, reverse=True):
            then, now = before.get(session.id), after.get(session.id)
            if then is None or now is None or (now.usage.cpu - then.usage.cpu) / passed * 100 < limit:
                return session
        return None

    async def _start(self, session: Session, *, linux_user: str | None = None) -> Session:
        if session.status == "pending":
            session = await self.move(session, "starting", linux_user=linux_user)
        begun = trio.current_time()
        try:
            async with self._starts:
                await self.runners.start(session)
        except Unanswered as refusal:
            # It may have started, or still be about to.
            self.starts["unanswered"] += 1
            await self.move(session, "stopping", error=refusal.message)
            raise
        except Refusal as refusal:
            self.starts["refused"] += 1
            await self.move(session, "failed", error=refusal.message)
            raise
        self.starts["started"] += 1
        self.start_seconds.add(trio.current_time() - begun)
        log.info("session running", extra=fields(session))
        return await self.move(session, "running")

    async def finish_stop(self, session: Session, why: StopReason, *, reason: str | None = None) -> Session:
        """Stop a live session whose lock the caller holds. Raises Refusal, and then it stays stopping."""
        if session.status != "stopping":
            session = await self.move(session, "stopping", error=reason)
        await self.runners.stop(session)
        session = await self.move(session, "stopped")
        self.stops[why] += 1
        log.info("session stopped%s", f": {reason}" if reason else "", extra=fields(session))
        return session

    async def move(
        self, session: Session, status: Status, *, error: str | None = None, linux_user: str | None = None
    ) -> Session:
        """Move a session whose lock the caller holds, and tell who listens. Raises Refusal, StorageError.

        Once decided on, it is done: cancellation comes after it.
        """
        with trio.CancelScope(shield=True):
            session = await self.records.move(session, status, error=error, linux_user=linux_user)
        self.events.ring(session.id)
        return session


def fields(session: Session) -> dict[str, str | None]:
    """Return the journal fields of a log line about a session."""
    return {"SESSION_ID": session.id, "LINUX_USER": session.linux_user}


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
