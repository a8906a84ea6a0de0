"""One process on a pseudoterminal of its own: start, read, write, resize, end.

Getting a controlling terminal takes setsid() and TIOCSCTTY between fork and exec. Doing that in Python
(`preexec_fn`, `pty.fork`) runs the interpreter in a forked copy of a program that may have threads, which
is what Python warns about, and makes subprocess copy the whole process instead of using vfork.
`setsid --ctty` (setsid(1), util-linux, which Debian always has) does exactly those two calls and execs the
command, so the process id stays the one that we started, and it is the leader of its session.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

READ_SIZE: Final = 1 << 16
"""The most bytes that one `read` returns."""

HANGUP_SECONDS: Final = 3.0
"""How long a process has between SIGHUP and SIGKILL when its terminal goes away."""

_KILL_SECONDS: Final = 5.0  # after SIGKILL only a process stuck in the kernel is still there
_IUTF8: Final = 0o40000  # termios(3); Python has no name for it before 3.14


class SpawnError(Exception):
    """The process could not be started; the text says why and what to do."""


class PtyProcess:
    """A running process and the master side of its terminal.

    Made by `spawn`; the owner must call `end` in any case. One task may read and one may write at a time.
    """

    def __init__(self, popen: subprocess.Popen[bytes], master: int, pidfd: int) -> None:
        self._popen = popen
        self._master = master
        self._pidfd = pidfd
        self.pid = popen.pid

    @classmethod
    def spawn(
        cls, command: Sequence[str], *, columns: int, rows: int, cwd: str | None, env: Mapping[str, str]
    ) -> PtyProcess:
        """Start the command as leader of a new session whose controlling terminal has the given size.

        A command that doesn't exist isn't found out here, but by what setsid writes to the terminal and by
        exit status 127. Raises SpawnError if there is no terminal, no setsid, no cwd or no room for a
        process.
        """
        setsid = shutil.which("setsid")
        if setsid is None:
            raise SpawnError("can't start a terminal: `setsid` isn't on PATH; install util-linux")
        try:
            master, slave = os.openpty()
        except OSError as error:
            raise SpawnError(
                f"can't start a terminal: no pseudoterminal to be had: {error.strerror}"
            ) from error
        try:
            _prepare(slave, columns, rows)
            os.set_blocking(master, False)
            popen = subprocess.Popen(
                [setsid, "--ctty", "--", *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=cwd,
                env=dict(env),
            )
        except (OSError, ValueError) as error:
            os.close(master)
            raise SpawnError(f"can't start {command[0]}: {error}") from error
        finally:
            os.close(slave)
        # The pid is ours until it is waited for, so there is no race in turning it into a descriptor.
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError as error:
            os.close(master)
            popen.kill()
            popen.wait()
            raise SpawnError(f"can't watch {command[0]}: pidfd_open: {error.strerror}") from error
        return cls(popen, master, pidfd)

    async def wait_readable(self) -> None:
        """Return when `read` has something, the end included."""
        await trio.lowlevel.wait_readable(self._master)

    async def wait_writable(self) -> None:
        """Return when `write` may take more."""
        await trio.lowlevel.wait_writable(self._master)

    async def wait_exit(self) -> None:
        """Return when the process has exited (it isn't reaped yet: that is `end`'s)."""
        await trio.lowlevel.wait_readable(self._pidfd)

    def has_exited(self) -> bool:
        """Say whether the process has exited, without waiting and without reaping it."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PIDFD, self._pidfd, flags) is not None

    def read(self) -> bytes | None:
        """Return what the process wrote, up to READ_SIZE; None if there is nothing now, b"" at the end.

        The kernel hands out at most 4 KiB at a time, so several reads make one answer.
        """
        chunks = bytearray()
        while len(chunks) <= READ_SIZE - 4096:
            try:
                chunk = os.read(self._master, READ_SIZE - len(chunks))
            except BlockingIOError:
                return bytes(chunks) or None
            except OSError:
                chunk = b""  # EIO: nobody has the other side open any more (pty(7))
            if not chunk:
                return bytes(chunks)
            chunks += chunk
        return bytes(chunks)

    def write(self, data: bytes) -> int:
        """Hand over input; return how many bytes the terminal took, which may be none."""
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0

    def resize(self, columns: int | None, rows: int | None) -> None:
        """Set the window's size, which sends SIGWINCH; None leaves that side as it is."""
        old_rows, old_columns = termios.tcgetwinsize(self._master)
        termios.tcsetwinsize(self._master, (rows or old_rows, columns or old_columns))

    def is_drawn_on(self) -> bool:
        """Say whether a program, and not the command itself, takes key by key, as those do that draw."""
        try:
            foreign = os.tcgetpgrp(self._master) not in (0, self.pid)
            return foreign and not termios.tcgetattr(self._master)[3] & termios.ICANON
        except (OSError, termios.error):
            return False

    async def end(self) -> str:
        """Hang up, wait, kill if need be, reap, and close everything; return how the process ended.

        Takes HANGUP_SECONDS at most for a process that ignores SIGHUP, and a little more for one that the
        kernel can't kill. Descendants that left the process group and ignore SIGHUP, as `nohup` makes them,
        live on, as on any terminal. Shields itself from cancellation.
        """
        with trio.CancelScope(shield=True):
            try:
                if not self.has_exited():
                    self._signal(signal.SIGHUP)
                # Closing the master hangs up: SIGHUP and SIGCONT for the leader and the foreground group.
                os.close(self._master)
                if not await self._exits_within(HANGUP_SECONDS):
                    self._signal(signal.SIGKILL)
                    await self._exits_within(_KILL_SECONDS)
            finally:
                status = self._popen.poll()
                os.close(self._pidfd)
        return describe_status(status)

    async def _exits_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds) as scope:
            await self.wait_exit()
        return not scope.cancelled_caught

    def _signal(self, number: signal.Signals) -> None:
        # Not reaped yet, so neither the pid nor the group can be somebody else's.
        send: Callable[[int, int], None]
        for send in (os.killpg, os.kill):
            try:
                send(self.pid, number)
            except ProcessLookupError:
                continue  # the group isn't there until setsid has run
            except PermissionError:
                continue  # a set-user-id program; closing the terminal still reaches it
            return


def _prepare(slave: int, columns: int, rows: int) -> None:
    termios.tcsetwinsize(slave, (rows, columns))
    attributes = termios.tcgetattr(slave)
    attributes[0] |= _IUTF8  # so that erasing in a line takes whole characters
    termios.tcsetattr(slave, termios.TCSANOW, attributes)


def describe_status(status: int | None) -> str:
    """Say in words what `Popen.poll` returned."""
    if status is None:
        return "did not end"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"
