"""Folders as zip files, written while they are sent: as big as they like, in constant memory.

Links are left out: what they lead to may be outside, or the folder itself. The zip file is written in a
thread into a pipe; who reads slowly makes it write slowly, and who closes the pipe ends it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from runner.files.errors import FileError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

    from runner.files.tree import Tree

MAX_FILES = 200_000
_CHUNK = 256 * 1024
_PACKED = (".zip", ".gz", ".xz", ".zst", ".bz2", ".7z", ".jpg", ".jpeg", ".png", ".webp", ".mp4", ".mp3")
"""Endings of files that don't become smaller."""


def write(tree: Tree, paths: list[bytes], pipe: int) -> None:
    """Write files and folders into `pipe`, which is closed at the end. For a thread.

    Raises BrokenPipeError when nobody reads any more, FileError, OSError.
    """
    import zipfile  # costs memory in a process that mostly never makes one

    with os.fdopen(pipe, "wb", buffering=0) as out, zipfile.ZipFile(out, "w", allowZip64=True) as archive:
        left = MAX_FILES
        for path in paths:
            left = _add(tree, archive, path, left)


def _add(tree: Tree, archive: ZipFile, path: bytes, left: int) -> int:
    name = path.strip(b"/").rpartition(b"/")[2]
    try:
        folder = tree.open_folder(path)
    except FileError as error:
        if error.code != "NOT_A_DIRECTORY":
            raise
        _add_file(archive, name, tree.open_file(path))
        return left - 1
    for below, descriptor in _walk(folder, name):
        left -= 1
        if left < 0:
            if descriptor is not None:
                os.close(descriptor)
            raise FileError("FILE_TOO_LARGE", f"a zip file holds at most {MAX_FILES} files")
        if descriptor is None:
            archive.writestr(_entry(below + b"/", time.time(), 0o755), b"")
        else:
            _add_file(archive, below, descriptor)
    return left


def _walk(folder: int, name: bytes) -> Iterator[tuple[bytes, int | None]]:
    """Return what is in a folder: files with a descriptor, folders without. Takes `folder` over."""
    waiting = [(folder, name)]
    try:
        while waiting:
            current, path = waiting.pop()
            try:
                if path:
                    yield path, None
                for entry in sorted(os.listdir(current)):  # noqa: PTH208  a descriptor
                    raw = os.fsencode(entry)
                    below = path + b"/" + raw if path else raw
                    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
                    try:
                        opened = os.open(raw, flags, dir_fd=current)
                    except OSError:
                        continue  # a link, a socket, not ours to read, or gone meanwhile
                    mode = os.fstat(opened).st_mode
                    if stat.S_ISDIR(mode):
                        waiting.append((opened, below))
                    elif stat.S_ISREG(mode):
                        yield below, opened
                    else:
                        os.close(opened)
            finally:
                os.close(current)
    finally:
        for current, _ in waiting:
            os.close(current)


def _add_file(archive: ZipFile, name: bytes, descriptor: int) -> None:
    with os.fdopen(descriptor, "rb", buffering=0) as source:
        status = os.fstat(source.fileno())
        entry = _entry(name, status.st_mtime, status.st_mode & 0o777)
        with archive.open(entry, "w", force_zip64=True) as target:
            _copy(source, target)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while chunk := source.read(_CHUNK):
        target.write(chunk)


def _entry(name: bytes, modified: float, mode: int) -> ZipInfo:
    import zipfile

    moment = max(time.localtime(modified)[:6], (1980, 1, 1, 0, 0, 0))
    entry = zipfile.ZipInfo(name.decode("utf-8", "replace"), min(moment, (2107, 12, 31, 23, 59, 58)))
    folder = name.endswith(b"/")
    entry.external_attr = (mode | (stat.S_IFDIR if folder else stat.S_IFREG)) << 16 | (0x10 if folder else 0)
    packed = folder or entry.filename.lower().endswith(_PACKED)
    entry.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    return entry
