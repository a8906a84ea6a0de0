"""Session tokens: JWT (RFC 7519), signed with HS256, void once revoked."""

from __future__ import annotations

import binascii
import hashlib
import secrets
import sqlite3
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from typing import TypeVar

import jwt
import msgspec

from oqtod.accounts.users import User
from oqtod.store.database import Database, Seen

LIFETIME = 24 * 3600
"""Seconds a token is good for."""

MAX_LENGTH = 8192
"""Characters; nothing longer is even looked at."""

ISSUER = "oqtod"
"""The `iss` and the `aud` of our tokens."""

_ALGORITHM = "HS256"

_MAX_VERIFIED = 4096
"""Tokens whose signature is not computed again."""

UNREADABLE = (
    jwt.PyJWTError,
    msgspec.ValidationError,
    ValueError,
    OverflowError,
    TypeError,
    RecursionError,
)
"""What decoding a hostile token raises: numbers and nesting can be of any kind."""

H = TypeVar("H")


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The only header that our tokens have. Keys in a token, `crit`, compression: none of it is ours."""

    alg: str
    typ: str = "JWT"


class Claims(msgspec.Struct, frozen=True):
    """What our tokens say. `generation` is the user's at the time: a later one voids the token."""

    sub: str
    jti: str
    exp: int
    iat: int
    generation: int


class AnyHeader(msgspec.Struct, frozen=True):
    """What a JWT's header says that we look at before anything is checked."""

    alg: str
    kid: str | None = None
    crit: msgspec.Raw | None = None


def header_of(token: str) -> AnyHeader | None:
    """Return the header of what may be a JWT, unverified; None when it is none."""
    return _header(token, AnyHeader)


class Tokens:
    """Issues and checks tokens with one secret."""

    def __init__(self, secret: str, database: Database) -> None:
        self._secret = secret
        self._database = database
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()
        self._revoked: Seen[str, bool] = Seen(database)

    def issue(self, user: User) -> str:
        """Return a fresh token for a user."""
        issued = int(time.time())
        payload = {
            "iss": ISSUER,
            "aud": ISSUER,
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
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._verify(token)
            if claims is None:
                return None
            self._verified[digest] = claims
            if len(self._verified) > _MAX_VERIFIED:
                self._verified.popitem(last=False)
        return claims if claims.exp > time.time() and not self.is_revoked(claims.jti) else None

    def _verify(self, token: str) -> Claims | None:
        """Look at everything that stays as it is: the signature and what is signed."""
        header = _header(token, Header)
        if header is None or header.alg != _ALGORITHM or header.typ != "JWT":
            return None
        try:
            payload = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=ISSUER,
                issuer=ISSUER,
                options={"require": ["iss", "aud", "sub", "exp", "iat", "jti"]},
            )
            claims = msgspec.convert(payload, Claims)
        except (
            jwt.PyJWTError,
            msgspec.ValidationError,
            ValueError,
            OverflowError,
            TypeError,
            RecursionError,
        ):
            # The signature comes first, but PyJWT has its own ideas of what a number may be.
            return None
        exact = payload["iss"] == ISSUER and payload["aud"] == ISSUER
        return claims if exact and 0 < claims.exp - claims.iat <= LIFETIME else None

    def is_revoked(self, jti: str) -> bool:
        """Say whether the token with this id was revoked."""
        seen = self._revoked.current()
        revoked = seen.get(jti)
        if revoked is None:
            row = self._database.row("SELECT 1 FROM revoked_tokens WHERE jti = ?", (jti,))
            revoked = seen[jti] = row is not None
        return revoked

    async def revoke(self, jti: str, expires: int) -> None:
        """Make a token void at once. Rows that have expired by themselves go."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", (int(time.time()) - 3600,))
            connection.execute("INSERT OR IGNORE INTO revoked_tokens VALUES (?, ?)", (jti, expires))

        await self._database.write(change)


def _header(token: str, kind: type[H]) -> H | None:
    if len(token) > MAX_LENGTH or token.count(".") != 2:
        return None
    raw = token.partition(".")[0]
    try:
        return msgspec.json.decode(urlsafe_b64decode(raw + "=" * (-len(raw) % 4)), type=kind)
    except (msgspec.DecodeError, UnicodeEncodeError, binascii.Error, ValueError, RecursionError):
        return None
