"""The control groups of a runner: one for itself, one for each session, one for each service in it.

Works on the unified hierarchy only (cgroups(7), "version 2"), at any mount point, and only where systemd
delegated the group to the account (`Delegate=yes` in systemd.resource-control(5)).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import trio

log = logging.getLogger(__name__)

_POLL = 0.01
"""Seconds between two looks at a group that should become empty."""


class Cgroup:
    """One group, addressed by its directory."""

    def __init__(
        self,
        path: Path,
        above: Cgroup | None = None,
        *,
        memory_max: int | None = None,
        starts_below: bool = False,
    ) -> None:
        """`starts_below`: whoever starts processes in this group, puts them into one below it."""
        self.path = path
        self._starts_below = starts_below
        self._above = above
        self._memory_max = memory_max

    def child(self, name: str, *, memory_max: int | None = None) -> Cgroup:
        """Return the group `name` below this one, without making it.

        It may take `memory_max` bytes, where the kernel's memory controller has been delegated to us.
        """
        return Cgroup(self.path / name, self, memory_max=memory_max)

    def make(self) -> None:
        """Make the group and those above it; fine when it is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._memory_max is not None and self._above is not None and self._above.divides_memory():
            (self.path / "memory.max").write_text(str(self._memory_max))

    def divides_memory(self) -> bool:
        """Have the memory of the groups below this one counted each, and say whether the kernel does."""
        if not (self._starts_below if self._above is None else self._above.divides_memory()):
            return False  # a divided group can have no process of its own: none could be started in it
        try:
            if "memory" not in (self.path / "cgroup.controllers").read_text().split():
                return False
            (self.path / "cgroup.subtree_control").write_text("+memory")
        except OSError as error:
            log.warning("memory in %s can't be limited: %s", self.path, error.strerror)
            return False
        return True

    def out_of_memory(self) -> bool:
        """Say whether the kernel has ended a process of the group because it took too much memory."""
        try:
            events = (self.path / "memory.events").read_text().split()
        except OSError:
            return False  # no memory controller here
        return dict(zip(events[::2], events[1::2], strict=True)).get("oom_kill", "0") != "0"

    def add(self, pid: int) -> None:
        """Move a process in."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def members(self) -> list[int]:
        """Return the process ids of the group and of all below it."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            try:
                found += map(int, (Path(folder) / "cgroup.procs").read_text().split())
            except FileNotFoundError:
                continue  # removed while we walked
        return found

    def populated(self) -> bool:
        """Say whether a process lives in the group or below it."""
        try:
            events = (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return False
        return "populated 1" in events

    def kill(self) -> None:
        """Send SIGKILL to everything in the group and below; forking does not escape it."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return

    async def empty(self, *, timeout: float) -> bool:
        """Wait at most `timeout` seconds until no process is left; say whether that came true."""
        with trio.move_on_after(timeout):
            while self.populated():  # noqa: ASYNC110  the kernel offers no event that trio could wait for
                await trio.sleep(_POLL)
            return True
        return not self.populated()

    def remove(self) -> None:
        """Remove the group and those below it; all must be empty."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                continue


def delegated() -> Cgroup | None:
    """Return our own group when it is ours to divide, else None (no systemd, or no delegation).

    systemd puts the runner into the group `runner` below it (`DelegateSubgroup=`), else it goes there itself.
    """
    mount = _unified_mount()
    line = next((x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::/")), None)
    if mount is None or line is None or line == "0::/":
        return None
    path = mount / line.removeprefix("0::/")
    starts_below = path.name == "runner"
    if starts_below:
        path = path.parent
    if path.stat().st_uid != os.getuid() or os.environ.get("INVOCATION_ID") is None:
        return None
    return Cgroup(path, starts_below=starts_below) if os.access(path / "cgroup.procs", os.W_OK) else None


def _unified_mount() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2" and fields.split()[3] == "/":
            return Path(fields.split()[4])
    return None
