"""One gateway's sessions over a real database and a `World`, made and thrown away by tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from oqtod.clock import elapsed
from oqtod.config import Config
from oqtod.placements.runners import Runners
from oqtod.sessions.activity import Activity
from oqtod.sessions.departure import Departures
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.sessions.ports import Ranges
from oqtod.sessions.reaper import Reaper
from oqtod.sessions.records import Records
from oqtod.sessions.recovery import Recovery
from oqtod.store.database import Database, open_database
from tests.unit.sessions.model_runner import ModelRunners, World

USERS = ("alice", "bob")


@dataclass
class Clock:
    """Seconds since the host started, as a test wants them."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Gateway:
    """The parts that look after sessions."""

    database: Database
    lifecycle: Lifecycle
    recovery: Recovery
    reaper: Reaper
    departures: Departures


@contextmanager
def gateway(
    path: Path,
    world: World,
    *,
    clock: Clock | None = None,
    dies_after: int | None = None,
    max_live: int = 3,
    blocks: int = 20,
    **settings: object,
) -> Iterator[Gateway]:
    """Open the database at `path`, with the users of `USERS`; `settings` are those of the configuration."""
    config = msgspec.convert(settings, Config)
    with open_database(path) as database:
        _add_users(database)
        base = 65535 - 13 * blocks + 1
        ranges = Ranges(base=base, stream_base=30000, stream_count=100)
        records = Records(database, ranges=ranges, max_live=max_live, elapsed=clock or elapsed)
        activity = Activity(records)
        runners = cast(Runners, ModelRunners(world, dies_after=dies_after))
        lifecycle = Lifecycle(records, runners, activity, config)
        yield Gateway(
            database, lifecycle, Recovery(lifecycle), Reaper(lifecycle), Departures(database, lifecycle)
        )


def _add_users(database: Database) -> None:
    for user in USERS:
        database._writer.execute(
            "INSERT OR IGNORE INTO users (id, username, email, display_name, role, password_hash, origin,"
            " created_at) VALUES (?1, ?1, ?1, ?1, 'user', '', 'database', '')",
            (user,),
        )
