"""Snapshots of the host and of who uses it: taken while somebody watches, once for all who do."""

from __future__ import annotations

from collections import Counter

import psutil
import trio

from oqtod.clock import now
from oqtod.sessions.context import Gateway
from oqtod.sessions.usage import Meter, Reading
from oqtod.store.database import StorageError

INTERVAL = 2.0
"""Seconds between two snapshots."""

_FIRST = 0.2
"""Seconds over which use of the processor is measured where there is no snapshot to count from."""

_FRESH = 3 * INTERVAL
"""Seconds after which nobody was watching any more, and a new measurement begins."""


class HostUse:
    """The snapshots of one gateway: those who ask within an interval get the same one."""

    def __init__(self, gateway: Gateway) -> None:
        self._sessions = gateway.sessions
        self._meter = Meter(gateway.sessions)
        self._taking = trio.Lock()
        self._taken = float("-inf")
        self._snapshot: dict[str, object] = {}
        self._busy = self._total = 0.0

    async def snapshot(self) -> dict[str, object]:
        """Return the present snapshot. `error` says what is missing from it, and why."""
        async with self._taking:
            age = trio.current_time() - self._taken
            if age > _FRESH:
                await self._begin()
            if age >= INTERVAL:
                self._snapshot = await self._take()
                self._taken = trio.current_time()
            return self._snapshot

    async def _begin(self) -> None:
        """Take what the first snapshot counts from."""
        self._cpu_percent()
        try:
            await self._meter.read(max_age=0)
        except StorageError:
            pass  # the snapshot that follows tells of it
        await trio.sleep(_FIRST)

    async def _take(self) -> dict[str, object]:
        error, states, reading = None, Counter[str](), Reading(trio.current_time())
        try:
            states = Counter(session.status for session in self._sessions.records.live())
            reading = await self._meter.read(max_age=0)
        except StorageError as failure:
            error = str(failure)
        if reading.silent:
            error = f"the runners of {', '.join(sorted(reading.silent))} don't say what their sessions use"
        memory = psutil.virtual_memory()
        return {
            "timestamp": now(),
            "host": {
                "cpu_percent": self._cpu_percent(),
                "mem_total_bytes": memory.total,
                "mem_used_bytes": memory.used,
                "mem_available_bytes": memory.available,
            },
            "containers": [],
            "sessions": states,
            "session_use": [
                {"id": one.session.id, "readable_id": one.session.readable_id, "user_id": one.session.user_id}
                | _use(one.usage.memory, one.usage.tasks, one.cpus)
                for one in reading.sessions
            ],
            "users": [
                {"user_id": user_id, "sessions": use.sessions} | _use(use.memory, use.tasks, use.cpus)
                for user_id, use in reading.by_user().items()
            ],
            "error": error,
        }

    def _cpu_percent(self) -> float:
        """Return how busy the host's processors were since this was last asked.

        psutil's own cpu_percent counts for a whole process, whoever in it asks.
        """
        times = psutil.cpu_times()
        # Guests' time is in user and nice already, proc_stat(5).
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        busy = total - times.idle - getattr(times, "iowait", 0.0)
        passed, worked = total - self._total, busy - self._busy
        self._total, self._busy = total, busy
        return round(min(100.0, max(0.0, worked / passed * 100)), 1) if passed > 0 else 0.0


def _use(memory: int, tasks: int, cpus: float | None) -> dict[str, object]:
    percent = round(cpus * 100, 1) if cpus is not None else None
    return {"memory_bytes": memory, "cpu_percent": percent, "tasks": tasks}
