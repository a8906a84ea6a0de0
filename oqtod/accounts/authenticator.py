"""Who sends a request: its credentials checked, the same way for the API and for the byte path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from oqtod.accounts.origins import Origins
from oqtod.accounts.tokens import Claims, Tokens
from oqtod.accounts.users import User, Users
from oqtod.errors import Refusal

COOKIE = "auth_token"

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What matters of a request's head."""

    method: str
    host: str | None
    origin: str | None
    authorization: str | None
    cookie: str | None
    query: str
    upgrade: bool

    @classmethod
    def of(cls, method: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Asked:
        """Pick it from a head; header names are lower-case."""
        found: dict[bytes, str] = {}
        for name, value in headers:
            if name == b"cookie" and name in found:
                found[name] += "; " + value.decode("latin-1")
            else:
                found.setdefault(name, value.decode("latin-1"))
        return cls(
            method,
            found.get(b"host"),
            found.get(b"origin"),
            found.get(b"authorization"),
            found.get(b"cookie"),
            query.decode("latin-1"),
            b"upgrade" in found,
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """The user a request acts for, and the token that said so."""

    user: User
    claims: Claims


class Authenticator:
    """Checks credentials in the order of INTERFACES: bearer, cookie, and for upgrades `?token=`."""

    def __init__(self, users: Users, tokens: Tokens, origins: Origins) -> None:
        self._users = users
        self._tokens = tokens
        self._origins = origins

    def check_host(self, asked: Asked) -> None:
        """Refuse a request whose Host isn't us."""
        if not self._origins.is_our_host(asked.host):
            raise Refusal(
                "forbidden",
                f"this server is not {asked.host}",
                "in dev mode it answers to localhost only; see auth.allowed_origins",
            )

    def authenticate(self, asked: Asked) -> Principal:
        """Return who asks. Raises Refusal: unauthorized, or forbidden for a foreign page.

        A page's Origin must be ours wherever a cookie speaks for the person, and wherever one is sent with
        an upgrade. A program that brings its own token, and no Origin, is no page.
        """
        token, ambient = self._token(asked)
        if asked.origin is not None:
            checked = asked.upgrade or (ambient and asked.method not in _SAFE_METHODS)
            if checked and not self._origins.may_act(asked.origin, asked.host):
                raise Refusal(
                    "forbidden", f"pages of {asked.origin} may not do this", "see auth.allowed_origins"
                )
        elif ambient and (asked.upgrade or asked.method not in _SAFE_METHODS):
            raise Refusal(
                "forbidden",
                "a request with a cookie must say which page sent it",
                "send an Origin header, or authenticate with Authorization: Bearer",
            )
        claims = self._tokens.check(token) if token else None
        user = self._users.get(claims.sub) if claims is not None else None
        if claims is None or user is None or not user.is_active or user.generation != claims.generation:
            raise Refusal("unauthorized", "not logged in", "POST /api/auth/login with username and password")
        return Principal(user, claims)

    def _token(self, asked: Asked) -> tuple[str | None, bool]:
        """Return the token, and whether a browser sent it by itself."""
        if asked.authorization is not None:
            scheme, _, token = asked.authorization.partition(" ")
            return (token.strip() if scheme.lower() == "bearer" else None), False
        if asked.upgrade and (tokens := parse_qs(asked.query).get("token")):
            return tokens[0], False
        if asked.cookie is not None:
            try:
                cookies = SimpleCookie(asked.cookie)
            except CookieError:
                return None, True
            if COOKIE in cookies:
                return cookies[COOKIE].value, True
        return None, False
