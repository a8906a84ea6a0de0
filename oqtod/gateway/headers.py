"""Which fields go on, in which direction, and what stands in their place: RFC 9110 section 7.6, and ours.

A service never sees a person's credentials; what it answers never becomes a cookie, a worker or a policy of
our origin, and never runs on it. No I/O.
"""

from __future__ import annotations

from functools import lru_cache

from oqtod.accounts.authenticator import is_credential
from oqtod.gateway.heads import RequestHead, ResponseHead
from oqtod.gateway.targets import Target
from oqtod.sessions import previews

# What a user's program sends never runs on our origin: `sandbox` gives it one of its own that nobody else
# has. A preview is there to be run; a file is not.
_FILE_POLICY = b"sandbox"
_PREVIEW_POLICY = previews.POLICY.encode()

_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"transfer-encoding", b"upgrade"),
    }
)
_NEVER_TO_SERVICES = _HOP_BY_HOP | {
    *(b"cookie", b"authorization", b"x-api-key", b"forwarded", b"expect", b"http2-settings", b"x-real-ip"),
}
_NEVER_BACK = _HOP_BY_HOP | {
    *(b"set-cookie", b"clear-site-data", b"strict-transport-security", b"service-worker-allowed"),
    *(b"x-content-type-options", b"content-security-policy-report-only", b"alt-svc", b"public-key-pins"),
    # A web server in front of us may take these for orders, to send any file or internal page of its own.
    *(b"x-accel-redirect", b"x-accel-expires", b"x-accel-limit-rate", b"x-accel-charset"),
    *(b"x-sendfile", b"x-lighttpd-send-file", b"x-lighttpd-send-tempfile", b"x-reproxy-url"),
}
_NEVER_NAMED = frozenset(
    {
        *(b"host", b"content-length", b"content-type", b"content-encoding", b"range"),
        *(b"close", b"keep-alive", b"upgrade"),
    }
)
"""What Connection can't take away, and its own words."""


@lru_cache(1024)
def _goes_on(name: bytes) -> bool:
    """Say whether a field of a request goes on. Many programs take X_Forwarded_For for X-Forwarded-For."""
    plain = name.replace(b"_", b"-")
    if plain in _NEVER_TO_SERVICES or plain.startswith(b"x-forwarded-"):
        return False
    return plain == name or plain != b"content-length"  # another length, to a program that takes it for one


@lru_cache(1024)
def _comes_back(name: bytes) -> bool:
    return name not in _NEVER_BACK


def request_for(head: RequestHead, target: Target, *, client: str, scheme: str | None) -> bytes:
    """Return the head of the request to the service. `client` and `scheme` are what we hold for true."""
    kept = head.kept
    if kept is None:
        lines = [b"%b: %b\r\n" % field for field in head.fields if _goes_on(field[0])]
        kept = head.kept = b"".join(_without(lines, head.named) if head.named else lines)
    query = target.query
    if b"t" in query or b"T" in query or b"%" in query:
        query = b"&".join(x for x in query.split(b"&") if not is_credential(x))
    path = target.path + b"?" + query if query else target.path
    if head.chunked:
        kept += b"transfer-encoding: chunked\r\n"
    if head.upgrade is not None:
        kept += b"connection: Upgrade\r\nupgrade: %b\r\n" % head.upgrade
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (
        head.method,
        path,
        kept,
        _forwarded(client, scheme or "http", head.found.get(b"host", b""), target.prefix),
    )


@lru_cache(1024)
def _forwarded(client: str, scheme: str, host: bytes, prefix: bytes) -> bytes:
    """Say who asks for what, in the way of most programs and in that of RFC 7239."""
    address, proto = client.encode(), scheme.encode()
    node = b'"[%b]"' % address if b":" in address else address
    return (
        b"x-forwarded-for: %b\r\nx-forwarded-host: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-prefix: %b\r\n"
        b'forwarded: for=%b;host="%b";proto=%b\r\n' % (address, host, proto, prefix, node, host, proto)
    )


def response_for(head: ResponseHead, *, service: bool, chunked: bool, close: bool) -> bytes:
    """Return the head of the response to the client, for a `service` of the session or for a preview.

    Our policy stands beside one of the service's own, if it has one: a browser obeys both.
    """
    meant = service, chunked, close
    if head.sent is not None and head.sent[0] == meant:
        return head.sent[1]
    lines = [b"%b: %b\r\n" % field for field in head.fields if _comes_back(field[0])]
    if head.named:
        lines = _without(lines, head.named)
    if head.status == 204:
        lines = [line for line in lines if not line.startswith(b"content-length:")]
    start = (
        b"HTTP/1.1 %d %b\r\n%b%b%bcontent-security-policy: %b\r\nx-content-type-options: nosniff\r\n\r\n"
        % (
            head.status,
            head.reason,
            b"".join(lines),
            b"transfer-encoding: chunked\r\n" if chunked else b"",
            b"connection: close\r\n" if close else b"",
            _FILE_POLICY if service else _PREVIEW_POLICY,
        )
    )
    head.sent = meant, start
    return start


def interim_for(head: ResponseHead) -> bytes:
    """Return the head of an interim response (100, 102, 103) to the client."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, _without_length(head))


def switch_for(head: ResponseHead, protocol: bytes) -> bytes:
    """Return the head of the response that says that the protocol is another one from now on."""
    return b"HTTP/1.1 101 %b\r\nconnection: Upgrade\r\nupgrade: %b\r\n%b\r\n" % (
        head.reason,
        protocol,
        _without_length(head),
    )


def _without_length(head: ResponseHead) -> bytes:
    """Return the fields of a response that has no body and may not speak of one: RFC 9110 section 8.6."""
    gone = head.named | {b"content-length"}
    return b"".join(
        b"%b: %b\r\n" % field for field in head.fields if _comes_back(field[0]) and field[0] not in gone
    )


def _without(lines: list[bytes], named: frozenset[bytes]) -> list[bytes]:
    if named <= _NEVER_NAMED:
        return lines
    gone = named - _NEVER_NAMED
    return [line for line in lines if line.partition(b":")[0] not in gone]
