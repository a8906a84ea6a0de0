"""Time as it is stored and shown."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Return the present in UTC as RFC 3339 with microseconds; such texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
