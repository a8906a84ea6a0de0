"""Uploads of forms: multipart/form-data (RFC 7578), cut into parts as the bytes come. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PART_HEAD = 16 * 1024

_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_FILENAME = re.compile(rb'filename="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILENAME_PLAIN = re.compile(rb"filename=([^\s;\"]+)", re.IGNORECASE)


class Malformed(Exception):
    """The body isn't what its content type says."""


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part's head; `filename` is None for a field that is no file."""

    filename: bytes | None


@dataclass(frozen=True, slots=True)
class PartData:
    """Some of the present part's content."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The present part is whole."""


Event = PartBegins | PartData | PartEnds


class Parts:
    """Cuts one body. What it holds back is bounded by a part's head and the boundary's length."""

    def __init__(self, content_type: bytes) -> None:
        """Raises Malformed when the content type is no form, or names no boundary."""
        match = _BOUNDARY.search(content_type)
        if not content_type.lower().startswith(b"multipart/form-data") or match is None:
            raise Malformed("the content type must be multipart/form-data, with a boundary")
        self._delimiter = b"\r\n--" + (match[1] or match[2])
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like the others
        self._state = "preamble"

    @property
    def is_complete(self) -> bool:
        """Whether the last delimiter has come."""
        return self._state == "end"

    def feed(self, data: bytes) -> list[Event]:
        """Return what these bytes complete. Raises Malformed."""
        self._buffer += data
        events: list[Event] = []
        while self._step(events):
            pass
        return events

    def _step(self, events: list[Event]) -> bool:
        match self._state:
            case "preamble" | "content":
                return self._to_delimiter(events)
            case "delimiter":
                return self._after_delimiter()
            case "head":
                return self._head(events)
        self._buffer.clear()  # an epilogue says nothing
        return False

    def _to_delimiter(self, events: list[Event]) -> bool:
        found = self._buffer.find(self._delimiter)
        safe = found if found >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if safe and self._state == "content":
            events.append(PartData(bytes(self._buffer[:safe])))
        del self._buffer[:safe]
        if found < 0:
            return False
        if self._state == "content":
            events.append(PartEnds())
        del self._buffer[: len(self._delimiter)]
        self._state = "delimiter"
        return True

    def _after_delimiter(self) -> bool:
        line = self._buffer.find(b"\r\n")
        if self._buffer.startswith(b"--"):
            self._state = "end"
            return True
        if line < 0:
            if len(self._buffer) > MAX_PART_HEAD:
                raise Malformed("a boundary's line does not end")
            return False
        if bytes(self._buffer[:line]).strip(b" \t"):
            raise Malformed("there is something after a boundary")
        del self._buffer[:line]  # the line end stays: a part without headers has only the empty line
        self._state = "head"
        return True

    def _head(self, events: list[Event]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_PART_HEAD or (end < 0 and len(self._buffer) > MAX_PART_HEAD):
            raise Malformed(f"a part's head has over {MAX_PART_HEAD} bytes")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        match = _FILENAME.search(head) or _FILENAME_PLAIN.search(head)
        name = None if match is None else re.sub(rb"\\(.)", rb"\1", match[1])
        events.append(PartBegins(name))
        self._state = "content"
        return True
