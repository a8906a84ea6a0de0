"""What a session takes of the host: memory, CPU time, tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from runner.cgroups import Cgroup
from runner.processes import descendants
from runner.protocol.messages import Usage

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def of_cgroup(group: Cgroup) -> Usage:
    """Return what a control group and those below it take, cgroups(7).

    CPU time is always counted there; memory and tasks only where those controllers are on, and are counted
    from the processes otherwise.
    """
    memory, tasks = _number(group.path / "memory.current"), _number(group.path / "pids.current")
    members = group.members() if memory is None or tasks is None else []
    return Usage(
        memory=sum(map(_resident, members)) if memory is None else memory,
        cpu=_cpu_of_group(group),
        tasks=len(members) if tasks is None else tasks,
    )


def of_trees(roots: Iterable[int]) -> Usage:
    """Return what these processes and all below them take, proc_pid_stat(5)."""
    members = [pid for root in roots for pid in (root, *descendants(root))]
    return Usage(sum(map(_resident, members)), sum(map(_cpu, members)), len(members))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except OSError:
        return None


def _cpu_of_group(group: Cgroup) -> float:
    try:
        lines = (group.path / "cpu.stat").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith("usage_usec")), 0.0)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0  # it ended meanwhile


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended: fields 14 to 17."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    except (OSError, ValueError):
        return 0.0
