"""What can be done with the files of one root: list, read, write, make, remove. Descriptors all the way."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runner.files.beneath import open_beneath

MAX_ENTRIES = 50_000
MAX_DEPTH = 32


class FileError(Exception):
    """A request that can't be done; `code` is one of the interface's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


STATUS = {
    "NOT_FOUND": 404,
    "PATH_TRAVERSAL": 403,
    "INVALID_PATH": 400,
    "NOT_A_DIRECTORY": 400,
    "NOT_A_FILE": 400,
    "METHOD_NOT_ALLOWED": 405,
    "FILE_TOO_LARGE": 413,
    "IO_ERROR": 500,
}

_CODES = {
    errno.ENOENT: "NOT_FOUND",
    errno.EXDEV: "PATH_TRAVERSAL",
    errno.ELOOP: "PATH_TRAVERSAL",
    errno.EACCES: "PATH_TRAVERSAL",
    errno.EPERM: "PATH_TRAVERSAL",
    errno.ENOTDIR: "NOT_A_DIRECTORY",
    errno.EISDIR: "NOT_A_FILE",
    errno.EEXIST: "INVALID_PATH",
    errno.ENAMETOOLONG: "INVALID_PATH",
    errno.EINVAL: "INVALID_PATH",
    errno.ENXIO: "NOT_A_FILE",
}


def explained(error: OSError) -> FileError:
    """Return an operating system's error as one of ours."""
    return FileError(_CODES.get(error.errno or 0, "IO_ERROR"), error.strerror or str(error))


@dataclass(slots=True)
class Upload:
    """A file on its way in: a temporary file in the folder that it will stand in."""

    folder: int
    name: bytes
    temporary: bytes
    descriptor: int

    def finish(self) -> None:
        """Have it on the disk and in its place, whole."""
        os.fsync(self.descriptor)
        os.rename(self.temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        self.temporary = b""

    def close(self) -> None:
        """Let go; what was not finished is removed."""
        os.close(self.descriptor)
        if self.temporary:
            os.unlink(self.temporary, dir_fd=self.folder)
        os.close(self.folder)


class Tree:
    """The files below one folder."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the root."""
        os.close(self._root)

    def open_file(self, path: bytes) -> int:
        """Return a descriptor of a regular file, without ever waiting for a FIFO."""
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileError("NOT_A_FILE", "that is not a file")
        return descriptor

    def list(self, path: bytes, *, depth: int, hidden: bool) -> list[dict[str, Any]]:
        """Return the entries of a folder, folders first, `depth` levels deep."""
        folder = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            budget = [MAX_ENTRIES]
            return _entries(folder, _clean(path), min(depth, MAX_DEPTH), hidden, budget)
        finally:
            os.close(folder)

    def make_folder(self, path: bytes) -> None:
        """Make a folder, and those above it; fine when it is there."""
        os.close(self._folder(_clean(path), make=True))

    def upload(self, path: bytes, *, make: bool) -> Upload:
        """Begin to write a file."""
        parent, _, name = _clean(path).rpartition(b"/")
        if name in (b"", b".", b".."):
            raise FileError("INVALID_PATH", "that is no name for a file")
        folder = self._folder(parent, make=make)
        try:
            try:
                if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise FileError("NOT_A_FILE", "there is a folder of that name")
            except FileNotFoundError:
                pass  # a new file
            temporary = b".oqto-upload-" + secrets.token_hex(8).encode()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return Upload(folder, name, temporary, os.open(temporary, flags, 0o666, dir_fd=folder))
        except OSError as error:
            os.close(folder)
            raise explained(error) from error
        except BaseException:
            os.close(folder)
            raise

    def remove(self, path: bytes) -> None:
        """Remove a file, a link (not what it points to), or a folder with all that is in it."""
        parent, _, name = _clean(path).rpartition(b"/")
        if name in (b"", b".", b".."):
            raise FileError("INVALID_PATH", "the root can't be removed")
        folder = self._folder(parent, make=False)
        try:
            _remove(folder, name)
        except OSError as error:
            raise explained(error) from error
        finally:
            os.close(folder)

    def _open(self, path: bytes, flags: int) -> int:
        try:
            return open_beneath(self._root, _clean(path), flags)
        except OSError as error:
            raise explained(error) from error

    def _folder(self, path: bytes, *, make: bool) -> int:
        current = self._open(b"", os.O_RDONLY | os.O_DIRECTORY)
        if not make:
            os.close(current)
            return self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        walked = b""
        for part in path.split(b"/"):
            if part in (b"", b"."):
                continue
            walked = walked + b"/" + part if walked else part
            try:
                os.mkdir(part, dir_fd=current)
            except FileExistsError:
                pass
            except OSError as error:
                os.close(current)
                raise explained(error) from error
            os.close(current)
            current = self._open(walked, os.O_RDONLY | os.O_DIRECTORY)
        return current


def _clean(path: bytes) -> bytes:
    """Return a path relative to the root; a leading slash means the root."""
    if b"\0" in path or len(path) > 4096:
        raise FileError("INVALID_PATH", "that is no path")
    return path.strip(b"/")


def _entries(folder: int, path: bytes, depth: int, hidden: bool, budget: list[int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if (entry.name.startswith(".") and not hidden) or budget[0] <= 0:
                continue
            budget[0] -= 1
            name = os.fsencode(entry.name)
            below = path + b"/" + name if path not in (b"", b".") else name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed while we looked
            found.append(_entry(entry, below, status))
            if stat.S_ISDIR(status.st_mode) and depth > 1:
                found[-1]["children"] = _below(folder, name, below, depth - 1, hidden, budget)
    return sorted(found, key=lambda x: (x["type"] != "directory", x["name"]))


def _entry(entry: os.DirEntry[str], path: bytes, status: os.stat_result) -> dict[str, Any]:
    modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat().replace("+00:00", "Z")
    shown: dict[str, Any] = {
        "name": entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "path": path.decode("utf-8", "replace"),
        "type": "directory" if stat.S_ISDIR(status.st_mode) else "file",
        "modified": modified,
    }
    if shown["type"] == "file":
        shown["size"] = status.st_size
    return shown


def _below(
    folder: int, name: bytes, path: bytes, depth: int, hidden: bool, budget: list[int]
) -> list[dict[str, Any]]:
    try:
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return []  # not ours to read, or gone
    try:
        return _entries(child, path, depth, hidden, budget)
    finally:
        os.close(child)


def _remove(folder: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=folder)
        return
    except IsADirectoryError:
        pass
    child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        for entry in os.listdir(child):  # noqa: PTH208  a descriptor
            _remove(child, os.fsencode(entry))
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=folder)
