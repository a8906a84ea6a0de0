"""Connections to programs that a session's person runs on TCP ports: to the account's own only.

Ports are everybody's on a host. So a listener counts only if the kernel says that it is this account's.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence

import trio

from runner.listeners import owner
from runner.protocol.rpc import CallFailed
from runner.sandbox import loopback

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds that a program may take to accept; the kernel does that for it unless its queue is full."""

_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def connect(port: int) -> socket.socket:
    """Return a socket connected to this account's program on a loopback port.

    Raises CallFailed: no_listener, or foreign_listener when another account listens there.
    """
    if not 1 <= port <= 65535:
        raise CallFailed("bad_request", f"{port} is no port")
    for family, address in _LOOPBACK:
        if _is_ours(family, address, port):
            return await _connect(family, address, port)
    raise nothing_listens(port)


async def connect_inside(namespaces: Sequence[int], port: int) -> socket.socket:
    """Return a socket connected to a port on the loopback of one of these network namespaces.

    They are a session's own, see `runner.sandbox.loopback`, so whoever listens there is the session.
    Raises CallFailed.
    """
    if not 1 <= port <= 65535:
        raise CallFailed("bad_request", f"{port} is no port")
    for namespace in namespaces:
        try:
            return await loopback.connect(namespace, port, timeout=CONNECT_TIMEOUT)
        except loopback.NotReached as error:
            log.debug("port %d is not reached in the sandbox: %s", port, error)
    raise nothing_listens(port)


def nothing_listens(port: int) -> CallFailed:
    """Return the answer for a port where nothing is."""
    return CallFailed(
        "no_listener",
        f"nothing listens on port {port}",
        "start a program there; its port is in $PORT, further ones in $OQTO_PORTS",
    )


async def _connect(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            await sock.connect((address, port))
        _is_ours(family, address, port)  # it may have changed hands in between
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return socket.socket(fileno=sock.detach())
    except trio.TooSlowError:
        message = f"the program on port {port} did not accept within {CONNECT_TIMEOUT:g} seconds"
        raise CallFailed("no_listener", message) from None
    except OSError as error:
        raise CallFailed("no_listener", f"port {port} can't be connected to: {error.strerror}") from error
    finally:
        sock.close()


def _is_ours(family: socket.AddressFamily, address: str, port: int) -> bool:
    """Say whether somebody listens there; raises CallFailed when it is not this account."""
    try:
        uid = owner(family, address, port)
    except OSError as error:
        if family == socket.AF_INET6:
            return False  # a kernel without IPv6
        raise CallFailed("no_listener", f"port {port} can't be looked at: {error.strerror}") from error
    if uid not in (None, os.getuid()):
        raise CallFailed("foreign_listener", f"another account's program listens on port {port}")
    return uid is not None
