"""API keys: made, checked, revoked. Only their hashes are stored; what they may do is in their scopes."""

from __future__ import annotations

import hashlib
import logging
import secrets
import sqlite3
import uuid
from datetime import UTC, datetime

import msgspec
import trio

from oqtod.accounts.access import DEFAULT_SCOPES, SCOPES
from oqtod.clock import now
from oqtod.errors import Refusal
from oqtod.store.database import Database, Seen, StorageError

log = logging.getLogger(__name__)

PREFIX = "octo_sk_"

MAX_KEYS = 100
"""Keys that are good, of one user."""

_SHOWN = len(PREFIX) + 6
_FLUSH_INTERVAL = 10.0
_MAX_NAME = 128


class ApiKey(msgspec.Struct, frozen=True):
    """A key as the database has it."""

    id: str
    user_id: str
    name: str
    key_prefix: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    revoked_at: str | None

    @property
    def good(self) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now())


class Keys:
    """The API keys of one database. When one was last used is written every few seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: dict[str, str] = {}
        self._seen: Seen[str, ApiKey] = Seen(database)

    async def make(
        self, user_id: str, name: str, *, scopes: list[str] | None, expires_at: datetime | None, admin: bool
    ) -> tuple[ApiKey, str]:
        """Make a key; return it, and its text, which is nowhere else. Raises Refusal."""
        if not 0 < len(name.strip()) <= _MAX_NAME or not name.isprintable():
            raise Refusal(
                "bad_request", "this can't be a key's name", f"1 to {_MAX_NAME} printable characters"
            )
        granted = sorted(DEFAULT_SCOPES) if scopes is None else list(dict.fromkeys(scopes))
        for scope in granted:
            if scope not in SCOPES:
                raise Refusal("bad_request", f"{scope!r} is no scope", "there are: " + ", ".join(SCOPES))
        if "admin" in granted and not admin:
            raise Refusal("forbidden", "only an administrator's key can have the scope admin")
        text = PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(
            id=str(uuid.uuid4()),
            user_id=user_id,
            name=name.strip(),
            key_prefix=text[:_SHOWN],
            scopes=granted,
            created_at=now(),
            expires_at=expiry(expires_at),
            last_used_at=None,
            revoked_at=None,
        )

        def change(connection: sqlite3.Connection) -> None:
            count = connection.execute(
                "SELECT count(*) FROM api_keys WHERE user_id = ? AND revoked_at IS NULL"
                " AND (expires_at IS NULL OR expires_at > ?)",
                (user_id, now()),
            ).fetchone()[0]
            if count >= MAX_KEYS:
                raise Refusal("conflict", f"there are {MAX_KEYS} keys already", "revoke some first")
            fields = msgspec.structs.asdict(key) | {
                "scopes": msgspec.json.encode(granted).decode(),
                "key_hash": _hash(text),
            }
            names = ", ".join(fields)
            marks = ", ".join(f":{field}" for field in fields)
            connection.execute(f"INSERT INTO api_keys ({names}) VALUES ({marks})", fields)  # noqa: S608  our own names

        await self._database.write(change)
        return key, text

    def check(self, text: str) -> ApiKey | None:
        """Return the key that this is, when it is good, and note that it was used."""
        if len(text) > 256 or not text.startswith(PREFIX):
            return None
        hashed, seen = _hash(text), self._seen.current()
        key = seen.get(hashed)
        if key is None:
            row = self._database.row("SELECT * FROM api_keys WHERE key_hash = ?", (hashed,))
            if row is None:
                return None
            key = seen[hashed] = self._key(row)
        if not key.good:
            return None
        self._used[key.id] = now()
        return key

    def is_good(self, key_id: str) -> bool:
        """Say whether the key with this id is good still."""
        row = self._database.row("SELECT * FROM api_keys WHERE id = ?", (key_id,))
        return row is not None and self._key(row).good

    def of_user(self, user_id: str) -> list[ApiKey]:
        """Return a user's keys, newest first, those that are no good any more included."""
        rows = self._database.rows(
            "SELECT * FROM api_keys WHERE user_id = ? ORDER BY created_at DESC, id", (user_id,)
        )
        return [self._key(row) for row in rows]

    async def revoke(self, user_id: str | None, key_id: str) -> ApiKey:
        """Make a key void, at once. Raises Refusal (not_found), also for another user's.

        Without a user it is anybody's key.
        """

        def change(connection: sqlite3.Connection) -> ApiKey:
            connection.execute(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?1)"
                " WHERE id = ?2 AND coalesce(?3, user_id) = user_id",
                (now(), key_id, user_id),
            )
            row = connection.execute(
                "SELECT * FROM api_keys WHERE id = ?1 AND coalesce(?2, user_id) = user_id", (key_id, user_id)
            ).fetchone()
            if row is None:
                raise Refusal("not_found", f"there is no key {key_id}")
            return self._key(row)

        return await self._database.write(change)

    async def keep(self) -> None:
        """Write down when keys were last used, every now and again. For ever."""
        while True:
            await trio.sleep(_FLUSH_INTERVAL)
            await self.flush()

    async def flush(self) -> None:
        """Write down when keys were last used."""
        used, self._used = self._used, {}
        if not used:
            return

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE api_keys SET last_used_at = ? WHERE id = ?",
                [(moment, key_id) for key_id, moment in used.items()],
            )

        try:
            await self._database.write(change)
        except StorageError as error:
            log.warning("when API keys were last used was not written down: %s", error)

    def _key(self, row: sqlite3.Row) -> ApiKey:
        fields = dict(row)
        fields["scopes"] = msgspec.json.decode(fields["scopes"])
        fields["last_used_at"] = self._used.get(fields["id"], fields["last_used_at"])
        del fields["key_hash"]
        return msgspec.convert(fields, ApiKey)


def expiry(moment: datetime | None) -> str | None:
    """Return a moment as it is stored. Raises Refusal when it is not in the future, or has no time zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise Refusal("bad_request", "the expiry has no time zone", "RFC 3339, like 2030-01-31T12:00:00Z")
    try:
        text = moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError as error:
        raise Refusal("bad_request", "the expiry is out of range") from error
    if text <= now():
        raise Refusal("bad_request", "the expiry is in the past")
    return text


def _hash(text: str) -> str:
    # A key is 256 random bits: nothing slow is needed.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
