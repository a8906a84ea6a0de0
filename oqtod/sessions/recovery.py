"""Making record and runners agree: at the gateway's start, and after whatever went wrong half-way."""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from oqtod.errors import Refusal
from oqtod.sessions.lifecycle import Lifecycle, fields
from oqtod.sessions.model import Session
from oqtod.store.database import StorageError

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_SHUTDOWN_TIMEOUT = 20.0

_ENDED_MEANWHILE = "it ended while oqtod was not running"
_REBOOTED = "the host was restarted"
_CLEANED_UP = "stopped when oqtod started: local.cleanup_on_startup"
_SHUT_DOWN = "stopped with oqtod: local.stop_sessions_on_shutdown"


class Recovery:
    """Looks after the sessions of `lifecycle` that nobody else is busy with."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._unreconciled: set[str] = set()
        self._pauses: dict[str, tuple[float, float]] = {}

    async def reconcile(self, *, boot_id: str | None = None) -> None:
        """At start: take every live session for what its runner says that it is. Raises StorageError.

        After a reboot nothing lives, and no runner is asked. `local.cleanup_on_startup` ends all sessions.
        With `runtime.fail_fast` the first user whose runner can't be asked ends the round. Users that remain
        are tried again by `keep`.
        """
        records = self._lifecycle.records
        rebooted = await records.note_boot(boot_id or _BOOT_ID.read_text().strip())
        live = records.live()
        if rebooted:
            for session in live:
                await self._over(session, _REBOOTED)
            return
        self._unreconciled = {session.user_id for session in live}
        async with trio.open_nursery() as nursery:
            for user_id in sorted(self._unreconciled):
                nursery.start_soon(self._first_try, user_id, nursery.cancel_scope)

    async def _first_try(self, user_id: str, batch: trio.CancelScope) -> None:
        try:
            await self._reconcile_user(user_id)
        except Refusal as refusal:
            log.error("the sessions of %s can't be looked at yet: %s", user_id, refusal)
            self._postpone(user_id)
            if self._lifecycle.config.runtime.fail_fast:
                batch.cancel()

    async def keep(self) -> None:
        """Finish what is unfinished, again and again with longer pauses until it works. For ever."""
        while True:
            await trio.sleep(_FIRST_PAUSE)
            await self.settle()

    async def settle(self) -> None:
        """One round: users whose runner couldn't be asked, sessions between two states."""
        for user_id in sorted(self._unreconciled):
            await self._try(user_id, None)
        for session in self._lifecycle.records.unsettled():
            if not self._lifecycle.lock(session.id).locked():
                await self._try(session.id, session)
        unsettled = {session.id for session in self._lifecycle.records.unsettled()} | self._unreconciled
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in unsettled}

    async def _try(self, key: str, session: Session | None) -> None:
        due, _ = self._pauses.get(key, (0.0, 0.0))
        if trio.current_time() < due:
            return
        try:
            if session is None:
                await self._reconcile_user(key)
            else:
                async with self._lifecycle.lock(session.id):
                    await self._finish(self._lifecycle.records.get(session.id))
        except (Refusal, StorageError) as error:
            log.warning("%s is not settled yet: %s", f"session {key}" if session else f"user {key}", error)
            self._postpone(key)

    def _postpone(self, key: str) -> None:
        _, pause = self._pauses.get(key, (0.0, _FIRST_PAUSE / 2))
        pause = min(2 * pause, _LONGEST_PAUSE)
        self._pauses[key] = trio.current_time() + pause, pause

    async def _finish(self, session: Session) -> None:
        """Bring a session that nobody is moving to a state where it can rest."""
        if session.status == "stopping":
            await self._lifecycle.finish_stop(session, "unfinished")
        elif session.status in ("pending", "starting"):
            known = await self._lifecycle.runners.statuses(session.user_id)
            if session.id in known:
                await self._running(session)
            else:
                await self._lifecycle.finish_stop(session, "unfinished", reason="it did not finish starting")

    async def _reconcile_user(self, user_id: str) -> None:
        lifecycle = self._lifecycle
        known = await lifecycle.runners.statuses(user_id)
        recorded = [session for session in lifecycle.records.of_user(user_id) if session.live]
        for listed in recorded:
            async with lifecycle.lock(listed.id):
                session = lifecycle.records.get(listed.id)
                if session.status == "stopping":
                    await lifecycle.finish_stop(session, "unfinished")
                elif not session.live:
                    continue
                elif session.id not in known:
                    await lifecycle.finish_stop(session, "ended", reason=_ENDED_MEANWHILE)
                elif lifecycle.config.local.cleanup_on_startup:
                    await lifecycle.finish_stop(session, "unfinished", reason=_CLEANED_UP)
                elif session.status != "running":
                    await self._running(session)
        for unknown in known.keys() - {session.id for session in recorded}:
            async with lifecycle.lock(unknown):
                if not any(x.id == unknown and x.live for x in lifecycle.records.of_user(user_id)):
                    await lifecycle.runners.stop_by_id(user_id, unknown)
        self._unreconciled.discard(user_id)

    async def _running(self, session: Session) -> None:
        if session.status == "pending":
            session = await self._lifecycle.move(session, "starting")
        await self._lifecycle.move(session, "running")

    async def _over(self, session: Session, reason: str) -> None:
        if session.status != "stopping":
            session = await self._lifecycle.move(session, "stopping", error=reason)
        await self._lifecycle.move(session, "stopped", error=reason)

    async def shut_down(self) -> None:
        """At our end: end all sessions where `local.stop_sessions_on_shutdown` says so, in bounded time.

        With `runtime.fail_fast` the first that can't be stopped ends the round. What is left over stays
        recorded as stopping, and is finished at the next start.
        """
        if not self._lifecycle.config.local.stop_sessions_on_shutdown:
            return
        with trio.move_on_after(_SHUTDOWN_TIMEOUT, shield=True):
            async with trio.open_nursery() as nursery:
                for session in self._lifecycle.records.live():
                    nursery.start_soon(self._stop_at_shutdown, session, nursery.cancel_scope)

    async def _stop_at_shutdown(self, session: Session, batch: trio.CancelScope) -> None:
        try:
            await self._lifecycle.stop(session, reason=_SHUT_DOWN)
        except (Refusal, StorageError) as error:
            log.error("could not be stopped: %s", error, extra=fields(session))
            if self._lifecycle.config.runtime.fail_fast:
                batch.cancel()
