"""The bubblewrap command line that puts a program into a sandbox; see bwrap(1) for every option.

Only the program's own arguments stand on it, because everybody on the host can read a command line. What
bwrap shall do, the filter and the program's environment go through descriptors. bwrap itself gets an empty
environment: it still runs outside, and must not load what a session's ``LD_PRELOAD`` names.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import marshal
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.sandbox import seccomp
from runner.sandbox.files import SandboxRefused
from runner.sandbox.layout import Kind, Mount, Plan, own_code, plan
from runner.sandbox.policy import Policy

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"

INHERITED = ("LANG", "LANGUAGE", "TZ")
"""Variables that come along from the runner's own environment, next to all of LC_*."""

LIMITS = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, 4096), (resource.RLIMIT_NOFILE, 65536))
"""Of each program and what it starts, setrlimit(2): no core files with secrets in them, processes and threads
of one sandbox, open files of one process.
"""

STRICT_LIMITS = (*LIMITS, (resource.RLIMIT_NPROC, 512), (resource.RLIMIT_MEMLOCK, 1 << 20))

_INNER = Path(__file__).with_name("inner.py")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ACCESS = {
    "read-only": "read",
    "read-write": "write",
    "scratch": "write",
    "hollow": "list",
    "sieve": "list",
    "dev": "device",
}


class Account(Protocol):
    """What `environment` needs of a `pwd.struct_passwd`."""

    @property
    def pw_name(self) -> str: ...
    @property
    def pw_dir(self) -> str: ...
    @property
    def pw_shell(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is ready to be started."""

    argv: list[str]
    environment: Mapping[str, str]
    """Of the process that is started; the program behind bwrap gets its own."""
    descriptors: tuple[int, ...] = ()
    """To be inherited under the same numbers."""

    def close(self) -> None:
        """Close the descriptors here; the started process has its own."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def command(
    policy: Policy,
    argv: Sequence[str],
    *,
    workspace: Path,
    home: Path,
    variables: Mapping[str, str],
    service_directory: Path | None = None,
    programs: Sequence[Path] = (),
    kept: Sequence[tuple[Path, Kind]] = (),
    die_with_parent: bool = False,
    nested_user_namespaces: bool = False,
    bwrap: str = "bwrap",
) -> Command:
    """Return what runs `argv` under `policy`, in `workspace`, which is writable at its own path.

    `variables` are its whole environment. `service_directory` is writable too (the service's socket is made
    there); `programs` are shown read-only even where the policy hides what is around them, as is our own
    code, and so is what we keep for the program, `kept`, in the way that stands beside it. Chromium needs
    `nested_user_namespaces` for its own sandbox. With the policy disabled, `argv` is run as it is. Close the
    answer when it is started, or isn't going to be.

    Raises `runner.sandbox.policy.SandboxRefused`, `runner.sandbox.seccomp.SeccompUnavailable` and OSError.
    """
    if not policy.enabled:
        return Command(list(argv), dict(variables))
    interpreter = Path(os.path.realpath(sys.executable))
    shown = plan(
        policy,
        workspace=workspace,
        home=home,
        service_directory=service_directory,
        programs=[*own_code(), *programs],
        kept=kept,
    )
    variant = seccomp.Variant(
        nested_user_namespaces=nested_user_namespaces,
        reach_into_processes=policy.isolate_pid and policy.level != "strict",
    )
    with contextlib.ExitStack() as undo:
        opened: list[int] = []

        def keep(descriptor: int) -> str:
            undo.callback(os.close, descriptor)
            opened.append(descriptor)
            return str(descriptor)

        options = _namespaces(policy, die_with_parent=die_with_parent, nested=nested_user_namespaces)
        options += ["--seccomp", keep(_sealed("filter", seccomp.program(variant)))]
        for mount in shown.mounts:
            _make_placeholder(mount)
        for mount in shown.mounts:
            if mount.kind == "read-write":
                options += ["--bind-fd", keep(_opened(mount.path)), str(mount.path)]
            else:
                options += _render(mount)
        for mount in shown.mounts:  # only now: bwrap had to make the mount points inside them first
            if mount.kind in ("hollow", "sieve", "denied-folder", "dev"):
                options += ["--remount-ro", str(mount.path)]
        options += ["--remount-ro", "/", "--chdir", str(workspace)]
        orders = {
            "environment": dict(variables),
            "limits": STRICT_LIMITS if policy.level == "strict" else LIMITS,
            "landlock": _landlock(shown),
        }
        text = b"".join(os.fsencode(option) + b"\0" for option in options)
        line = [bwrap, "--args", keep(_sealed("options", text)), "--"]
        line += [str(interpreter), "-I", "-S", str(_INNER), keep(_sealed("orders", marshal.dumps(orders)))]
        undo.pop_all()
        return Command([*line, *argv], {}, tuple(opened))


