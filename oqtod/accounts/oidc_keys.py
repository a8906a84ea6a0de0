"""What an OpenID provider publishes: its endpoints and its keys, fetched when needed and kept.

OpenID Connect Discovery 1.0 and RFC 7517. While the provider can't be reached, what was fetched goes on
being used, for a day.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import jwt
import msgspec
import trio

from oqtod.errors import Refusal

log = logging.getLogger(__name__)

FRESH = 600.0
"""Seconds for which what was fetched is as good as new."""

STALE = 86_400.0
"""Seconds after which what was fetched is not used any more, even when the provider is down."""

ROTATION_PAUSE = 5.0
"""Seconds between two looks for a key that we don't have: a flood of made-up ones costs nothing."""

RETRY_PAUSE = 5.0
"""Seconds between two attempts while the provider is down."""

TIMEOUT = 5.0
MAX_DOCUMENT = 256 * 1024
MAX_KEYS = 100

_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}
_MIN_RSA_BITS = 2048
_PUBLIC_PARTS = ("kty", "n", "e", "crv", "x", "y")

D = TypeVar("D")


class Metadata(msgspec.Struct, frozen=True):
    """The part of the discovery document that we use."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Jwk(msgspec.Struct, frozen=True):
    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    crv: str | None = None


class _JwkSet(msgspec.Struct, frozen=True):
    keys: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A key of the provider, and the one algorithm it is used with."""

    kid: str | None
    algorithm: str
    key: jwt.PyJWK


class ProviderDown(Refusal):
    """The provider can't be asked, and nothing that it said before will do."""

    def __init__(self, issuer: str, reason: str) -> None:
        self.reason = reason
        super().__init__(
            "unavailable",
            f"the login provider {issuer} can't be asked: {reason}",
            "try again; if it lasts, an administrator should check auth.oidc_issuer and the provider",
        )


class _Kept(Generic[D]):
    """Something fetched, with its age. One fetch at a time; others get what there is meanwhile."""

    def __init__(self, fetch: Callable[[], Awaitable[D]], issuer: str) -> None:
        self._fetch = fetch
        self._issuer = issuer
        self._lock = trio.Lock()
        self._value: D | None = None
        self._fetched = self._attempted = float("-inf")
        self.failure = ""

    async def get(self, *, fresh: float = FRESH) -> D:
        """Return it, at most `fresh` seconds old if that can be had. Raises ProviderDown."""
        old = trio.current_time() - self._fetched > fresh
        if self._value is None or (old and not self._lock.locked()):
            async with self._lock:
                await self._refresh(fresh)
        if self._value is None or trio.current_time() - self._fetched > STALE:
            raise ProviderDown(self._issuer, self.failure)
        return self._value

    async def _refresh(self, fresh: float) -> None:
        now = trio.current_time()
        if self._value is not None and now - self._fetched <= fresh:
            return  # somebody else has meanwhile
        if self.failure and now - self._attempted < RETRY_PAUSE:
            return
        self._attempted = now
        try:
            with trio.fail_after(TIMEOUT):
                self._value = await self._fetch()
        except trio.TooSlowError:
            self.failure = f"no answer within {TIMEOUT:g} seconds"
        except ProviderDown as down:
            self.failure = down.reason
        except (ProviderError, OSError) as error:
            self.failure = str(error)
        else:
            self._fetched, self.failure = trio.current_time(), ""
            return
        log.warning("the login provider %s: %s", self._issuer, self.failure)


class ProviderError(Exception):
    """The provider's answer can't be used; str() says why."""


