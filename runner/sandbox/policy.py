"""What a session may see and do: the keys of sandbox.toml, read strictly and only ever tightened.

There are up to three files. The *base* is the administrator's (``/etc/oqto/sandbox.toml``) or, in personal mode,
the person's own (``~/.config/oqto/sandbox.toml``); its keys adjust the profile it chooses. Every further file is an
*overlay*: whatever it says, the result permits nothing that the base doesn't. `tighten` is that rule, and touches
nothing outside its arguments.

A file that can't be read or understood refuses the session (`SandboxRefused`): never a weaker profile, never none.
"""

import errno
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

Profile = Literal["development", "minimal", "strict"]

PROFILES: tuple[Profile, ...] = get_args(Profile)
"""From the widest to the narrowest: a stricter profile stands further to the right."""

FILE_LIMIT = 64 * 1024
"""Bytes of a sandbox.toml that are read at most; a bigger file is refused."""

HOST_FILE = Path("/etc/oqto/sandbox.toml")
USER_FILE = Path(".config/oqto/sandbox.toml")  # below the home
WORKSPACE_FILE = Path(".oqto/sandbox.toml")  # below the workspace

NEVER_WRITABLE = ("/proc", "/sys", "/dev", "/run")
"""What no allow_write opens: the kernel's interfaces, and the sockets of everything else on the host."""


class SandboxRefused(Exception):
    """A session can't start, because what its sandbox should be isn't certain.

    `path` is the file at fault; the message says what was found there, what is allowed and what to do.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(f"{path}: {message}")
        self.message = message
        self.path = path


class Policy(Struct, frozen=True, kw_only=True):
    """The effective rules of one session. Paths are absolute; those in `allow_write` have their links resolved."""

    enabled: bool = True
    profile: Profile = "development"
    deny_read: tuple[Path, ...] = ()
    allow_write: tuple[Path, ...] = ()
    isolate_network: bool = False
    isolate_pid: bool = True
    sources: tuple[Path, ...] = ()
    """The files that were looked for, existing or not: a session may change none of them."""


class Overlay(Struct, frozen=True, kw_only=True):
    """One file's keys, expanded; None where the file says nothing."""

    enabled: bool | None = None
    profile: Profile | None = None
    deny_read: tuple[Path, ...] | None = None
    allow_write: tuple[Path, ...] | None = None
    isolate_network: bool | None = None
    isolate_pid: bool | None = None


def profile_defaults(profile: Profile, *, home: Path) -> Policy:
    """What `profile` means before a file adjusts it. The development profile is the reference's example."""
    secrets = tuple(home / name for name in (".ssh", ".aws", ".gnupg"))
    if profile == "development":
        writable = (_resolved(home / ".cargo"), _resolved(home / ".npm"), Path("/tmp"))  # noqa: S108 - a policy
        return Policy(profile=profile, deny_read=secrets, allow_write=writable)
    return Policy(profile=profile, deny_read=secrets, isolate_network=profile == "strict")


def load_policy(*, host: Path | None, user: Path | None, workspace: Path | None, home: Path) -> Policy:
    """Read and merge the sandbox files. A file that doesn't exist says nothing; so does a path that is None.

    `host` is the administrator's file and rules when given; without it (personal mode) `user` rules. `workspace` is
    the workspace's *file* (`WORKSPACE_FILE` below the workspace). `home` is what ``~`` stands for.

    Raises `SandboxRefused`.
    """
    base_file, overlays = (host, (user, workspace)) if host is not None else (user, (workspace,))
    adjusted = None if base_file is None else read_file(base_file, home=home, trusted=host is not None)
    policy = _base(adjusted or Overlay(), home=home, file=base_file)
    for file in overlays:
        if file is not None and (overlay := read_file(file, home=home)) is not None:
            policy = tighten(policy, overlay, home=home)
    return replace(policy, sources=tuple(file for file in (host, user, workspace) if file is not None))


def tighten(base: Policy, overlay: Overlay, *, home: Path) -> Policy:
    """`base` with the restrictions of `overlay` added; nothing that `base` forbids becomes possible.

    A stricter profile brings its defaults along where the overlay says nothing itself. ``enabled = false`` has no
    effect, nor has ``enabled = true`` in a file below an administrator's ``false``: there is one who decides that.
    """
    profile = base.profile
    deny_read, allow_write = overlay.deny_read or (), overlay.allow_write
    network, pids = overlay.isolate_network or False, overlay.isolate_pid or False
    if overlay.profile is not None and PROFILES.index(overlay.profile) > PROFILES.index(profile):
        profile = overlay.profile
        stricter = profile_defaults(profile, home=home)
        deny_read += stricter.deny_read
        allow_write = stricter.allow_write if allow_write is None else allow_write
        network, pids = network or stricter.isolate_network, pids or stricter.isolate_pid
    return replace(
        base,
        profile=profile,
        deny_read=tuple(dict.fromkeys(base.deny_read + deny_read)),
        allow_write=base.allow_write if allow_write is None else intersection(base.allow_write, allow_write),
        isolate_network=base.isolate_network or network,
        isolate_pid=base.isolate_pid or pids,
    )


def intersection(some: tuple[Path, ...], others: tuple[Path, ...]) -> tuple[Path, ...]:
    """The folders that lie in one of `some` and in one of `others`: of two that contain each other, the inner one."""
    inner = [
        a if a.is_relative_to(b) else b
        for a in some
        for b in others
        if a.is_relative_to(b) or b.is_relative_to(a)
    ]
    return tuple(dict.fromkeys(inner))


