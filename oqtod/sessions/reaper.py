"""Stops the sessions that nobody uses: `sessions.idle_timeout_minutes` and its relatives.

A session is used when somebody does something in it, and when its processes use CPU time: a build goes on
through the night. A busy session counts as used at every look.
"""

from __future__ import annotations

import logging
from collections import defaultdict

import trio

from oqtod import clock
from oqtod.errors import Refusal
from oqtod.sessions.lifecycle import Lifecycle, fields
from oqtod.sessions.model import Session
from oqtod.store.database import StorageError

log = logging.getLogger(__name__)


class Reaper:
    """Looks at the sessions of `lifecycle` every `sessions.idle_check_interval_seconds`."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        settings = lifecycle.config.sessions
        self._lifecycle = lifecycle
        self._timeout = settings.idle_timeout_minutes * 60
        self._interval = settings.idle_check_interval_seconds
        self._busy_percent = settings.busy_cpu_percent
        self._samples: dict[str, tuple[float, float]] = {}
        self._busy: set[str] = set()

    @property
    def works(self) -> bool:
        """Whether sessions are ever stopped for being idle: 0 in either key means never."""
        return self._timeout > 0 and self._interval > 0

    def busy(self, session: Session) -> bool:
        """Say whether a session was busy at the last look."""
        return session.id in self._busy

    def idle_at(self, session: Session) -> str | None:
        """Return when a running session will have been idle for too long, RFC 3339; None for never."""
        left = self.seconds_left(session)
        return None if left is None else clock.later(left)

    def seconds_left(self, session: Session) -> float | None:
        """Return the seconds after which a running session will have been idle for too long; None: never."""
        if not self.works or session.status != "running":
            return None
        return max(0.0, self._timeout - self._lifecycle.activity.idle(session))

    async def keep(self) -> None:
        """Look again and again, for ever."""
        if not self.works:
            await trio.sleep_forever()
        while True:
            await trio.sleep(self._interval)
            try:
                await self.look()
            except StorageError as error:
                log.error("idle sessions can't be looked for: %s", error)

    async def look(self) -> None:
        """Look once: at sessions that are due, will be due by the next look, or were busy. StorageError."""
        activity = self._lifecycle.activity
        await activity.flush()
        soon = activity.elapsed() - max(0.0, self._timeout - self._interval)
        users: dict[str, list[Session]] = defaultdict(list)
        looked_at = self._lifecycle.records.idle_since(soon)
        looked_at += [x for x in map(self._lifecycle.records.found, self._busy - _ids(looked_at)) if x]
        for session in looked_at:
            users[session.user_id].append(session)
        self._samples = {key: self._samples[key] for key in self._samples.keys() & _ids(looked_at)}
        self._busy &= _ids(looked_at)
        async with trio.open_nursery() as nursery:
            for user_id, sessions in users.items():
                nursery.start_soon(self._look_at, user_id, sessions)

    async def _look_at(self, user_id: str, sessions: list[Session]) -> None:
        try:
            known = await self._lifecycle.runners.statuses(user_id)
            for session in sessions:
                status = known.get(session.id)
                if status is None:
                    await self._lifecycle.ended(session)
                elif not self._sampled(session, status.usage.cpu):
                    continue
                elif session.id not in self._busy and self._lifecycle.activity.idle(session) >= self._timeout:
                    await self._reap(session)
        except (Refusal, StorageError) as error:
            log.warning("the idle sessions of %s stay for now: %s", user_id, error)

    def _sampled(self, session: Session, cpu: float) -> bool:
        """Note whether a session has been busy since the last look; False when this is the first one."""
        present = self._lifecycle.activity.elapsed()
        before = self._samples.get(session.id)
        self._samples[session.id] = present, cpu
        if before is None or present <= before[0]:
            return False
        was_busy = session.id in self._busy
        percent = (cpu - before[1]) / (present - before[0]) * 100
        if percent >= self._busy_percent:
            self._busy.add(session.id)
            self._lifecycle.activity.note(session.id)
        else:
            self._busy.discard(session.id)
        if was_busy != (session.id in self._busy):
            if not was_busy:
                log.info("session kept, it is busy: %.0f %% of a CPU", percent, extra=fields(session))
            self._lifecycle.events.ring(session.id)
        return True

    async def _reap(self, session: Session) -> None:
        reason = f"nobody used it for {self._timeout / 60:g} minutes: sessions.idle_timeout_minutes"
        async with self._lifecycle.lock(session.id):
            session = self._lifecycle.records.get(session.id)
            if session.status == "running" and self._lifecycle.activity.idle(session) >= self._timeout:
                await self._lifecycle.finish_stop(session, "idle", reason=reason)


def _ids(sessions: list[Session]) -> set[str]:
    return {session.id for session in sessions}
