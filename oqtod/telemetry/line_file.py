"""A file of lines that is only ever appended to: whole lines, whatever else happens to the file or to us.

It may be moved away at any time: the next lines go into a new one at its place. What was there is never read
by whoever appends, beyond the one character that says whether it ends with a whole line.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class LineFile:
    """The file at `path`, 0600, opened when it is needed. One thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._stale = False

    def append(self, lines: bytes) -> None:
        """Append lines, all of them or none. Raises OSError."""
        descriptor = self._current()
        # Another oqtod that was told the same path must not find itself in the middle of our lines: flock(2).
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            _append(descriptor, lines if _ends_whole(descriptor) else b"\n" + lines)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def reopen(self) -> None:
        """Open the file anew before the next line. From any thread."""
        self._stale = True

    def close(self) -> None:
        """Close it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _current(self) -> int:
        """Return a descriptor of the file that is at the path now."""
        stale, self._stale = self._stale, False
        if self._descriptor is not None and (stale or not self._is_in_place(self._descriptor)):
            self.close()
        if self._descriptor is None:
            self._descriptor = self._opened()
        return self._descriptor

    def _opened(self) -> int:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            there, ours = self._path.stat(), os.fstat(descriptor)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _ends_whole(descriptor: int) -> bool:
    """Say whether the file ends with a whole line: one who wrote may have been killed in the middle of it."""
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _append(descriptor: int, data: bytes) -> None:
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, memoryview(data)[written:])
    except OSError:
        # Counted from the end, as it is now: somebody may have emptied the file meanwhile, and cutting it at
        # the size that it had would make it longer.
        os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - written))
        raise
