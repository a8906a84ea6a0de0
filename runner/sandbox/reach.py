"""A short-lived helper: connects to a port inside a sandbox's network namespace, and sends the socket back.

Started as ``python -I -S reach.py NAMESPACE CHANNEL PORT TIMEOUT``; the first two are descriptors.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import sys

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    """Become part of a network namespace, by way of the user namespace that owns it. Raises OSError."""
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    for descriptor, kind in ((owner, _CLONE_NEWUSER), (namespace, _CLONE_NEWNET)):
        if _libc.setns(descriptor, kind) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"the sandbox's network can't be entered: {os.strerror(code)}")


def connect(port: int, timeout: float) -> socket.socket:
    """Return a socket connected to a loopback address. Raises OSError, the first address's."""
    reason: OSError | None = None
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            sock.connect((address, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            reason = reason or error
    raise reason or OSError("there is no loopback address")


def main() -> None:
    """Answer with the connected socket, or with a reason as text."""
    namespace, channel, port = map(int, sys.argv[1:4])
    with socket.socket(fileno=channel) as answer:
        try:
            enter(namespace)
            with connect(port, float(sys.argv[4])) as connected:
                connected.setblocking(False)
                socket.send_fds(answer, [b"+"], [connected.fileno()])
        except OSError as error:
            answer.sendall((error.strerror or str(error)).encode()[:500])


if __name__ == "__main__":
    main()
