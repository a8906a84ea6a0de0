"""Sessions in the database: found, made, and moved from state to state by compare-and-set."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from oqtod import clock
from oqtod.errors import Refusal
from oqtod.sessions import ports
from oqtod.sessions.model import LIVE, STATUSES, TRANSITIONS, Session, Status, readable_id
from oqtod.store.database import Database

_LIVE = "('pending', 'starting', 'running', 'stopping')"
_READABLE_ATTEMPTS = 20


class AtCap(Refusal):
    """The user has as many live sessions as `sessions.max_concurrent_sessions` allows."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "conflict",
            f"{limit} sessions of yours are live and in use, and that is the limit",
            "stop one first; the administrator sets sessions.max_concurrent_sessions",
        )


@dataclass(frozen=True, slots=True)
class PortUse:
    """How many blocks of ports and ports for browser streams are held, and how many there are."""

    blocks_used: int
    blocks: int
    streams_used: int
    streams: int


class Records:
    """The session rows of one database."""

    def __init__(
        self,
        database: Database,
        *,
        ranges: ports.Ranges,
        max_live: int,
        elapsed: Callable[[], float] = clock.elapsed,
    ) -> None:
        """`elapsed` is the clock that idle times are taken of."""
        self.elapsed = elapsed
        self._database = database
        self._ranges = ranges
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
        session = self.found(session_id)
        if session is None:
            raise Refusal("not_found", f"there is no session {session_id}")
        return session

    def found(self, session_id: str) -> Session | None:
        """Return a session by id, or None."""
        row = self._database.row("SELECT * FROM sessions WHERE id = ?", (session_id,))
        return None if row is None else _session(row)

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

    def counts(self) -> dict[Status, int]:
        """Return how many sessions are in each state."""
        found: dict[Status, int] = dict.fromkeys(STATUSES, 0)
        rows = self._database.rows("SELECT status, count(*) FROM sessions GROUP BY status")
        return found | {row[0]: row[1] for row in rows}

    def port_use(self) -> PortUse:
        """Return how much of the port ranges sessions hold."""
        first, ranges = self._ranges.stream_base, self._ranges
        query = "SELECT count(DISTINCT session_id), coalesce(sum(port >= ? AND port < ?), 0) FROM ports"
        row = self._database.row(query, (first, first + ranges.stream_count)) if ranges.streams else None
        if row is None:
            row = self._database.row("SELECT count(DISTINCT session_id), 0 FROM ports")
        assert row is not None
        streams = ranges.stream_count if ranges.streams else 0
        return PortUse(row[0], sum(1 for _ in ranges.blocks()), row[1], streams)

    async def add(self, session: Session) -> Session:
        """Record a new session, with ports of its own, as pending. Raises AtCap, Refusal."""

        def change(connection: sqlite3.Connection) -> Session:
            self._check_may_live(connection, session.user_id)
            fields = msgspec.structs.asdict(session)
            fields["active_clock"] = self.elapsed()
            fields["environment"] = msgspec.json.encode(session.environment).decode()
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
                self._take_ports(connection, session)
                return _get(connection, session.id)
            raise Refusal("unavailable", "no free readable id was found", "delete old sessions")

        return await self._database.write(change)

    async def move(
        self, session: Session, status: Status, *, error: str | None = None, linux_user: str | None = None
    ) -> Session:
        """Move a session on from the state it was seen in; return it as it is then.

        Raises Refusal (conflict) when it is in another state by now, AtCap. Entering a live state takes
        ports and counts as activity, leaving it releases them, in the same transaction. While a session
        stops, and then, it keeps the `error` that it stops for.
        """
        assert status in TRANSITIONS[session.status], f"{session.status} → {status}"
        moment = clock.now()

        def change(connection: sqlite3.Connection) -> Session:
            if not session.live and status in LIVE:
                self._check_may_live(connection, session.user_id)
                self._take_ports(connection, session)
            if session.live and status not in LIVE:
                ports.release(connection, session.id)
            changed = connection.execute(
                """
                UPDATE sessions SET status = :status,
                    error_message = CASE WHEN status = 'stopping' THEN coalesce(:error, error_message)
                                         ELSE :error END,
                    linux_user = coalesce(:linux_user, linux_user),
                    last_activity_at = CASE WHEN :enters THEN :moment ELSE last_activity_at END,
                    active_clock = CASE WHEN :enters THEN :clock ELSE active_clock END,
                    started_at = CASE WHEN :status = 'running' THEN :moment ELSE started_at END,
                    stopped_at = CASE WHEN :status IN ('stopped', 'failed') THEN :moment
                                      WHEN :status = 'starting' THEN NULL ELSE stopped_at END
                WHERE id = :id AND status = :seen
                """,
                {
                    "status": status,
                    "error": error,
                    "linux_user": linux_user,
                    "moment": moment,
                    "clock": self.elapsed(),
                    "enters": status in ("pending", "starting"),
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

    async def note_activity(self, activity: Mapping[str, tuple[str, float]]) -> None:
        """Write when each of these sessions was last used: RFC 3339, and seconds of `clock.elapsed`."""
        rows = [(at, seconds, session_id) for session_id, (at, seconds) in activity.items()]
        query = "UPDATE sessions SET last_activity_at = ?, active_clock = ? WHERE id = ?"
        await self._database.write(lambda x: x.executemany(query, rows))

    def idle_since(self, moment: float) -> list[Session]:
        """Return the running sessions whose last activity, by `clock.elapsed`, was before `moment`."""
        query = "SELECT * FROM sessions WHERE status = 'running' AND active_clock <= ?"
        return [_session(row) for row in self._database.rows(query, (moment,))]

    def unsettled(self) -> list[Session]:
        """Return the sessions on their way from one state to another."""
        query = "SELECT * FROM sessions WHERE status IN ('pending', 'starting', 'stopping')"
        return [_session(row) for row in self._database.rows(query)]

    async def note_boot(self, boot_id: str) -> bool:
        """Record the host's present boot; say whether it is another one than the sessions were started in."""

        def change(connection: sqlite3.Connection) -> bool:
            known = connection.execute("SELECT boot_id FROM host").fetchone()
            connection.execute("DELETE FROM host")
            connection.execute("INSERT INTO host (boot_id) VALUES (?)", (boot_id,))
            return known is not None and known[0] != boot_id

        return await self._database.write(change)

    def _check_may_live(self, connection: sqlite3.Connection, user_id: str) -> None:
        query = "SELECT is_active FROM users WHERE id = ?"
        active = connection.execute(query, (user_id,)).fetchone()
        if active is None or not active[0]:
            raise Refusal("forbidden", "the user is disabled")
        query = f"SELECT count(*) FROM sessions WHERE user_id = ? AND status IN {_LIVE}"  # noqa: S608
        if connection.execute(query, (user_id,)).fetchone()[0] >= self._max_live:
            raise AtCap(self._max_live)

    def _take_ports(self, connection: sqlite3.Connection, session: Session) -> None:
        block, stream = ports.take(
            connection, self._ranges, session.id, block=session.port_base, stream=session.stream_port
        )
        connection.execute(
            "UPDATE sessions SET port_base = ?, stream_port = ? WHERE id = ?", (block, stream, session.id)
        )


def _get(connection: sqlite3.Connection, session_id: str) -> Session:
    return _session(connection.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone())


def _session(row: sqlite3.Row) -> Session:
    fields = dict(row)
    fields["environment"] = msgspec.json.decode(fields["environment"])
    return msgspec.convert(fields, Session)
