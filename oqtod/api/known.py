"""What runners say of sessions, as far as they can be asked just now: what is on record is shown still."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from runner.protocol.messages import SessionStatus

log = logging.getLogger(__name__)

_TIMEOUT = 5.0
"""Seconds that showing a session waits for its runner."""

_AT_ONCE = 16


async def of_user(gateway: Gateway, user_id: str) -> dict[str, SessionStatus]:
    """Return what a user's runner says of the user's sessions, by id; nothing while it can't be asked."""
    try:
        with trio.move_on_after(_TIMEOUT):
            return await gateway.sessions.look_after(user_id)
    except Refusal as refusal:
        log.warning("the runner of %s can't be asked: %s", user_id, refusal)
    return {}


async def of_users(gateway: Gateway, user_ids: Iterable[str]) -> dict[str, SessionStatus]:
    """Return what the runners of these users say, asked at the same time."""
    found: dict[str, SessionStatus] = {}
    slots = trio.CapacityLimiter(_AT_ONCE)

    async def ask(user_id: str) -> None:
        async with slots:
            found.update(await of_user(gateway, user_id))

    async with trio.open_nursery() as nursery:
        for user_id in set(user_ids):
            nursery.start_soon(ask, user_id)
    return found
