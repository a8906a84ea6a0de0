"""Parts of files, and whether they have changed: RFC 9110 sections 13 and 14. No I/O."""

from __future__ import annotations

import os
import re
from email.utils import formatdate, parsedate_to_datetime

MAX_RANGES = 32
"""Ranges in one request; who asks for more gets the whole file, as section 14.2 allows."""

_RANGE = re.compile(rb"(\d*)-(\d*)")

Span = tuple[int, int]
"""First byte, and the byte after the last."""


class Unsatisfiable(Exception):
    """No part of what was asked for exists."""


def etag(status: os.stat_result) -> bytes:
    """Return the strong entity tag of a file as it is."""
    return f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'.encode()


def last_modified(status: os.stat_result) -> bytes:
    """Return the Last-Modified of a file."""
    return formatdate(status.st_mtime, usegmt=True).encode()


def spans(asked: bytes | None, size: int) -> list[Span] | None:
    """Return the parts that a Range header asks for; None for the whole file. Raises Unsatisfiable."""
    unit, _, rest = (asked or b"").partition(b"=")
    if unit.strip().lower() != b"bytes":
        return None
    found: list[Span] = []
    ranges = [part.strip() for part in rest.split(b",")]
    if len(ranges) > MAX_RANGES:
        return None
    for part in ranges:
        match = _RANGE.fullmatch(part)
        if match is None or not (match[1] or match[2]) or max(map(len, match.groups())) > 19:
            return None  # not a range: the header is ignored
        if not match[1]:
            start, end = max(0, size - int(match[2])), size
        else:
            start, end = int(match[1]), int(match[2]) + 1 if match[2] else size
            if end <= start and match[2]:
                return None
        if start < min(end, size):
            found.append((start, min(end, size)))
    if not found:
        raise Unsatisfiable
    return None if sum(end - start for start, end in found) > size else found


def is_unchanged(headers: dict[bytes, bytes], status: os.stat_result) -> bool:
    """Say whether the client has the file already: If-None-Match, else If-Modified-Since."""
    tags = headers.get(b"if-none-match")
    if tags is not None:
        return _matches(tags, etag(status))
    since = _date(headers.get(b"if-modified-since"))
    return since is not None and int(status.st_mtime) <= since


def range_is_meant(headers: dict[bytes, bytes], status: os.stat_result) -> bool:
    """Say whether If-Range, if there is one, still holds."""
    condition = headers.get(b"if-range")
    return condition is None or condition in (etag(status), last_modified(status))


def may_write(headers: dict[bytes, bytes], status: os.stat_result | None) -> bool:
    """Say whether a file that is there as `status` (None: isn't) may be written: If-Match and relatives."""
    wanted, unwanted = headers.get(b"if-match"), headers.get(b"if-none-match")
    if wanted is not None:
        return status is not None and _matches(wanted, etag(status))
    if unwanted is not None and status is not None:
        return not _matches(unwanted, etag(status))
    since = _date(headers.get(b"if-unmodified-since"))
    return since is None or (status is not None and int(status.st_mtime) <= since)


def _matches(listed: bytes, tag: bytes) -> bool:
    tags = [each.strip().removeprefix(b"W/") for each in listed.split(b",")]
    return tags == [b"*"] or tag in tags


def _date(value: bytes | None) -> float | None:
    try:
        return parsedate_to_datetime(value.decode("latin-1")).timestamp() if value is not None else None
    except (ValueError, OverflowError):
        return None
