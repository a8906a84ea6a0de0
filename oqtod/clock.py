"""Time as it is stored and shown."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


def now() -> str:
    """Return the present in UTC as RFC 3339 with microseconds; such texts sort by time."""
    return later(0)


def later(seconds: float) -> str:
    """Return the moment in that many seconds, as `now` writes it."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def elapsed() -> float:
    """Return the seconds since the host started, time asleep included, which setting the clock can't move.

    CLOCK_BOOTTIME of clock_gettime(2): unlike CLOCK_MONOTONIC it is comparable from one process to the next
    whatever the process did, and counts a suspended laptop's night.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
