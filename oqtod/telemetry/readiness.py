"""What systemd is told of us, sd_notify(3): ready, stopping, reloading, and that we are alive."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

import sdnotify
import trio


class Readiness:
    """Says things to the service manager; does nothing where there is none."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()

    def ready(self, status: str) -> None:
        """The program does its work from now on."""
        self._notifier.notify(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._notifier.notify(f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The program ends."""
        self._notifier.notify("STOPPING=1\nSTATUS=Stopping")

    def store(self, name: str, sockets: Sequence[socket.socket]) -> None:
        """Have the manager keep sockets by this name, for when we are started again."""
        self._pass(f"FDSTORE=1\nFDNAME={name}", [x.fileno() for x in sockets])

    def forget(self, name: str) -> None:
        """Have the manager close what it keeps by this name."""
        self._pass(f"FDSTOREREMOVE=1\nFDNAME={name}", [])

    def _pass(self, message: str, descriptors: list[int]) -> None:
        """Send a message with descriptors, which the library can't."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address.startswith(("/", "@")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
                socket.send_fds(manager, [message.encode()], descriptors)

    async def keep_alive(self) -> None:
        """Feed the watchdog for as long as the event loop turns: WatchdogSec= in systemd.service(5)."""
        interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
        if interval == 0:
            return
        while True:
            self._notifier.notify("WATCHDOG=1")
            await trio.sleep(interval)
