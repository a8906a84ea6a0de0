"""Pipes that bytes are moved through within the kernel, splice(2), kept for the next one who needs one."""

from __future__ import annotations

import fcntl
import os

SIZE = 1024 * 1024
"""Bytes a pipe holds, where /proc/sys/fs/pipe-max-size and pipe-user-pages-soft allow it."""

_KEPT = 16

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """A pipe, and how much is in it."""

    __slots__ = ("held", "reader", "size", "writer")

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held = 0
        try:
            self.size = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, SIZE)
        except OSError:  # too much is in pipes of this account already: a small one works too
            self.size = fcntl.fcntl(self.writer, fcntl.F_GETPIPE_SZ)

    def fill(self, source: int, most: int) -> int:
        """Take up to so many bytes of a socket into the empty pipe; 0 at its end. Raises OSError."""
        self.held = os.splice(source, self.writer, min(most, self.size), flags=_FLAGS)
        return self.held

    def empty(self, sink: int) -> int:
        """Put what is in the pipe into a socket, or some of it; return how much that was. Raises OSError.

        Nobody knows whether more comes soon: without SPLICE_F_MORE the kernel doesn't wait for it.
        """
        count = os.splice(self.reader, sink, self.held, flags=_FLAGS)
        self.held -= count
        return count

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reader)
        os.close(self.writer)


class Pipes:
    """Pipes that are empty, to be used again."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []

    def take(self) -> Pipe:
        """Return an empty pipe. Raises OSError."""
        return self._free.pop() if self._free else Pipe()

    def give(self, pipe: Pipe) -> None:
        """Take a pipe back; one that holds something of an exchange that failed is closed."""
        if pipe.held or len(self._free) >= _KEPT:
            pipe.close()
        else:
            self._free.append(pipe)

    def close(self) -> None:
        """Close all that are here."""
        while self._free:
            self._free.pop().close()
