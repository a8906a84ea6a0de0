"""The database, really inspected: whole, damaged, too new; and what is said of what is in it."""

from __future__ import annotations

import sqlite3
import sys
from importlib import resources
from pathlib import Path

import pytest

from oqtod.admin.doctor import database
from oqtod.admin.doctor.finding import Finding
from oqtod.admin.doctor.host import Answer, Host, execute
from oqtod.store.database import open_database
from tests.unit.doctor.conftest import Fake

PROGRAM = Path(database.__file__).with_name("inspection.py")
DATABASE = "/var/lib/oqtod/oqto.db"


@pytest.fixture
def path(fake: Fake) -> Path:
    """A database as the gateway leaves it."""
    file = fake.root / DATABASE[1:]
    with open_database(file):
        pass
    fake.folder("/proc")
    unit = "Id=oqtod-gateway.service\nActiveState=inactive\nMainPID=0\n"
    fake.answers[("systemctl", "show")] = Answer(0, unit)
    return file


def found(fake: Fake, path: Path) -> list[Finding]:
    shown = execute([sys.executable, "-I", str(PROGRAM), str(path)], 30, None)
    fake.answers[(sys.executable,)] = shown
    return list(database.whole(fake.host()))


def change(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def test_a_whole_one(fake: Fake, path: Path) -> None:
    assert found(fake, path) == []


def test_looking_leaves_nothing_behind(fake: Fake, path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    found(fake, path)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_no_database_at_all(fake: Fake, path: Path) -> None:
    path.write_bytes(b"\0" * 8192)
    assert any("SQLite says" in one.found or "damaged" in one.found for one in found(fake, path))
    path.write_bytes(b"")
    assert [one.found for one in found(fake, path)] == ["an empty file"]


def test_a_damaged_page(fake: Fake, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 3] = b"\xa5" * 4096
    path.write_bytes(data)
    assert any(one.severity == "problem" and "/root/" in one.advice for one in found(fake, path))


def test_another_version(fake: Fake, path: Path) -> None:
    migrations = resources.files("oqtod.store") / "migrations"
    known = sum(file.name.endswith(".sql") for file in migrations.iterdir())
    change(path, f"PRAGMA user_version = {known + 1}")
    assert ["made by a newer oqtod" in one.found for one in found(fake, path)] == [True]
    change(path, f"PRAGMA user_version = {known - 1}")
    assert [one.severity for one in found(fake, path)] == ["note"]


def test_dangling_rows(fake: Fake, path: Path) -> None:
    change(path, "INSERT INTO departures VALUES ('nobody', 1, 1)")
    assert any("rows refer to others" in one.found for one in found(fake, path))


USER = (
    "INSERT INTO users (id, username, email, display_name, role, is_active, origin, created_at) "
    "VALUES ('a', 'a', 'a@x', 'A', 'user', {active}, 'database', '2026-01-01T00:00:00Z');"
)
SESSION = (
    "INSERT INTO sessions (id, readable_id, user_id, workspace_path, image, environment, status, "
    "error_message, created_at, last_activity_at) VALUES ('s', 'red-fox', 'a', '/w', '', '{}', 'failed', "
    "'no space', '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z');"
)
INVITE = (
    "INSERT INTO invites (id, code_prefix, code_hash, created_by, created_at, expires_at, max_uses, "
    "uses_remaining) VALUES ('i', 'ab12', 'x', 'root', '2020-01-01T00:00:00Z', '2020-02-01T00:00:00Z', 1, 1);"
)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (USER.format(active=1), None),
        (USER.format(active=0), "users: all 1 are disabled"),
        (USER.format(active=1) + SESSION, "session red-fox: failed: no space"),
        (INVITE, "invite ab12…: expired on 2020-02-01T00:00:00Z, with uses left"),
    ],
)
def test_what_is_in_it(fake: Fake, path: Path, script: str, said: str | None) -> None:
    change(path, script)
    assert [f"{one.subject}: {one.found}" for one in found(fake, path)] == ([] if said is None else [said])


def test_an_inspection_that_dies_is_an_error_and_not_silence(fake: Fake, path: Path) -> None:
    fake.answers[(sys.executable,)] = Answer(-11, "", "Segmentation fault")
    host: Host = fake.host()
    with pytest.raises(OSError, match="Segmentation fault"):
        list(database.whole(host))
