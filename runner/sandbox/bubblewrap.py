"""The bwrap(1) command line that enforces a policy, and the clean environment that goes with it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.sandbox.policy import Policy

_SYSTEM = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt")
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def environment(account: pwd.struct_passwd, extra: Mapping[str, str]) -> dict[str, str]:
    """Return what a session's programs see: an allow-list, and `extra`.

    It goes to bwrap as its own environment, never on the command line, which others can read.
    """
    clean = {
        "PATH": _PATH,
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    clean |= {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**clean, **extra}


def command(
    policy: Policy,
    argv: Sequence[str],
    *,
    workspace: Path,
    home: Path,
    service_directory: Path | None,
    programs: Sequence[Path] = (),
    die_with_parent: bool = False,
    bwrap: str = "bwrap",
) -> list[str]:
    """Return the command line that runs `argv` under the policy; `argv` itself where it is turned off.

    `service_directory` is writable inside at its own path; `programs` are readable even without the home.
    """
    if not policy.enabled:
        return list(argv)
    line = [bwrap, "--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    line += ["--cap-drop", "ALL", "--new-session"]
    if policy.isolate_pid:
        line.append("--unshare-pid")
    if policy.isolate_network:
        line.append("--unshare-net")
    if die_with_parent:
        line.append("--die-with-parent")
    for path in _SYSTEM:
        line += _system(Path(path))
    line += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108
    line += _name_resolution()
    if policy.profile == "development":
        line += ["--ro-bind", str(home), str(home)]
    for program in programs:
        if program.exists() and not program.is_relative_to("/usr"):
            line += ["--ro-bind", str(program), str(program)]
    for allowed in policy.allow_write:
        if allowed != "/tmp" and os.path.lexists(allowed):  # noqa: S108  /tmp is private, and writable already
            line += ["--bind", allowed, allowed]
    line += ["--bind", str(workspace), str(workspace)]
    if service_directory is not None:
        line += ["--bind", str(service_directory), str(service_directory)]
    for denied in policy.deny_read:
        line += _masked(Path(denied))
    for file in policy.read_only:
        if Path(file).is_relative_to(workspace) or policy.profile == "development":
            line += ["--ro-bind-try", file, file]
    return [*line, "--chdir", str(workspace), "--", *argv]


def _system(path: Path) -> list[str]:
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def _name_resolution() -> list[str]:
    """resolv.conf(5) often is a link into /run, which is empty inside."""
    target = Path("/etc/resolv.conf").resolve()
    return (
        ["--ro-bind", str(target), str(target)] if target.is_file() and target.is_relative_to("/run") else []
    )


def _masked(path: Path) -> list[str]:
    if path.is_dir():
        return ["--tmpfs", str(path)]
    return ["--ro-bind", "/dev/null", str(path)] if path.exists() else []