def environment(
    account: Account,
    extra: Mapping[str, str],
    *,
    inherited: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Return the whole environment of a session's program: this list and `extra`, which wins.

    Nothing else of ours leaks in.
    """
    shell = account.pw_shell if os.access(account.pw_shell, os.X_OK) else "/bin/sh"
    variables = {
        "PATH": PATH,
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": shell,
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    variables |= {
        name: value for name, value in inherited.items() if name in INHERITED or name.startswith("LC_")
    }
    return variables | dict(extra)


def _namespaces(policy: Policy, *, die_with_parent: bool, nested: bool) -> list[str]:
    options = ["--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    options += ["--cap-drop", "ALL"]
    options.append("--new-session")  # TIOCSTI: no typing into the terminal of whoever started us
    if policy.isolate_pid:
        options.append("--unshare-pid")
    if policy.isolate_network:
        options.append("--unshare-net")
    if die_with_parent:
        options.append("--die-with-parent")
    if not nested and can_limit_namespaces():
        options.append("--disable-userns")
    return options


def _render(mount: Mount) -> list[str]:
    path, source = str(mount.path), str(mount.source)
    match mount.kind:
        case "read-only":
            return ["--ro-bind-try" if mount.may_vanish else "--ro-bind", source, path]
        case "scratch":
            return ["--perms", "1777", "--tmpfs", path]
        case "hollow" | "sieve":
            return ["--perms", "0755", "--tmpfs", path]
        case "denied-folder":
            return ["--perms", "0000", "--tmpfs", path]
        case "denied-file":
            # The bind carries "nodev", so that even opening the device is refused.
            return ["--ro-bind", "/dev/null", path]
        case "link":
            return ["--symlink", source, path]
        case "proc":
            return ["--proc", path]
        case "dev":
            return ["--dev", path]
        case "read-write":
            raise AssertionError("bound by descriptor")


def _landlock(shown: Plan) -> list[tuple[str, str]]:
    """The plan once more, as rules for the kernel: nothing can be written but where the plan says so."""
    rules = [("/", "list")]
    # Of /proc, a process writes to its own files, oom_score_adj for one; the kernel's are read-only mounts.
    rules += [(str(mount.path), "device") for mount in shown.mounts if mount.kind == "proc"]
    rules += [(str(mount.path), _ACCESS[mount.kind]) for mount in shown.mounts if mount.kind in _ACCESS]
    return rules


def _opened(path: Path) -> int:
    """A descriptor of exactly this path: since the plan was made, a session may have put a link there."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if os.readlink(f"/proc/self/fd/{descriptor}") != str(path):  # noqa: PTH115  a string to compare
        os.close(descriptor)
        raise SandboxRefused("it was moved, or a link put in its place, while the session started", path)
    return descriptor


def _make_placeholder(mount: Mount) -> None:
    """Make what a rule for a path that isn't there yet is mounted over, following no link on the way."""
    if not mount.placeholder:
        return
    folder = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        for name in mount.path.parts[1:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
            above, folder = (
                folder,
                os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder),
            )
            os.close(above)
        with contextlib.suppress(FileExistsError):
            if mount.kind == "denied-file":
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(mount.path.name, flags, 0o600, dir_fd=folder))
            else:
                os.mkdir(mount.path.name, 0o700, dir_fd=folder)
    finally:
        os.close(folder)


def _sealed(name: str, content: bytes) -> int:
    """A file in memory that nobody can change any more."""
    descriptor = os.memfd_create(f"oqto-{name}", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@functools.cache
def can_limit_namespaces() -> bool:
    """Say whether ``--disable-userns`` can work.

    bwrap writes a sysctl for it, and containers and ProtectKernelTunables= forbid that. The filter forbids
    further namespaces too.
    """
    try:
        return not os.statvfs("/proc/sys/user/max_user_namespaces").f_flag & os.ST_RDONLY
    except OSError:
        return False
