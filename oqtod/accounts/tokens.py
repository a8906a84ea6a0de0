"""Session tokens: JWT (RFC 7519), signed with HS256, void once revoked."""

from __future__ import annotations

import secrets
import sqlite3
import time

import jwt
import msgspec

from oqtod.accounts.users import User
from oqtod.store.database import Database

LIFETIME = 24 * 3600
"""Seconds a token is good for."""

MAX_LENGTH = 8192
"""Characters; nothing longer is even looked at."""

_ALGORITHM = "HS256"


class Claims(msgspec.Struct, frozen=True):
    """What our tokens say. `generation` is the user's at the time: a later one voids the token."""

    sub: str
    jti: str
    exp: int
    iat: int
    generation: int


class Tokens:
    """Issues and checks tokens with one secret."""

    def __init__(self, secret: str, database: Database) -> None:
        self._secret = secret
        self._database = database

    def issue(self, user: User) -> str:
        """Return a fresh token for a user."""
        issued = int(time.time())
        payload = {
            "sub": user.id,
            "email": user.email,
            "name": user.display_name,
            "preferred_username": user.username,
            "role": user.role,
            "roles": [user.role],
            "iat": issued,
            "exp": issued + LIFETIME,
            "jti": secrets.token_hex(16),
            "generation": user.generation,
        }
        return jwt.encode(payload, self._secret, algorithm=_ALGORITHM)

    def check(self, token: str) -> Claims | None:
        """Return what a good token says; None for every other one."""
        if len(token) > MAX_LENGTH:
            return None
        try:
            payload = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                options={"require": ["sub", "exp", "iat", "jti"]},
            )
            claims = msgspec.convert(payload, Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError):
            return None
        revoked = self._database.row("SELECT 1 FROM revoked_tokens WHERE jti = ?", (claims.jti,))
        return claims if revoked is None else None

    async def revoke(self, claims: Claims) -> None:
        """Make a token void at once. Rows that have expired by themselves go."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", (int(time.time()),))
            row = (claims.jti, claims.exp)
            connection.execute("INSERT OR IGNORE INTO revoked_tokens VALUES (?, ?)", row)

        await self._database.write(change)