def read_file(file: Path, *, home: Path, trusted: bool = False) -> Overlay | None:
    """The keys of one sandbox.toml, or None when it doesn't exist.

    Relative paths count from the workspace (the folder above ``.oqto``) in a workspace's file; in others they are
    refused. `trusted` also refuses a file that more than its owner can write. Raises `SandboxRefused`.
    """
    content = _content(file, trusted=trusted)
    if content is None:
        return None
    try:
        keys = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SandboxRefused(f"this isn't valid TOML: {reason}", file) from None
    below = file.parent.parent if file.parent.name == WORKSPACE_FILE.parent.name else None
    return _overlay(keys, file=file, home=home, below=below)


def _content(file: Path, *, trusted: bool) -> bytes | None:
    """The bytes of `file`: a regular file, not through a link, bounded, without waiting for a FIFO's writer."""
    folder = None
    try:
        folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | _nofollow(file))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(file.name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            reason = "it or its folder is a symbolic link or not a folder; put the real file there"
        else:
            reason = f"it can't be read ({error.strerror}); make it readable or remove it"
        raise SandboxRefused(reason, file) from None
    finally:
        if folder is not None:
            os.close(folder)
    with open(descriptor, "rb", buffering=0) as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SandboxRefused("it isn't a regular file", file)
        if trusted and status.st_mode & 0o022:
            raise SandboxRefused(f"others can write it; run: chmod go-w {file}", file)
        if status.st_size > FILE_LIMIT:
            raise SandboxRefused(f"it has {status.st_size} bytes; at most {FILE_LIMIT} are read", file)
        try:
            content = opened.read(FILE_LIMIT + 1) or b""
        except OSError as error:
            raise SandboxRefused(f"it can't be read ({error.strerror})", file) from None
    if len(content) > FILE_LIMIT:
        raise SandboxRefused(f"it grew past {FILE_LIMIT} bytes while being read", file)
    return content


def _nofollow(file: Path) -> int:
    # A workspace may come out of a stranger's archive, so its .oqto must be a folder; ~/.config may be a link.
    return os.O_NOFOLLOW if file.parent.name == WORKSPACE_FILE.parent.name else 0


def _overlay(keys: Mapping[str, Any], *, file: Path, home: Path, below: Path | None) -> Overlay:
    """Check every key and expand the paths; raises `SandboxRefused` with all problems at once."""
    problems: list[str] = []
    fields: dict[str, Any] = {}
    for key, value in keys.items():
        if key not in Overlay.__struct_fields__:
            allowed = ", ".join(Overlay.__struct_fields__)
            problems.append(f"{key}: unknown key;{_guess(key, Overlay.__struct_fields__)} allowed are {allowed}")
        elif key == "profile":
            if value in PROFILES:
                fields[key] = value
            else:
                hint = _guess(value, PROFILES)
                problems.append(f"profile: found {value!r};{hint} allowed are {', '.join(PROFILES)}")
        elif key in ("deny_read", "allow_write"):
            if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                paths = [_expand(entry, key=key, home=home, below=below, problems=problems) for entry in value]
                resolve = key == "allow_write"
                fields[key] = tuple(_resolved(path) if resolve else path for path in paths if path)
            else:
                problems.append(f"{key}: found {_kind(value)}; allowed is a list of paths, as in {key} = [\"~/x\"]")
        elif isinstance(value, bool):
            fields[key] = value
        else:
            problems.append(f"{key}: found {_kind(value)}; allowed are true and false")
    if problems:
        raise SandboxRefused("; ".join(problems), file)
    return Overlay(**fields)


def _expand(entry: str, *, key: str, home: Path, below: Path | None, problems: list[str]) -> Path | None:
    """`entry` as an absolute path without ``..``; a rule that would silently match nothing is a problem."""

    def refuse(reason: str) -> None:
        problems.append(f"{key}: {entry!r} {reason}")

    expanded = entry
    for prefix in ("~", "$HOME", "${HOME}"):
        if entry == prefix or entry.startswith(f"{prefix}/"):
            expanded = f"{home}{entry[len(prefix) :]}"
    if not entry or "\0" in entry:
        return refuse("isn't a path")
    if "$" in expanded.removeprefix(str(home)) or expanded.startswith("~"):
        return refuse("holds a variable; only ~ and $HOME are known here")
    if "*" in expanded.removeprefix(str(home)):
        return refuse("is a pattern; only paths are known here, and a folder stands for all in it")
    if not expanded.startswith("/"):
        if below is None:
            return refuse("is relative; write it from / or from ~/")
        expanded = f"{below}/{expanded}"
    if ".." in Path(expanded).parts:
        return refuse("holds '..'; write the folder that is meant")
    return Path(os.path.abspath(expanded))


def _base(adjusted: Overlay, *, home: Path, file: Path | None) -> Policy:
    """The profile that `adjusted` chooses, with its keys in place of the profile's."""
    policy = profile_defaults(adjusted.profile or "development", home=home)
    changes = {field: getattr(adjusted, field) for field in Overlay.__struct_fields__}
    policy = replace(policy, **{field: value for field, value in changes.items() if value is not None})
    for path in policy.allow_write:
        if path == Path("/") or str(path).startswith(tuple(f"{top}/" for top in NEVER_WRITABLE)):
            raise SandboxRefused(f"allow_write: {str(path)!r} can't be opened to a session; name a folder", _in(file))
        if str(path) in NEVER_WRITABLE:
            raise SandboxRefused(f"allow_write: {str(path)!r} can't be opened to a session; name a folder", _in(file))
    return policy


def _in(file: Path | None) -> Path:
    assert file is not None  # the built-in profiles hold no such path
    return file


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _kind(value: object) -> str:
    return f"{value!r}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _guess(found: object, allowed: tuple[str, ...]) -> str:
    import difflib  # only when something is wrong already

    close = difflib.get_close_matches(str(found), allowed, n=1)
    return f" did you mean {close[0]!r}?" if close else ""
