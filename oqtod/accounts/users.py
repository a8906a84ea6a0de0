"""Platform users: who they are, and whether a password is theirs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import Literal

import bcrypt
import msgspec
import trio

from oqtod.clock import now
from oqtod.config import DevUser
from oqtod.store.database import Database

Role = Literal["user", "admin", "service"]

BCRYPT_COST = 12
_UNKNOWN = bcrypt.hashpw(b"", bcrypt.gensalt(BCRYPT_COST)).decode()


class User(msgspec.Struct, frozen=True):
    """A platform user as the database has it."""

    id: str
    username: str
    email: str
    display_name: str
    avatar_url: str | None
    role: Role
    is_active: bool
    password_hash: str
    origin: str
    generation: int
    created_at: str
    last_login_at: str | None


class Users:
    """The users of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, user_id: str) -> User | None:
        """Return a user by id."""
        return self._one("SELECT * FROM users WHERE id = ?", (user_id,))

    def _one(self, query: str, parameters: tuple[object, ...]) -> User | None:
        row = self._database.row(query, parameters)
        return msgspec.convert(dict(row), User, strict=False) if row is not None else None

    async def set_from_config(self, dev_users: Iterable[DevUser]) -> None:
        """Make the users of `auth.dev_users` what the configuration says, and disable those it dropped.

        What the dropped ones run is ended by `oqtod.sessions.departure`. A changed password or role voids
        the tokens that were given out before.
        """
        wanted = list(dev_users)

        def change(connection: sqlite3.Connection) -> None:
            kept = msgspec.json.encode([user.id for user in wanted]).decode()
            connection.execute(
                """
                INSERT OR IGNORE INTO departures (user_id, remove_account, remove_home)
                SELECT id, 0, 0 FROM users
                WHERE origin = 'config' AND is_active AND id NOT IN (SELECT value FROM json_each(?))
                """,
                (kept,),
            )
            connection.execute(
                """
                UPDATE users SET is_active = 0, generation = generation + 1
                WHERE origin = 'config' AND is_active AND id NOT IN (SELECT value FROM json_each(?))
                """,
                (kept,),
            )
            for user in wanted:
                connection.execute(
                    """
                    INSERT INTO users
                        (id, username, email, display_name, role, password_hash, origin, created_at)
                    VALUES (?1, ?1, ?2, ?3, ?4, ?5, 'config', ?6)
                    ON CONFLICT (id) DO UPDATE SET
                        email = ?2, display_name = ?3, role = ?4, password_hash = ?5, is_active = 1,
                        generation = generation + (password_hash != ?5 OR role != ?4)
                    """,
                    (user.id, user.email, user.name, user.role, user.password_hash, now()),
                )

        await self._database.write(change)

    async def log_in(self, login: str, password: str) -> User | None:
        """Return the active user with this username or e-mail whose password this is, else None.

        Takes the same time for an unknown user as for a wrong password.
        """
        user = self._one("SELECT * FROM users WHERE username = ?1 OR email = ?1", (login,))
        expected = user.password_hash if user is not None else _UNKNOWN
        right = await trio.to_thread.run_sync(_check, password, expected)
        if user is None or not right or not user.is_active:
            return None
        await self._database.write(
            lambda x: x.execute("UPDATE users SET last_login_at = ? WHERE id = ?", (now(), user.id))
        )
        return user


def hash_password(password: str) -> str:
    """Return the bcrypt hash of a password."""
    return bcrypt.hashpw(_material(password), bcrypt.gensalt(BCRYPT_COST)).decode()


def _check(password: str, expected: str) -> bool:
    return bcrypt.checkpw(_material(password), expected.encode())


def _material(password: str) -> bytes:
    """bcrypt takes 72 bytes and no NUL: what is longer goes in as its digest, not cut."""
    raw = password.encode()
    if len(raw) <= 72 and b"\0" not in raw:
        return raw
    return hashlib.sha256(raw).hexdigest().encode()
