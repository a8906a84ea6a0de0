"""The gateway's own port: opened, kept by systemd while we are away, and who has it when it is taken.

What listens outlives a restart or a crash in the file descriptor store (FileDescriptorStoreMax= in
systemd.service(5)): who connects meanwhile waits in its queue. The address is the configuration's alone; a
socket that was kept for another one is given up.
"""

from __future__ import annotations

import os
import socket

import psutil
import trio

from oqtod.telemetry.readiness import Readiness

NAME = "oqtod-http"
"""What our sockets are called in the store."""

_QUEUE = 65_535
"""Connections that may wait to be accepted; net.core.somaxconn bounds it, listen(2)."""

_FIRST = 3
"""The first descriptor that systemd passes, sd_listen_fds(3)."""


class PortTaken(Exception):
    """Somebody else listens there; str() says who."""


async def listen(host: str, port: int, readiness: Readiness) -> list[socket.socket]:
    """Listen on TCP, at every address of the host, with the sockets that were kept if possible.

    Raises PortTaken.
    """
    kept = _kept()
    stored = len(kept)
    listeners: list[socket.socket] = []
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in found:
            same = next((x for x in kept if x.family == family and x.getsockname() == address), None)
            if same is not None:
                kept.remove(same)
            listeners.append(same or _listener(family, address))
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
    finally:
        for other in kept:
            other.close()
    if kept or stored != len(listeners):
        readiness.forget(NAME)
        readiness.store(NAME, listeners)
    return listeners


def _kept() -> list[socket.socket]:
    """Return what the service manager kept for us; those that we start are not told of it."""
    pid, count, names = (os.environ.pop(f"LISTEN_{x}", "") for x in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for descriptor, name in zip(range(_FIRST, _FIRST + int(count)), names.split(":"), strict=False):
        if name == NAME:
            os.set_inheritable(descriptor, False)
            found.append(socket.socket(fileno=descriptor))
        else:
            os.close(descriptor)
    return found


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
