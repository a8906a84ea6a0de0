"""What the sessions use of the host, as their runners say: asked once for all who want to know at a time."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

import trio

from oqtod.errors import Refusal
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.sessions.model import Session
from runner.protocol.messages import Usage

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds in which a runner must answer; one that doesn't is left out."""

_AT_ONCE = 32
"""Runners that are asked at the same time."""


@dataclass(frozen=True, slots=True)
class SessionUse:
    """What one running session uses. `cpus` is the average since the reading before, None without one."""

    session: Session
    usage: Usage
    cpus: float | None


@dataclass(slots=True)
class UserUse:
    """What a user's running sessions use together."""

    sessions: int = 0
    memory: int = 0
    tasks: int = 0
    cpus: float | None = None

    def add(self, other: UserUse) -> None:
        """Make it the use of both."""
        self.sessions += other.sessions
        self.memory += other.memory
        self.tasks += other.tasks
        if other.cpus is not None:
            self.cpus = (self.cpus or 0.0) + other.cpus


@dataclass(frozen=True, slots=True)
class Reading:
    """What all sessions used at a moment, `at` by trio's clock; `silent` users' runners didn't answer."""

    at: float
    sessions: list[SessionUse] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    def by_user(self) -> dict[str, UserUse]:
        """Return what each user with running sessions uses."""
        users: dict[str, UserUse] = defaultdict(UserUse)
        for one in self.sessions:
            use = UserUse(1, one.usage.memory, one.usage.tasks, one.cpus)
            users[one.session.user_id].add(use)
        return dict(sorted(users.items()))


class Meter:
    """Reads the use of the sessions of `lifecycle`. For each rhythm of reading one of its own."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._reading = trio.Lock()
        self._last: Reading | None = None
        self._asking = trio.CapacityLimiter(_AT_ONCE)

    async def read(self, *, max_age: float) -> Reading:
        """Return a reading that is less than `max_age` seconds old; whoever asks meanwhile gets the same.

        Raises StorageError.
        """
        async with self._reading:
            last = self._last
            if last is None or trio.current_time() - last.at >= max_age:
                last = self._last = await self._read(last)
            return last

    async def _read(self, before: Reading | None) -> Reading:
        running = {x.id: x for x in self._lifecycle.records.live() if x.status == "running"}
        reading = Reading(trio.current_time())
        known: dict[str, Usage] = {}
        async with trio.open_nursery() as nursery:
            for user_id in sorted({session.user_id for session in running.values()}):
                nursery.start_soon(partial(self._ask, user_id, known, reading.silent))
        used = {} if before is None else {x.session.id: x.usage.cpu for x in before.sessions}
        for session_id, session in running.items():
            usage = known.get(session_id)
            if usage is None:
                continue
            cpus = None
            if before is not None and session_id in used and reading.at > before.at:
                cpus = max(0.0, usage.cpu - used[session_id]) / (reading.at - before.at)
            reading.sessions.append(SessionUse(session, usage, cpus))
        return reading

    async def _ask(self, user_id: str, known: dict[str, Usage], silent: list[str]) -> None:
        async with self._asking:
            with trio.move_on_after(PATIENCE) as patience:
                try:
                    statuses = await self._lifecycle.runners.statuses(user_id)
                except Refusal as refusal:
                    log.debug("the runner of %s doesn't say what it uses: %s", user_id, refusal)
                    silent.append(user_id)
                else:
                    known.update((session_id, status.usage) for session_id, status in statuses.items())
        if patience.cancelled_caught:
            silent.append(user_id)
