"""The host as the checks see it: files, programs, time, the daemon. Nothing here changes anything.

Paths are walked one name at a time, and only links that root made are followed: what a person can change
leads root nowhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from msgspec import Struct

from oqtod.config import Config, ConfigRefused

SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for: systemd's own path for services, systemd.exec(5)."""

Kind = Literal["file", "folder", "socket", "link", "other"]

_LARGEST = 4 * 1024 * 1024
_MOST_LINKS = 20
_FS_IOC_GETFLAGS = 0x80086601
_ATTRIBUTES = {0x10: "immutable", 0x20: "append-only"}
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFSOCK: "socket",
    stat.S_IFLNK: "link",
}


class Seen(Struct, frozen=True):
    """What is at a path."""

    path: str
    kind: Kind
    uid: int
    gid: int
    mode: int
    links: int
    size: int
    modified: float
    device: int
    inode: int


class Answer(Struct, frozen=True):
    """How a program ended, and what it printed."""

    code: int
    out: str = ""
    error: str = ""


Ids = tuple[int, int]
Execute = Callable[[Sequence[str], float, Ids | None], Answer]
Ask = Callable[[str], object]


class Unreachable(Exception):
    """The daemon can't be asked; str() says why."""


def execute(argv: Sequence[str], timeout: float, ids: Ids | None) -> Answer:
    """Run a program, with other ids where some are given. Raises OSError, also when it takes too long."""
    owner: dict[str, object] = {} if ids is None else {"user": ids[0], "group": ids[1], "extra_groups": []}
    try:
        done = subprocess.run(  # type: ignore[call-overload]  # the ids come as a dictionary
            list(argv),
            check=False,
            capture_output=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": ":".join(SEARCHED), "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0"},
            **owner,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(errno.ETIMEDOUT, f"did not end within {timeout:g} seconds", argv[0]) from None
    return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def _nobody_answers(_: str) -> object:
    raise Unreachable("nobody was asked")


@dataclass(frozen=True)
class Host:
    """One host. Tests give it a folder as `root`, and say what programs answer."""

    config: Config
    """What is configured; the packaged defaults where `refused`."""
    database: Path
    refused: ConfigRefused | None = None
    personal: bool = False
    config_file: Path | None = None
    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    execute: Execute = execute
    ask: Ask = _nobody_answers
    """Asks the daemon: a path of its API to the JSON that it answers. Raises Unreachable."""
    clock: Callable[[], float] = time.time
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_real(self) -> bool:
        """Whether this is the machine we run on: what has no path can only be asked there."""
        return self.root == Path("/")

    def run(self, *argv: str, timeout: float = 10.0, ids: Ids | None = None) -> Answer:
        """Run a program, which must only look. Raises OSError."""
        return self.execute(argv, timeout, ids)

    def look(self, path: str | PurePath) -> Seen:
        """Say what is at a path. Raises OSError, with ELOOP for a link that somebody else than root made."""
        opened = self._open(str(path))
        try:
            return _seen(str(path), os.fstat(opened))
        finally:
            os.close(opened)

    def exists(self, path: str | PurePath) -> bool:
        """Say whether something is at a path. Raises OSError where that can't be told."""
        try:
            self.look(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, path: str | PurePath, limit: int = _LARGEST) -> str:
        """Return the text of a regular file, or its first `limit` bytes. Raises OSError."""
        with self._opened_for_reading(str(path), {stat.S_IFREG}) as file:
            return file.read(limit).decode(errors="replace")

    def listed(self, path: str | PurePath) -> list[str]:
        """Return the names in a folder, sorted. Raises OSError."""
        opened = self._open(str(path))
        try:
            return sorted(entry.name for entry in Path(f"/proc/self/fd/{opened}").iterdir())
        finally:
            os.close(opened)

    def link(self, path: str) -> str:
        """Return where a link of /proc points. Raises OSError."""
        return str((self.root / path.lstrip("/")).readlink())

    def attributes(self, path: str | PurePath) -> list[str]:
        """Return which of "immutable" and "append-only" a file or folder is, chattr(1). Raises OSError."""
        with self._opened_for_reading(str(path), {stat.S_IFREG, stat.S_IFDIR}) as file:
            try:
                answer = fcntl.ioctl(file.fileno(), _FS_IOC_GETFLAGS, struct.pack("l", 0))
            except OSError as error:
                if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                    return []  # this file system has none
                raise
        (flags,) = struct.unpack("l", answer)
        return [name for bit, name in _ATTRIBUTES.items() if flags & bit]

    def space(self, path: str | PurePath) -> os.statvfs_result:
        """Return the figures of the file system that a path is on. Raises OSError."""
        opened = self._open(str(path))
        try:
            return os.fstatvfs(opened)
        finally:
            os.close(opened)

    def which(self, program: str) -> Seen | None:
        """Find a program as a service would; it need not be executable."""
        candidates = [program] if program.startswith("/") else [f"{folder}/{program}" for folder in SEARCHED]
        for candidate in candidates:
            try:
                found = self.look(candidate)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if found.kind == "file":
                return found
        return None

    def open_for_repair(self, path: str) -> int:
        """Return a descriptor (O_PATH) of what is at a path. Raises OSError."""
        return self._open(path)

    def _opened_for_reading(self, path: str, kinds: set[int]) -> _Reading:
        opened = self._open(path)
        try:
            if stat.S_IFMT(os.fstat(opened).st_mode) not in kinds:
                raise OSError(errno.EINVAL, "not a regular file", path)
            # The descriptor's own entry: whatever the path leads to by now.
            return _Reading(os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(opened)

    def _open(self, path: str) -> int:
        """Open a path for looking (O_PATH). Raises OSError that names the part at fault."""
        trusted = 0 if self.is_real else self.root.stat().st_uid
        here = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        waiting = list(reversed([part for part in path.split("/") if part not in ("", ".")]))
        walked: list[str] = []
        links = 0
        try:
            while waiting:
                name = waiting.pop()
                if name == "..":
                    raise OSError(errno.ELOOP, "a link that leads up is not followed", path)
                entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                found = os.fstat(entry)
                if not stat.S_ISLNK(found.st_mode):
                    os.close(here)
                    here = entry
                    walked.append(name)
                    continue
                target = os.readlink("", dir_fd=entry)
                os.close(entry)
                folder = os.fstat(here)
                links += 1
                if links > _MOST_LINKS or not _only_by(trusted, folder, found):
                    raise OSError(errno.ELOOP, "a link that root did not make is not followed", path)
                base = [] if target.startswith("/") else walked
                steps = PurePosixPath(os.path.normpath("/" + "/".join([*base, target]))).parts[1:]
                waiting = [*waiting, *reversed(steps)]
                os.close(here)
                here = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                walked = []
        except OSError as error:
            os.close(here)
            if error.errno != errno.ELOOP:
                error.filename = path
            raise
        return here


class _Reading:
    """A descriptor that is read from, and closed at the end of a `with`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def read(self, limit: int) -> bytes:
        data = bytearray()
        while len(data) < limit and (part := os.read(self._descriptor, min(1 << 20, limit - len(data)))):
            data += part
        return bytes(data)


def _only_by(owner: int, folder: os.stat_result, link: os.stat_result) -> bool:
    """Whether nobody but `owner` can have put this link into this folder."""
    return link.st_uid == owner and folder.st_uid == owner and not folder.st_mode & 0o022


def _seen(path: str, found: os.stat_result) -> Seen:
    return Seen(
        path=path,
        kind=_KINDS.get(stat.S_IFMT(found.st_mode), "other"),
        uid=found.st_uid,
        gid=found.st_gid,
        mode=stat.S_IMODE(found.st_mode),
        links=found.st_nlink,
        size=found.st_size,
        modified=found.st_mtime,
        device=found.st_dev,
        inode=found.st_ino,
    )
