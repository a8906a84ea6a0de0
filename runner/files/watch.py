"""What changes in a folder and below: inotify(7), put together to a few events a moment."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

import trio

from runner.files.errors import FileError, explained

if TYPE_CHECKING:
    from runner.files.tree import Tree

MAX_FOLDERS = 4096
"""Folders that one watch looks at; what is in further ones is not told."""

MAX_PENDING = 2000
"""Changes that are told one by one; when there are more in a moment, only that there were."""

DEBOUNCE = 0.1
"""Seconds in which changes are put together."""

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _OVERFLOW, _IGNORED, _ISDIR = 0x400, 0x4000, 0x8000, 0x40000000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _ONLYDIR
_HEAD = struct.Struct("iIII")
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Watch:
    """One watch of a folder. Close it."""

    tree: Tree
    root: bytes
    recursive: bool
    descriptor: int = -1
    folders: dict[int, bytes] = field(default_factory=dict)
    pending: dict[tuple[bytes, bool], str] = field(default_factory=dict)
    overflowed: bool = False

    @classmethod
    def begin(cls, tree: Tree, root: bytes, *, recursive: bool) -> Watch:
        """Watch a folder, and with `recursive` those below it. Raises FileError."""
        watch = cls(tree, root.strip(b"/"), recursive)
        watch.descriptor = _libc.inotify_init1(_NONBLOCK_CLOEXEC)
        if watch.descriptor < 0:
            raise explained(OSError(ctypes.get_errno(), "no further watch is possible"))
        try:
            watch._add(watch.root)
        except FileError:
            watch.close()
            raise
        if recursive:
            watch._add_below(watch.root)
        return watch

    def close(self) -> None:
        """Stop watching."""
        os.close(self.descriptor)

    async def changes(self) -> list[dict[str, Any]]:
        """Wait for changes, and return those of a moment."""
        while not self.pending and not self.overflowed:
            await trio.lowlevel.wait_readable(self.descriptor)
            self._read()
        await trio.sleep(DEBOUNCE)
        self._read()
        pending, self.pending = self.pending, {}
        if self.overflowed:
            self.overflowed = False
            return [{"type": "overflow", "path": os.fsdecode(self.root)}]
        return [_event(event, path, is_dir) for (path, is_dir), event in pending.items()]

    def _add(self, path: bytes) -> None:
        folder = self.tree.open_folder(path)
        try:
            # By its descriptor: the folder that was found beneath the root, wherever its name leads by now.
            name = f"/proc/self/fd/{folder}".encode()
            watched = _libc.inotify_add_watch(self.descriptor, name, _MASK)
            if watched < 0:
                raise explained(OSError(ctypes.get_errno(), "this folder can't be watched"))
            self.folders[watched] = path
        finally:
            os.close(folder)

    def _add_below(self, path: bytes) -> None:
        waiting = [path]
        while waiting and len(self.folders) < MAX_FOLDERS:
            current = waiting.pop()
            try:
                folder = self.tree.open_folder(current)
            except FileError:
                continue
            try:
                with os.scandir(folder) as entries:
                    names = [os.fsencode(x.name) for x in entries if x.is_dir(follow_symlinks=False)]
            finally:
                os.close(folder)
            for name in names:
                below = current + b"/" + name if current else name
                try:
                    self._add(below)
                except FileError:
                    continue  # gone meanwhile, or the host's limit
                waiting.append(below)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.descriptor, 65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                raise
            position = 0
            while position < len(data):
                watched, mask, _, length = _HEAD.unpack_from(data, position)
                start = position + _HEAD.size
                self._note(watched, mask, data[start : start + length].rstrip(b"\0"))
                position = start + length

    def _note(self, watched: int, mask: int, name: bytes) -> None:
        if mask & _OVERFLOW:
            self.overflowed = True
            return
        folder = self.folders.get(watched)
        if mask & _IGNORED:
            self.folders.pop(watched, None)
            return
        if folder is None or (mask & _DELETE_SELF and folder != self.root):
            return  # its own folder tells of it
        path = folder + b"/" + name if folder and name else folder or name
        is_dir = bool(mask & _ISDIR)
        if len(self.pending) >= MAX_PENDING:
            self.overflowed = True
            return
        if mask & (_CREATE | _MOVED_TO):
            before = self.pending.get((path, is_dir))
            self.pending[path, is_dir] = "modified" if before == "deleted" else "created"
            if is_dir and self.recursive:
                self._adopt(path)
        elif mask & (_DELETE | _MOVED_FROM | _DELETE_SELF):
            if self.pending.pop((path, is_dir), None) != "created" or mask & _MOVED_FROM:
                self.pending[path, is_dir] = "deleted"
        else:
            self.pending.setdefault((path, is_dir), "modified")

    def _adopt(self, path: bytes) -> None:
        """Watch a new folder; what was put there before we did is told too."""
        if len(self.folders) >= MAX_FOLDERS:
            return
        try:
            self._add(path)
            folder = self.tree.open_folder(path)
        except FileError:
            return
        try:
            with os.scandir(folder) as entries:
                found = [(os.fsencode(x.name), x.is_dir(follow_symlinks=False)) for x in entries]
        finally:
            os.close(folder)
        for name, is_dir in found[:MAX_PENDING]:
            below = path + b"/" + name
            self.pending.setdefault((below, is_dir), "created")
            if is_dir:
                self._adopt(below)


def _event(event: str, path: bytes, is_dir: bool) -> dict[str, Any]:
    text = os.fsdecode(path)
    told: dict[str, Any] = {"type": "file_changed", "event": event, "path": text, "is_dir": is_dir}
    if any("\udc80" <= character <= "\udcff" for character in text):
        told["path_encoded"] = quote_from_bytes(path)
    return told
