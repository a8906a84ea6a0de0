"""The event stream of a session: server-sent events, as the HTML standard writes them (section 9.2).

`session` events carry the session whenever something of it that matters has changed, `idle` events when it
will be stopped unless somebody uses it. `end` says that there is no such session any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import trio
from msgspec.structs import asdict

from oqtod.api import views
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session

LOOK_INTERVAL = 2.0
"""Seconds between two looks at what rings no bell: services that crash, use of the host."""

_QUIET = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the stream."""

_TOLD_BY_ITSELF = ("usage", "idle_at", "last_activity_at")


async def stream(
    gateway: Gateway, session: Session, view: Callable[[Session], Awaitable[views.Session]]
) -> AsyncIterator[bytes]:
    """Return the events of a session until it is deleted, or the client goes away."""
    told: object = None
    told_idle: object = None
    last = trio.current_time()
    with gateway.sessions.events.listen(session.id) as bell:
        while True:
            try:
                shown = asdict(await view(gateway.sessions.records.get(session.id)))
            except Refusal:
                yield _event("end", {"id": session.id})
                return
            essence = {key: value for key, value in shown.items() if key not in _TOLD_BY_ITSELF}
            idle = {key: shown[key] for key in ("idle_at", "last_activity_at", "busy")}
            present = trio.current_time()
            if essence != told:
                told, last = essence, present
                yield _event("session", shown)
            if _moved(idle, told_idle):
                told_idle, last = idle, present
                yield _event("idle", idle | {"seconds_left": gateway.reaper.seconds_left(session)})
            if present - last >= _QUIET:
                last = present
                yield b": still there\n\n"
            with trio.move_on_after(LOOK_INTERVAL):
                await bell.receive()


def _moved(idle: dict[str, object], told: object) -> bool:
    """Say whether the countdown has begun, ended or starts anew; that it goes on needs no telling."""
    if not isinstance(told, dict):
        return True
    return any((idle[key] is None) != (told[key] is None) for key in idle) or any(
        idle[key] != told[key] for key in ("last_activity_at", "busy")
    )


def _event(kind: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
