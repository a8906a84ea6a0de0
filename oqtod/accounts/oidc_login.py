"""Logging in through the OpenID provider with a browser: the authorization code flow with PKCE.

RFC 6749 section 4.1, RFC 7636, OpenID Connect Core section 3.1. What must be remembered between going there
and coming back is in a cookie that is ours by its signature: nothing is kept here, so nothing can be flooded.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import quote, urlencode

import msgspec
import trio

from oqtod.accounts.oidc import Provider
from oqtod.accounts.oidc_keys import TIMEOUT, Metadata, ProviderDown, ProviderError, read
from oqtod.accounts.users import User
from oqtod.errors import Refusal

LIFETIME = 600
"""Seconds that somebody may take at the provider."""

_MAX_COOKIE = 3000
_SAFE_PATH = 1000
_AGAIN = "begin again: GET /api/auth/oidc/login"


class State(msgspec.Struct, frozen=True):
    """What is remembered in the meantime. `until` is in seconds since the epoch."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    return_to: str
    until: int


class _Answer(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str | None = None


class OidcLogin:
    """The login flow with one provider. `secret` signs what is remembered."""

    def __init__(self, provider: Provider, *, client_secret: str | None, secret: str) -> None:
        self._provider = provider
        self._client_secret = client_secret
        self._key = hmac.digest(secret.encode(), b"oqtod: state of an OpenID login", "sha256")

    async def begin(self, *, redirect_uri: str, return_to: str | None) -> tuple[str, str]:
        """Return the URL at the provider to send the browser to, and the cookie to send along.

        Raises Refusal.
        """
        metadata = await self._provider.published.metadata()
        endpoint = metadata.authorization_endpoint
        if endpoint is None or metadata.token_endpoint is None:
            raise ProviderDown(self._provider.issuer, "it has no authorization code flow")
        state = State(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=redirect_uri,
            return_to=local_path(return_to),
            until=int(time.time()) + LIFETIME,
        )
        digest = hashlib.sha256(state.verifier.encode()).digest()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._provider.audience,
                "redirect_uri": redirect_uri,
                "scope": "openid profile email",
                "state": state.state,
                "nonce": state.nonce,
                "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}", self._sealed(state)

    async def finish(
        self, *, cookie: str | None, state: str | None, code: str | None, error: str | None
    ) -> tuple[User, str]:
        """Return who came back from the provider, and the path to go on to. Raises Refusal."""
        begun = self._unsealed(cookie)
        if begun is None or state is None or not hmac.compare_digest(begun.state.encode(), state.encode()):
            raise Refusal("bad_request", "this login was not begun here, or too long ago", _AGAIN)
        if error is not None or not code:
            said = "".join(x for x in (error or "no code") if x.isalnum() or x in "_- ")[:64]
            raise Refusal("unauthorized", f"the login provider refused: {said}", _AGAIN)
        answer = await self._exchange(begun, code)
        user = await self._provider.log_in(
            answer.id_token, nonce=begun.nonce, access_token=answer.access_token
        )
        if user is None:
            raise Refusal("unauthorized", "the login provider's token is not good", _AGAIN)
        if not user.is_active:
            raise Refusal("forbidden", "this user is disabled", "ask an administrator")
        return user, begun.return_to

    async def _exchange(self, begun: State, code: str) -> _Answer:
        metadata = await self._provider.published.metadata()
        try:
            with trio.fail_after(2 * TIMEOUT):
                body = await self._post(metadata, begun, code)
            return msgspec.json.decode(body, type=_Answer)
        except (ProviderError, OSError) as error:
            raise ProviderDown(self._provider.issuer, str(error)) from error
        except trio.TooSlowError as error:
            raise ProviderDown(self._provider.issuer, "it took too long") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProviderDown(self._provider.issuer, "its answer is no token") from error

    async def _post(self, metadata: Metadata, begun: State, code: str) -> bytes:
        import httpx  # takes its time, and is needed with OIDC only

        url = metadata.token_endpoint or ""
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": begun.redirect_uri,
            "code_verifier": begun.verifier,
        }
        headers = {"accept": "application/json"}
        if self._client_secret is None:
            fields["client_id"] = self._provider.audience
        elif "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            pair = f"{quote(self._provider.audience, safe='')}:{quote(self._client_secret, safe='')}"
            headers["authorization"] = "Basic " + b64encode(pair.encode()).decode()
        else:
            fields |= {"client_id": self._provider.audience, "client_secret": self._client_secret}
        try:
            async with (
                httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client,
                client.stream("POST", url, data=fields, headers=headers) as response,
            ):
                if response.status_code in (400, 401, 403):
                    raise Refusal("unauthorized", "the login provider did not accept the login", _AGAIN)
                if response.status_code != 200:
                    raise ProviderError(f"{url} answered with status {response.status_code}")
                return await read(response, url)
        except httpx.HTTPError as error:
            raise ProviderError(f"{url}: {error or type(error).__name__}") from error

    def _sealed(self, state: State) -> str:
        raw = urlsafe_b64encode(msgspec.json.encode(state)).rstrip(b"=")
        return f"{raw.decode()}.{hmac.digest(self._key, raw, 'sha256').hex()}"

    def _unsealed(self, cookie: str | None) -> State | None:
        raw, _, mac = (cookie or "").partition(".")
        if not raw.isascii() or not mac.isascii() or len(raw) > _MAX_COOKIE:
            return None
        if not hmac.compare_digest(hmac.digest(self._key, raw.encode(), "sha256").hex(), mac):
            return None
        state = msgspec.json.decode(urlsafe_b64decode(raw + "=" * (-len(raw) % 4)), type=State)
        return state if time.time() < state.until else None


def local_path(asked: str | None) -> str:
    """Return a path on our own origin: what was asked for if it is one, else the front page.

    Browsers take // and /\\ for another host, and leave control characters out before they look.
    """
    if asked is None or len(asked) > _SAFE_PATH or not asked.isprintable() or not asked.isascii():
        return "/"
    if not asked.startswith("/") or asked.startswith("//") or "\\" in asked:
        return "/"
    return asked
