"""/api/admin/ports: which ports live sessions hold, and who really listens there."""

from __future__ import annotations

import functools
import pwd
from typing import Literal

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from oqtod.api.contract import Endpoint
from oqtod.api.requests import json
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session
from oqtod.sessions.ports import BLOCK, listeners, preview_ports


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """Who listens on a port."""

    uid: int
    account: str | None


PortPurpose = Literal["agent", "fileserver", "terminal", "preview", "stream"]

_NAMES: tuple[PortPurpose, ...] = ("agent", "fileserver", "terminal")


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port that a live session holds. `foreign` says that somebody else listens there."""

    port: int
    purpose: PortPurpose
    session_id: str
    readable_id: str
    user_id: str
    linux_user: str | None
    listener: Listener | None
    foreign: bool


class AdminPorts:
    """The endpoint. The gate has seen to it that an administrator asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the route."""
        return [Endpoint("GET", "/api/admin/ports", self.list_ports, answers={200: list[Port]})]

    async def list_ports(self, request: Request) -> Response:
        """List the ports of live sessions, in order; those that nobody listens at too.

        A program in a sandbox without network listens there, where nobody else does; it isn't seen.
        """
        return json(await trio.to_thread.run_sync(self._ports, self._gateway.sessions.records.live()))

    def _ports(self, sessions: list[Session]) -> list[Port]:
        found, listening = [], listeners()
        for session in sessions:
            for port, purpose in _held(session):
                uid = listening.get(port)
                listener = None if uid is None else Listener(uid=uid, account=_account(uid))
                found.append(
                    Port(
                        port=port,
                        purpose=purpose,
                        session_id=session.id,
                        readable_id=session.readable_id,
                        user_id=session.user_id,
                        linux_user=session.linux_user,
                        listener=listener,
                        foreign=listener is not None and listener.account != session.linux_user,
                    )
                )
        return sorted(found, key=lambda each: each.port)


def _held(session: Session) -> list[tuple[int, PortPurpose]]:
    """Return the ports of a session, and what each is for."""
    held: list[tuple[int, PortPurpose]] = []
    if session.port_base is not None:
        previews = preview_ports(session.port_base)
        names = {session.port_base + i: name for i, name in enumerate(_NAMES)}
        block = range(session.port_base, session.port_base + BLOCK)
        held = [(port, "preview" if port in previews else names[port]) for port in block]
    if session.stream_port is not None:
        held.append((session.stream_port, "stream"))
    return held


@functools.lru_cache(maxsize=1024)
def _account(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
