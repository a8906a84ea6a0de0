"""Processes: who holds a file open, whether a second oqtod runs, and whether a daemon is stopped or stuck."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from oqtod.admin.doctor import passwd, units
from oqtod.admin.doctor.finding import Finding, each, problem, warning
from oqtod.admin.doctor.host import Host

_STATES = {"T": "stopped by a signal", "t": "held by a debugger", "D": "waiting for a disk", "Z": "dead"}


class Process(Struct, frozen=True):
    """One process: its name as the kernel has it, and its command line."""

    pid: int
    name: str
    command: str
    uid: int


def processes(host: Host) -> list[Process]:
    """Return what runs. Raises OSError."""
    found = []
    for name in host.listed("/proc"):
        if name.isdecimal() and (process := process_of(host, int(name))) is not None:
            found.append(process)
    return found


def process_of(host: Host, pid: int) -> Process | None:
    """Return a process, or None where it has ended."""
    try:
        status = dict(
            line.split(":\t", 1) for line in host.read(f"/proc/{pid}/status").splitlines() if ":\t" in line
        )
        command = host.read(f"/proc/{pid}/cmdline", 4096).replace("\0", " ").strip()
    except OSError:
        return None
    uid = status.get("Uid", "0").split()[0]
    return Process(pid, status.get("Name", "?").strip(), command, int(uid))


def holding(host: Host, targets: set[str]) -> dict[int, str]:
    """Return which processes have one of these open, by pid: paths, or "socket:[INODE]". Root only."""
    found: dict[int, str] = {}
    for name in host.listed("/proc"):
        if not name.isdecimal():
            continue
        try:
            for number in host.listed(f"/proc/{name}/fd"):
                target = host.link(f"/proc/{name}/fd/{number}")
                if target in targets:
                    found[int(name)] = target
        except OSError:
            continue  # it has ended, or is the kernel's own
    return found


def described(host: Host, pid: int) -> str:
    """Name a process for people."""
    process = process_of(host, pid)
    if process is None:
        return f"process {pid}"
    return f"{process.name} (process {pid} of {passwd.user_name(host, process.uid)})"


def daemons(host: Host) -> Iterator[Finding]:
    """Look at the daemons' processes, and for others that are oqtod too."""
    if host.personal:
        return
    shown = units.show(host, [units.SUPERVISOR, units.GATEWAY])
    yield from each(shown, lambda unit: _state(host, unit), lambda unit: unit.name)
    yield from _others(host, {unit.pid for unit in shown})


def _state(host: Host, unit: units.Unit) -> Iterator[Finding]:
    if not unit.pid:
        return
    status = host.read(f"/proc/{unit.pid}/status")
    state = next((line.split()[1] for line in status.splitlines() if line.startswith("State:")), "")
    if state in "TtZ":
        yield problem(
            unit.name,
            f"process {unit.pid} is {_STATES[state]}",
            "it answers nobody",
            f"kill -CONT {unit.pid}, or: systemctl restart {unit.name}",
        )
    elif state == "D":
        yield warning(
            unit.name,
            f"process {unit.pid} is {_STATES[state]}",
            "a disk or network file system that doesn't answer holds it up",
            f"cat /proc/{unit.pid}/wchan; journalctl -k",
        )


def _others(host: Host, ours: set[int]) -> Iterator[Finding]:
    for process in processes(host):
        words = process.command.split()
        programs = [word.rpartition("/")[2] for word in words[:3]]
        if process.pid in ours or "oqtod" not in programs[:3] or "--personal" in words:
            continue
        after = words[programs.index("oqtod") + 1 :][:1]
        if after in (["serve"], ["supervise"]) and process.uid in _daemon_ids(host):
            yield problem(
                f"process {process.pid}",
                f"a second oqtod, not started by systemd: {process.command[:200]}",
                "two that work on the same database, sockets and port take them from each other",
                f"kill {process.pid}; then: systemctl restart oqtod",
            )


def _daemon_ids(host: Host) -> set[int]:
    gateway = passwd.user(host, "oqtod")
    return {0} | ({gateway.uid} if gateway is not None else set())
