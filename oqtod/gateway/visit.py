"""A request for a session's service, as the accounts see it: let in or not, and written down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from oqtod.accounts import access
from oqtod.accounts.authenticator import Asked
from oqtod.accounts.principal import Principal
from oqtod.accounts.trail import Trail, actor_of
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.telemetry.audit import Line


class Visit:
    """One request. `address` is where it came from, `path` decoded and without the query."""

    def __init__(
        self, gateway: Gateway, request_id: str, address: str, method: str, path: str, session: str
    ) -> None:
        self._gateway = gateway
        self._trail = Trail(gateway.audit)
        self._address = address
        self._line = Line(
            event="request.denied",
            outcome="denied",
            request_id=request_id,
            actor=actor_of(None, address),
            method=method,
            path=path,
            session_id=session,
        )

    async def admit(self, asked: Asked, known: Principal | None) -> Principal:
        """Return who asks, when they may. Raises Refusal, having written it down.

        `known` is who the kernel says it is, at the admin socket.
        """
        authenticator = self._gateway.accounts.authenticator
        principal = known
        try:
            if principal is None:
                authenticator.check_host(asked)
                principal = await authenticator.authenticate(asked)
            authenticator.authorize(principal, access.needed(asked.method, self._line.path or ""))
        except Refusal as refusal:
            if refusal.status in (401, 403):
                self._write(principal, status=refusal.status, detail=refusal.message)
            raise
        return principal

    @contextmanager
    def websocket(self, principal: Principal) -> Iterator[None]:
        """Write down that a WebSocket is opened, and at the end that it is closed."""
        begun = trio.current_time()
        self._write(principal, event="websocket.open", outcome="success")
        try:
            yield
        finally:
            duration = round((trio.current_time() - begun) * 1000, 1)
            self._write(principal, event="websocket.close", outcome="success", duration_ms=duration)

    def _write(self, principal: Principal | None, **fields: object) -> None:
        values: dict[str, object] = {name: getattr(self._line, name) for name in self._line.__struct_fields__}
        del values["timestamp"]
        values |= {
            "actor": actor_of(principal, self._address),
            "user_id": principal.user.id if principal is not None else None,
            **fields,
        }
        self._trail.write(Line(**values))  # type: ignore[arg-type]  # fields of Line, by name
