"""Connections to programs that a session's person runs on TCP ports: to the account's own only.

Ports are everybody's on a host. So a listener counts only if the kernel says that it is this account's.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import trio

from runner.protocol.rpc import CallFailed

CONNECT_TIMEOUT = 5.0
"""Seconds that a program may take to accept; the kernel does that for it unless its queue is full."""

_LISTEN = "0A"
_V4 = {"0100007F", "00000000"}  # 127.0.0.1 and any, as proc_net_tcp(5) writes them on little-endian hosts
_V6 = {"0" * 32, "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


async def connect(port: int) -> socket.socket:
    """Return a socket connected to this account's program on a loopback port.

    Raises CallFailed: no_listener, or foreign_listener when another account listens there.
    """
    if not 1 <= port <= 65535:
        raise CallFailed("bad_request", f"{port} is no port")
    _check(port)
    reason = ""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                await sock.connect((address, port))
            _check(port)  # it may have changed hands in between
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return socket.socket(fileno=sock.detach())
        except trio.TooSlowError:
            reason = f"it did not accept within {CONNECT_TIMEOUT:g} seconds"
        except OSError as error:
            reason = reason or os.strerror(error.errno or errno.ECONNREFUSED)
        finally:
            sock.close()
    raise CallFailed("no_listener", f"port {port} can't be connected to: {reason}")


def _check(port: int) -> None:
    owners = _listeners(port)
    if not owners:
        raise CallFailed(
            "no_listener",
            f"nothing listens on port {port}",
            "start a program there; its port is in $PORT, further ones in $OQTO_PORTS",
        )
    if owners != {os.getuid()}:
        raise CallFailed("foreign_listener", f"another account's program listens on port {port}")


def _listeners(port: int) -> set[int]:
    """Return the uids that listen on a port where a connection to loopback would find them."""
    found = set()
    for table, addresses in ((Path("/proc/self/net/tcp"), _V4), (Path("/proc/self/net/tcp6"), _V6)):
        try:
            lines = table.read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            _, local, _, state, _, _, _, uid, *_ = line.split()
            address, _, number = local.rpartition(":")
            if state == _LISTEN and int(number, 16) == port and address in addresses:
                found.add(int(uid))
    return found
