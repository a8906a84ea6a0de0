"""Who somebody is at an OpenID provider, and who that is here: by issuer and subject, never by e-mail."""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3

import msgspec

from oqtod.accounts import users
from oqtod.accounts.users import NewUser, User
from oqtod.store.database import Database

_MAX_USERNAME = 32
_MAX_NAME = 128


class Profile(msgspec.Struct, frozen=True):
    """What the provider says of somebody besides who it is. Only for showing."""

    preferred_username: str | None = None
    name: str | None = None
    email: str | None = None


class Identities:
    """The identities of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user(self, issuer: str, subject: str, profile: Profile, *, issued: int | None) -> User | None:
        """Return the user of an identity, made if there is none yet.

        `issued` is when a token was, in seconds since the epoch; None for somebody who has just logged in,
        whose name and address are then brought up to date. Returns None for a token from before its user's
        tokens were made void, the deletion of the user included.
        """
        row = self._database.row(
            """
            SELECT user_id, max(identities.tokens_since, coalesce(users.tokens_since, 0)) AS since
            FROM identities LEFT JOIN users ON users.id = user_id WHERE issuer = ? AND subject = ?
            """,
            (issuer, subject),
        )
        if row is not None and issued is not None:
            if row["since"] is not None and issued <= row["since"] != 0:
                return None
            if row["user_id"] is not None:
                return self._get(row["user_id"])

        def change(connection: sqlite3.Connection) -> User:
            known = connection.execute(
                "SELECT user_id FROM identities WHERE issuer = ? AND subject = ?", (issuer, subject)
            ).fetchone()
            if known is not None and known[0] is not None:
                user_id: str = known[0]
                _refresh(connection, user_id, profile)
            else:
                user_id = users.insert(
                    connection, _new(connection, issuer, subject, profile), origin="oidc"
                ).id
                connection.execute(
                    "INSERT INTO identities (issuer, subject, user_id) VALUES (?1, ?2, ?3)"
                    " ON CONFLICT DO UPDATE SET user_id = ?3",
                    (issuer, subject, user_id),
                )
            row = connection.execute("SELECT * FROM users WHERE id = ?", (user_id,)).fetchone()
            return msgspec.convert(dict(row), User, strict=False)

        return await self._database.write(change)

    def of_user(self, user_id: str) -> list[tuple[str, str]]:
        """Return a user's identities: issuer and subject."""
        rows = self._database.rows("SELECT issuer, subject FROM identities WHERE user_id = ?", (user_id,))
        return [(row["issuer"], row["subject"]) for row in rows]

    def _get(self, user_id: str) -> User | None:
        row = self._database.row("SELECT * FROM users WHERE id = ?", (user_id,))
        return msgspec.convert(dict(row), User, strict=False) if row is not None else None


def _new(connection: sqlite3.Connection, issuer: str, subject: str, profile: Profile) -> NewUser:
    wanted = profile.preferred_username or (profile.email or "").partition("@")[0]
    if not wanted and users.can_be_username(subject):
        wanted = subject  # a machine's, mostly
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("._-")[:_MAX_USERNAME].rstrip("._-")
    clean = clean or "user-" + hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()[:8]
    name, taken = clean, "SELECT 1 FROM users WHERE lower(username) = lower(?1) OR lower(id) = lower(?1)"
    while connection.execute(taken, (name,)).fetchone() is not None:
        name = f"{clean[: _MAX_USERNAME - 7]}-{secrets.token_hex(3)}"
    return NewUser(username=name, email=_email(profile), display_name=_display_name(profile) or name)


def _refresh(connection: sqlite3.Connection, user_id: str, profile: Profile) -> None:
    if email := _email(profile):
        connection.execute("UPDATE users SET email = ? WHERE id = ? AND origin = 'oidc'", (email, user_id))
    if name := _display_name(profile):
        connection.execute(
            "UPDATE users SET display_name = ? WHERE id = ? AND origin = 'oidc'", (name, user_id)
        )


def _email(profile: Profile) -> str:
    email = profile.email or ""
    return email if len(email) <= 254 and email.isprintable() and " " not in email else ""


def _display_name(profile: Profile) -> str:
    name = (profile.name or profile.preferred_username or "").strip()
    return "".join(x for x in name if x.isprintable())[:_MAX_NAME]
