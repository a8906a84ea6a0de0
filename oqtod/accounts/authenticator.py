"""Who sends a request: its credentials checked, the same way for the API and for the byte path."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import parse_qs, unquote_to_bytes

from oqtod.accounts.access import Need
from oqtod.accounts.keys import PREFIX, Keys
from oqtod.accounts.oidc import Provider
from oqtod.accounts.origins import Origins
from oqtod.accounts.principal import Principal
from oqtod.accounts.tickets import Tickets
from oqtod.accounts.tokens import AnyHeader, Tokens, header_of
from oqtod.accounts.users import User, Users
from oqtod.errors import Refusal
from oqtod.store.database import Database, Seen

__all__ = ["COOKIE", "Asked", "Authenticator", "Principal", "is_credential"]

COOKIE = "auth_token"

_IN_URLS = ("ticket", "token")
"""Parameters of an upgrade's query that stand for somebody; the first that is there decides."""

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_NOT_LOGGED_IN = "POST /api/auth/login with username and password"


@dataclass(slots=True)
class Asked:
    """What matters of a request's head. `upgrade` is true for anything that wants another protocol,
    `websocket` for the one that may carry its credentials in the URL."""

    method: str
    host: str | None
    origin: str | None
    authorization: str | None
    api_key: str | None
    cookie: str | None
    query: str
    upgrade: bool
    websocket: bool
    credential: _Credential | None = None
    """What it shows, once that was asked for."""

    @classmethod
    def of(cls, method: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """Pick it from a head; header names are lower-case."""
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            if name == b"cookie" and name in found:
                found[name] += b"; " + value
            elif name in (b"authorization", b"x-api-key", b"origin", b"host") and name in found:
                found[name] = b""  # two of them: neither
            else:
                found.setdefault(name, value)
        return cls.of_found(method, query, found)

    @classmethod
    def of_found(cls, method: str, query: bytes, found: Mapping[bytes, bytes]) -> Self:
        """Pick it from a head that has each field once."""
        upgrade = found.get(b"upgrade")
        return cls(
            method,
            _text(found.get(b"host")),
            _text(found.get(b"origin")),
            _text(found.get(b"authorization")),
            _text(found.get(b"x-api-key")),
            _text(found.get(b"cookie")),
            query.decode("latin-1"),
            upgrade is not None,
            upgrade is not None
            and method == "GET"
            and upgrade.strip().lower() == b"websocket"
            and b"upgrade" in found.get(b"connection", b"").lower(),
        )


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


@dataclass(slots=True)
class _Credential:
    """What a request shows. `ambient` says that a browser sent it by itself."""

    text: str
    place: str
    ambient: bool = False


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A token that is not one of ours."""

    header: AnyHeader


class Authenticator:
    """Checks credentials in the order of INTERFACES: bearer, API key, cookie; for upgrades also in the URL.

    The first that is there decides. What a program put into the URL of an upgrade on purpose comes before the
    cookie that a browser adds.
    """

    def __init__(
        self,
        users: Users,
        tokens: Tokens,
        origins: Origins,
        *,
        keys: Keys,
        tickets: Tickets[Principal],
        provider: Provider | None,
        database: Database,
    ) -> None:
        self._users = users
        self._tokens = tokens
        self._origins = origins
        self._keys = keys
        self._tickets = tickets
        self._provider = provider
        self._seen: Seen[str, Principal] = Seen(database)

    def check_host(self, asked: Asked) -> None:
        """Refuse a request whose Host isn't us."""
        if not self._origins.is_our_host(asked.host):
            raise Refusal(
                "forbidden",
                f"this server is not {asked.host}",
                "in dev mode it answers to localhost only; see auth.allowed_origins",
            )

    def check_page(self, asked: Asked) -> None:
        """Refuse a foreign page where no credentials are needed, like a login that somebody else made."""
        if asked.origin is not None and not self._origins.may_act(asked.origin, asked.host):
            raise _foreign(asked.origin)

    async def authenticate(self, asked: Asked) -> Principal:
        """Return who asks. Raises Refusal: unauthorized, forbidden for a foreign page, unavailable.

        A page's Origin must be ours wherever a cookie speaks for the person, and wherever one is sent with
        an upgrade. A program that brings its own token, and no Origin, is no page.
        """
        shown = self._shown(asked)
        found = self._known(shown)
        if isinstance(found, _Foreign):
            assert self._provider is not None
            found = await self._provider.principal(shown.text, found.header)
        if found is None:
            raise _unauthorized()
        return found

    def recognize(self, asked: Asked) -> Principal | None:
        """As `authenticate`, at once; None for a token that its OpenID provider must be asked about."""
        found = self._known(self._shown(asked))
        if found is None:
            raise _unauthorized()
        return None if isinstance(found, _Foreign) else found

    def _shown(self, asked: Asked) -> _Credential:
        """Return the credential of a request that may show it. Raises Refusal."""
        shown = asked.credential = asked.credential or _credential(asked)
        ambient = shown is not None and shown.ambient
        changes = asked.upgrade or asked.method not in _SAFE_METHODS
        if asked.origin is not None:
            if (asked.upgrade or (ambient and changes)) and not self._origins.may_act(
                asked.origin, asked.host
            ):
                raise _foreign(asked.origin)
        elif ambient and changes:
            raise Refusal(
                "forbidden",
                "a request with a cookie must say which page sent it",
                "send an Origin header, or authenticate with Authorization: Bearer",
            )
        if shown is None:
            raise _unauthorized()
        return shown

    def authorize(self, principal: Principal, need: Need) -> None:
        """Refuse what the principal may not do. Raises Refusal (forbidden)."""
        if need.level == "person" and principal.kind not in ("token", "oidc"):
            raise Refusal("forbidden", "this takes somebody who logged in", "an API key is not enough")
        if need.level == "scoped" and principal.kind == "socket":
            raise Refusal("forbidden", "the admin socket acts for no user", "see /api/admin/sessions")
        if need.level == "admin" and not principal.is_admin:
            raise Refusal("forbidden", "this is for administrators")
        if principal.scopes is not None and not need.scopes <= principal.scopes:
            missing = ", ".join(sorted(need.scopes - principal.scopes))
            raise Refusal("forbidden", f"the API key lacks the scope {missing}", "make one that has it")

    def still_good(self, principal: Principal) -> bool:
        """Say whether the credentials that made a principal would still do so."""
        return self._renewed(principal) is not None

    def _known(self, shown: _Credential) -> Principal | _Foreign | None:
        if shown.place == "ticket":
            given = self._tickets.take(shown.text)
            return self._renewed(given) if given is not None else None
        if shown.place == "key" or shown.text.startswith(PREFIX):
            return self._by_key(shown.text) if not shown.ambient else None
        seen = self._seen.current()
        principal = seen.get(shown.text)
        if principal is not None:
            return principal if principal.expires is None or principal.expires > time.time() else None
        header = header_of(shown.text)
        if header is None:
            return None
        if header.alg == "HS256":
            principal = self._by_token(shown.text)
            if principal is not None:
                seen[shown.text] = principal
            return principal
        return _Foreign(header) if self._provider is not None and not shown.ambient else None

    def _by_token(self, text: str) -> Principal | None:
        claims = self._tokens.check(text)
        user = self._active(claims.sub) if claims is not None else None
        if claims is None or user is None or user.generation != claims.generation:
            return None
        return Principal(user, "token", claims.jti, expires=claims.exp)

    def _by_key(self, text: str) -> Principal | None:
        key = self._keys.check(text)
        user = self._active(key.user_id) if key is not None else None
        if key is None or user is None:
            return None
        return Principal(user, "key", key.id, scopes=frozenset(key.scopes))

    def _active(self, user_id: str) -> User | None:
        user = self._users.get(user_id)
        return user if user is not None and user.is_active else None

    def _renewed(self, principal: Principal) -> Principal | None:
        """Look again at credentials that were good before."""
        user = self._active(principal.user.id)
        if user is None or user.generation != principal.user.generation:
            return None
        if principal.kind == "key" and not self._keys.is_good(principal.credential):
            return None
        if principal.kind in ("token", "oidc") and self._tokens.is_revoked(principal.credential):
            return None
        return replace(principal, user=user)


def is_credential(parameter: bytes) -> bool:
    """Say whether a parameter of a query, as it stands in a URL, is a credential of ours."""
    name = parameter.partition(b"=")[0].replace(b"+", b" ")
    return unquote_to_bytes(name).decode("latin-1") in _IN_URLS


def _unauthorized() -> Refusal:
    return Refusal("unauthorized", "not logged in", _NOT_LOGGED_IN)


def _foreign(origin: str) -> Refusal:
    return Refusal("forbidden", f"pages of {origin[:200]} may not do this", "see auth.allowed_origins")


def _credential(asked: Asked) -> _Credential | None:
    if asked.authorization is not None:
        scheme, _, text = asked.authorization.partition(" ")
        text = text.strip(" ")
        is_bearer = scheme.lower() == "bearer" and text.isascii() and len(text.split(None, 1)) == 1
        return _Credential(text, "token") if is_bearer else None
    if asked.api_key is not None:
        return _Credential(asked.api_key.strip(), "key")
    if asked.websocket:
        parameters = parse_qs(asked.query, max_num_fields=100) if len(asked.query) <= 16_384 else {}
        for place in _IN_URLS:
            if found := parameters.get(place):
                return _Credential(found[0], place)
    for pair in (asked.cookie or "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return _Credential(value.strip('"'), "cookie", ambient=True)
    return None