class Published:
    """The endpoints and keys of one provider."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._metadata = _Kept(self._fetch_metadata, issuer)
        self._keys = _Kept(self._fetch_keys, issuer)

    async def metadata(self) -> Metadata:
        """Return the discovery document. Raises ProviderDown."""
        return await self._metadata.get()

    async def key(self, kid: str | None, algorithm: str) -> PublishedKey | None:
        """Return the key that a token names, or the only one there is; None when there is none.

        A key that we don't have is looked for again: the provider may have new ones. Raises ProviderDown.
        """
        found = _choose(await self._keys.get(), kid, algorithm)
        if found is None:
            found = _choose(await self._keys.get(fresh=ROTATION_PAUSE), kid, algorithm)
            if found is None and self._keys.failure:
                raise ProviderDown(self.issuer, self._keys.failure)
        return found

    async def _fetch_metadata(self) -> Metadata:
        url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            metadata = msgspec.json.decode(await fetch(url), type=Metadata)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProviderError(f"{url} is no discovery document: {error}") from error
        if metadata.issuer != self.issuer:
            raise ProviderError(
                f"{url} says that its issuer is {metadata.issuer}: auth.oidc_issuer must be exactly that"
            )
        for endpoint in (
            metadata.jwks_uri,
            metadata.authorization_endpoint,
            metadata.token_endpoint,
            metadata.userinfo_endpoint,
        ):
            if endpoint is not None:
                self._check_endpoint(endpoint)
        return metadata

    def _check_endpoint(self, endpoint: str) -> None:
        scheme = urlsplit(endpoint).scheme
        if scheme != "https" and (scheme != "http" or not self.issuer.startswith("http://")):
            raise ProviderError(f"its endpoint {endpoint} is not https")

    async def _fetch_keys(self) -> list[PublishedKey]:
        url = (await self.metadata()).jwks_uri
        try:
            listed = msgspec.json.decode(await fetch(url), type=_JwkSet).keys
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProviderError(f"{url} is no set of keys: {error}") from error
        return [key for document in listed[:MAX_KEYS] for key in _usable(document)]


async def fetch(url: str, *, bearer: str | None = None) -> bytes:
    """Return what is at a URL. Raises ProviderError. The caller bounds the time."""
    import httpx  # takes its time, and is needed with OIDC only

    headers = {"accept": "application/json"}
    if bearer is not None:
        headers["authorization"] = f"Bearer {bearer}"
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise ProviderError(f"{url} answered with status {response.status_code}")
            return await read(response, url)
    except httpx.HTTPError as error:
        raise ProviderError(f"{url}: {error or type(error).__name__}") from error


async def read(response: object, url: str) -> bytes:
    """Return the body of an httpx response, if it is of a size that makes sense. Raises ProviderError."""
    body = b""
    async for part in response.aiter_bytes():  # type: ignore[attr-defined]  # httpx is imported when needed
        body += part
        if len(body) > MAX_DOCUMENT:
            raise ProviderError(f"{url} sent more than {MAX_DOCUMENT} bytes")
    return body


def _choose(keys: list[PublishedKey], kid: str | None, algorithm: str) -> PublishedKey | None:
    fitting = [key for key in keys if key.algorithm == algorithm and kid in (None, key.kid)]
    return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None


def _usable(document: dict[str, object]) -> list[PublishedKey]:
    """Return the key as the algorithms that it is good for; nothing for those that we don't use."""
    try:
        jwk = msgspec.convert(document, _Jwk)
    except msgspec.ValidationError:
        return []
    found = []
    for algorithm, key_type in _KEY_TYPES.items():
        fits = jwk.kty == key_type and jwk.use in (None, "sig") and jwk.alg in (None, algorithm)
        if not fits or (key_type == "EC" and jwk.crv != "P-256"):
            continue
        public = {
            name: value for name, value in document.items() if name in ("kty", "n", "e", "crv", "x", "y")
        }
        try:
            key = jwt.PyJWK.from_dict(public, algorithm=algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            log.warning("a key of the login provider can't be used: %s", error)
            continue
        if getattr(key.key, "key_size", 0) < _MIN_RSA_BITS and key_type == "RSA":
            log.warning("a key of the login provider is too short: %s", jwk.kid)
            continue
        found.append(PublishedKey(jwk.kid, algorithm, key))
    return found
