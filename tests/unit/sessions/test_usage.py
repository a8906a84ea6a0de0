"""What sessions use of the host: read once for all who ask, also when runners don't answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing

from oqtod.api import host_use
from oqtod.api.host_use import HostUse
from oqtod.sessions import context
from oqtod.sessions.usage import PATIENCE, Meter, UserUse
from tests.unit.sessions.gateways import Gateway, gateway
from tests.unit.sessions.model_runner import World


@asynccontextmanager
async def three_sessions(path: Path, world: World) -> AsyncIterator[Gateway]:
    with gateway(path / "oqto.db", world) as opened:
        for user in ("alice", "alice", "bob"):
            await opened.lifecycle.create(user)
        yield opened


async def test_cpus_are_an_average_between_two_readings(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    async with three_sessions(tmp_path, world) as opened:
        meter = Meter(opened.lifecycle)
        first = await meter.read(max_age=1)
        assert {x.cpus for x in first.sessions} == {None}
        assert first.by_user()["alice"] == UserUse(2, 0, 0, None)
        for session_id, user in world.alive.items():
            world.cpu[session_id] = world.cpu.get(session_id, 0.0) + (5.0 if user == "alice" else 1.0)
        await trio.sleep(10)
        second = await meter.read(max_age=1)
        cpus = {user: use.cpus for user, use in second.by_user().items()}
        assert cpus == {"alice": pytest.approx(1.0), "bob": pytest.approx(0.1)}


async def test_who_asks_at_the_same_time_gets_the_same(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_sessions(tmp_path, World()) as opened:
        meter, readings = Meter(opened.lifecycle), []

        async def ask() -> None:
            readings.append(await meter.read(max_age=1))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert len({id(reading) for reading in readings}) == 1
        await trio.sleep(1)
        assert await meter.read(max_age=1) is not readings[0]


async def test_runners_that_do_not_answer_are_left_out(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with three_sessions(tmp_path, world) as opened:
        runners, meter = opened.lifecycle.runners, Meter(opened.lifecycle)
        real = runners.statuses

        async def hanging(user_id: str) -> object:
            return await (trio.sleep_forever() if user_id == "bob" else real(user_id))

        monkeypatch.setattr(runners, "statuses", hanging)
        begun = trio.current_time()
        reading = await meter.read(max_age=0)
        assert (reading.silent, set(reading.by_user())) == (["bob"], {"alice"})
        assert trio.current_time() - begun == pytest.approx(PATIENCE)
        world.reachable = False
        assert sorted((await meter.read(max_age=0)).silent) == ["alice", "bob"]


async def test_several_who_watch_share_the_snapshots(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with three_sessions(tmp_path, World()) as opened:
        asked = 0
        runners, real = opened.lifecycle.runners, opened.lifecycle.runners.statuses

        async def counted(user_id: str) -> object:
            nonlocal asked
            asked += user_id == "alice"
            return await real(user_id)

        monkeypatch.setattr(runners, "statuses", counted)
        watched = HostUse(cast(context.Gateway, SimpleNamespace(sessions=opened.lifecycle)))
        assert asked == 0
        seen: list[dict[str, object]] = []

        async def watch(delay: float) -> None:
            await trio.sleep(delay)
            for _ in range(10):
                seen.append(await watched.snapshot())
                await trio.sleep(host_use.INTERVAL)

        async with trio.open_nursery() as nursery:
            for delay in (0.0, 0.3, 1.1, 1.9):
                nursery.start_soon(watch, delay)
        assert len(seen) == 40
        assert asked <= 1 + 11  # one to count from, then one an interval
        assert [x["user_id"] for x in cast("list[dict[str, object]]", seen[-1]["users"])] == ["alice", "bob"]
        assert len(cast("list[object]", seen[-1]["session_use"])) == 3
        assert seen[-1]["error"] is None


async def test_starts_and_stops_are_counted(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    with gateway(tmp_path / "oqto.db", world, max_live=1) as opened:
        lifecycle = opened.lifecycle
        first = await lifecycle.create("alice")
        second = await lifecycle.create("alice")  # the first makes room
        world.alive.clear()
        await lifecycle.look_after("alice")
        await lifecycle.stop(await lifecycle.resume(first))
        await lifecycle.delete(lifecycle.records.get(second.id))
        with pytest.raises(Exception, match="workspace"):
            await lifecycle.create("bob", workspace_path="refused")
        assert lifecycle.starts == {"started": 3, "refused": 1, "unanswered": 0}
        assert lifecycle.stops == {"asked": 1, "idle": 0, "room": 1, "ended": 1, "unfinished": 0}
        assert lifecycle.start_seconds.buckets()[-1] == ("+Inf", 3)
        counts = lifecycle.records.counts()
        assert (counts["stopped"], counts["failed"], counts["running"]) == (1, 1, 0)
        use = lifecycle.records.port_use()
        assert (use.blocks_used, use.blocks, use.streams_used, use.streams) == (0, 20, 0, 100)
        await lifecycle.create("alice")
        use = lifecycle.records.port_use()
        assert (use.blocks_used, use.streams_used) == (1, 1)
