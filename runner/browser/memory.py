"""The memory of pages: one that takes too much is ended before the session, or the host, runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final, Protocol

import trio

INTERVAL_SECONDS: Final = 1.0


class Watched(Protocol):
    """What is watched."""

    @property
    def pid(self) -> int | None:
        """Chromium's first process; None when it doesn't run."""
        ...

    @property
    def page_memory(self) -> int:
        """Bytes that one process of pages may take."""
        ...

    def page_ended(self, reason: str) -> None:
        """A page's process is about to be ended, for this reason."""
        ...


async def watch_memory(browser: Watched) -> None:
    """Look at the pages' processes again and again, for as long as the daemon runs."""
    while True:
        await trio.sleep(INTERVAL_SECONDS)
        if browser.pid is None:
            continue
        for pid in _below(browser.pid):
            used = anonymous(pid)
            if used > browser.page_memory and _is_renderer(pid):
                browser.page_ended(
                    f"the page used {used >> 20} MB of memory, more than the {browser.page_memory >> 20} MB "
                    "that a page may take, and was ended; the next command loads it again"
                )
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it has ended already


def anonymous(pid: int) -> int:
    """Return the bytes of memory that are a process's own, RssAnon in proc_pid_status(5); 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (OSError, UnicodeDecodeError):
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def _below(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        return found  # it ends just now
    return found + [below for child in found for below in _below(child)]


def _is_renderer(pid: int) -> bool:
    try:
        return b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
