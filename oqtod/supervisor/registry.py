"""The record of every account that was ever made: root's own, so that nobody can talk root into another.

One JSON file, written whole and synced before anything is done on its word. Rows of deleted accounts stay
as tombstones: their uids are never given out again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from runner.protocol.rpc import MALFORMED

State = Literal["creating", "active", "deleting", "deleted"]


class Row(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One account. `remove_home` matters while it is being deleted."""

    user_id: str
    name: str
    uid: int
    state: State
    remove_home: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1]
    accounts: list[Row]


class RegistryError(Exception):
    """The registry can't be read or written. Root does nothing then: it could take an account twice."""


class Registry:
    """The rows in memory, and the file they stand in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._rows = msgspec.json.decode(path.read_bytes(), type=_File).accounts
        except FileNotFoundError:
            self._rows = []
        except (OSError, *MALFORMED) as error:
            raise RegistryError(
                f"the account registry {path} can't be read: {error}; restore it from a backup"
            ) from error

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, tombstones included, in the order in which they were made."""
        return tuple(self._rows)

    def put(self, row: Row) -> Row:
        """Add a row, or take it in place of the one with its uid; return it once it is on the disk.

        Raises RegistryError, and then everything is as it was: nothing is done on the word of a row that
        a crash would forget.
        """
        if any(known.uid == row.uid for known in self._rows):
            rows = [row if known.uid == row.uid else known for known in self._rows]
        else:
            rows = [*self._rows, row]
        self._save(rows)
        self._rows = rows
        return row

    def of_user(self, user_id: str) -> Row | None:
        """Return the live row of a platform user."""
        return next((row for row in self._rows if row.user_id == user_id and row.state != "deleted"), None)

    def of_account(self, name: str) -> Row | None:
        """Return the live row with this account name."""
        return next((row for row in self._rows if row.name == name and row.state != "deleted"), None)

    def next_uid(self, start: int) -> int:
        """Return the lowest uid, from `start`, above all that were ever given out."""
        return max([start, *(row.uid + 1 for row in self._rows)])

    def _save(self, rows: list[Row]) -> None:
        """Write the file, whole or not at all, and have it on the disk."""
        text = msgspec.json.format(msgspec.json.encode(_File(1, rows)))
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, for its mode
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            fresh.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise RegistryError(f"the account registry {self._path} can't be written: {error}") from error
