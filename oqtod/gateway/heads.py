"""The heads of HTTP/1.1 messages (RFC 9112): taken apart, and refused where two could read them in two ways.

Nothing is repaired: a bare line feed, a folded line, a blank before a colon, two lengths are the end of the
connection. What h11 refuses is refused here too. No I/O.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oqtod.accounts.authenticator import Asked

MAX_HEAD = 32 * 1024
"""Bytes of a head, its empty line included."""

MAX_TARGET = 16 * 1024
"""Bytes of a request's target."""

MAX_FIELDS = 128

KEPT = 4 * 1024
"""Bytes of a head that is kept while a connection waits, since the next one is mostly much the same."""

MAX_NAME = 256
"""Bytes of a field's name."""

MAX_REMEMBERED = 512
"""Bytes of the fields that decisions are remembered by."""

# Possessive quantifiers: a pattern that does not match says so in one pass, whatever was sent.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_NAME = _TOKEN + b"{1,%d}+" % MAX_NAME
_FIELDS = rb"((?:" + _NAME + rb":[\t \x21-\x7e\x80-\xff]*+\r\n)*+)\r\n"
_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}+) ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
_BLOCK = re.compile(_FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t \x21-\x7e\x80-\xff]*+))?+\r\n" + _FIELDS)
_FIELD = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_NEVER_IN_A_HEAD = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~%!$&'()*+;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_LENGTH = re.compile(rb"[0-9]{1,15}")

_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"})
"""Fields that the two of are refused."""

_REMEMBERED = (b"host", b"origin", b"connection")

_NEITHER = frozenset({b"authorization", b"x-api-key", b"origin"})
"""Fields that two of say nothing: neither is believed."""


class BadHead(Exception):
    """This is no head that we take; `code` is one of `oqtod.errors`."""

    def __init__(self, message: str, code: str = "bad_request") -> None:
        super().__init__(message)
        self.code = code


class RequestHead:
    """The head of a request. Field names are in lower case; `found` has each name once.

    A head that is the same as the one before it on its connection is the same object: what is worked out
    from it is kept with it.
    """

    __slots__ = (
        "asked",
        "block",
        "chunked",
        "close",
        "fields",
        "found",
        "kept",
        "length",
        "line",
        "method",
        "minor",
        "named",
        "sent",
        "target",
        "upgrade",
    )

    line: bytes
    """The first line as it came."""
    method: bytes
    target: bytes
    """In origin form, or `*`."""
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    block: bytes
    """The fields as they came, with the empty line."""
    fields: list[tuple[bytes, bytes]]
    found: dict[bytes, bytes]
    length: int
    """Bytes of the body, 0 when it is chunked."""
    chunked: bool
    close: bool
    """Whether the client wants no other answer on this connection."""
    named: frozenset[bytes]
    """What Connection names."""
    upgrade: bytes | None
    """The protocol that the client would rather speak."""
    kept: bytes | None
    """The fields that go on to a service, once that was asked for."""
    asked: Asked | None
    """What it shows of who sends it, once that was asked for."""
    sent: bytes | None
    """What a service was sent instead of it, once that was done."""

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.chunked or self.length > 0

    @property
    def waits(self) -> bool:
        """Whether the client waits to be told that the body may come: RFC 9110 section 10.1.1."""
        return self.minor == 1 and self.found.get(b"expect", b"").lower() == b"100-continue"


class ResponseHead:
    """The head of a response. `length` is None where only the end of the connection ends the body."""

    __slots__ = (
        "chunked",
        "close",
        "data",
        "fields",
        "found",
        "length",
        "method",
        "minor",
        "named",
        "reason",
        "sent",
        "status",
    )

    data: bytes
    """The head as it came."""
    method: bytes
    """What the request's was."""

    minor: int
    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]
    found: dict[bytes, bytes]
    length: int | None
    chunked: bool
    close: bool
    named: frozenset[bytes]
    sent: tuple[tuple[bool, bool, bool], bytes] | None
    """What a client was sent instead of it, and how that was meant, once that was done."""


_NONE: frozenset[bytes] = frozenset()


def end_of_head(data: bytes, seen: int = 0) -> int:
    """Return the length of the head that `data` begins with, 0 when it isn't complete. Raises BadHead.

    `seen` bytes of it were looked at before.
    """
    start = max(0, seen - 3)
    end = data.find(b"\r\n\r\n", start) + 4
    if 4 <= end <= MAX_HEAD:
        return end
    if end > MAX_HEAD or len(data) > MAX_HEAD:
        _refuse_size(data)
    _refuse_early(data, start)
    return 0


def _refuse_size(data: bytes) -> None:
    if b"\n" not in data[: MAX_TARGET + 64]:
        raise BadHead(f"the target is over {MAX_TARGET} bytes", "uri_too_long")
    raise BadHead(f"the head is over {MAX_HEAD} bytes", "head_too_large")


def _refuse_early(data: bytes, start: int) -> None:
    """Say at once what more bytes can't mend."""
    if _NEVER_IN_A_HEAD.search(data, start) is not None or data[:1] in (b"\r", b" ", b"\t"):
        raise BadHead("not a request: a byte that no head has")


