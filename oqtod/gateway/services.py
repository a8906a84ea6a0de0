"""The way to a session's services: a connected socket, which the account's runner made."""

from __future__ import annotations

import socket
from typing import Protocol

from oqtod.gateway.heads import RequestHead
from oqtod.gateway.targets import Target, target_of
from oqtod.gateway.visit import Visit
from oqtod.sessions import previews
from oqtod.sessions.context import Gateway


class Way(Protocol):
    """What the front asks where a request goes."""

    def target(self, head: RequestHead) -> Target | None:
        """Return what a request asks of a service, or None when it is the API's."""

    def visit(self, request_id: str, address: str, head: RequestHead, target: Target) -> Visit:
        """Return a request to a service, to be let in."""

    async def connect(self, visit: Visit) -> socket.socket:
        """Return a socket connected to what was asked for. Raises Refusal."""

    def check(self, visit: Visit) -> None:
        """Refuse what can't be reached now, whoever asks. Raises Refusal."""


class Services:
    """The services of one gateway's sessions."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def target(self, head: RequestHead) -> Target | None:
        """Return what a request asks of a service, or None when it is the API's."""
        return target_of(head.target, upgrade=head.upgrade is not None)

    def visit(self, request_id: str, address: str, head: RequestHead, target: Target) -> Visit:
        """Return a request to a service, to be let in."""
        return Visit(self._gateway, request_id, address, head, target)

    async def connect(self, visit: Visit) -> socket.socket:
        """Return a socket connected to what was asked for. Raises Refusal."""
        sessions, session, target = self._gateway.sessions, visit.session, visit.target
        if target.service is not None:
            return await sessions.open(session, target.service)
        assert target.port is not None
        return await sessions.open_port(session, target.port)

    def check(self, visit: Visit) -> None:
        """Refuse a port that isn't the session's. Raises Refusal."""
        if visit.target.port is not None:
            previews.check(visit.session, visit.target.port)
