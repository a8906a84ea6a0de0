"""Opening the gateway's port, and saying who has it when it is taken."""

from __future__ import annotations

import psutil
import trio


class PortTaken(Exception):
    """Somebody else listens there; str() says who."""


async def listen(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on TCP. Raises PortTaken, OSError."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        if (owner := _owner(port)) is not None:
            raise PortTaken(
                f"port {port} on {host} is taken by {owner}: stop it, or set server.port"
            ) from error
        raise PortTaken(
            f"can't listen on {host}, port {port}: {error}; set server.host and server.port"
        ) from error


def _owner(port: int) -> str | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None:
                return "another account's program"
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                return None
    return None
