"""When somebody last did something in each session: in memory, and written down every few seconds.

Activity is what a person does (keystrokes, requests, uploads), never what a program prints.
"""

from __future__ import annotations

import logging

import trio

from oqtod import clock
from oqtod.sessions.model import Session
from oqtod.sessions.records import Records
from oqtod.store.database import StorageError

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 5.0
"""Seconds of activity that are forgotten at most when the gateway is killed."""


RESOLUTION = 0.2
"""Seconds within which two activities are one."""


class Activity:
    """The last activity of the sessions in `records`, by its clock."""

    def __init__(self, records: Records) -> None:
        self.elapsed = records.elapsed
        self._records = records
        self._unwritten: dict[str, tuple[str, float]] = {}

    def note(self, session_id: str) -> None:
        """Somebody did something in this session just now."""
        moment = self.elapsed()
        noted = self._unwritten.get(session_id)
        if noted is None or moment - noted[1] >= RESOLUTION:
            self._unwritten[session_id] = clock.now(), moment

    def idle(self, session: Session) -> float:
        """Return for how many seconds nobody has done anything in a session."""
        _, last = self._unwritten.get(session.id, ("", session.active_clock))
        return max(0.0, self.elapsed() - max(last, session.active_clock))

    def last(self, session: Session) -> str:
        """Return when somebody last did something, RFC 3339."""
        at, _ = self._unwritten.get(session.id, (session.last_activity_at, 0.0))
        return max(at, session.last_activity_at)

    async def flush(self) -> None:
        """Write down what is new. Raises StorageError, and then keeps it for the next time."""
        if not self._unwritten:
            return
        unwritten, self._unwritten = self._unwritten, {}
        try:
            await self._records.note_activity(unwritten)
        except BaseException:
            self._unwritten = unwritten | self._unwritten
            raise

    async def close(self) -> None:
        """Write down what is new for the last time; what can't be written is lost, and said."""
        with trio.CancelScope(shield=True):
            try:
                await self.flush()
            except StorageError as error:
                log.error("the sessions' last activity can't be written: %s", error)

    async def keep(self) -> None:
        """Write down what is new every few seconds, for ever."""
        while True:
            await trio.sleep(FLUSH_INTERVAL)
            try:
                await self.flush()
            except StorageError as error:
                log.error("the sessions' activity can't be written: %s", error)
