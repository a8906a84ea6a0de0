"""The file systems that data, homes and sockets are on: space, inodes, and how they are mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from oqtod.admin.doctor.finding import Finding, each, problem, warning
from oqtod.admin.doctor.host import Host

_LEAST_BYTES = 64 * 1024 * 1024
"""What the health check of the gateway wants free."""

_LEAST_INODES = 100
_LOW = 0.05


def file_systems(host: Host) -> Iterator[Finding]:
    """Look at how each place is mounted, and at the space of each file system once."""
    seen: set[int] = set()
    for path, role in _roles(host).items():
        yield from each([path], partial(_of, host, role, seen))


def _roles(host: Host) -> dict[str, str]:
    roles = {
        host.config.paths.data_dir: "database",
        host.config.paths.state_dir: "state and audit log",
        str(PurePosixPath(host.database).parent): "database",
    }
    if host.personal:
        home = host.environ.get("HOME")
        return roles | ({home: "home"} if home else {})
    return roles | {
        "/var/lib/oqtod-supervisor": "account registry",
        "/home": "homes",
        "/run/oqto": "sockets",
        "/run": "sockets",
        "/etc": "accounts and configuration",
        "/tmp": "temporary files",  # noqa: S108 - looked at, not written
        "/var/log": "journal",
    }


def _of(host: Host, role: str, seen: set[int], path: str) -> Iterator[Finding]:
    try:
        where = host.look(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    figures = host.space(path)
    subject = f"{path} ({role})"
    if figures.f_flag & os.ST_RDONLY:
        yield problem(
            subject,
            "mounted read-only",
            "nothing can be written there; the kernel does this by itself after disk errors",
            f"journalctl -k -g 'remount|error'; then: mount -o remount,rw $(findmnt -n -o TARGET -T {path})",
        )
    if figures.f_flag & os.ST_NOEXEC and role in ("homes", "home"):
        yield warning(
            subject,
            "mounted noexec",
            "people can't run programs that lie in their homes and workspaces: builds, venvs, node_modules",
            f"mount -o remount,exec $(findmnt -n -o TARGET -T {path}), and the same in /etc/fstab",
        )
    if where.device not in seen:
        seen.add(where.device)
        yield from _space(figures, subject, path)


def _space(figures: os.statvfs_result, subject: str, path: str) -> Iterator[Finding]:
    free, total = figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize
    advice = f"du -xh --max-depth=2 $(findmnt -n -o TARGET -T {path}) | sort -h | tail"
    matters = "the database, accounts or people's files can't be written"
    small = total < 4 * _LEAST_BYTES
    least = total // 20 if small else _LEAST_BYTES
    if total and free < least:
        yield problem(subject, f"{free // 1024**2} MB of {total // 1024**2} MB are free", matters, advice)
    elif total and free < total * _LOW and free < 2 * 1024**3:
        share = 100 * free / total
        yield warning(subject, f"{free // 1024**2} MB are free, {share:.1f} %", f"soon {matters}", advice)
    if figures.f_files and figures.f_favail < min(_LEAST_INODES, figures.f_files // 20):
        yield problem(
            subject,
            f"{figures.f_favail} of {figures.f_files} inodes are free",
            "no file can be made there, however much space there is",
            f"find the folder with too many files: du --inodes -x {path} | sort -n | tail",
        )
