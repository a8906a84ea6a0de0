"""What passes through the gateway, counted where it passes: plain numbers, read when somebody asks.

The byte path adds to them in the one thread that it runs in: nothing here locks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

RouteKind = Literal["page", "api", "terminal", "files", "preview", "browser", "mux"]
"""What a request is for: `page` is all that is outside of /api, `preview` a port of a session."""

ROUTE_KINDS: tuple[RouteKind, ...] = ("page", "api", "terminal", "files", "preview", "browser", "mux")

STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
"""1xx: an upgrade, 101."""


@dataclass(slots=True)
class Traffic:
    """The traffic of one gateway since it started, at all of its listeners."""

    connections_open: int = 0
    """Client connections now, WebSockets among them."""

    connections_total: int = 0

    websockets_open: int = 0
    """Upgraded connections now."""

    websockets_total: int = 0

    bytes_from_clients: int = 0
    """Bytes of requests that went on to the services of sessions, bodies and WebSocket frames."""

    bytes_to_clients: int = 0
    """Bytes of the services' answers, bodies and WebSocket frames."""

    requests: Counter[tuple[RouteKind, int]] = field(default_factory=Counter)
    """Answered requests by what they are for and the hundred of their status: `("files", 2)`."""

    def answered(self, kind: RouteKind, status: int) -> None:
        """Count a request by the status of its answer; an upgrade is answered with 101."""
        self.requests[kind, status // 100] += 1
