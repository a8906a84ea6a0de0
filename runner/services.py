"""One service of a session (its terminal, its file server): start on first use, watch, connect, end."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from runner.cgroups import Cgroup
from runner.output_log import OutputLog
from runner.processes import Process
from runner.protocol.messages import ServiceState, ServiceStatus
from runner.protocol.rpc import CallFailed
from runner.protocol.wire import peer_of
from runner.sandbox.bubblewrap import Command

log = logging.getLogger(__name__)

READY_TIMEOUT = 15.0
"""Seconds a service may take from its start until it accepts a connection."""

CRASHES = 5
"""Crashes within CRASH_WINDOW after which a service is left alone for COOL_DOWN."""
CRASH_WINDOW = 60.0
COOL_DOWN = 30.0
_FIRST_BACKOFF = 0.1

_POLL = 0.001


class Service:
    """A service and its state. `folder` holds its socket and is all that its sandbox sees of the runner."""

    def __init__(
        self,
        name: str,
        folder: Path,
        cgroup: Cgroup | None,
        launch: Callable[[], Command],
        nursery: trio.Nursery,
        *,
        ends_in_order: bool = False,
    ) -> None:
        self.name = name
        self._ends_in_order = ends_in_order
        self.folder = folder
        self.socket = folder / "s.sock"  # ttyd tells a socket from an interface by the ending
        self.log = OutputLog(folder.with_suffix(".log"))
        self._cgroup = cgroup
        self._launch = launch
        self._nursery = nursery
        self._starting = trio.Lock()
        self._state: ServiceState = "stopped"
        self._error: str | None = None
        self.process: Process | None = None
        self._crashes: deque[float] = deque(maxlen=CRASHES)

    @property
    def status(self) -> ServiceStatus:
        """The service's state, and why it failed."""
        return ServiceStatus(self._state, self._error)

    async def open(self, *, start: bool = True) -> socket.socket | None:
        """Return a socket connected to the service, started first if need be.

        Without `start`, the answer is None where it doesn't run. Raises CallFailed with the reason, the last
        lines of the service's output included; without a try when it has crashed too often of late.
        """
        async with self._starting:
            if self.process is not None:
                try:
                    return await self._connect()
                except OSError as error:
                    log.warning("%s does not answer (%s): starting it anew", self.name, error)
                    await self.end()
            if not start:
                return None
            if self._exhausted() and trio.current_time() < self._crashes[-1] + COOL_DOWN:
                raise self._refused()
            return await self._start()

    async def _start(self) -> socket.socket:
        # The sandbox shows the folder, so it must be there first.
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self.log.begin()
        launch = self._launch()
        self._state, self._error = "starting", None
        try:
            process = Process.spawn(
                launch.argv,
                environment=launch.environment,
                descriptors=launch.descriptors,
                log=self.log.path,
                cgroup=self._cgroup,
            )
        except OSError as error:
            self._fail(f"{launch.argv[0]} could not be started: {error.strerror}")
            raise self._refused() from error
        finally:
            launch.close()
        self._keep(process)
        with trio.move_on_after(READY_TIMEOUT):
            while self.process is process:
                try:
                    connected = await self._connect()
                except OSError:
                    await trio.sleep(_POLL)
                    continue
                self._state = "running"
                return connected
            raise self._refused()
        self.process = None
        await process.end()
        self._fail(f"it did not accept a connection within {READY_TIMEOUT:g} seconds")
        raise self._refused()

    def _fail(self, reason: str) -> None:
        """Note one more crash."""
        self._state, self._error = "failed", reason
        self._crashes.append(trio.current_time())

    def _refused(self) -> CallFailed:
        reason = f"the session's {self.name} does not run: {self._error}"
        hint = f"it is tried again after {COOL_DOWN:g} seconds" if self._exhausted() else None
        return CallFailed("service_failed", reason, hint)

    def _exhausted(self) -> bool:
        return len(self._crashes) == CRASHES and self._crashes[-1] - self._crashes[0] < CRASH_WINDOW

    def adopt(self, process: Process) -> None:
        """Take a process of an earlier runner as the running service."""
        self._state = "running"
        self._keep(process)

    def _keep(self, process: Process) -> None:
        """Note when the process ends."""
        self.process = process
        self._nursery.start_soon(self._watch, process)

    async def _watch(self, process: Process) -> None:
        try:
            async with trio.open_nursery() as meanwhile:
                meanwhile.start_soon(self.log.keep_short)
                outcome = await process.watch()
                meanwhile.cancel_scope.cancel()
            if self.process is process:
                self.process = None
                was_running = self._state == "running"
                tail = self.log.last_lines()
                self._fail(f"it {outcome}{': ' + tail if tail else ''}")
                log.warning("the service %s %s", self.name, outcome)
                if was_running:
                    self._nursery.start_soon(self._restart)
        finally:
            process.close()

    async def _restart(self) -> None:
        """Start a service again that has crashed, with longer and longer pauses, unless somebody else did."""
        while self.process is None and self._state == "failed" and not self._exhausted():
            await trio.sleep(_FIRST_BACKOFF * 2 ** (len(self._crashes) - 1))
            async with self._starting:
                if self.process is not None or self._state != "failed":
                    return
                try:
                    (await self._start()).close()
                except CallFailed as failed:
                    log.warning("%s", failed.message)

    async def stop(self) -> None:
        """End the service, not in the middle of its start. The next use starts it again."""
        async with self._starting:
            await self.end()

    async def end(self) -> None:
        """End the service and everything that it started."""
        process, self.process = self.process, None
        self._state, self._error = "stopped", None
        if process is not None:
            await process.end(in_order=self._ends_in_order)

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
