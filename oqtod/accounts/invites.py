"""Invite codes: who has one may become a user. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
import uuid
from base64 import b32encode

import msgspec

from oqtod.clock import later, now
from oqtod.errors import Refusal
from oqtod.store.database import Database

MAX_USES = 10_000
MAX_SECONDS = 10 * 365 * 86_400
MAX_INVITES = 10_000

_CODE = re.compile(r"[A-Z0-9_-]{8,64}")
_PREFIX = re.compile(r"[A-Za-z0-9_]{1,16}")
_SHOWN = 4
_MAX_NOTE = 500


class Invite(msgspec.Struct, frozen=True):
    """An invite code as the database has it."""

    id: str
    code_prefix: str
    note: str | None
    created_by: str
    created_at: str
    expires_at: str | None
    max_uses: int
    uses_remaining: int
    revoked_at: str | None

    @property
    def is_valid(self) -> bool:
        """Whether somebody could register with it now."""
        unexpired = self.expires_at is None or self.expires_at > now()
        return self.uses_remaining > 0 and self.revoked_at is None and unexpired


class Invites:
    """The invite codes of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make(
        self,
        created_by: str,
        *,
        code: str | None = None,
        prefix: str | None = None,
        max_uses: int = 1,
        expires_in: int | None = None,
        note: str | None = None,
        count: int = 1,
    ) -> list[tuple[Invite, str]]:
        """Make invites; return each with its code, which is nowhere else. Raises Refusal.

        `expires_in` is in seconds.
        """
        _check(code=code, prefix=prefix, max_uses=max_uses, expires_in=expires_in, note=note)
        made = []
        for _ in range(count):
            text = _normal(code) if code is not None else _fresh(prefix)
            invite = Invite(
                id=str(uuid.uuid4()),
                code_prefix=text[: max(_SHOWN, len(prefix or "") + _SHOWN)],
                note=note,
                created_by=created_by,
                created_at=now(),
                expires_at=later(expires_in) if expires_in is not None else None,
                max_uses=max_uses,
                uses_remaining=max_uses,
                revoked_at=None,
            )
            made.append((invite, text))

        def change(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT count(*) FROM invites").fetchone()[0] + count > MAX_INVITES:
                raise Refusal("conflict", f"there are {MAX_INVITES} invite codes", "delete old ones first")
            for invite, text in made:
                fields = msgspec.structs.asdict(invite) | {"code_hash": _hash(text)}
                names = ", ".join(fields)
                marks = ", ".join(f":{field}" for field in fields)
                connection.execute(f"INSERT INTO invites ({names}) VALUES ({marks})", fields)  # noqa: S608  our own names

        try:
            await self._database.write(change)
        except sqlite3.IntegrityError as error:
            raise Refusal("conflict", "this code was given out before", "choose another one") from error
        return made

    def all(self) -> list[Invite]:
        """Return every invite, newest first."""
        rows = self._database.rows("SELECT * FROM invites ORDER BY created_at DESC, id")
        return [_invite(row) for row in rows]

    def get(self, invite_id: str) -> Invite:
        """Return an invite by id. Raises Refusal (not_found)."""
        row = self._database.row("SELECT * FROM invites WHERE id = ?", (invite_id,))
        if row is None:
            raise Refusal("not_found", f"there is no invite code {invite_id}")
        return _invite(row)

    def is_good(self, code: str) -> bool:
        """Say whether somebody could register with this code now; `use` decides."""
        row = self._database.row("SELECT * FROM invites WHERE code_hash = ?", (_hash(_normal(code)),))
        return row is not None and _invite(row).is_valid

    def use(self, connection: sqlite3.Connection, code: str) -> None:
        """Take one use of a code, in the caller's transaction. Raises Refusal, the same for every reason."""
        changed = connection.execute(
            """
            UPDATE invites SET uses_remaining = uses_remaining - 1
            WHERE code_hash = ? AND uses_remaining > 0 AND revoked_at IS NULL
                AND (expires_at IS NULL OR expires_at > ?)
            """,
            (_hash(_normal(code)), now()),
        )
        if changed.rowcount != 1:
            raise bad_code()

    async def revoke(self, invite_id: str) -> Invite:
        """Make an invite void. Raises Refusal (not_found)."""
        self.get(invite_id)
        await self._database.write(
            lambda x: x.execute(
                "UPDATE invites SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now(), invite_id)
            )
        )
        return self.get(invite_id)

    async def delete(self, invite_id: str) -> None:
        """Forget an invite. Raises Refusal (not_found)."""
        self.get(invite_id)
        await self._database.write(lambda x: x.execute("DELETE FROM invites WHERE id = ?", (invite_id,)))


def bad_code() -> Refusal:
    """Return the one answer for every code that can't be used."""
    return Refusal(
        "bad_request", "the invite code is not valid", "check it, or ask who gave it to you for another"
    )


def _check(
    *, code: str | None, prefix: str | None, max_uses: int, expires_in: int | None, note: str | None
) -> None:
    if code is not None and not _CODE.fullmatch(_normal(code)):
        raise Refusal(
            "bad_request", "this can't be an invite code", "8 to 64 letters, digits, hyphens and underscores"
        )
    if prefix is not None and not _PREFIX.fullmatch(prefix):
        raise Refusal("bad_request", "this can't be a prefix", "1 to 16 letters, digits and underscores")
    if not 1 <= max_uses <= MAX_USES:
        raise Refusal("bad_request", f"a code is good for 1 to {MAX_USES} uses")
    if expires_in is not None and not 1 <= expires_in <= MAX_SECONDS:
        raise Refusal("bad_request", f"a code lasts 1 to {MAX_SECONDS} seconds")
    if note is not None and len(note) > _MAX_NOTE:
        raise Refusal("bad_request", f"a note has at most {_MAX_NOTE} characters")


def _fresh(prefix: str | None) -> str:
    text = b32encode(secrets.token_bytes(10)).decode()  # 80 bits
    grouped = "-".join(text[i : i + 4] for i in range(0, 16, 4))
    return _normal(f"{prefix}-{grouped}") if prefix else grouped


def _normal(code: str) -> str:
    return code.strip().upper()


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def _invite(row: sqlite3.Row) -> Invite:
    fields = dict(row)
    del fields["code_hash"]
    return msgspec.convert(fields, Invite)
