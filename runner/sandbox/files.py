"""One sandbox.toml: read without trusting whoever wrote it, checked key by key, each rule with its line."""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

Profile = Literal["development", "minimal", "strict"]

PROFILES: tuple[Profile, ...] = get_args(Profile)
"""From the widest to the narrowest: a stricter profile stands further to the right."""

FILE_LIMIT = 64 * 1024
"""Bytes of a sandbox.toml that are read at most; a bigger file is refused."""

LIST_LIMIT = 256
"""Paths in one list at most: each may cost a mount in every program that a session starts."""

PRIVATE_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - each sandbox has its own
"""Each sandbox has its own of these; see `is_private`."""

_LISTS = ("deny_read", "deny_write", "allow_write")
_FLAGS = ("isolate_network", "isolate_pid")
_TOP = ("enabled", "profile", *_LISTS, *_FLAGS, "profiles")
_TABLE = ("extends", *_LISTS, *_FLAGS)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WORKSPACE_FOLDER = ".oqto"


class SandboxRefused(Exception):
    """A session can't start, because what its sandbox should be isn't certain.

    `path` is the file at fault; the message says what was found there, what is allowed and what to do.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(f"{path}: {message}")
        self.message = message
        self.path = path


class Rule(Struct, frozen=True):
    """A path of a list, and where it was written: ``/etc/oqto/sandbox.toml:4``, or what built-in profile."""

    path: Path
    origin: str


class Keys(Struct, frozen=True, kw_only=True):
    """The keys of one file or of one ``[profiles.NAME]`` table, expanded; None where it says nothing."""

    enabled: bool | None = None
    profile: str | None = None
    extends: Profile | None = None
    deny_read: tuple[Rule, ...] | None = None
    deny_write: tuple[Rule, ...] | None = None
    allow_write: tuple[Rule, ...] | None = None
    isolate_network: bool | None = None
    isolate_pid: bool | None = None
    origins: Mapping[str, str] = {}
    """The line of every key that is there."""


class SandboxFile(Struct, frozen=True, kw_only=True):
    """One sandbox.toml."""

    path: Path
    keys: Keys = Keys()
    profiles: Mapping[str, Keys] = {}


def is_private(path: Path, *, home: Path) -> bool:
    """Say whether `path` is in a temporary folder that each sandbox has for itself: never the host's."""
    return not path.is_relative_to(home) and any(path.is_relative_to(top) for top in PRIVATE_TEMPORARY)


def resolve_writable(path: Path, *, home: Path) -> Path | None:
    """Return where a writable path really is, or None when a link on the way leads (back) into the home.

    Such a link may have been left by an earlier session, to make ``~/.config`` writable for the next one.
    """
    real_home, real = Path(os.path.realpath(home)), Path(os.path.realpath(path))
    plain = real_home / path.relative_to(home) if path.is_relative_to(home) else path
    return real if real == plain or not real.is_relative_to(real_home) else None


def read_file(file: Path, *, home: Path, trusted: bool = False) -> SandboxFile | None:
    """Return what a sandbox.toml says, or None when it doesn't exist.

    Relative paths count from the workspace (the folder above ``.oqto``) in a workspace's file; in others they
    are refused. `trusted` also refuses a file that more than its owner can write. Raises `SandboxRefused`.
    """
    content = _content(file, trusted=trusted)
    if content is None:
        return None
    try:
        text = content.decode()
        keys = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SandboxRefused(f"this isn't valid TOML: {reason}", file) from None
    return _Reader(file, text, home).file(keys)


def _content(file: Path, *, trusted: bool) -> bytes | None:
    """The bytes of `file`: a regular file, not through a link, bounded, never waiting for a FIFO's writer."""
    folder = None
    # A workspace may come out of a stranger's archive, so its .oqto must be a folder; others may be links.
    follow = 0 if file.parent.name != _WORKSPACE_FOLDER else os.O_NOFOLLOW
    try:
        folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | follow)
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
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SandboxRefused("it isn't a regular file", file)
        if trusted and status.st_mode & 0o022:
            raise SandboxRefused(f"others can write it; run: chmod go-w {file}", file)
        content = b""
        while len(content) <= FILE_LIMIT and (piece := os.read(descriptor, FILE_LIMIT + 1)):
            content += piece
    except OSError as error:
        raise SandboxRefused(f"it can't be read ({error.strerror})", file) from None
    finally:
        os.close(descriptor)
    if len(content) > FILE_LIMIT:
        raise SandboxRefused(f"it is too long; at most {FILE_LIMIT} bytes are read", file)
    return content


