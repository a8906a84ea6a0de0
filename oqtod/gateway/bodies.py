"""Where the bodies of HTTP/1.1 messages end (RFC 9112, sections 6 and 7), and what of them goes on. No I/O.

A framing is fed what arrived and returns what is to be sent on; `excess` says how many of the bytes came
after the end and belong to somebody else. `ahead` is how many bytes may be moved without being looked at.
"""

from __future__ import annotations

import re

MAX_LINE = 1024
"""Bytes of the line before a chunk, and of a trailer's line."""

MAX_TRAILERS = 8 * 1024

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15}+)((?:[ \t]*+;[\t \x21-\x7e\x80-\xff]*+)?+)\r\n")
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[\t \x21-\x7e\x80-\xff]*+\r\n")

NEVER_IN_TRAILERS = frozenset(
    {
        *(b"content-length", b"transfer-encoding", b"host", b"connection", b"trailer", b"te", b"upgrade"),
        *(b"authorization", b"cookie", b"x-api-key", b"set-cookie", b"forwarded", b"content-type"),
        *(b"content-encoding", b"content-range", b"expect", b"range", b"cache-control", b"location"),
        *(b"clear-site-data", b"strict-transport-security", b"service-worker-allowed"),
        *(b"content-security-policy", b"x-content-type-options", b"keep-alive", b"proxy-authorization"),
    }
)
"""What counts in a head only, RFC 9110 section 6.5.1, or isn't for the other side."""


class BadBody(Exception):
    """The bytes are no body."""


class Length:
    """A body of so many bytes."""

    __slots__ = ("ahead", "done", "excess")

    def __init__(self, length: int) -> None:
        self.ahead = length
        self.done = length == 0
        self.excess = 0

    def feed(self, data: memoryview) -> memoryview | bytes:
        """Return what of the data is of the body."""
        size = len(data)
        if size <= self.ahead:
            self.moved(size)
            return data
        self.excess = size - self.ahead
        data = data[: self.ahead]
        self.moved(self.ahead)
        return data

    def moved(self, count: int) -> None:
        """So many bytes went on by another way."""
        self.ahead -= count
        self.done = self.ahead == 0

    def end(self) -> bool:
        """Say whether the body may end here with the connection."""
        return self.done


class Endless:
    """Bytes until the connection ends: a body without a length, or another protocol."""

    __slots__ = ("ahead", "done", "excess")

    def __init__(self) -> None:
        self.ahead = 1 << 62
        self.done = False
        self.excess = 0

    def feed(self, data: memoryview) -> memoryview | bytes:
        """Return all of it."""
        return data

    def moved(self, count: int) -> None:
        """So many bytes went on by another way."""

    def end(self) -> bool:
        """Say whether the body may end here with the connection."""
        self.done = True
        return True


class Chunked:
    """A body in chunks. Extensions are dropped, and of the trailers what may not be in one.

    With `plain`, what goes on is the data alone.
    """

    __slots__ = ("_line", "_plain", "_state", "_trailers", "ahead", "done", "excess")

    def __init__(self, *, plain: bool = False) -> None:
        self.ahead = 0
        self.done = False
        self.excess = 0
        self._plain = plain
        self._line = b""
        self._trailers = 0
        self._state = _SIZE_LINE

    def feed(self, data: memoryview) -> memoryview | bytes:
        """Return what goes on, in chunks again. Raises BadBody."""
        if 0 < len(data) <= self.ahead:
            self.moved(len(data))
            return data
        pieces: list[bytes | memoryview] = []
        position, size = 0, len(data)
        while position < size and not self.done:
            if self._state == _DATA:
                piece = data[position : position + self.ahead]
                pieces.append(piece)
                position += len(piece)
                self.moved(len(piece))
                continue
            room = MAX_LINE - len(self._line)
            rest = bytes(data[position : position + room])
            end = rest.find(b"\n") + 1
            self._line += rest[:end] if end else rest
            position += end or len(rest)
            if end:
                line, self._line = self._line, b""
                pieces.append(self._end_of_line(line))
            elif len(self._line) >= MAX_LINE:
                raise BadBody(f"a line of the chunked body is over {MAX_LINE} bytes")
            elif self._state == _DATA_END and self._line != b"\r":
                raise BadBody("a chunk is longer than it said")
        self.excess = size - position
        return b"".join(pieces)

    def moved(self, count: int) -> None:
        """So many bytes of the chunk went on by another way."""
        self.ahead -= count
        if self.ahead == 0:
            self._state = _DATA_END

    def end(self) -> bool:
        """Say whether the body may end here with the connection."""
        return self.done

    def _end_of_line(self, line: bytes) -> bytes:
        """Take a line; return what goes on of it."""
        if self._state == _DATA_END:
            if line != b"\r\n":
                raise BadBody("a chunk is longer than it said")
            self._state = _SIZE_LINE
            return b"" if self._plain else line
        if self._state == _SIZE_LINE:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise BadBody("the size of a chunk is malformed")
            self.ahead = int(match[1], 16)
            self._state = _DATA if self.ahead else _TRAILER_LINE
            return b"" if self._plain else match[1] + b"\r\n"
        return self._trailer(line)

    def _trailer(self, line: bytes) -> bytes:
        self._trailers += len(line)
        if self._trailers > MAX_TRAILERS:
            raise BadBody(f"the trailers are over {MAX_TRAILERS} bytes")
        if line == b"\r\n":
            self.done = True
            return b"" if self._plain else line
        match = _TRAILER.fullmatch(line)
        if match is None:
            raise BadBody("a trailer is malformed")
        name = match[1].lower().replace(b"_", b"-")
        kept = name not in NEVER_IN_TRAILERS and not name.startswith(b"x-forwarded-")
        return line if kept and not self._plain else b""


_SIZE_LINE, _DATA, _DATA_END, _TRAILER_LINE = range(4)

Framing = Length | Endless | Chunked


def framing_of(*, length: int | None, chunked: bool, plain: bool = False) -> Framing:
    """Return the framing of a body as its head has it; without a length it ends with the connection."""
    if chunked:
        return Chunked(plain=plain)
    return Endless() if length is None else Length(length)
