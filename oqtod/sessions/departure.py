"""Users who leave: everything of theirs is ended, in an order that can be taken up again after any crash.

That somebody leaves is recorded first. Then nothing can be started for the user any more, the sessions are
stopped, everything else that the account runs is ended, and what was asked for is removed.
"""

from __future__ import annotations

import logging
import sqlite3

import trio

from oqtod.errors import Refusal
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.store.database import Database, StorageError

log = logging.getLogger(__name__)

_PAUSE = 30.0
"""Seconds until a departure that failed is tried again."""

_REASON = "its user was disabled or deleted"


class Departures:
    """The users of one gateway who are on their way out."""

    def __init__(self, database: Database, lifecycle: Lifecycle) -> None:
        self._database = database
        self._lifecycle = lifecycle

    async def leave(self, user_id: str, *, remove_account: bool, remove_home: bool = False) -> None:
        """Disable a user and end all that is theirs; with `remove_account`, forget user and Linux account.

        Returns when it is done. Raises Refusal, StorageError; it is then finished later, by `keep`.
        """

        def record(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE users SET is_active = 0 WHERE id = ?", (user_id,))
            connection.execute(
                "INSERT INTO departures (user_id, remove_account, remove_home) VALUES (?, ?, ?)"
                " ON CONFLICT (user_id) DO UPDATE SET remove_account = max(remove_account, ?2),"
                " remove_home = max(remove_home, ?3)",
                (user_id, remove_account, remove_home),
            )

        await self._database.write(record)
        await self._finish(user_id)

    async def keep(self) -> None:
        """Finish what was interrupted, at start and then every now and again. For ever."""
        while True:
            for row in self._database.rows("SELECT user_id FROM departures"):
                try:
                    await self._finish(row["user_id"])
                except (Refusal, StorageError) as error:
                    log.error("the departure of %s is not finished yet: %s", row["user_id"], error)
            await trio.sleep(_PAUSE)

    async def _finish(self, user_id: str) -> None:
        async with self._lifecycle.lock(f"departure of {user_id}"):
            row = self._database.row("SELECT * FROM departures WHERE user_id = ?", (user_id,))
            if row is None:
                return  # somebody else has
            if not row["remove_account"] and self._is_active(user_id):
                await self._database.write(
                    lambda x: x.execute("DELETE FROM departures WHERE user_id = ?", (user_id,))
                )
                return  # enabled again meanwhile
            await self._stop_sessions(user_id)
            remove = bool(row["remove_account"])
            await self._lifecycle.runners.end(user_id, remove=remove, remove_home=bool(row["remove_home"]))
            await self._over(user_id)

            def forget(connection: sqlite3.Connection) -> None:
                connection.execute("DELETE FROM departures WHERE user_id = ?", (user_id,))
                if remove:
                    connection.execute("DELETE FROM sessions WHERE user_id = ?", (user_id,))
                    connection.execute("DELETE FROM users WHERE id = ?", (user_id,))

            await self._database.write(forget)
            log.info("the user %s is %s", user_id, "deleted" if remove else "disabled")

    def _is_active(self, user_id: str) -> bool:
        row = self._database.row("SELECT is_active FROM users WHERE id = ?", (user_id,))
        return row is not None and bool(row["is_active"])

    async def _stop_sessions(self, user_id: str) -> None:
        """Ask the runner, which ends programs politely. What it doesn't manage, the account's end does."""
        for session in self._lifecycle.records.of_user(user_id):
            try:
                if session.live:
                    await self._lifecycle.stop(session, reason=_REASON)
            except Refusal as refusal:
                log.warning("a session of %s did not stop: %s", user_id, refusal)
                return

    async def _over(self, user_id: str) -> None:
        """Record what is certain now: nothing of the user's runs."""
        for listed in self._lifecycle.records.of_user(user_id):
            async with self._lifecycle.lock(listed.id):
                session = self._lifecycle.records.get(listed.id)
                if session.live and session.status != "stopping":
                    session = await self._lifecycle.move(session, "stopping", error=_REASON)
                if session.status == "stopping":
                    await self._lifecycle.move(session, "stopped", error=_REASON)
