"""The login provider of auth.oidc_issuer: reachable, describing itself as we expect, with the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial

import msgspec
from msgspec import Struct

from oqtod.accounts.oidc_keys import Metadata
from oqtod.admin.doctor.finding import Finding, problem, warning
from oqtod.admin.doctor.host import Host

_TIMEOUT = 5.0
_LARGEST = 256 * 1024
_TOLERATED = 30.0


class Fetched(Struct, frozen=True):
    """An HTTP answer: status, Date header, and the beginning of its body."""

    status: int
    date: str
    body: bytes


Fetch = Callable[[str], Fetched]


def fetch(url: str) -> Fetched:
    """Fetch a URL in bounded time and size. Raises OSError."""
    import httpx  # takes its time, and is needed with OIDC only

    try:
        with httpx.stream("GET", url, timeout=_TIMEOUT, follow_redirects=False) as response:
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > _LARGEST:
                    break
            return Fetched(response.status_code, response.headers.get("date", ""), body)
    except httpx.HTTPError as error:
        raise OSError(0, str(error) or type(error).__name__, url) from error


def provider(host: Host, fetch: Fetch = fetch) -> Iterator[Finding]:
    """Fetch what the gateway fetches, and compare clocks."""
    issuer = host.config.auth.oidc_issuer
    if issuer is None:
        return
    subject = f"auth.oidc_issuer {issuer}"
    tell = partial(problem, subject, matters="nobody can log in through it")
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        answer = fetch(url)
    except OSError as error:
        yield tell(found=f"can't be reached: {error.strerror}", advice=f"curl -v {url} shows where it ends")
        return
    yield from _clock(host, subject, answer.date)
    if answer.status != 200:
        yield tell(found=f"{url} answered with {answer.status}", advice="correct auth.oidc_issuer")
        return
    try:
        metadata = msgspec.json.decode(answer.body, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        yield tell(found=f"{url} is no discovery document: {error}", advice="correct auth.oidc_issuer")
        return
    if metadata.issuer != issuer:
        advice = f'set auth.oidc_issuer = "{metadata.issuer}" if that is the right one'
        yield tell(found=f"it calls itself {metadata.issuer}", advice=advice)
    try:
        keys = fetch(metadata.jwks_uri)
    except OSError as error:
        advice = f"curl -v {metadata.jwks_uri} shows where it ends"
        yield tell(found=f"its keys can't be fetched: {error.strerror}", advice=advice)
        return
    if keys.status != 200 or b'"keys"' not in keys.body:
        yield tell(
            found=f"{metadata.jwks_uri} has no keys (status {keys.status})", advice="ask its administrator"
        )


def _clock(host: Host, subject: str, date: str) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return  # it says no time
    apart = host.clock() - theirs
    if abs(apart) > _TOLERATED:
        severity = problem if abs(apart) > 300 else warning
        yield severity(
            "clock",
            f"{abs(apart):.0f} seconds {'ahead of' if apart > 0 else 'behind'} that of {subject}",
            "its tokens are refused as expired, or as not yet valid",
            "timedatectl set-ntp true, and look at: timedatectl timesync-status",
        )
