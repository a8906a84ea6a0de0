"""Platform users in the database: found, made and changed.

The id of a user is for ever, and names the Linux account; the user name may change. Whatever voids a user's
tokens gives the user another generation.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from oqtod.accounts import passwords
from oqtod.clock import now
from oqtod.config import DevUser
from oqtod.errors import Refusal
from oqtod.store.database import Database, Seen

Role = Literal["user", "admin", "service"]

_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")
_MAX_EMAIL = 254
_MAX_NAME = 128
_MAX_URL = 2048


class User(msgspec.Struct, frozen=True):
    """A platform user as the database has it. Without a password hash, no password opens it."""

    id: str
    username: str
    email: str
    display_name: str
    avatar_url: str | None
    role: Role
    is_active: bool
    password_hash: str | None
    origin: Literal["config", "database", "oidc"]
    generation: int
    tokens_since: int
    created_at: str
    last_login_at: str | None
    configured: str | None = None


class NewUser(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who shall become a user. Checked by `Users.add`."""

    username: str
    email: str
    display_name: str
    role: Role = "user"
    password_hash: str | None = None


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What of a user shall be something else; None stays as it is."""

    username: str | None = None
    email: str | None = None
    display_name: str | None = None
    avatar_url: str | None = None
    role: Role | None = None
    password_hash: str | None = None


class UserConflict(Exception):
    """`auth.dev_users` names somebody who is a user already, from elsewhere; str() says who."""


class Users:
    """The users of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: Seen[str, User] = Seen(database)

    def get(self, user_id: str) -> User | None:
        """Return a user by id."""
        seen = self._seen.current()
        user = seen.get(user_id)
        if user is None:
            user = self._one("SELECT * FROM users WHERE id = ?", (user_id,))
            if user is not None:
                seen[user_id] = user
        return user

    def named(self, name: str) -> User:
        """Return the user with this id or user name. Raises Refusal (not_found)."""
        user = self.get(name) or self._one("SELECT * FROM users WHERE lower(username) = lower(?)", (name,))
        if user is None:
            raise Refusal("not_found", f"there is no user {name}")
        return user

    def with_login(self, login: str) -> User | None:
        """Return the user who logs in like this: with the user name or the e-mail address, in any case."""
        return self._one(
            """
            SELECT * FROM users
            WHERE lower(username) = lower(?1) OR (lower(email) = lower(?1) AND origin <> 'oidc')
            ORDER BY lower(username) = lower(?1) DESC LIMIT 1
            """,
            (login,),
        )

    def all(self) -> list[User]:
        """Return every user, by name."""
        return [_user(row) for row in self._database.rows("SELECT * FROM users ORDER BY lower(username)")]

    def highest_cost(self) -> int:
        """Return the work factor of the most expensive password hash there is."""
        row = self._database.row("SELECT max(substr(password_hash, 5, 2)) AS cost FROM users")
        found = row["cost"] if row is not None else None
        return max(passwords.COST, int(found)) if found else passwords.COST

    def is_leaving(self, user_id: str) -> bool:
        """Say whether the user is being deleted."""
        query = "SELECT 1 FROM departures WHERE user_id = ? AND remove_account"
        return self._database.row(query, (user_id,)) is not None

    async def add(self, new: NewUser, *, within: Callable[[sqlite3.Connection], None] | None = None) -> User:
        """Make a user. Raises Refusal: bad_request for what can't be, conflict for what is taken.

        `within` runs in the same transaction, first: both happen or neither.
        """
        check(new)

        def change(connection: sqlite3.Connection) -> User:
            if within is not None:
                within(connection)
            return insert(connection, new, origin="database")

        return await self._write(change)

    async def change(self, user: User, changes: Changes) -> User:
        """Change what a user is called, may do, or logs in with. Raises Refusal as `add` does, and not_found.

        Another role or password voids all tokens.
        """
        check(changes)
        fields = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not None}
        if fields.get("avatar_url") == "":
            fields["avatar_url"] = None
        voids = "password_hash" in fields or fields.get("role", user.role) != user.role

        def update(connection: sqlite3.Connection) -> User:
            for name, value in fields.items():
                connection.execute(f"UPDATE users SET {name} = ? WHERE id = ?", (value, user.id))  # noqa: S608  names of our own
            if voids:
                void_tokens(connection, user.id)
            return _get(connection, user.id)

        return await self._write(update)

    async def renew_hash(self, user: User, password_hash: str) -> None:
        """Keep the same password under a costlier hash, unless it was changed meanwhile."""
        await self._database.write(
            lambda x: x.execute(
                "UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?",
                (password_hash, user.id, user.password_hash),
            )
        )

    async def note_login(self, user: User) -> User:
        """Record that somebody has just logged in; return the user as recorded."""

        def change(connection: sqlite3.Connection) -> User:
            connection.execute("UPDATE users SET last_login_at = ? WHERE id = ?", (now(), user.id))
            return _get(connection, user.id)

        return await self._database.write(change)

    async def shut_out(self, user: User) -> None:
        """Disable a user: tokens and keys are void at once, and stay so. What runs is not ended here."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE users SET is_active = 0 WHERE id = ?", (user.id,))
            void_tokens(connection, user.id)
            connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL",
                (now(), user.id),
            )

        await self._database.write(change)

    async def enable(self, user: User) -> User:
        """Let a disabled user in again. Raises Refusal for one who is being deleted, or not in the file."""

        def change(connection: sqlite3.Connection) -> User:
            if user.origin == "config" and user.configured is None:
                raise Refusal(
                    "conflict",
                    f"{user.username} is not in auth.dev_users any more",
                    "put the user back into the configuration, and restart oqtod",
                )
            changed = connection.execute(
                """
                UPDATE users SET is_active = 1 WHERE id = ?1
                AND NOT EXISTS (SELECT 1 FROM departures WHERE user_id = ?1 AND remove_account)
                """,
                (user.id,),
            )
            if changed.rowcount != 1:
                raise Refusal("conflict", f"{user.username} is being deleted")
            return _get(connection, user.id)

        return await self._database.write(change)

    async def set_from_config(self, dev_users: Iterable[DevUser]) -> None:
        """Take over what is new in `auth.dev_users`, and disable those it dropped. Raises UserConflict.

        An entry is applied when it differs from what was applied before: what an administrator or the user
        changed since then stays until the file changes. What the dropped ones run is ended by
        `oqtod.sessions.departure`. A changed password or role voids the tokens that were given out before.
        """
        wanted = list(dev_users)

        def change(connection: sqlite3.Connection) -> None:
            kept = msgspec.json.encode([user.id for user in wanted]).decode()
            connection.execute(
                """
                INSERT OR IGNORE INTO departures (user_id, remove_account, remove_home)
                SELECT id, 0, 0 FROM users
                WHERE is_active AND origin = 'config' AND id NOT IN (SELECT value FROM json_each(?))
                """,
                (kept,),
            )
            connection.execute(
                """
                UPDATE users SET generation = generation + is_active, is_active = 0, configured = NULL
                WHERE origin = 'config' AND id NOT IN (SELECT value FROM json_each(?))
                """,
                (kept,),
            )
            for user in wanted:
                _apply(connection, user)

        await self._database.write(change)

    async def _write(self, change: Callable[[sqlite3.Connection], User]) -> User:
        try:
            return await self._database.write(change)
        except sqlite3.IntegrityError as error:
            what = "e-mail address" if "users_email" in str(error) else "user name"
            raise Refusal("conflict", f"the {what} is taken", "choose another one") from error

    def _one(self, query: str, parameters: tuple[object, ...]) -> User | None:
        row = self._database.row(query, parameters)
        return _user(row) if row is not None else None


def can_be_username(text: str) -> bool:
    """Say whether a user can be called this."""
    return _USERNAME.fullmatch(text) is not None


def check(fields: NewUser | Changes) -> None:
    """Raise Refusal (bad_request) for a name, an address or a picture that can't be one."""
    if fields.username is not None and not can_be_username(fields.username):
        raise Refusal(
            "bad_request",
            "this can't be a user name",
            "1 to 32 letters, digits, dots, hyphens and underscores, the first a letter or digit",
        )
    email = fields.email
    if email is not None and (len(email) > _MAX_EMAIL or not _EMAIL.fullmatch(email)):
        raise Refusal("bad_request", "this can't be an e-mail address", "one address, like name@example.com")
    name = fields.display_name
    if name is not None and not (0 < len(name.strip()) <= _MAX_NAME and name.isprintable()):
        raise Refusal("bad_request", "this can't be a display name", f"1 to {_MAX_NAME} printable characters")
    url = fields.avatar_url if isinstance(fields, Changes) else None
    if url and (len(url) > _MAX_URL or not url.startswith(("https://", "/")) or not url.isprintable()):
        raise Refusal("bad_request", "this can't be the address of a picture", "an https:// URL")


