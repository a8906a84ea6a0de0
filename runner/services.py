"""One service of a session (its terminal, its file server): start on first use, watch, connect, end."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from runner.cgroups import Cgroup
from runner.processes import Process
from runner.protocol.messages import ServiceState, ServiceStatus
from runner.protocol.rpc import CallFailed
from runner.protocol.wire import peer_of

log = logging.getLogger(__name__)

READY_TIMEOUT = 15.0
"""Seconds a service may take from its start until it accepts a connection."""

_POLL = 0.001
_LOG_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a service."""

    argv: list[str]
    environment: Mapping[str, str]


class Service:
    """A service and its state. `folder` holds its socket and is all that its sandbox sees of the runner."""

    def __init__(
        self,
        name: str,
        folder: Path,
        cgroup: Cgroup | None,
        launch: Callable[[], Launch],
        nursery: trio.Nursery,
    ) -> None:
        self.name = name
        self.folder = folder
        self.socket = folder / "s.sock"  # ttyd tells a socket from an interface by the ending
        self._cgroup = cgroup
        self._launch = launch
        self._nursery = nursery
        self._starting = trio.Lock()
        self._state: ServiceState = "stopped"
        self._error: str | None = None
        self.process: Process | None = None

    @property
    def status(self) -> ServiceStatus:
        """The service's state, and why it failed."""
        return ServiceStatus(self._state, self._error)

    @property
    def _log(self) -> Path:
        return self.folder.with_suffix(".log")

    async def open(self) -> socket.socket:
        """Return a socket connected to the service, started first if need be.

        Raises CallFailed with the reason, the last lines of the service's output included.
        """
        async with self._starting:
            if self.process is not None:
                try:
                    return await self._connect()
                except OSError as error:
                    log.warning("%s does not answer (%s): starting it anew", self.name, error)
                    await self.end()
            return await self._start()

    async def _start(self) -> socket.socket:
        launch = self._launch()
        self._state, self._error = "starting", None
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self._log.unlink(missing_ok=True)
        try:
            process = Process.spawn(
                launch.argv, environment=launch.environment, log=self._log, cgroup=self._cgroup
            )
        except OSError as error:
            raise self._failed(f"{launch.argv[0]} could not be started: {error.strerror}") from error
        self.watch(process)
        with trio.move_on_after(READY_TIMEOUT):
            while self.process is process:
                try:
                    connected = await self._connect()
                except OSError:
                    await trio.sleep(_POLL)
                    continue
                self._state = "running"
                return connected
            raise self._failed(self._error or "it ended while it started")
        await process.end()
        raise self._failed(f"it did not accept a connection within {READY_TIMEOUT:g} seconds")

    def _failed(self, reason: str) -> CallFailed:
        self._state, self._error = "failed", reason
        return CallFailed("service_failed", f"the session's {self.name} could not start: {reason}")

    def watch(self, process: Process) -> None:
        """Take a process as the running service, and note when it ends."""
        self.process = process
        self._state = "running"
        self._nursery.start_soon(self._watch, process)

    async def _watch(self, process: Process) -> None:
        try:
            outcome = await process.watch()
            if self.process is process:
                self.process = None
                tail = self._output()
                self._state, self._error = "failed", f"it {outcome}{': ' + tail if tail else ''}"
                log.warning("the service %s %s", self.name, outcome)
        finally:
            process.close()

    def _output(self) -> str:
        try:
            with self._log.open("rb") as output:
                output.seek(max(0, output.seek(0, os.SEEK_END) - _LOG_TAIL))
                lines = output.read().decode(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-5:])

    async def end(self) -> None:
        """End the service and everything that it started."""
        process, self.process = self.process, None
        self._state, self._error = "stopped", None
        if process is not None:
            await process.end()

    async def _connect(self) -> socket.socket:
        """Connect to the very socket in our folder.

        A service can put anything there. A link is not followed, and the file that was looked at is the one
        that is connected to: O_PATH in open(2), and its name below /proc/self/fd.
        """
        found = os.open(self.socket, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(found).st_mode):
                raise OSError(f"{self.socket} is no socket")
            sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                await sock.connect(f"/proc/self/fd/{found}")
                if peer_of(sock).uid != os.getuid():
                    raise OSError(f"{self.socket} belongs to another account")
            except BaseException:
                sock.close()
                raise
            return socket.socket(fileno=sock.detach())
        finally:
            os.close(found)
