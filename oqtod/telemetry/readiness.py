"""What systemd is told of us, sd_notify(3): ready, stopping, reloading, and that we are alive."""

from __future__ import annotations

import os
import time

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

    async def keep_alive(self) -> None:
        """Feed the watchdog for as long as the event loop turns: WatchdogSec= in systemd.service(5)."""
        interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
        if interval == 0:
            return
        while True:
            self._notifier.notify("WATCHDOG=1")
            await trio.sleep(interval)
