"""The promises of sessions one by one: cap, ports, get-or-create, idleness, departures, start and end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from oqtod.errors import Refusal
from oqtod.sessions.model import Session
from tests.unit.sessions.gateways import Clock, Gateway, gateway
from tests.unit.sessions.model_runner import World


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


async def test_fifty_at_once_never_pass_the_cap_nor_touch_anybody_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oqtod.sessions.lifecycle._BUSY_SAMPLE", 0.001)
    world = World(1)
    with gateway(path, world, max_live=4) as g:
        others = [await g.lifecycle.create("bob") for _ in range(4)]
        most = 0
        refused = 0

        async def one() -> None:
            nonlocal most, refused
            try:
                await g.lifecycle.create("alice")
            except Refusal as refusal:
                assert refusal.code == "conflict"
                refused += 1
            most = max(most, list(world.alive.values()).count("alice"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
        assert most == 4
        assert list(world.alive.values()).count("alice") == 4
        assert all(g.lifecycle.records.get(session.id).status == "running" for session in others)
        assert len(g.lifecycle.records.of_user("alice")) == 50 - refused


async def test_at_the_cap_the_longest_idle_makes_room(path: Path) -> None:
    clock = Clock()
    with gateway(path, World(), max_live=2, clock=clock) as g:
        first = await g.lifecycle.create("alice")
        clock.seconds += 10
        second = await g.lifecycle.create("alice")
        g.lifecycle.activity.note(first.id)
        third = await g.lifecycle.create("alice")
        stopped = g.lifecycle.records.get(second.id)
        assert stopped.status == "stopped"
        assert stopped.error_message is not None
        assert third.readable_id in stopped.error_message
        assert g.lifecycle.records.get(first.id).status == "running"


async def test_at_the_cap_busy_sessions_are_kept(path: Path) -> None:
    world = World()
    with gateway(path, world, max_live=1) as g:
        busy = await g.lifecycle.create("alice")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_burn, world, busy)
            with pytest.raises(Refusal, match="limit") as refused:
                await g.lifecycle.create("alice")
            nursery.cancel_scope.cancel()
        assert refused.value.code == "conflict"
        assert g.lifecycle.records.get(busy.id).status == "running"


async def _burn(world: World, session: Session) -> None:
    while True:
        world.cpu[session.id] = world.cpu.get(session.id, 0.0) + 0.05
        await trio.sleep(0.01)


async def test_ports_come_back_to_whom_they_belonged(path: Path) -> None:
    with gateway(path, World()) as g:
        first = await g.lifecycle.create("alice")
        await g.lifecycle.stop(first)
        second = await g.lifecycle.create("bob")
        assert second.port_base == first.port_base, "what nobody holds is given away"
        again = await g.lifecycle.resume(first)
        assert again.port_base not in (None, second.port_base)
        await g.lifecycle.stop(second)
        third = await g.lifecycle.resume(second)
        assert third.port_base == second.port_base, "its own again, when free"


async def test_ports_that_are_really_bound_are_skipped(path: Path) -> None:
    with gateway(path, World()) as g, socket.socket() as squatter:
        expected = await g.lifecycle.create("alice")
        await g.lifecycle.stop(expected)
        assert expected.port_base is not None
        squatter.bind(("127.0.0.1", expected.port_base + 5))
        squatter.listen()
        session = await g.lifecycle.resume(expected)
        assert session.port_base not in range(expected.port_base - 12, expected.port_base + 13)


async def test_an_exhausted_range_is_said(path: Path) -> None:
    with gateway(path, World(), blocks=2) as g:
        await g.lifecycle.create("alice")
        await g.lifecycle.create("bob")
        with pytest.raises(Refusal, match="ports") as refused:
            await g.lifecycle.create("alice")
        assert refused.value.status == 503
        assert refused.value.hint is not None
        assert "container.base_port" in refused.value.hint
        assert len(g.lifecycle.records.of_user("alice")) == 1, "nothing half-made stays"


@pytest.mark.parametrize(
    ("mode", "running", "stopped"),
    [("off", "new", "new"), ("attach", "same", "new"), ("resume", "same", "same"), ("on", "same", "same")],
)
async def test_auto_attach(path: Path, mode: str, running: str, stopped: str) -> None:
    with gateway(path, World(), sessions={"auto_attach": mode}) as g:
        first = await g.lifecycle.create("alice")
        found = await g.lifecycle.get_or_create("alice")
        assert (found.id == first.id) == (running == "same")
        for session in g.lifecycle.records.of_user("alice"):
            await g.lifecycle.stop(session)
        newest = g.lifecycle.records.of_user("alice")[0]
        found = await g.lifecycle.get_or_create("alice")
        assert (found.id == newest.id) == (stopped == "same")


@pytest.mark.parametrize("scan", [True, False])
async def test_auto_attach_scan_looks_before_it_attaches(path: Path, scan: bool) -> None:
    world = World()
    settings = {"auto_attach": "attach", "auto_attach_scan": scan}
    with gateway(path, world, sessions=settings) as g:
        dead = await g.lifecycle.create("alice")
        world.alive.clear()
        assert ((await g.lifecycle.get_or_create("alice")).id == dead.id) != scan


def idle(minutes: float, interval: float) -> dict[str, object]:
    return {"idle_timeout_minutes": minutes, "idle_check_interval_seconds": interval}


async def test_the_idle_are_stopped_and_told_why(path: Path) -> None:
    clock = Clock()
    with gateway(path, World(), clock=clock, sessions=idle(1, 10)) as g:
        unused, used = await g.lifecycle.create("alice"), await g.lifecycle.create("alice")
        assert g.reaper.seconds_left(unused) == 60
        for _ in range(7):
            clock.seconds += 10
            g.lifecycle.activity.note(used.id)
            await g.reaper.look()
        stopped = g.lifecycle.records.get(unused.id)
        assert stopped.status == "stopped"
        assert stopped.error_message is not None
        assert "idle_timeout_minutes" in stopped.error_message
        assert g.lifecycle.records.get(used.id).status == "running"


async def test_the_busy_are_kept_until_they_are_done(path: Path) -> None:
    clock, world = Clock(), World()
    with gateway(path, world, clock=clock, sessions=idle(1, 10) | {"busy_cpu_percent": 5}) as g:
        session = await g.lifecycle.create("alice")
        for _ in range(20):
            clock.seconds += 10
            world.cpu[session.id] = world.cpu.get(session.id, 0.0) + 0.6
            await g.reaper.look()
        assert g.lifecycle.records.get(session.id).status == "running"
        assert g.reaper.busy(session)
        for _ in range(8):
            clock.seconds += 10
            world.cpu[session.id] += 0.4  # 4 percent: not busy
            await g.reaper.look()
        assert not g.reaper.busy(session)
        assert g.lifecycle.records.get(session.id).status == "stopped"


@pytest.mark.parametrize("settings", [idle(0, 1), idle(1, 0)])
async def test_never(path: Path, settings: dict[str, object]) -> None:
    with gateway(path, World(), sessions=settings) as g:
        session = await g.lifecycle.create("alice")
        assert not g.reaper.works
        assert g.reaper.idle_at(session) is None


async def test_activity_outlives_the_gateway(path: Path) -> None:
    clock, world = Clock(), World()
    with gateway(path, world, clock=clock) as g:
        session = await g.lifecycle.create("alice")
        clock.seconds += 30
        g.lifecycle.activity.note(session.id)
        await g.lifecycle.activity.close()
    clock.seconds += 5
    with gateway(path, world, clock=clock) as g:
        assert g.lifecycle.activity.idle(g.lifecycle.records.get(session.id)) == 5


async def test_a_pass_over_ten_thousand_recorded_sessions_looks_at_the_due_only(path: Path) -> None:
    clock = Clock()
    with gateway(path, World(), clock=clock, sessions=idle(1, 10)) as g:
        session = await g.lifecycle.create("alice")
        await g.lifecycle.stop(session)
        row = g.database.row("SELECT * FROM sessions")
        assert row is not None
        names = row.keys()
        rows = [
            tuple(f"{row[name]}{n}" if name in ("id", "readable_id") else row[name] for name in names)
            for n in range(10_000)
        ]
        marks = ", ".join("?" * len(names))
        await g.database.write(lambda x: x.executemany(f"INSERT INTO sessions VALUES ({marks})", rows))
        plan = g.database.rows(
            "EXPLAIN QUERY PLAN SELECT * FROM sessions WHERE status = 'running' AND active_clock <= 5"
        )
        assert "sessions_by_status" in plan[0]["detail"]
        clock.seconds += 100
        await g.reaper.look()


Disturb = Callable[[Gateway, World], None]


@pytest.mark.parametrize("cleanup", [True, False])
@pytest.mark.parametrize("stop", [True, False])
async def test_the_four_ways_to_end_and_start(path: Path, cleanup: bool, stop: bool) -> None:
    world = World()
    settings = {"local": {"cleanup_on_startup": cleanup, "stop_sessions_on_shutdown": stop}}
    with gateway(path, world, **settings) as g:
        session = await g.lifecycle.create("alice")
        await g.recovery.shut_down()
        assert (session.id in world.alive) == (not stop)
    with gateway(path, world, **settings) as g:
        await g.recovery.reconcile(boot_id="one")
        lives = not (cleanup or stop)
        assert (session.id in world.alive) == lives
        found = g.lifecycle.records.get(session.id)
        assert found.status == ("running" if lives else "stopped")
        if not lives:
            key = "stop_sessions_on_shutdown" if stop else "cleanup_on_startup"
            assert key in (found.error_message or "")


async def test_after_a_reboot_all_are_stopped_with_the_reason(path: Path) -> None:
    world = World()
    with gateway(path, world) as g:
        await g.recovery.reconcile(boot_id="one")
        session = await g.lifecycle.create("alice")
    world.alive.clear()
    world.reachable = False  # nobody is asked
    with gateway(path, world) as g:
        await g.recovery.reconcile(boot_id="two")
        found = g.lifecycle.records.get(session.id)
        assert (found.status, found.error_message) == ("stopped", "the host was restarted")
        world.reachable = True
        assert (await g.lifecycle.resume(found)).status == "running"


@pytest.mark.parametrize("fail_fast", [True, False])
async def test_fail_fast_ends_the_round_and_the_rest_comes_later(path: Path, fail_fast: bool) -> None:
    world = World()
    with gateway(path, world) as g:
        for user in ("alice", "bob"):
            await g.lifecycle.create(user)
    world.reachable = False
    with gateway(path, world, runtime={"fail_fast": fail_fast}) as g:
        await g.recovery.reconcile(boot_id="one")
        tried = set(g.recovery._pauses)
        assert len(tried) == (1 if fail_fast else 2)
        world.reachable = True
        g.recovery._pauses.clear()
        world.alive.clear()
        await g.recovery.settle()
        assert not g.lifecycle.records.live()


async def test_what_nobody_has_on_record_is_ended(path: Path) -> None:
    world = World()
    with gateway(path, world) as g:
        kept = await g.lifecycle.create("alice")
    world.alive["stray"] = "alice"
    with gateway(path, world) as g:
        await g.recovery.reconcile(boot_id="one")
    assert set(world.alive) == {kept.id}


@pytest.mark.parametrize("remove", [True, False])
async def test_a_departure_is_finished_whatever_happens(path: Path, remove: bool) -> None:
    world = World()
    with gateway(path, world) as g:
        mine, theirs = await g.lifecycle.create("alice"), await g.lifecycle.create("bob")
        world.reachable = False
        with pytest.raises(Refusal):
            await g.departures.leave("alice", remove_account=remove)
        with pytest.raises(Refusal, match="disabled"):
            world.reachable = True
            await g.lifecycle.create("alice")
    with gateway(path, world) as g:
        await g.recovery.reconcile(boot_id="one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(g.departures.keep)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        assert set(world.alive) == {theirs.id}
        assert not g.database.rows("SELECT * FROM departures")
        assert {row["session_id"] for row in g.database.rows("SELECT * FROM ports")} == {theirs.id}
        assert (g.lifecycle.records.found(mine.id) is None) == remove
        users = [row["id"] for row in g.database.rows("SELECT id FROM users WHERE is_active")]
        assert users == ["bob"]


async def test_starts_are_limited(path: Path) -> None:
    world = World(3)
    most = running = 0
    with gateway(path, world, max_live=10, runtime={"parallelism": 2}) as g:
        start = g.lifecycle.runners.start

        async def counted(session: Session) -> object:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await trio.testing.wait_all_tasks_blocked(0.05)
            running -= 1
            return await start(session)

        g.lifecycle.runners.start = counted  # type: ignore[method-assign,assignment]  # watched, not replaced
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(g.lifecycle.create, "alice")
    assert most == 2
