"""Tokens of the OpenID provider: checked against its keys, and turned into users. OpenID Connect Core 1.0."""

from __future__ import annotations

import hashlib
import logging
import time

import jwt
import msgspec
import trio

from oqtod.accounts.identities import Identities, Profile
from oqtod.accounts.oidc_keys import TIMEOUT, ProviderError, Published, fetch
from oqtod.accounts.principal import Principal
from oqtod.accounts.tokens import UNREADABLE, AnyHeader, Tokens, header_of
from oqtod.accounts.users import User

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256")

LEEWAY = 60
"""Seconds that the provider's clock may differ from ours."""

_MAX_SUBJECT = 255


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of the provider says, and we look at. Times are seconds since the epoch."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: int | float
    iat: int | float
    azp: str | None = None
    nonce: str | None = None
    preferred_username: str | None = None
    name: str | None = None
    email: str | None = None

    @property
    def profile(self) -> Profile:
        """What is said of the person."""
        return Profile(self.preferred_username, self.name, self.email)


class _UserInfo(msgspec.Struct, frozen=True):
    sub: str
    preferred_username: str | None = None
    name: str | None = None
    email: str | None = None


class Provider:
    """The provider of `auth.oidc_issuer`, and which tokens of it are for us: `auth.oidc_audience`."""

    def __init__(self, issuer: str, audience: str, *, identities: Identities, tokens: Tokens) -> None:
        self.issuer = issuer
        self.audience = audience
        self.published = Published(issuer)
        self._identities = identities
        self._tokens = tokens

    async def principal(self, token: str, header: AnyHeader) -> Principal | None:
        """Return for whom a bearer token stands, or None when it isn't good. Raises ProviderDown."""
        claims = await self.check(token, header)
        if claims is None:
            return None
        # What is signed, without the signature: that one has spare bits, and on a curve two forms, in which a
        # token that was revoked would be another one.
        signed = token.rpartition(".")[0]
        credential = "oidc:" + hashlib.sha256(signed.encode()).hexdigest()
        if self._tokens.is_revoked(credential):
            return None
        user = await self._identities.user(claims.iss, claims.sub, claims.profile, issued=int(claims.iat))
        if user is None or not user.is_active:
            return None
        return Principal(user, "oidc", credential, expires=int(claims.exp) + LEEWAY)

    async def log_in(self, id_token: str, *, nonce: str, access_token: str | None) -> User | None:
        """Return whom an ID token of a login that we began is about, or None when it isn't good.

        Many providers leave name and address out of it, and tell them who has the access token. Raises
        ProviderDown.
        """
        header = header_of(id_token)
        claims = await self.check(id_token, header) if header is not None else None
        if claims is None or claims.nonce != nonce:
            return None
        profile = claims.profile
        if access_token is not None and profile.email is None:
            profile = await self._profile(access_token, claims.sub) or profile
        return await self._identities.user(claims.iss, claims.sub, profile, issued=None)

    async def _profile(self, access_token: str, subject: str) -> Profile | None:
        """Ask the provider who somebody is (OpenID Connect Core, 5.3). Not having that stops no login."""
        endpoint = (await self.published.metadata()).userinfo_endpoint
        if endpoint is None:
            return None
        try:
            with trio.fail_after(TIMEOUT):
                info = msgspec.json.decode(await fetch(endpoint, bearer=access_token), type=_UserInfo)
        except (ProviderError, OSError, trio.TooSlowError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("the login provider does not say who %s is: %s", subject, error)
            return None
        if info.sub != subject:
            return None
        return Profile(info.preferred_username, info.name, info.email)

    async def check(self, token: str, header: AnyHeader) -> Claims | None:
        """Return what a token says when it is the provider's, for us, and good now. Raises ProviderDown.

        The key is the provider's published one for the algorithm; what a token brings itself (`jwk`, `jku`,
        `x5u`) is never looked at.
        """
        if header.alg not in ALGORITHMS or header.crit is not None:
            return None
        if _unverified_issuer(token) != self.issuer:
            return None  # before anybody is asked for a key
        key = await self.published.key(header.kid, header.alg)
        if key is None:
            return None
        try:
            payload = jwt.decode(
                token,
                key.key.key,
                algorithms=[key.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
            claims = msgspec.convert(payload, Claims)
        except (
            jwt.PyJWTError,
            msgspec.ValidationError,
            ValueError,
            OverflowError,
            TypeError,
            RecursionError,
        ) as error:
            log.debug("a token of %s was refused: %s", self.issuer, error)
            return None
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        # Who it was made for, where it is for several: OpenID Connect Core, 3.1.3.7.
        ours = self.audience in audiences and (len(audiences) == 1 or claims.azp in (None, self.audience))
        exact = claims.iss == self.issuer and 0 < len(claims.sub) <= _MAX_SUBJECT and claims.sub.isprintable()
        timely = claims.iat <= time.time() + LEEWAY < float("inf")
        return claims if ours and exact and timely else None


def _unverified_issuer(token: str) -> str | None:
    try:
        payload = jwt.decode(token, options={"verify_signature": False})
    except UNREADABLE:
        return None
    issuer = payload.get("iss")
    return issuer if isinstance(issuer, str) else None
