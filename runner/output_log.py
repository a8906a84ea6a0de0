"""What a service writes to stdout and stderr: a file that outlives the runner, and is kept short.

The service has it open for appending; so it may be cut at any time, and goes on at its new end.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import trio

log = logging.getLogger(__name__)

MOST = 256 * 1024
"""Bytes beyond which the file is cut."""

KEPT = 64 * 1024
"""Bytes that are left then, and the most that is shown."""

_LOOK_INTERVAL = 60.0
_LAST_LINES = 5
_LAST_BYTES = 2000


class OutputLog:
    """The output of a service at `path`, and that of its run before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._earlier = path.with_suffix(".old")

    def begin(self) -> None:
        """Put the output of the last run aside: another one begins."""
        try:
            self.path.replace(self._earlier)
        except FileNotFoundError:
            pass  # it is the first

    def text(self) -> str:
        """Return the newest lines, those of the run before included."""
        return (_tail(self._earlier, KEPT) + _tail(self.path, KEPT))[-KEPT:]

    def last_lines(self) -> str:
        """Return the few lines that say why a run has ended."""
        return "\n".join(_tail(self.path, _LAST_BYTES).strip().splitlines()[-_LAST_LINES:])

    async def keep_short(self) -> None:
        """Look after the file's length for as long as the service runs."""
        while True:
            await trio.sleep(_LOOK_INTERVAL)
            try:
                self.shorten()
            except OSError as error:
                log.warning("%s can't be cut: %s", self.path, error.strerror)

    def shorten(self) -> None:
        """Cut the file where it has become too long. What is written in that very moment may be lost."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            size = os.fstat(descriptor).st_size
            if size > MOST:
                kept = os.pread(descriptor, KEPT, size - KEPT)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, kept[kept.find(b"\n") + 1 :])
        finally:
            os.close(descriptor)


def _tail(path: Path, size: int) -> str:
    try:
        with path.open("rb") as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - size))
            return output.read(size).decode(errors="replace")
    except FileNotFoundError:
        return ""