class _Reader:
    """Checks every key and expands the paths, and refuses with all problems at once."""

    def __init__(self, file: Path, text: str, home: Path) -> None:
        self._file = file
        self._home = home
        self._below = file.parent.parent if file.parent.name == _WORKSPACE_FOLDER else None
        self._lines = text.splitlines()
        self._problems: list[str] = []

    def file(self, keys: Mapping[str, Any]) -> SandboxFile:
        """Return the whole file; raises SandboxRefused."""
        top = self._keys(keys, table="", allowed=_TOP)
        tables = keys.get("profiles", {})
        profiles: dict[str, Keys] = {}
        if not isinstance(tables, dict):
            self._problems.append(f"profiles: found {_kind(tables)}; allowed are tables, as [profiles.NAME]")
            tables = {}
        for name, table in tables.items():
            if not isinstance(table, dict) or not _NAME.fullmatch(name):
                self._problems.append(
                    f"profiles.{name}: allowed are tables named with letters, digits, - and _"
                )
                continue
            profiles[name] = self._keys(table, table=f"profiles.{name}", allowed=_TABLE)
            if name in PROFILES and profiles[name].extends is not None:
                self._problems.append(f"profiles.{name}: extends: {name} is built in and extends nothing")
        if self._problems:
            raise SandboxRefused("; ".join(self._problems), self._file)
        return SandboxFile(path=self._file, keys=top, profiles=profiles)

    def _keys(self, keys: Mapping[str, Any], *, table: str, allowed: tuple[str, ...]) -> Keys:
        fields: dict[str, Any] = {}
        start = self._line(table=table, key=None)
        for key, value in keys.items():
            named = f"{table}.{key}" if table else key
            if key not in allowed:
                self._say(f"{named}: unknown key;{guess(key, allowed)} allowed are {', '.join(allowed)}")
            elif key in _LISTS:
                fields[key] = self._rules(named, key, value, table=table)
            elif key == "extends":
                fields[key] = self._one_of(named, value, PROFILES)
            elif key == "profile":
                # Which profiles there are depends on the other files too; see policy.
                fields[key] = value if isinstance(value, str) and _NAME.fullmatch(value) else None
                if fields[key] is None:
                    self._say(f"{named}: found {_kind(value)}; allowed are {', '.join(PROFILES)}")
            elif key != "profiles":
                if not isinstance(value, bool):
                    self._say(f"{named}: found {_kind(value)}; allowed are true and false")
                fields[key] = value
        lines = {key: self._line(table=table, key=key) or start for key in keys}
        origins = {key: f"{self._file}:{line}" if line else str(self._file) for key, line in lines.items()}
        return Keys(**fields, origins=origins) if not self._problems else Keys()

    def _one_of(self, named: str, value: Any, allowed: tuple[str, ...]) -> Any:
        if value not in allowed:
            self._say(
                f"{named}: found {_kind(value)};{guess(value, allowed)} allowed are {', '.join(allowed)}"
            )
        return value

    def _rules(self, named: str, key: str, value: Any, *, table: str) -> tuple[Rule, ...]:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            self._say(f'{named}: found {_kind(value)}; allowed is a list of paths, as in ["~/x"]')
            return ()
        if len(value) > LIST_LIMIT:
            self._say(f"{named}: holds {len(value)} paths; allowed are {LIST_LIMIT}")
            return ()
        rules: list[Rule] = []
        for entry in value:
            line = self._line(table=table, key=key, item=entry)
            try:
                path = self._expand(entry, key=key)
            except ValueError as error:
                self._say(f"{named}: {entry!r} {error}")
                continue
            rules.append(Rule(path, f"{self._file}:{line}" if line else str(self._file)))
        return tuple(rules)

    def _expand(self, entry: str, *, key: str) -> Path:
        """`entry` as an absolute path without ``..``; raises ValueError for a rule that would silently match
        nothing.
        """
        if not entry or "\0" in entry:
            raise ValueError("isn't a path")
        rest, start = entry, ""
        for prefix in ("~", "$HOME", "${HOME}"):
            if entry == prefix or entry.startswith(f"{prefix}/"):
                rest, start = entry[len(prefix) :], str(self._home)
        if "$" in rest or (rest.startswith("~") and not start):
            raise ValueError("holds a variable; only ~ and $HOME are known here")
        if "*" in rest or "?" in rest:
            raise ValueError("is a pattern; only paths are known here, and a folder stands for all in it")
        if ".." in rest.split("/"):
            raise ValueError("holds '..'; write the folder that is meant")
        if not start and not rest.startswith("/"):
            if self._below is None:
                raise ValueError("is relative; write it from / or from ~/")
            start = f"{self._below}/"
        path = Path(os.path.normpath(f"/{start}{rest}".replace("//", "/")))
        if key != "allow_write":
            return path  # the name counts as well as what it leads to, which may change until the session
        real = resolve_writable(path, home=self._home)
        if real is None:
            raise ValueError("is a symbolic link into the home; write the real folder")
        return real

    def _line(self, *, table: str, key: str | None, item: str | None = None) -> int:
        """The line where a table, a key or an item of a key's list is written; 0 where it can't be told.

        For people only: the values come from the TOML parser, which doesn't say where it found them.
        """
        inside, found = "", 0
        for number, line in enumerate(self._lines, start=1):
            bare = line.strip()
            if not found and (header := re.match(r"\[\s*([^\[\]]+?)\s*\]", bare)):
                inside = re.sub(r"[\s\"']", "", header[1])
                if key is None and inside == table:
                    return number
            elif not found and key is not None and inside == table and _assigns(bare, key):
                found = number
            if found and (item is None or f'"{item}"' in line or f"'{item}'" in line):
                return number
        return found

    def _say(self, problem: str) -> None:
        self._problems.append(problem)


def _assigns(line: str, key: str) -> bool:
    return re.match(rf"[\"']?{re.escape(key)}[\"']?\s*=", line) is not None


def _kind(value: object) -> str:
    return f"{value!r}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def guess(found: object, allowed: tuple[str, ...]) -> str:
    """Return " did you mean …?" where what was found is nearly one of what is allowed."""
    import difflib  # only when something is wrong already

    close = difflib.get_close_matches(str(found), allowed, n=1)
    return f" did you mean {close[0]!r}?" if close else ""