def request_head(data: bytes, last: RequestHead | None = None) -> RequestHead:
    """Take a complete head of a request apart. Raises BadHead.

    `last` is the head before it on the same connection: mostly only the first line is another one, or none,
    and what was judged isn't judged again.
    """
    if last is not None and data.startswith(last.line) and data[len(last.line) :] == last.block:
        return last
    end = data.find(b"\r\n") + 2
    match = _LINE.fullmatch(data, 0, end)
    if match is None:
        raise BadHead("not a request: its first line is malformed")
    method, target, minor = match.groups()
    head = RequestHead()
    head.line = data[:end]
    head.asked = head.sent = None
    head.method = method
    head.minor = 1 if minor == b"1" else 0
    head.block = data[end:]
    if last is not None and head.block == last.block and head.minor == last.minor:
        head.fields, head.found, head.kept = last.fields, last.found, last.kept
        head.chunked, head.length = last.chunked, last.length
        head.named, head.close, head.upgrade = last.named, last.close, last.upgrade
    else:
        _judge(head)
    if len(target) > MAX_TARGET:
        raise BadHead(f"the target is over {MAX_TARGET} bytes", "uri_too_long")
    head.target = target if target[0] == 0x2F else _origin_form(method, target, head.found.get(b"host"))
    return head


def _judge(head: RequestHead) -> None:
    """Take the fields of a request apart."""
    match = _BLOCK.fullmatch(head.block)
    if match is None:
        raise BadHead("not a request: a field is malformed")
    head.fields, head.found = _fields(match[1])
    head.kept = None
    found = head.found
    host = found.get(b"host")
    if host is None:
        if head.minor == 1:
            raise BadHead("a request must have one Host")
    elif _HOST.fullmatch(host) is None:
        raise BadHead("the Host is malformed")
    head.chunked, head.length = False, 0
    coding, length = found.get(b"transfer-encoding"), found.get(b"content-length")
    if coding is not None:
        if length is not None or head.minor == 0 or coding.lower() != b"chunked":
            raise BadHead("the length of the body can't be told for sure")
        head.chunked = True
    elif length is not None:
        head.length = _length(length)
    connection = found.get(b"connection")
    head.named = _tokens(connection) if connection is not None else _NONE
    head.close = head.minor == 0 or b"close" in head.named
    upgrade = found.get(b"upgrade") if b"upgrade" in head.named and head.minor == 1 else None
    # HTTP/2 inside could say anything to a service, unseen: a server may ignore the wish.
    head.upgrade = upgrade if upgrade is not None and not upgrade.lower().startswith(b"h2c") else None


def response_head(data: bytes, method: bytes, last: ResponseHead | None = None) -> ResponseHead:
    """Take a complete head of a response to a request with this method apart. Raises BadHead.

    `last` is one that came before: mostly little is new in a second but what was asked for.
    """
    if last is not None and data == last.data and method == last.method:
        return last
    match = _RESPONSE.fullmatch(data)
    if match is None:
        raise BadHead("its line or a field is malformed")
    minor, status, reason, block = match.groups()
    head = ResponseHead()
    head.data, head.method, head.sent = data, method, None
    head.minor = 1 if minor == b"1" else 0
    head.status = int(status)
    head.reason = reason or b""
    head.fields, head.found = _fields(block)
    found = head.found
    coding, length = found.get(b"transfer-encoding"), found.get(b"content-length")
    head.chunked, head.length = False, None
    if coding is not None:
        if length is not None or head.minor == 0 or coding.lower() != b"chunked":
            raise BadHead("the length of its body can't be told for sure")
        head.chunked = True
    elif length is not None:
        head.length = _length(length)
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        head.chunked, head.length = False, 0  # RFC 9112, section 6.3: whatever the fields say
    connection = found.get(b"connection")
    head.named = _tokens(connection) if connection is not None else _NONE
    head.close = head.minor == 0 or b"close" in head.named or (head.length is None and not head.chunked)
    return head


def _fields(block: bytes) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    fields = [(name.lower(), value.rstrip(b" \t")) for name, value in _FIELD.findall(block)]
    found = dict(fields)
    if len(found) != len(fields):
        _join(fields, found)
    for name in _REMEMBERED:
        if len(found.get(name, b"")) > MAX_REMEMBERED:
            raise BadHead(f"{name.decode()} is over {MAX_REMEMBERED} bytes", "head_too_large")
    if len(fields) > MAX_FIELDS:
        raise BadHead(f"the head has over {MAX_FIELDS} fields", "head_too_large")
    return fields, found


def _join(fields: list[tuple[bytes, bytes]], found: dict[bytes, bytes]) -> None:
    """Make one of the fields that came more than once, RFC 9110 section 5.3."""
    found.clear()
    for name, value in fields:
        if name not in found:
            found[name] = value
        elif name in _ONCE:
            raise BadHead(f"there are two of {name.decode()}")
        elif name in _NEITHER:
            found[name] = b""
        else:
            found[name] += (b"; " if name == b"cookie" else b", ") + value


def _length(text: bytes) -> int:
    if _LENGTH.fullmatch(text) is None:
        raise BadHead("the Content-Length is no plain number")
    return int(text)


@lru_cache(256)
def _tokens(text: bytes) -> frozenset[bytes]:
    return frozenset(token.strip(b" \t") for token in text.lower().split(b","))


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    """Return the path and query of a target that is no path, RFC 9112 section 3.2."""
    if target == b"*" and method == b"OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or b"#" in target:
        raise BadHead("the target is no path")
    if host is None or match[1].lower() != host.lower():
        raise BadHead("the target and Host name two servers")
    path = bytes(match[2])
    return path if path.startswith(b"/") else b"/" + path
