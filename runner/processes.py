"""Processes of a session's services: started in a group of their own, watched by pidfd, ended for certain.

A process is known by its pid *and* its start time, so that a runner that takes over after a crash never
takes a stranger for its own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from runner.cgroups import Cgroup

log = logging.getLogger(__name__)

POLITE = 2.0
"""Seconds between SIGTERM and SIGKILL."""

IN_ORDER = 5.0
"""The same for a program that has to end others in turn."""

_PR_SET_CHILD_SUBREAPER = 36

# The shell moves itself in before it becomes the program: no moment in which a child could be elsewhere.
_ENTER_GROUP = 'echo 0 >"$1" || exit 126; shift; exec "$@"'


def become_subreaper() -> None:
    """Make orphans below us our children, prctl(2): without control groups nothing else finds them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)), or None."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


class Process:
    """The first process of a service, and with it everything that it started."""

    def __init__(self, pid: int, started: int, cgroup: Cgroup | None, child: subprocess.Popen[bytes] | None):
        self.pid = pid
        self.started = started
        self._cgroup = cgroup
        self._child = child
        self._pidfd = os.pidfd_open(pid)
        self._ended = trio.Event()

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        cgroup: Cgroup | None,
        descriptors: Sequence[int] = (),
    ) -> Process:
        """Start a program with an empty stdin and its output in the file `log`. Raises OSError.

        It inherits `descriptors` and nothing else.

        Called from the main thread on purpose: bwrap's --die-with-parent follows the *thread* that started
        it, PR_SET_PDEATHSIG in prctl(2), and worker threads come and go.
        """
        if cgroup is not None:
            cgroup.make()
            argv = ["/bin/sh", "-c", _ENTER_GROUP, "sh", str(cgroup.path / "cgroup.procs"), *argv]
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            child = subprocess.Popen(
                argv,
                env=dict(environment),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)
        return cls(child.pid, start_time(child.pid) or 0, cgroup, child)

    @classmethod
    def adopt(cls, pid: int, started: int, cgroup: Cgroup) -> Process | None:
        """Take over a process of an earlier runner, if it is still the same one in the same group."""
        if pid not in cgroup.members() or start_time(pid) != started:
            return None
        try:
            return cls(pid, started, cgroup, None)
        except ProcessLookupError:
            return None

    async def watch(self) -> str:
        """Wait until the first process ends and say how, for people. What it left behind is killed.

        Somebody must run this for as long as the process lives; `end` relies on it.
        """
        await trio.lowlevel.wait_readable(self._pidfd)
        outcome = "ended"
        if self._child is not None:
            status = self._child.wait()
            outcome = f"ended with status {status}" if status >= 0 else f"was killed by {_name(-status)}"
        if self._cgroup is not None and self._cgroup.out_of_memory():
            outcome += ", after the kernel had ended processes of it that took too much memory"
        with trio.CancelScope(shield=True):
            await self._sweep()
        self._ended.set()
        return outcome

    async def end(self, *, in_order: bool = False) -> None:
        """End all of it: politely, then with SIGKILL. Bounded, and survives cancellation.

        Everything is told to end, and has POLITE seconds. A program that ends `in_order` what it has started
        is told alone, and has IN_ORDER seconds.
        """
        with trio.CancelScope(shield=True):
            for pid in _programs(self.pid) if in_order else self._members():
                _signal(pid, signal.SIGTERM)
            with trio.move_on_after(IN_ORDER if in_order else POLITE):
                await self._ended.wait()
                return
            await self._sweep()
            with trio.move_on_after(POLITE):
                await self._ended.wait()
                return
            log.error("process %d survives SIGKILL; is a file system it uses hanging?", self.pid)

    def close(self) -> None:
        """Let go of the process, which may go on living."""
        os.close(self._pidfd)
        if self._child is not None:
            self._child.poll()
            self._child.returncode = self._child.returncode or 0  # not ours to reap any more

    def _members(self) -> list[int]:
        return self._cgroup.members() if self._cgroup is not None else [*descendants(self.pid), self.pid]

    async def _sweep(self) -> None:
        if self._cgroup is not None:
            self._cgroup.kill()
            if await self._cgroup.empty(timeout=POLITE):
                self._cgroup.remove()
        else:
            for pid in self._members():
                _signal(pid, signal.SIGKILL)


def _programs(pid: int) -> list[int]:
    """Return the program that runs behind a process of bwrap's, which itself passes no signal on."""
    try:
        if Path(f"/proc/{pid}/comm").read_text() != "bwrap\n":
            return [pid]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [program for child in _children(pid) for program in _programs(child)]


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`, children first: proc_pid_task_tid_children(5)."""
    return [below for child in _children(pid) for below in (child, *descendants(child))]


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended by itself in between


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
