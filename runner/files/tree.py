"""What can be done with the files of one root: open, write, make, rename, remove. Descriptors all the way."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.files.beneath import open_beneath, rename
from runner.files.errors import FileError, explained
from runner.files.uploads import Upload

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PATH = 4096
MAX_LINKS = 16
"""Symbolic links that are followed one after another to what shall be written."""


class Tree:
    """The files below one folder."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the root."""
        os.close(self._root)

    def open_file(self, path: bytes) -> int:
        """Return a descriptor of a regular file, without ever waiting for a FIFO. Raises FileError."""
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileError("NOT_A_FILE", "that is not a file")
        return descriptor

    def open_folder(self, path: bytes) -> int:
        """Return a descriptor of a folder. Raises FileError."""
        return self._open(path, os.O_RDONLY | os.O_DIRECTORY)

    def status(self, path: bytes) -> os.stat_result:
        """Return what is at a path, links followed. Raises FileError."""
        descriptor = self._open(path, os.O_PATH)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, path: bytes) -> None:
        """Make a folder, and those above it; fine when it is there. Raises FileError."""
        os.close(self._made(clean(path)))

    def upload(self, path: bytes, *, make: bool) -> Upload:
        """Begin to write a file; with `make`, its folder too where it isn't. Raises FileError.

        Where a link stands, what it leads to is written, if that is beneath the root.
        """
        for _ in range(MAX_LINKS):
            parent, name = _split(path)
            folder = self._made(parent) if make else self.open_folder(parent)
            try:
                target = os.readlink(name, dir_fd=folder)
            except OSError:  # nothing there, or no link
                with _explained():
                    return Upload.begin(folder, name)
            os.close(folder)
            if target.startswith(b"/"):
                raise FileError("PATH_TRAVERSAL", "that path leads out of the workspace")
            path = parent + b"/" + target
        raise FileError("PATH_TRAVERSAL", "too many links lead to that path")

    def rename(self, path: bytes, new_path: bytes, *, replace: bool, make: bool) -> None:
        """Move a file, a link or a folder. Raises FileError; ALREADY_EXISTS where something is."""
        (parent, name), (new_parent, new_name) = _split(path), _split(new_path)
        source = self.open_folder(parent)
        try:
            target = self._made(new_parent) if make else self.open_folder(new_parent)
            try:
                with _explained():
                    rename(source, name, target, new_name, replace=replace)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def remove(self, path: bytes) -> None:
        """Remove a file, a link (not what it points to), or a folder with all in it. Raises FileError."""
        parent, name = _split(path)
        folder = self.open_folder(parent)
        try:
            with _explained():
                _remove(folder, name)
        finally:
            os.close(folder)

    def _open(self, path: bytes, flags: int) -> int:
        with _explained():
            return open_beneath(self._root, clean(path), flags)

    def _made(self, path: bytes) -> int:
        """Return a descriptor of a folder, which is made, with those above it, where it isn't."""
        try:
            return self.open_folder(path)
        except FileError as error:
            if error.code != "NOT_FOUND":
                raise
        current = self.open_folder(b"")
        walked: list[bytes] = []
        for part in path.split(b"/"):
            if part in (b"", b"."):
                continue
            walked.append(part)
            try:
                if part != b"..":
                    os.mkdir(part, dir_fd=current)
            except FileExistsError:
                pass
            except OSError as error:
                raise explained(error) from error
            finally:
                os.close(current)
            current = self.open_folder(b"/".join(walked))
        return current


def clean(path: bytes) -> bytes:
    """Return a path relative to the root; a leading slash means the root. Raises FileError."""
    if b"\0" in path or len(path) > MAX_PATH:
        raise FileError("INVALID_PATH", f"that is no path: it has a NUL, or over {MAX_PATH} bytes")
    return path.strip(b"/")


def _split(path: bytes) -> tuple[bytes, bytes]:
    parent, _, name = clean(path).rpartition(b"/")
    if name in (b"", b".", b".."):
        raise FileError("INVALID_PATH", "that is no name for a file, and the root itself stays as it is")
    return parent, name


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explained(error) from error


def _remove(folder: int, name: bytes) -> None:
    """Remove an entry; folders from the inside out, without recursion and without following a link."""
    try:
        os.unlink(name, dir_fd=folder)
        return
    except IsADirectoryError:
        pass
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    above = [(os.dup(folder), name)]
    try:
        while above:
            parent, name = above[-1]
            child = os.open(name, flags, dir_fd=parent)
            inner = _emptied(child)
            if inner is not None:
                above.append((child, inner))
                continue
            os.close(child)
            os.rmdir(name, dir_fd=parent)
            above.pop()
            os.close(parent)
    finally:
        for parent, _ in above:
            os.close(parent)


def _emptied(folder: int) -> bytes | None:
    """Remove all that is no folder; return the name of a folder that is left, if there is one."""
    for entry in os.listdir(folder):
        name = os.fsencode(entry)
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            continue
        except IsADirectoryError:
            return name
    return None
