"""What a session may see and do: the sandbox files, read and merged. A later file only tightens."""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

Profile = Literal["minimal", "development", "strict"]

_STRICTNESS: tuple[Profile, ...] = ("development", "minimal", "strict")
_MAX_FILE = 64 * 1024


class SandboxRefused(Exception):
    """A sandbox file can't be read, or says something that it can't: the session must not start."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The effective policy; paths are absolute."""

    enabled: bool = True
    profile: Profile = "development"
    deny_read: tuple[str, ...] = ()
    allow_write: tuple[str, ...] = ()
    isolate_network: bool = False
    isolate_pid: bool = True
    read_only: tuple[str, ...] = ()
    """The sandbox files themselves, which nothing inside may change."""


def load_policy(*, host: Path | None, user: Path | None, workspace: Path | None, home: Path) -> Policy:
    """Return the effective policy. Raises SandboxRefused.

    `host` rules where it is given (multi-user) and the user's file may only add; without it the user's file
    rules (personal mode). The workspace's file may only add. A missing file says nothing.
    """
    files = [path for path in (host, user, workspace) if path is not None]
    base, overlays = files[0] if files else None, files[1:]
    policy = _base(_read(base) if base is not None else {}, home)
    for path in overlays:
        policy = tightened(policy, _read(path), home)
    return msgspec.structs.replace(policy, read_only=tuple(str(path) for path in files if path.exists()))


def _base(text: dict[str, Any], home: Path) -> Policy:
    profile: Profile = text.get("profile", "development")
    deny = text.get("deny_read", ["~/.ssh", "~/.aws", "~/.gnupg"])
    write = text.get("allow_write", ["~/.cargo", "~/.npm", "/tmp"] if profile == "development" else [])  # noqa: S108
    return Policy(
        enabled=text.get("enabled", True),
        profile=profile,
        deny_read=tuple(_absolute(path, home) for path in deny),
        allow_write=tuple(_absolute(path, home) for path in write) if profile != "strict" else (),
        isolate_network=text.get("isolate_network", profile == "strict"),
        isolate_pid=text.get("isolate_pid", True),
    )


def tightened(policy: Policy, overlay: dict[str, Any], home: Path) -> Policy:
    """Return `policy` with the restrictions of `overlay` added; what would loosen it has no effect."""
    profile: Profile = max(policy.profile, overlay.get("profile", policy.profile), key=_STRICTNESS.index)
    deny = [_absolute(path, home) for path in overlay.get("deny_read", [])]
    write = list(policy.allow_write) if profile != "strict" else []
    if "allow_write" in overlay:
        asked = [_absolute(path, home) for path in overlay["allow_write"]]
        write = [_narrower(a, b) for a in write for b in asked if _narrower(a, b)]
    isolated = overlay.get("isolate_network", False) or (profile == "strict" and policy.profile != "strict")
    return Policy(
        enabled=policy.enabled,
        profile=profile,
        deny_read=tuple(dict.fromkeys([*policy.deny_read, *deny])),
        allow_write=tuple(dict.fromkeys(write)),
        isolate_network=policy.isolate_network or isolated,
        isolate_pid=policy.isolate_pid or overlay.get("isolate_pid", False),
    )


def _narrower(one: str, other: str) -> str:
    """Return the path that lies in the other, or "" when they have nothing in common."""
    a, b = Path(one).resolve(), Path(other).resolve()
    if a.is_relative_to(b):
        return str(a)
    return str(b) if b.is_relative_to(a) else ""


def _absolute(path: str, home: Path) -> str:
    if path == "~" or path.startswith("~/"):
        path = str(home) + path[1:]
    return os.path.normpath(path)


_TYPES: dict[str, type] = {
    "enabled": bool,
    "profile": str,
    "deny_read": list,
    "allow_write": list,
    "isolate_network": bool,
    "isolate_pid": bool,
}


def _read(path: Path) -> dict[str, Any]:
    """Return a checked file; {} when there is none. A user can put anything there: no link, no FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SandboxRefused(f"{path} can't be read: {error.strerror}") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE:
            raise SandboxRefused(f"{path} is not a file of at most {_MAX_FILE} bytes")
        try:
            text = tomllib.loads(file.read(_MAX_FILE).decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SandboxRefused(f"{path} is not TOML: {error}") from error
    for key, value in text.items():
        _check(path, key, value)
    return text


def _check(path: Path, key: str, value: Any) -> None:
    if key not in _TYPES:
        close = difflib.get_close_matches(key, _TYPES, 1)
        hint = f"did you mean {close[0]}?" if close else f"allowed are {', '.join(_TYPES)}"
        raise SandboxRefused(f"{path}: unknown key {key}; {hint}")
    if type(value) is not _TYPES[key]:
        raise SandboxRefused(f"{path}: {key} must be a {_TYPES[key].__name__}, found {value!r}")
    if key == "profile" and value not in get_args(Profile):
        raise SandboxRefused(f"{path}: unknown profile {value!r}; allowed are {', '.join(get_args(Profile))}")
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, str) or not item.startswith(("/", "~/")) or "\0" in item:
                raise SandboxRefused(f"{path}: {key} holds paths that begin with / or ~/, found {item!r}")
