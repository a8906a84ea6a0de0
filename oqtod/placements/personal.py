"""The runner of personal mode: our own child, started again when it ends, gone when we are."""

from __future__ import annotations

import logging
import os
import resource
import socket
import subprocess
from pathlib import Path

import trio

from oqtod.clock import now
from runner import programs

log = logging.getLogger(__name__)

_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 30.0
_END_TIMEOUT = 15.0
_POLL = 0.01
_BACKLOG = 64


def listen_for_administrators(path: Path) -> socket.socket:
    """Listen at `path`, for its owner alone, in place of what was left there. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            listener.bind(str(fresh))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
        fresh.rename(path)
    except OSError:
        listener.close()
        raise
    return listener


class PersonalRunner:
    """The runner at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._child: subprocess.Popen[bytes] | None = None
        self._up = trio.Event()
        self._is_restart = False
        self.result = "success"
        """How its last run ended, for people."""
        self.started_at: str | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._child.pid if self._child is not None and self._up.is_set() else None

    async def restart(self) -> None:
        """End it, and its sessions with it, and return when the next one listens."""
        if self._child is not None and self._up.is_set():
            self._is_restart, self._up = True, trio.Event()
            self._child.terminate()
        await self._up.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a runner for as long as this is not cancelled; reports started once it listens.

        It holds one end of a pipe: should we be killed, the pipe closes, and the runner ends its sessions.
        """
        program = programs.sibling("oqto-runner") or "oqto-runner"
        command = [program, "--personal", "--socket", str(self.path)]
        backoff = _FIRST_BACKOFF
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)  # as we were started, for sessions too
        while True:
            # Not trio.run_process: its end must be bounded, and go through the pipe.
            child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: ASYNC220
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, descriptors)
            pidfd = os.pidfd_open(child.pid)
            self._child, self.started_at = child, now()
            try:
                while not self.path.exists() and child.poll() is None:  # noqa: ASYNC110  a file has no event
                    await trio.sleep(_POLL)
                self._up.set()
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await trio.lowlevel.wait_readable(pidfd)
                self._note_end(child.wait())
            finally:
                with trio.move_on_after(_END_TIMEOUT, shield=True) as patience:
                    if child.stdin is not None:
                        child.stdin.close()
                    if child.poll() is None:
                        child.terminate()
                        await trio.lowlevel.wait_readable(pidfd)
                if patience.cancelled_caught:
                    child.kill()
                child.wait()
                os.close(pidfd)
            if self._is_restart:
                self._is_restart = False
                continue
            await trio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF)

    def _note_end(self, status: int) -> None:
        self._child = None
        if self._is_restart:
            self.result = "success"
            log.info("the runner was restarted")
            return
        self._up = trio.Event()
        self.result = f"status {status}" if status >= 0 else f"signal {-status}"
        log.error("the runner ended with status %s; it starts again", status)
