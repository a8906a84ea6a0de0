"""Which requests belong to a session's service: one table of paths. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from oqtod.sessions import previews
from oqtod.telemetry.traffic import RouteKind
from runner.protocol.messages import ServiceName

_KEY = rb"/api/sessions/([A-Za-z0-9_-]{1,64})"
_SERVICE = re.compile(_KEY + rb"/(terminal|files)(/[^?]*)?(?:\?(.*))?", re.DOTALL)
_STREAM = re.compile(rb"/api/sessions?/([A-Za-z0-9_-]{1,64})/browser/stream(?:\?(.*))?", re.DOTALL)


@dataclass(slots=True)
class Target:
    """What a request asks for: a session, one of its services or a port of its block, and a path there."""

    session: str
    service: ServiceName | None
    port: int | None
    path: bytes
    query: bytes

    @property
    def kind(self) -> RouteKind:
        """What a request to it is counted as."""
        return self.service if self.service is not None else "preview"

    @property
    def prefix(self) -> bytes:
        """The path that the service's own paths are below, for programs that make links."""
        place = self.service if self.service is not None else f"ports/{self.port}"
        return f"/api/sessions/{self.session}/{place}".encode()


def target_of(target: bytes, *, upgrade: bool) -> Target | None:
    """Return what a request asks of a service, or None when it is the API's.

    The terminal's page is ours: what a user's program sends never runs on our origin.
    """
    match = _SERVICE.fullmatch(target)
    if match is not None:
        session, service, path, query = match.groups()
        path = path or b"/"
        if service == b"terminal" and not upgrade and (path == b"/" or path.startswith(b"/static/")):
            return None
        return Target(session.decode(), cast(ServiceName, service.decode()), None, path, query or b"")
    match = _STREAM.fullmatch(target) if upgrade else None
    if match is not None:
        return Target(match[1].decode(), "browser", None, b"/stream", match[2] or b"")
    match = previews.PATTERN.fullmatch(target)
    if match is not None:
        _, session, port, path, query = match.groups()
        return Target(session.decode(), None, int(port), path or b"/", query or b"")
    return None
