"""The SQLite database: opening it, its one writer, its migrations.

Reads run where they are called: they are single rows from the page cache. Writes can wait for the disk, so
they run in a thread, one transaction at a time. Only one gateway may have a database open: a lock on the
file beside it says so, and goes with its process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Generic, TypeVar

import trio

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_BUSY_TIMEOUT = 5.0  # seconds
_LEAST_SPACE = 64 * 1024  # bytes; the index of the log grows by half of it


class StorageError(Exception):
    """The database can't be used as it is. str() says what failed, on what, and what to do."""


class StorageFull(StorageError):
    """There is no space to write; nothing was written."""


class Database:
    """An open database. Use `open_database`."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection) -> None:
        self.path = path
        self.version = 0
        """How often something was written; see `Seen`."""
        self._writing = trio.CapacityLimiter(1)
        self._reader = reader
        self._writer = writer

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query; it must be a small one."""
        with _explained(self.path):
            return self._reader.execute(query, parameters).fetchall()

    def row(self, query: str, parameters: tuple[object, ...] = ()) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        found = self.rows(query, parameters)
        return found[0] if found else None

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run `change` in a transaction of its own, in a thread. Raises StorageError.

        An exception of `change` takes everything back.
        """

        def transaction() -> T:
            with _explained(self.path):
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    result = change(self._writer)
                    self._writer.execute("COMMIT")
                    self.version += 1
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
                return result

        return await trio.to_thread.run_sync(transaction, limiter=self._writing)


class Seen(Generic[K, V]):
    """What was read of a database, good until anything is written: this process is the only one that does."""

    def __init__(self, database: Database, most: int = 4096) -> None:
        self._database = database
        self._most = most
        self._version = database.version
        self._values: dict[K, V] = {}

    def current(self) -> dict[K, V]:
        """Return what is good still; what is read from now until the next `await` may be added."""
        if self._version != self._database.version or len(self._values) >= self._most:
            self._version = self._database.version
            self._values = {}
        return self._values


@contextmanager
def open_database(path: Path) -> Iterator[Database]:
    """Open the database at `path`, made and migrated if need be. Raises StorageError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()  # the lock lies beside the file itself, whatever it is called
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, RuntimeError) as error:  # the latter: links in a circle
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"the folder of the database {path} can't be used: {reason}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StorageError(
            f"the database {path} is in use by another oqtod: stop that one, or set OQTO_DATABASE_PATH"
        ) from None
    with ExitStack() as opened:
        opened.callback(os.close, lock)
        with _explained(path):
            _private(path)
            reader = opened.enter_context(closing(_connect(path)))
            writer = opened.enter_context(closing(_connect(path)))
            _migrate(writer, path)
        yield Database(path, reader, writer)


def _private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Run the migrations that the database hasn't seen: PRAGMA user_version counts them."""
    folder = resources.files("oqtod.store") / "migrations"
    scripts = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda x: x.name)
    done: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if done > len(scripts):
        raise StorageError(f"the database {path} was made by a newer oqtod: install that version again")
    # A table that others refer to can only be remade with foreign keys off: sqlite.org/lang_altertable.html.
    connection.execute("PRAGMA foreign_keys = OFF")
    for number, script in enumerate(scripts[done:], start=done + 1):
        connection.executescript(f"BEGIN;\n{script.read_text()}\nPRAGMA user_version = {number};\nCOMMIT;")
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise StorageError(f"the database {path} refers to rows that aren't there: restore it from a backup")
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        # SQLite calls it an I/O error where it was the index of the log that found no space.
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _no_space(path)):
            raise StorageFull(f"there is no space left for the database {path}: free some") from error
        raise StorageError(f"the database {path} can't be used: {error}") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        raise StorageError(f"{path} is not a usable database: {error}") from error
    except OSError as error:
        raise StorageError(f"the database {path} can't be used: {error.strerror}") from error


def _no_space(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _LEAST_SPACE
    except OSError:
        return False
