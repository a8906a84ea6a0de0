"""Lists of folders: sorted, in pages, some levels deep, in bounded time.

Names are bytes on Linux. One that isn't UTF-8 is shown with its odd bytes as lone surrogates, which Python's
``surrogateescape`` turns back; `path_encoded` has it ready for a URL.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_from_bytes

from runner.files.beneath import open_beneath

PAGE = 10_000
"""Entries of one folder that are shown unless the request says otherwise, and at most."""

MAX_ENTRIES = 50_000
"""Entries of all folders together."""

MAX_DEPTH = 32
TIME_BUDGET = 3.0
"""Seconds after which no further folder is opened."""


@dataclass(slots=True)
class Listing:
    """One request for a list, and what it has used of its bounds."""

    depth: int = 1
    hidden: bool = False
    simple: bool = False
    offset: int = 0
    limit: int = PAGE
    entries_left: int = MAX_ENTRIES
    deadline: float = field(default_factory=lambda: time.monotonic() + TIME_BUDGET)
    total: int = 0
    """Entries of the folder that was asked for, on all pages."""
    truncated: bool = False

    def of(self, folder: int, path: bytes) -> list[dict[str, Any]]:
        """Return a page of the folder's entries, folders first, then by name."""
        names = self._names(folder)
        self.total = len(names)
        page = names[self.offset : self.offset + self.limit]
        self.truncated = self.offset + len(page) < len(names)
        return self._entries(folder, path, page, min(self.depth, MAX_DEPTH))

    def _names(self, folder: int) -> list[tuple[bool, str, bool]]:
        """Return the sorted entries: whether it isn't a folder, its name, whether it is a link."""
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if self.hidden or not entry.name.startswith("."):
                    found.append((not entry.is_dir(follow_symlinks=False), entry.name, entry.is_symlink()))
        found.sort()
        return found

    def _entries(
        self, folder: int, path: bytes, names: list[tuple[bool, str, bool]], depth: int
    ) -> list[dict[str, Any]]:
        shown = []
        for is_file, name, is_link in names:
            if self.entries_left <= 0:
                self.truncated = True
                break
            raw = os.fsencode(name)
            below = path + b"/" + raw if path not in (b"", b".") else raw
            entry = self._entry(folder, raw, below, is_file=is_file, is_link=is_link)
            if entry is None:
                continue
            self.entries_left -= 1
            shown.append(entry)
            if not is_file and depth > 1:
                self._add_children(entry, folder, raw, below, depth - 1)
        return shown

    def _add_children(self, entry: dict[str, Any], folder: int, name: bytes, path: bytes, depth: int) -> None:
        if time.monotonic() > self.deadline or self.entries_left <= 0:
            entry["truncated"] = self.truncated = True
            return
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            child = os.open(name, flags, dir_fd=folder)
        except OSError:
            entry["children"] = []  # not ours to read, or gone meanwhile
            return
        try:
            names = self._names(child)
            if len(names) > self.limit:
                entry["truncated"] = self.truncated = True
            entry["children"] = self._entries(child, path, names[: self.limit], depth)
        finally:
            os.close(child)

    def _entry(
        self, folder: int, name: bytes, path: bytes, *, is_file: bool, is_link: bool
    ) -> dict[str, Any] | None:
        text = os.fsdecode(path)
        entry: dict[str, Any] = {
            "name": os.fsdecode(name),
            "path": text,
            "type": "file" if is_file else "directory",
        }
        if not text.isprintable() and not _is_unicode(text):
            entry["path_encoded"] = quote_from_bytes(path)
        if is_link:
            entry["is_symlink"] = True
        if self.simple and not is_link:
            return entry
        status = _status(folder, name, is_link=is_link)
        if status is None:
            return None  # removed while we looked
        if is_link and stat.S_ISDIR(status.st_mode):
            entry["type"] = "directory"
        if not self.simple:
            entry["modified"] = (
                datetime.fromtimestamp(status.st_mtime, UTC).isoformat().replace("+00:00", "Z")
            )
            if entry["type"] == "file":
                entry["size"] = status.st_size
        return entry


def _status(folder: int, name: bytes, *, is_link: bool) -> os.stat_result | None:
    """Return what an entry is; of a link, what it leads to beneath its folder, else the link itself."""
    if is_link:
        try:
            target = open_beneath(folder, name, os.O_PATH)
        except OSError:
            pass  # it leads up or out, or nowhere
        else:
            try:
                return os.fstat(target)
            finally:
                os.close(target)
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_unicode(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)
