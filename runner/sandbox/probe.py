"""What of the sandbox this host can really do, found by doing it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from msgspec import Struct

from runner.sandbox import seccomp
from runner.sandbox.bubblewrap import can_limit_namespaces
from runner.sandbox.inner import landlock_version

_TIMEOUT = 10
_SYSCTLS = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=15000"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap an AppArmor profile",
    ),
}


class Finding(Struct, frozen=True):
    """One part of the sandbox on this host."""

    part: str
    works: bool
    needed: bool
    """Whether no session starts without it."""
    detail: str


def findings() -> list[Finding]:
    """Try every part, as the account that asks. Takes well under a second, `_TIMEOUT` seconds at most."""
    return [_bwrap(), _filter(), _landlock(), _nested()]


def _bwrap() -> Finding:
    found = shutil.which("bwrap")
    if found is None:
        return Finding("namespaces", False, True, "bwrap is not installed: apt install bubblewrap")
    line = [found, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"]
    try:
        done = subprocess.run(
            line,
            check=False,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Finding("namespaces", False, True, f"bwrap did not end within {_TIMEOUT} seconds")
    if done.returncode == 0:
        return Finding("namespaces", True, True, f"{found} makes them")
    return Finding("namespaces", False, True, "; ".join([done.stderr.strip(), *_hints()]))


def _hints() -> list[str]:
    hints = []
    for file, (value, advice) in _SYSCTLS.items():
        try:
            if Path(file).read_text().strip() == value:
                hints.append(f"try: {advice}")
        except OSError:
            continue  # not on this kernel
    if not hints and os.getuid() == 0:
        hints.append("in a container, allow user namespaces and an unmasked /proc")
    return hints


def _filter() -> Finding:
    try:
        size = len(seccomp.program()) // 8
    except seccomp.SeccompUnavailable as error:
        return Finding("system call filter", False, True, str(error))
    return Finding("system call filter", True, True, f"{size} instructions")


def _landlock() -> Finding:
    version = landlock_version()
    if version < 2:
        detail = "the kernel has none, or not the second version: there is no second wall"
        return Finding("Landlock", False, False, detail)
    scopes = "" if version >= 6 else "; abstract Unix sockets and signals are not held back before version 6"
    return Finding("Landlock", True, False, f"version {version}{scopes}")


def _nested() -> Finding:
    if can_limit_namespaces():
        return Finding("no nested namespaces", True, False, "by the kernel's limit and the filter")
    return Finding("no nested namespaces", False, False, "by the filter only: /proc/sys is read-only here")
