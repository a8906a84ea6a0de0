"""How much of the gateway one address, one user and all may hold, and how long it waits for each side."""

from __future__ import annotations

import ipaddress
import resource

IDLE_TIMEOUT = 30.0
"""Seconds until the whole head of a (further) request must be there."""

BODY_TIMEOUT = 30.0
"""Seconds until the whole body of a request to the API must be there."""

SEND_TIMEOUT = 60.0
"""Seconds a client may take for one piece of an answer of the API."""

RESPONSE_TIMEOUT = 60.0
"""Seconds a service may be silent until its response begins: since it last took a piece of the request."""

STREAM_TIMEOUT = 600.0
"""Seconds in which something of a response must move, once it has begun."""

HALF_CLOSED_TIMEOUT = 60.0
"""The same, where the client has said that it sends no more: mostly it is gone."""

RELAY_LINGER = 10.0
"""Seconds the second side of an upgraded connection has to end after the first."""

LINGER = 2.0
"""Seconds in which a client may still be told why, before a connection that it is sending on is closed."""

DRAIN_TIMEOUT = 10.0
"""Seconds that requests in progress have to end when the gateway stops."""

DRAIN_GRACE = 1.0
"""Seconds in which a connection that is new then may still make its request."""

MAX_API_BODY = 1024 * 1024

MAX_STRANGERS_BODY = 16 * 1024
"""The same where nobody has logged in yet, as to log in."""

MAX_API_BODIES = 64 * 1024 * 1024
"""Bytes of bodies of requests to the API that are held at the same time."""

MAX_PER_ADDRESS = 8192
"""Connections of one address, for IPv6 of one /64 network, and never more than half of all: an office may be
behind it. Loopback and trusted proxies stand for many."""

MAX_PER_USER = 4096
"""Requests to services and WebSockets of one user at the same time."""

_DESCRIPTORS_FOR_US = 512
_DESCRIPTORS_EACH = 3
"""A connection's own, its service's, and now and then a pipe."""


def use_all_descriptors() -> None:
    """Have as many descriptors as we may: shells begin with few, for programs that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_connections() -> int:
    """Return how many connections the limit of descriptors is good for: LimitNOFILE= in systemd.exec(5)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    return max(64, (soft - _DESCRIPTORS_FOR_US) // _DESCRIPTORS_EACH)


class Shares:
    """How many each one holds; those who hold nothing take no memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Take one more, when there is one left."""
        held = self._held.get(key, 0)
        if held < self._most:
            self._held[key] = held + 1
        return held < self._most

    def give(self, key: str) -> None:
        """Give one back."""
        held = self._held.pop(key)
        if held > 1:
            self._held[key] = held - 1


def household(address: str) -> str | None:
    """Return what an address counts as; None for those that are not one household, like loopback."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return None if parsed.is_loopback else str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
        parsed = parsed.ipv4_mapped
    return None if parsed.is_loopback else str(parsed)
