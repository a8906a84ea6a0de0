"""Connections that stay open, by the credentials that opened them: what is revoked is cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from oqtod.accounts.principal import Principal


class Held(Protocol):
    """Something that goes on, and can be made to end."""

    def cancel(self) -> None:
        """End it, now."""


class Connections:
    """The long connections of one gateway: WebSockets, event streams, requests to services."""

    def __init__(self) -> None:
        self._open: dict[Held, Principal] = {}

    def hold(self, held: Held, principal: Principal) -> None:
        """Have something cancelled when the principal's credentials are good no more; until `drop`."""
        self._open[held] = principal

    def drop(self, held: Held) -> None:
        """Forget it: it is over."""
        self._open.pop(held, None)

    @contextmanager
    def held(self, principal: Principal) -> Iterator[None]:
        """Run what is within for as long as the principal's credentials are good; then it is cancelled."""
        with trio.CancelScope() as scope:
            self.hold(scope, principal)
            try:
                yield
            finally:
                self.drop(scope)

    def cut(self, revoked: Callable[[Principal], bool]) -> None:
        """End every connection of a principal that this is true of."""
        for held, principal in list(self._open.items()):
            if revoked(principal):
                held.cancel()

    def cut_user(self, user_id: str) -> None:
        """End every connection of a user."""
        self.cut(lambda principal: principal.user.id == user_id)
