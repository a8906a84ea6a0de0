"""What went through the gateway, counted. Plain numbers, for whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counts since the start, and what is open now."""

    connections: int = 0
    """Connections that were accepted."""
    open: int = 0
    """Connections that are open now, WebSockets included."""
    websockets: int = 0
    """Upgraded connections that are open now."""
    refused_connections: int = 0
    """Connections that were over a limit."""
    api_requests: int = 0
    service_requests: int = 0
    upgrades: int = 0
    malformed: int = 0
    """Requests that were no HTTP, or not clear enough."""
    bytes_from_clients: int = 0
    """Bytes of bodies and upgraded connections that went to services."""
    bytes_to_clients: int = 0
    service_connections: int = 0
    """Connections to services that were made."""
    reused_connections: int = 0
    """Requests that went over a connection that was there."""
