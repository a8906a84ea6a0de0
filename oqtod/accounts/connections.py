"""Connections that stay open, by the credentials that opened them: what is revoked is cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from oqtod.accounts.principal import Principal


class Connections:
    """The long connections of one gateway: WebSockets, event streams."""

    def __init__(self) -> None:
        self._open: dict[trio.CancelScope, Principal] = {}

    @contextmanager
    def held(self, principal: Principal) -> Iterator[None]:
        """Run what is within for as long as the principal's credentials are good; then it is cancelled."""
        with trio.CancelScope() as scope:
            self._open[scope] = principal
            try:
                yield
            finally:
                del self._open[scope]

    def cut(self, revoked: Callable[[Principal], bool]) -> None:
        """End every connection of a principal that this is true of."""
        for scope, principal in list(self._open.items()):
            if revoked(principal):
                scope.cancel()

    def cut_user(self, user_id: str) -> None:
        """End every connection of a user."""
        self.cut(lambda principal: principal.user.id == user_id)
