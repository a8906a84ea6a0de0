"""Opening the gateway's port, and saying who has it when it is taken."""

from __future__ import annotations

import socket

import psutil
import trio

_QUEUE = 65_535
"""Connections that may wait to be accepted; net.core.somaxconn bounds it, listen(2)."""


class PortTaken(Exception):
    """Somebody else listens there; str() says who."""


async def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on TCP, at every address of the host. Raises PortTaken."""
    listeners: list[socket.socket] = []
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in found:
            listeners.append(_listener(family, address))
            if port == 0:
                break  # the others would get other ports
    except OSError as error:
        for listener in listeners:
            listener.close()
        if (owner := _owner(port)) is not None:
            raise PortTaken(
                f"port {port} on {host} is taken by {owner}: stop it, or set server.port"
            ) from error
        raise PortTaken(
            f"can't listen on {host}, port {port}: {error}; set server.host and server.port"
        ) from error
    return listeners


def _listener(family: int, address: object) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)  # type: ignore[arg-type]  # what getaddrinfo(3) made for this family
        listener.listen(_QUEUE)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


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
