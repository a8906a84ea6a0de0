"""A request for a session's service, as the accounts see it: let in or not, and written down."""

from __future__ import annotations

from collections.abc import Hashable
from urllib.parse import unquote_to_bytes

import trio

from oqtod.accounts import access
from oqtod.accounts.authenticator import Asked
from oqtod.accounts.principal import Principal
from oqtod.accounts.trail import Trail, actor_of
from oqtod.errors import Refusal
from oqtod.gateway.heads import RequestHead
from oqtod.gateway.targets import Target
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session
from oqtod.telemetry.audit import Line


class Visit:
    """One request. `address` is where it came from."""

    __slots__ = (
        "_address",
        "_begun",
        "_gateway",
        "_method",
        "_request_id",
        "principal",
        "session",
        "target",
    )

    principal: Principal
    session: Session

    def __init__(
        self, gateway: Gateway, request_id: str, address: str, head: RequestHead, target: Target
    ) -> None:
        self._gateway = gateway
        self._request_id = request_id
        self._address = address
        self._method = head.method.decode()
        self._begun = 0.0
        self.target = target

    @property
    def key(self) -> Hashable | None:
        """What a connection to the service is good for: this session since its start, and no other.

        None while the session isn't running.
        """
        session, target = self.session, self.target
        if session.status != "running":
            return None
        return session.id, session.started_at, target.service, target.port

    def admit_at_once(self, head: RequestHead, known: Principal | None) -> bool:
        """Let in who may come in; False where somebody else must be asked who that is, as `admit` does.

        `known` is who the kernel says it is, at the admin socket. Raises Refusal, having written it down.
        """
        principal = known
        try:
            if principal is None:
                authenticator = self._gateway.accounts.authenticator
                asked = self._asked(head)
                authenticator.check_host(asked)
                principal = authenticator.recognize(asked)
                if principal is None:
                    return False
            self._enter(principal)
        except Refusal as refusal:
            self._refused(principal, refusal)
            raise
        return True

    async def admit(self, head: RequestHead) -> None:
        """Let in who may come in. Raises Refusal, having written it down."""
        principal = None
        try:
            principal = await self._gateway.accounts.authenticator.authenticate(self._asked(head))
            self._enter(principal)
        except Refusal as refusal:
            self._refused(principal, refusal)
            raise

    def note(self) -> None:
        """Somebody does something here."""
        self._gateway.sessions.activity.note(self.session.id)

    def opened(self) -> None:
        """Write down that a WebSocket is open."""
        self._begun = trio.current_time()
        self._write(self.principal, event="websocket.open", outcome="success")

    def closed(self) -> None:
        """Write down that it is closed."""
        duration = round((trio.current_time() - self._begun) * 1000, 1)
        self._write(self.principal, event="websocket.close", outcome="success", duration_ms=duration)

    def _enter(self, principal: Principal) -> None:
        self.principal = principal
        need = access.needed_for(self._method, self.target.service or "ports")
        self._gateway.accounts.authenticator.authorize(principal, need)
        self.session = self._gateway.sessions.records.find(principal.user.id, self.target.session)

    def _asked(self, head: RequestHead) -> Asked:
        asked = head.asked
        if asked is None:
            asked = head.asked = Asked.of_found(self._method, self.target.query, head.found)
        return asked

    def _refused(self, principal: Principal | None, refusal: Refusal) -> None:
        if refusal.status in (401, 403):
            self._write(
                principal,
                event="request.denied",
                outcome="denied",
                status=refusal.status,
                detail=refusal.message,
            )

    def _write(self, principal: Principal | None, **fields: object) -> None:
        path = unquote_to_bytes(self.target.prefix + self.target.path).decode("utf-8", "replace")
        values: dict[str, object] = {
            "request_id": self._request_id,
            "actor": actor_of(principal, self._address),
            "user_id": principal.user.id if principal is not None else None,
            "method": self._method,
            "path": path,
            "session_id": self.target.session,
        }
        line = Line(**(values | fields))  # type: ignore[arg-type]  # fields of Line, by name
        Trail(self._gateway.audit).write(line)
