"""The audit log's last lines, found from its end backwards: in the file, and in the one rotated last.

However long the log is, no more than MAX_SCANNED of it is read.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

MAX_SCANNED = 32 * 1024 * 1024
"""Bytes that are looked through for one answer."""

_BLOCK = 64 * 1024
_COMPRESSED = {".gz", ".xz", ".bz2", ".zst"}


class Essence(msgspec.Struct):
    """What of a line is looked at."""

    timestamp: str
    event: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines. `event` is one, or the part of several before the dot; `since` as `clock.now` has it."""

    users: frozenset[str] | None = None
    event: str | None = None
    since: str | None = None

    def fits(self, essence: Essence) -> bool:
        """Say whether a line is one of them."""
        return (
            (self.users is None or essence.user_id in self.users)
            and (self.event is None or self.event in (essence.event, essence.event.partition(".")[0]))
            and (self.since is None or essence.timestamp >= self.since)
        )


@dataclass(slots=True)
class Found:
    """Lines, oldest first; `complete` unless there may be older ones; `newest` is the log's last time."""

    lines: list[bytes] = field(default_factory=list)
    complete: bool = True
    newest: str = ""


def last_lines(path: Path, wanted: Wanted, limit: int) -> Found:
    """Return the last `limit` lines that are wanted. Takes its time: run it in a thread. Raises OSError."""
    found = Found()
    with ExitStack() as opened:
        for line in _backwards(_files(path, opened), MAX_SCANNED):
            if line is None:
                found.complete = False
                break
            essence = essence_of(line)
            if essence is None:
                continue
            found.newest = found.newest or essence.timestamp
            if wanted.since is not None and essence.timestamp < wanted.since:
                break
            if wanted.fits(essence):
                if len(found.lines) == limit:
                    found.complete = False
                    break
                found.lines.append(line)
    found.lines.reverse()
    return found


def _files(path: Path, opened: ExitStack) -> Iterator[int]:
    """Open the log, then the one that was moved away last. Raises OSError."""
    seen: set[tuple[int, int]] = set()
    for find in (Path, _rotated):  # the second is looked for once the first is open
        try:
            descriptor = os.open(find(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        opened.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        # The log may be rotated between the two: then it would be read twice.
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield descriptor


def _rotated(path: Path) -> Path:
    """Return the file that was the log before: `audit.log.jsonl.1`, `audit.log.jsonl-20260101`."""
    found = [(path, 0.0)]
    for file in path.parent.glob(f"{glob.escape(path.name)}[.-]*"):
        if file.suffix not in _COMPRESSED:
            found.append((file, file.lstat().st_mtime))
    return max(found, key=lambda x: x[1])[0]


def _backwards(descriptors: Iterable[int], most: int) -> Iterator[bytes | None]:
    """Return the whole lines of these files, the last first; None when `most` bytes were not enough."""
    for descriptor in descriptors:
        position = os.fstat(descriptor).st_size
        pieces: list[bytes] = []  # of the line whose beginning is not found yet, the last first
        within = False  # what follows the last line's end is not written yet, or was never written whole
        while position > 0:
            if most <= 0:
                yield None
                return
            size = min(_BLOCK, position)
            position, most = position - size, most - size
            first, *lines = os.pread(descriptor, size, position).split(b"\n")
            for line in reversed(lines):
                if within:
                    yield line + b"".join(reversed(pieces))
                pieces, within = [], True
            pieces.append(first)
        if within:
            yield b"".join(reversed(pieces))


def essence_of(line: bytes) -> Essence | None:
    """Read a line; None for what is none."""
    try:
        return msgspec.json.decode(line, type=Essence)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # torn: whoever wrote it was killed
