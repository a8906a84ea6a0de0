"""A runner for tests of the life of sessions: keeps the promises of runner/protocol/messages.py, in memory.

Its contract: StartSession, StopSession and ListSessions are idempotent; a session lives from the moment that
a start took effect until a stop did, or the host was restarted, or its processes crashed; any call may take
effect and then not be answered. What the real runner does beyond that, the tests in tests/system show.
"""

from __future__ import annotations

import random
import socket

import trio

from oqtod.errors import Refusal
from oqtod.placements.accounts import RunnerAddress
from oqtod.placements.runners import Unanswered
from oqtod.sessions.model import Session
from runner.protocol.messages import ServiceName, SessionStatus, Usage


class Killed(BaseException):
    """The gateway was killed: nothing of it runs after this, no clean-up either."""


class World:
    """What outlives a gateway: the processes on the host, and the chance that rules them."""

    def __init__(self, seed: int = 0) -> None:
        self.alive: dict[str, str] = {}
        """User by session, for sessions with processes."""
        self.cpu: dict[str, float] = {}
        self.reachable = True
        self.removed: set[str] = set()
        self.chance = random.Random(seed)
        self.unreliable = 0.0
        """How often a call is not answered, 0 to 1."""


class ModelRunners:
    """What `oqtod.placements.runners.Runners` is to one gateway, over a `World`."""

    def __init__(self, world: World, *, dies_after: int | None = None) -> None:
        self._world = world
        self._steps_left = dies_after

    async def _step(self) -> None:
        """One moment in which anything can happen in between."""
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise Killed
        for _ in range(self._world.chance.randrange(3)):
            await trio.lowlevel.checkpoint()

    async def _reached(self) -> None:
        await self._step()
        if not self._world.reachable:
            raise Unanswered("unavailable", "the runner did not answer")

    async def _answered(self) -> None:
        await self._step()
        if self._world.chance.random() < self._world.unreliable:
            raise Unanswered("unavailable", "the runner did not answer")

    async def address(self, user_id: str) -> RunnerAddress:
        return RunnerAddress(f"oqto_{user_id}", 2000, f"/home/oqto_{user_id}", "/nowhere")

    def workspace_root(self, user_id: str, address: RunnerAddress) -> str:
        return f"{address.home}/oqto/{user_id}"

    async def start(self, session: Session) -> SessionStatus:
        await self._reached()
        if session.workspace_path.endswith("/refused"):
            raise Refusal("bad_request", "the workspace can't be made")
        self._world.alive[session.id] = session.user_id
        await self._answered()
        return self._status(session.id)

    async def stop(self, session: Session) -> None:
        await self.stop_by_id(session.user_id, session.id)

    async def stop_by_id(self, user_id: str, session_id: str) -> None:
        await self._reached()
        self._world.alive.pop(session_id, None)
        await self._answered()

    async def statuses(self, user_id: str) -> dict[str, SessionStatus]:
        await self._reached()
        return {key: self._status(key) for key, owner in self._world.alive.items() if owner == user_id}

    async def open(self, session: Session, service: ServiceName) -> socket.socket:
        await self._reached()
        if session.id not in self._world.alive:
            raise Refusal("conflict", "the session does not run here")
        near, far = socket.socketpair()
        far.close()
        return near

    async def forget(self, session: Session) -> None:
        await self._reached()
        assert session.id not in self._world.alive, "only what is kept of a session that has ended"
        await self._answered()

    async def end(self, user_id: str, *, remove: bool, remove_home: bool) -> None:
        await self._reached()
        for session_id in [key for key, owner in self._world.alive.items() if owner == user_id]:
            del self._world.alive[session_id]
        if remove:
            self._world.removed.add(user_id)
        await self._answered()

    def _status(self, session_id: str) -> SessionStatus:
        return SessionStatus(session_id, "/w", {}, Usage(cpu=self._world.cpu.get(session_id, 0.0)))
