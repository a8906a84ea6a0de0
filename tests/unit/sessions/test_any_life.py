"""Any interleaving of what people, crashes and restarts do to sessions keeps the promises of the design."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import trio
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oqtod.errors import Refusal
from oqtod.sessions.model import LIVE
from tests.unit.sessions.gateways import USERS, Clock, Gateway, gateway
from tests.unit.sessions.model_runner import Killed, World

CAP = 3
TIMEOUT = 60.0

one_user = st.sampled_from(USERS)
which = st.integers(min_value=0, max_value=5)
act = st.one_of(
    st.tuples(st.sampled_from(["create", "create badly", "get or create"]), one_user, which),
    st.tuples(st.sampled_from(["stop", "resume", "delete", "open", "look"]), one_user, which),
    st.tuples(st.sampled_from(["reap", "settle"]), one_user, which),
)


class Lives(RuleBasedStateMachine):
    """What one gateway does at once, killed in the middle or not; and events from outside."""

    @initialize(seed=st.integers(min_value=0, max_value=2**32))
    def begin(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="oqtod-lives-"))
        self.world = World(seed)
        self.clock = Clock()
        self.boot = 0
        self.acknowledged: dict[str, str] = {}
        """By session, what must be so: its state, that it is "known" at all, or "deleted"."""

    def run(self, *acts: tuple[str, str, int], dies_after: int | None = None, settle: bool = False) -> None:
        """Start a gateway, do all of `acts` at once, and end it; `settle` lets it finish its business."""

        async def live() -> None:
            with gateway(
                self.folder / "db",
                self.world,
                clock=self.clock,
                dies_after=dies_after,
                max_live=CAP,
                sessions={"idle_timeout_minutes": TIMEOUT / 60, "idle_check_interval_seconds": TIMEOUT},
                runtime={"fail_fast": self.world.chance.random() < 0.5},
            ) as opened:
                await opened.recovery.reconcile(boot_id=str(self.boot))
                async with trio.open_nursery() as nursery:
                    for what, user, number in acts:
                        nursery.start_soon(self.do, opened, what, user, number)
                if settle:
                    await self.settled(opened)

        try:
            trio.run(live, strict_exception_groups=True)
        except* Killed:
            assert dies_after is not None

    async def settled(self, opened: Gateway) -> None:
        opened.recovery._pauses.clear()
        await opened.recovery.settle()
        records = opened.lifecycle.records
        live = records.live()
        assert {session.id for session in live} == set(self.world.alive), "recorded and real differ"
        assert {session.status for session in live} <= {"running"}
        for session_id, status in self.acknowledged.items():
            known = records.found(session_id)
            assert (known is None) == (status == "deleted"), f"{session_id} was answered as {status}"
            if known is not None and status == "running":
                assert known.status == status

    async def do(self, opened: Gateway, what: str, user: str, number: int) -> None:
        lifecycle = opened.lifecycle
        sessions = lifecycle.records.of_user(user)
        session = sessions[number % len(sessions)] if sessions else None
        with contextlib.suppress(Refusal):
            if what.startswith("create"):
                path = "refused" if what == "create badly" else None
                self.acknowledged[(await lifecycle.create(user, workspace_path=path)).id] = "known"
            elif what == "get or create":
                self.acknowledged[(await lifecycle.get_or_create(user)).id] = "known"
            elif what == "reap":
                await opened.reaper.look()
            elif what == "settle":
                await opened.recovery.settle()
            elif what == "look":
                await lifecycle.look_after(user)
            elif session is not None:
                if what == "stop":
                    await lifecycle.stop(session)
                elif what == "resume":
                    await lifecycle.resume(session)
                elif what == "open":
                    (await lifecycle.open(session, "terminal")).close()
                elif what == "delete":
                    self.acknowledged.pop(session.id, None)
                    await lifecycle.delete(session)
                    self.acknowledged[session.id] = "deleted"

    def unsure(self) -> None:
        """Only that sessions exist, or don't, is sure any more."""
        self.acknowledged = {k: x if x == "deleted" else "known" for k, x in self.acknowledged.items()}

    @rule(acts=st.lists(act, min_size=1, max_size=6))
    def at_once(self, acts: list[tuple[str, str, int]]) -> None:
        self.unsure()
        self.run(*acts)

    @rule(acts=st.lists(act, min_size=1, max_size=4), dies_after=st.integers(min_value=0, max_value=12))
    def killed(self, acts: list[tuple[str, str, int]], dies_after: int) -> None:
        self.unsure()
        self.run(*acts, dies_after=dies_after)

    @rule(user=one_user)
    def one_alone(self, user: str) -> None:
        """Nothing else happens: what was answered is what is."""

        async def live() -> None:
            with gateway(self.folder / "db", self.world, clock=self.clock, max_live=CAP) as opened:
                await opened.recovery.reconcile(boot_id=str(self.boot))
                try:
                    session = await opened.lifecycle.create(user)
                except Refusal:
                    return
                assert session.status == "running"
                assert session.id in self.world.alive
                self.unsure()
                self.acknowledged[session.id] = "running"

        trio.run(live, strict_exception_groups=True)

    @rule(number=which)
    def processes_crash(self, number: int) -> None:
        alive = sorted(self.world.alive)
        self.unsure()
        if alive:
            del self.world.alive[alive[number % len(alive)]]

    @rule()
    def host_is_restarted(self) -> None:
        self.boot += 1
        self.world.alive.clear()
        self.unsure()

    @rule(unreliable=st.sampled_from([0.0, 0.3]), reachable=st.booleans())
    def runners_change(self, unreliable: float, reachable: bool) -> None:
        self.world.unreliable, self.world.reachable = unreliable, reachable

    @rule(seconds=st.sampled_from([1.0, TIMEOUT / 2, TIMEOUT * 3]))
    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule()
    def calm(self) -> None:
        """With runners that answer, record and reality agree after one start."""
        self.world.unreliable, self.world.reachable = 0.0, True
        self.run(settle=True)

    @invariant()
    def promises(self) -> None:
        if not hasattr(self, "folder") or not (self.folder / "db").exists():
            return
        with gateway(self.folder / "db", self.world) as opened:
            sessions = [x for user in USERS for x in opened.lifecycle.records.of_user(user)]
            held = opened.database.rows("SELECT port, session_id FROM ports")
        by_id = {session.id: session for session in sessions}
        for row in held:
            assert by_id[row["session_id"]].status in LIVE, "a session at rest holds a port"
        for session in sessions:
            if session.live:
                ports = {row["port"] for row in held if row["session_id"] == session.id}
                assert session.port_base is not None
                assert ports >= set(range(session.port_base, session.port_base + 13))
        for user in USERS:
            assert sum(x.live for x in sessions if x.user_id == user) <= CAP
        # At rest means: nothing runs. (The other way round, "live but nothing runs", is found at a look.)
        for session_id in self.world.alive:
            assert by_id[session_id].live, "a session at rest has processes"

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