def insert(connection: sqlite3.Connection, new: NewUser, *, origin: str) -> User:
    """Add a user, in a transaction of the caller's. Raises sqlite3.IntegrityError for what is taken."""
    user_id = new.username.lower()
    taken = "SELECT 1 FROM users WHERE lower(id) = ?"
    while connection.execute(taken, (user_id,)).fetchone() is not None:
        user_id = f"{new.username.lower()}-{secrets.token_hex(3)}"
    connection.execute(
        """
        INSERT INTO users
            (id, username, email, display_name, role, password_hash, origin, generation, created_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            user_id,
            new.username,
            new.email,
            new.display_name,
            new.role,
            new.password_hash,
            origin,
            secrets.randbits(48),  # an id can come again; tokens of the one before must not
            now(),
        ),
    )
    return _get(connection, user_id)


def void_tokens(connection: sqlite3.Connection, user_id: str) -> None:
    """Make all of a user's tokens void, ours and those of an OpenID provider, in the caller's transaction."""
    moment = int(time.time())
    connection.execute(
        "UPDATE users SET generation = generation + 1, tokens_since = ? WHERE id = ?", (moment, user_id)
    )
    connection.execute("UPDATE identities SET tokens_since = ? WHERE user_id = ?", (moment, user_id))


def _apply(connection: sqlite3.Connection, entry: DevUser) -> None:
    """Make a user what an entry of `auth.dev_users` says, unless that was done before."""
    configured = msgspec.json.encode(msgspec.structs.asdict(entry)).decode()
    other = connection.execute(
        """
        SELECT username, origin FROM users
        WHERE (id <> ?1 OR origin <> 'config')
            AND (id = ?1 OR lower(username) = lower(?1) OR (origin <> 'oidc' AND lower(email) = lower(?2)))
        """,
        (entry.id, entry.email),
    ).fetchone()
    if other is not None:
        raise UserConflict(
            f"auth.dev_users: {entry.id} ({entry.email}) has the name or e-mail of another user,"
            f" {other['username']}, who is in the database:"
            " choose another id and e-mail, or take the entry out and start oqtod to delete that user"
        )
    connection.execute(
        """
        INSERT INTO users
            (id, username, email, display_name, role, password_hash, origin, generation, created_at,
             configured)
        VALUES (:id, :id, :email, :name, :role, :password_hash, 'config', :generation, :now, :configured)
        ON CONFLICT (id) DO UPDATE SET
            email = :email, display_name = :name, role = :role, password_hash = :password_hash,
            is_active = CASE WHEN configured IS NULL THEN 1 ELSE is_active END,
            generation = generation + (password_hash IS NOT :password_hash OR role <> :role),
            configured = :configured
        WHERE configured IS NOT :configured
        """,
        msgspec.structs.asdict(entry)
        | {"generation": secrets.randbits(48), "now": now(), "configured": configured},
    )


def _get(connection: sqlite3.Connection, user_id: str) -> User:
    row = connection.execute("SELECT * FROM users WHERE id = ?", (user_id,)).fetchone()
    if row is None:
        raise Refusal("not_found", f"there is no user {user_id}")
    return _user(row)


def _user(row: sqlite3.Row) -> User:
    return msgspec.convert(dict(row), User, strict=False)
