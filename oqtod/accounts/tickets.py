"""Tickets: what a page puts into a WebSocket's URL in place of its token. Good once, for half a minute."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

LIFETIME = 30
"""Seconds a ticket is good for."""

MAX_TICKETS = 10_000
"""Tickets that are kept; the oldest goes first."""

P = TypeVar("P")


class Tickets(Generic[P]):
    """The tickets of one gateway, each for what it stands for. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._given: OrderedDict[str, tuple[P, float]] = OrderedDict()

    def give(self, principal: P) -> str:
        """Return a new ticket."""
        ticket = secrets.token_urlsafe(32)
        self._given[ticket] = principal, self._clock() + LIFETIME
        while len(self._given) > MAX_TICKETS:
            self._given.popitem(last=False)
        return ticket

    def take(self, ticket: str) -> P | None:
        """Return what a ticket stands for, once."""
        principal, until = self._given.pop(ticket, (None, 0.0))
        return principal if self._clock() < until else None
