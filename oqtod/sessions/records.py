"""Sessions in the database: found, made, and moved from state to state by compare-and-set."""

from __future__ import annotations

import sqlite3

import msgspec

from oqtod.clock import now
from oqtod.errors import Refusal
from oqtod.sessions.model import LIVE, PORT_BLOCK, TRANSITIONS, Session, Status, readable_id
from oqtod.store.database import Database

_LIVE = "('pending', 'starting', 'running', 'stopping')"
_READABLE_ATTEMPTS = 20
_LAST_PORT = 65535


class Records:
    """The session rows of one database."""

    def __init__(self, database: Database, *, base_port: int, max_live: int) -> None:
        self._database = database
        self._base_port = base_port
        self._max_live = max_live

    def find(self, user_id: str, key: str) -> Session:
        """Return a user's session by id or readable id. Raises Refusal (not_found), also for others'."""
        row = self._database.row(
            "SELECT * FROM sessions WHERE user_id = ?1 AND (id = ?2 OR readable_id = ?2)", (user_id, key)
        )
        if row is None:
            raise Refusal("not_found", f"there is no session {key}")
        return _session(row)

    def get(self, session_id: str) -> Session:
        """Return a session by id; it must exist."""
        row = self._database.row("SELECT * FROM sessions WHERE id = ?", (session_id,))
        if row is None:
            raise Refusal("not_found", f"there is no session {session_id}")
        return _session(row)

    def of_user(self, user_id: str) -> list[Session]:
        """Return a user's sessions, newest first."""
        rows = self._database.rows(
            "SELECT * FROM sessions WHERE user_id = ? ORDER BY created_at DESC, id", (user_id,)
        )
        return [_session(row) for row in rows]

    def live(self) -> list[Session]:
        """Return every live session."""
        query = f"SELECT * FROM sessions WHERE status IN {_LIVE}"  # noqa: S608  a constant
        return [_session(row) for row in self._database.rows(query)]

    async def add(self, session: Session) -> Session:
        """Record a new session, with ports of its own, as pending. Raises Refusal at the user's cap."""

        def change(connection: sqlite3.Connection) -> Session:
            self._check_cap(connection, session.user_id)
            fields = msgspec.structs.asdict(session)
            fields["environment"] = msgspec.json.encode(session.environment).decode()
            fields["port_base"] = self._free_ports(connection)
            names = ", ".join(fields)
            marks = ", ".join(f":{name}" for name in fields)
            for _ in range(_READABLE_ATTEMPTS):
                try:
                    connection.execute(f"INSERT INTO sessions ({names}) VALUES ({marks})", fields)  # noqa: S608
                except sqlite3.IntegrityError as error:
                    if "readable_id" not in str(error):
                        raise
                    fields["readable_id"] = readable_id()
                    continue
                return _get(connection, session.id)
            raise Refusal("unavailable", "no free readable id was found", "delete old sessions")

        return await self._database.write(change)

    async def move(
        self, session: Session, status: Status, *, error: str | None = None, linux_user: str | None = None
    ) -> Session:
        """Move a session on from the state it was seen in; return it as it is then.

        Raises Refusal (conflict) when it is in another state by now. Entering a live state takes ports,
        leaving it releases them, in the same transaction.
        """
        assert status in TRANSITIONS[session.status], f"{session.status} → {status}"
        moment = now()

        def change(connection: sqlite3.Connection) -> Session:
            port_base = session.port_base if status in LIVE else None
            if not session.live and status in LIVE:
                self._check_cap(connection, session.user_id)
                port_base = self._free_ports(connection)
            changed = connection.execute(
                """
                UPDATE sessions SET status = :status, error_message = :error, port_base = :port_base,
                    linux_user = coalesce(:linux_user, linux_user),
                    started_at = CASE WHEN :status = 'running' THEN :moment ELSE started_at END,
                    stopped_at = CASE WHEN :status IN ('stopped', 'failed') THEN :moment
                                      WHEN :status = 'starting' THEN NULL ELSE stopped_at END
                WHERE id = :id AND status = :seen
                """,
                {
                    "status": status,
                    "error": error,
                    "port_base": port_base,
                    "linux_user": linux_user,
                    "moment": moment,
                    "id": session.id,
                    "seen": session.status,
                },
            )
            if changed.rowcount != 1:
                raise Refusal(
                    "conflict", f"the session {session.readable_id} has changed meanwhile", "try again"
                )
            return _get(connection, session.id)

        return await self._database.write(change)

    async def delete(self, session: Session) -> None:
        """Forget a session that is not live. Raises Refusal (conflict)."""

        def change(connection: sqlite3.Connection) -> None:
            query = f"DELETE FROM sessions WHERE id = ? AND status NOT IN {_LIVE}"  # noqa: S608  a constant
            if connection.execute(query, (session.id,)).rowcount != 1:
                raise Refusal("conflict", f"the session {session.readable_id} is live", "stop it first")

        await self._database.write(change)

    async def touch(self, session_id: str) -> None:
        """Note that the person did something in the session."""
        moment = now()
        await self._database.write(
            lambda x: x.execute("UPDATE sessions SET last_activity_at = ? WHERE id = ?", (moment, session_id))
        )

    def _check_cap(self, connection: sqlite3.Connection, user_id: str) -> None:
        query = f"SELECT count(*) FROM sessions WHERE user_id = ? AND status IN {_LIVE}"  # noqa: S608
        if connection.execute(query, (user_id,)).fetchone()[0] >= self._max_live:
            raise Refusal(
                "conflict",
                f"{self._max_live} sessions of yours are live, and that is the limit",
                "stop one first; the administrator sets sessions.max_concurrent_sessions",
            )

    def _free_ports(self, connection: sqlite3.Connection) -> int:
        query = "SELECT port_base FROM sessions WHERE port_base IS NOT NULL"
        taken = {row[0] for row in connection.execute(query)}
        for base in range(self._base_port, _LAST_PORT - PORT_BLOCK + 2, PORT_BLOCK):
            if base not in taken:
                return base
        raise Refusal(
            "unavailable", "no block of ports is free", "stop sessions, or lower container.base_port"
        )


def _get(connection: sqlite3.Connection, session_id: str) -> Session:
    return _session(connection.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone())


def _session(row: sqlite3.Row) -> Session:
    fields = dict(row)
    fields["environment"] = msgspec.json.decode(fields["environment"])
    return msgspec.convert(fields, Session)
