"""The database file: made, migrated, held by one gateway alone, written whole or not at all."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import trio

from oqtod.store.database import Database, StorageError, StorageFull, open_database

MIGRATIONS = sorted(
    (x for x in (resources.files("oqtod.store") / "migrations").iterdir() if x.name.endswith(".sql")),
    key=lambda x: x.name,
)

# Holds the database of its argument open until its stdin ends.
HOLDER = """
import sys
from pathlib import Path
from oqtod.store.database import open_database
with open_database(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def schema(path: Path) -> set[tuple[str, str]]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {(name, re.sub(r"\s+", " ", sql)) for name, sql in rows}
    finally:
        connection.close()


def made_with(path: Path, count: int) -> None:
    """A database as the oqtod that knew the first `count` migrations left it."""
    connection = sqlite3.connect(path)
    for number, script in enumerate(MIGRATIONS[:count], start=1):
        connection.executescript(f"{script.read_text()}\nPRAGMA user_version = {number};")
    connection.close()


async def table(database: Database) -> None:
    await database.write(lambda x: x.execute("CREATE TABLE t (x NOT NULL)"))


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [re.fullmatch(r"(\d{4})_[a-z_0-9]+\.sql", script.name) for script in MIGRATIONS]
    assert [int(x[1]) if x else 0 for x in numbers] == list(range(1, len(MIGRATIONS) + 1))


def test_a_new_database_has_every_migration_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "oqto.db"
    for _ in range(2):
        with open_database(path):
            pass
        assert version(path) == len(MIGRATIONS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("count", range(len(MIGRATIONS)))
def test_every_earlier_database_becomes_the_same(tmp_path: Path, count: int) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    made_with(old, count)
    for path in (old, new):
        with open_database(path):
            pass
    assert schema(old) == schema(new)


def test_an_earlier_database_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "oqto.db"
    made_with(path, 1)
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO users (id, username, email, display_name, role, password_hash, origin, created_at)"
        " VALUES ('alice', 'alice', 'a@b', 'Alice', 'user', 'x', 'config', '2026-01-01T00:00:00Z')"
    )
    for name, port in (("one", 41820), ("two", None)):
        connection.execute(
            "INSERT INTO sessions (id, readable_id, user_id, workspace_path, image, environment, status,"
            " port_base, created_at, last_activity_at)"
            " VALUES (?1, ?1, 'alice', '/w', 'i', '{}', ?2, ?3, '', '')",
            (name, "running" if port else "stopped", port),
        )
    connection.commit()
    connection.close()
    with open_database(path) as database:
        assert [x["id"] for x in database.rows("SELECT id FROM users")] == ["alice"]
        assert [x["id"] for x in database.rows("SELECT id FROM sessions ORDER BY id")] == ["one", "two"]
        ports = database.rows("SELECT port FROM ports WHERE session_id = 'one' ORDER BY port")
        assert [x["port"] for x in ports] == list(range(41820, 41833))


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "oqto.db"
    made_with(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE host (in_the_way)")
    connection.close()
    before = schema(path)
    with pytest.raises(StorageError, match="host"), open_database(path):
        raise AssertionError("it opened")
    assert (schema(path), version(path)) == (before, 1)


def test_a_database_of_a_newer_oqtod_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "oqto.db"
    with open_database(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StorageError, match="made by a newer oqtod"), open_database(path):
        raise AssertionError("it opened")
    assert version(path) == len(MIGRATIONS) + 1


@pytest.mark.parametrize("name", ["oqto.db", "link.db"])
def test_one_gateway_at_a_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / "oqto.db"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.db").symlink_to(path)
    second = path if name == "oqto.db" else elsewhere / name
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen([*command, path], stdin=-1, stdout=-1, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with (
            pytest.raises(StorageError, match="in use by another oqtod: stop that one"),
            open_database(second),
        ):
            raise AssertionError("two have it open")
        first.kill()
    with open_database(second):
        pass


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + os.urandom(4000)])
def test_what_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "oqto.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=re.escape(str(path))), open_database(path):
        raise AssertionError("it opened")
    assert path.read_bytes() == content


def test_places_where_there_can_be_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path in (
        tmp_path,
        tmp_path / "file" / "oqto.db",
        tmp_path / "loop" / "oqto.db",
        Path("/proc/oqto.db"),
    ):
        with pytest.raises(StorageError, match="can't be used"), open_database(path):
            raise AssertionError(f"{path} opened")


async def test_a_change_that_fails_is_taken_back(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise KeyError("half-way")

    with open_database(tmp_path / "db") as database:
        await table(database)
        with pytest.raises(KeyError):
            await database.write(half)
        await database.write(lambda x: x.execute("INSERT INTO t VALUES (2)"))
        assert [row["x"] for row in database.rows("SELECT x FROM t")] == [2]
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(lambda x: x.execute("INSERT INTO t VALUES (NULL)"))


async def test_changes_come_one_after_another(tmp_path: Path) -> None:
    def increment(connection: sqlite3.Connection) -> None:
        (value,) = connection.execute("SELECT x FROM t").fetchone()
        connection.execute("UPDATE t SET x = ?", (value + 1,))

    with open_database(tmp_path / "db") as database:
        await table(database)
        await database.write(lambda x: x.execute("INSERT INTO t VALUES (0)"))
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(database.write, increment)
        found = database.row("SELECT x FROM t")
        assert found is not None
        assert found["x"] == 50


async def test_no_space_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    def two_rows(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES ('small')")
        connection.execute("INSERT INTO t VALUES (?)", ("x" * 1_000_000,))

    with open_database(tmp_path / "db") as database:
        await table(database)
        pages = database.rows("PRAGMA page_count")[0][0]
        await database.write(lambda x: x.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
        with pytest.raises(StorageFull, match="no space left"):
            await database.write(two_rows)
        assert database.rows("SELECT * FROM t") == []
        await database.write(lambda x: x.execute("INSERT INTO t VALUES ('small')"))
        assert len(database.rows("SELECT * FROM t")) == 1
