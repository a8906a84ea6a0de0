"""Connections into the network namespace of a sandbox, whose loopback nothing outside can reach otherwise.

Only a process of one thread can change its user namespace, setns(2), so a helper does it (`reach.py`): it
enters, connects, sends the connected socket back and ends. The account may do that without any privilege,
because it made the namespaces: user_namespaces(7), "capabilities".
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import trio

from runner.processes import descendants

TIMEOUT = 5.0
"""Seconds for all of a connection: the helper's start, its entering, the program's accepting."""

_HELPER = Path(__file__).with_name("reach.py")


class NotReached(Exception):
    """Nothing accepted the connection inside; the message says why."""


def namespace_of(pid: int) -> int | None:
    """Return a descriptor of the network namespace that a sandbox with this process has for itself.

    `pid` is a process inside or the bwrap above it. None where it shares ours, or has ended. Close it.
    """
    own = Path("/proc/self/ns/net").stat()
    for candidate in (pid, *reversed(descendants(pid))):
        try:
            found = os.open(f"/proc/{candidate}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or became another account's: the next may do
        if os.fstat(found).st_ino != own.st_ino:
            return found
        os.close(found)
    return None


async def connect(namespace: int, port: int, *, timeout: float = TIMEOUT) -> socket.socket:
    """Return a socket connected to 127.0.0.1 or else ::1, `port`, in the network namespace of a sandbox.

    `namespace` is what `namespace_of` returned, and stays open. Raises NotReached.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            line = [os.path.realpath(sys.executable), "-I", "-S", str(_HELPER)]
            line += [str(namespace), str(theirs.fileno()), str(port), str(timeout)]
            # Not trio.run_process: what it answers is a descriptor, and its end is bounded here.
            helper = subprocess.Popen(  # noqa: ASYNC220
                line, pass_fds=(namespace, theirs.fileno()), env={}, stdin=subprocess.DEVNULL
            )
        pidfd = os.pidfd_open(helper.pid)
        ours.setblocking(False)
        try:
            with trio.move_on_after(timeout):
                await trio.lowlevel.wait_readable(ours)
                text, descriptors, _, _ = socket.recv_fds(ours, 512, 1)
                if descriptors:
                    connected = socket.socket(fileno=descriptors[0])
                    connected.setblocking(False)
                    return connected
                raise NotReached(text.decode() or "the helper ended without an answer")
            raise NotReached(f"nothing accepted within {timeout:g} seconds")
        finally:
            helper.kill()
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(pidfd)
            os.close(pidfd)
            helper.wait()
