"""The audit log: who did what, one JSON object a line, appended and never changed.

Lines wait in memory and are written by a thread, in order and whole: a slow disk holds nobody up, and what a
failing one refuses is tried again. What doesn't fit into memory any more is counted, and the count is written
when the disk is back.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
import trio

from oqtod.clock import now
from oqtod.telemetry.line_file import LineFile

log = logging.getLogger(__name__)

MAX_WAITING = 50_000
"""Lines that wait while the disk fails."""

SLOW = 5.0
"""Seconds after which a write that isn't done makes the log unwell."""

_BATCH = 1000
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CLOSING = 5.0
_FOLLOWED = 10_000  # lines that wait for a slow follower

Outcome = Literal["success", "failure", "denied"]

EVENTS = {
    "auth.login": "somebody logged in, or failed to",
    "auth.logout": "a token was given back",
    "auth.register": "somebody became a user with an invite code, or failed to",
    "auth.password_change": "a user changed the password, or failed to",
    "auth.ticket": "a ticket for a WebSocket was given out",
    "auth.oidc_login": "somebody came back from the login provider",
    "account.update": "a user changed name, address or picture",
    "key.create": "an API key was made",
    "key.revoke": "an API key was revoked",
    "user.create": "an administrator made a user",
    "user.update": "an administrator changed a user: name, password, role",
    "user.enable": "an administrator let a user in again",
    "user.disable": "an administrator shut a user out",
    "user.delete": "an administrator deleted a user",
    "invite.create": "invite codes were made",
    "invite.revoke": "an invite code was made void or deleted",
    "session.create": "a session was made, or one that was there was asked for",
    "session.resume": "a session was started again",
    "session.stop": "a session was stopped",
    "session.delete": "a session was forgotten",
    "runner.restart": "an administrator had the runner of an account start anew",
    "sandbox.refused": "a session did not start because its sandbox could not be set up",
    "websocket.open": "a WebSocket to a session's service was opened",
    "websocket.close": "it was closed",
    "admin.request": "an administrator looked at something, or did what has no event of its own",
    "request.denied": "a request without good credentials, or without the right ones, was refused",
    "audit.lost": "lines were lost because the disk failed for too long; `detail` counts them",
}
"""Every event there is, and what it means."""


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did it: `kind` is how they were known, `uid` that of a process at the admin socket."""

    kind: Literal["anonymous", "token", "key", "oidc", "socket", "system"]
    uid: int | None = None
    ip: str | None = None


class Line(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event, as INTERFACES has it."""

    timestamp: str = msgspec.field(default_factory=now)
    event: str
    outcome: Outcome
    request_id: str
    actor: Actor
    user_id: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    duration_ms: float | None = None
    session_id: str | None = None
    detail: str | None = None


class Follower:
    """Somebody who watches the log. Who is too slow misses lines, and is told how many."""

    def __init__(self) -> None:
        self._told: list[bytes] = []
        self._more = trio.Event()
        self._missed = 0

    def tell(self, lines: list[bytes]) -> None:
        """Hand over lines that were written."""
        room = _FOLLOWED - len(self._told)
        self._told += lines[:room]
        self._missed += len(lines[room:])
        self._more.set()

    async def next(self) -> tuple[list[bytes], int]:
        """Return the next lines, and how many were missed after them."""
        await self._more.wait()
        self._more = trio.Event()
        lines, self._told = self._told, []
        missed, self._missed = self._missed, 0
        return lines, missed


class Audit:
    """The audit log of one gateway. Without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self.events: Counter[tuple[str, Outcome]] = Counter()
        """How often each event had each outcome, whether there is a file or not."""
        self.path = path
        self._file = LineFile(path) if path is not None else None
        self._waiting: deque[bytes] = deque()
        self._wake = trio.Event()
        self._accepted = 0  # lines that found room
        self._written = 0  # how many of them are in the file
        self._progress = trio.Event()
        self._followers: set[Follower] = set()
        self._lost = 0  # lines that found no room
        self._lost_told = 0  # how many of them the log itself tells of
        self._lock = threading.Lock()  # held by the thread that writes
        self._writing_since: float | None = None
        self._error: str | None = None

    def write(self, line: Line) -> None:
        """Have a line written soon. Never fails and never waits."""
        assert line.event in EVENTS, line.event
        self.events[line.event, line.outcome] += 1
        if self._file is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(_encoded(line))
        self._accepted += 1
        self._wake.set()

    def reopen(self) -> None:
        """Open the file anew before the next line. Without it a file that was moved away is noticed too."""
        if self._file is not None:
            self._file.reopen()

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return len(self._waiting)

    @property
    def lost(self) -> int:
        """How many lines found no room, and will never be written."""
        return self._lost

    @property
    def trouble(self) -> str | None:
        """What is wrong with the log, for people; None when lines are being written."""
        if lost := self._lost - self._lost_told:
            return f"{lost} lines were lost: {self._error or 'too many at once'}"
        if self._error is not None:
            return self._error
        if self._writing_since is not None and trio.current_time() - self._writing_since > SLOW:
            return (
                f"the disk has not taken a line for {trio.current_time() - self._writing_since:.0f} seconds"
            )
        return None

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Hear of lines once they are written, for as long as the block lasts."""
        follower = Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    async def settle(self, *, timeout: float) -> None:
        """Return once what has happened until now is in the file, after `timeout` seconds in any case."""
        wanted = self._accepted
        with trio.move_on_after(timeout):
            while self._written < wanted:
                await self._progress.wait()

    async def keep(self) -> None:
        """Write lines as they come. For ever."""
        failures = 0
        while True:
            await self._wake.wait()
            if await self._write_waiting():
                failures = 0
            else:
                failures += 1
                await trio.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1])

    async def close(self) -> None:
        """Write what is waiting, in bounded time, and close the file."""
        with trio.move_on_after(_CLOSING, shield=True):
            while self._waiting and await self._write_waiting():
                pass
        if self._file is not None and not self._waiting:
            self._file.close()

    async def _write_waiting(self) -> bool:
        """Write a batch; say whether that worked."""
        self._writing_since = trio.current_time()
        try:
            # A disk that hangs must not hold up our end: the thread is left behind then.
            batch = await trio.to_thread.run_sync(self._write_batch, abandon_on_cancel=True)
        except OSError as error:
            message = f"the audit log {self.path} can't be written: {error.strerror}"
            if message != self._error:
                log.error("%s", message)
            self._error = message
            return False
        finally:
            self._writing_since = None
        if self._error is not None:
            log.info("the audit log is being written again")
        self._error = None
        if not self._waiting:
            self._wake = trio.Event()
        self._written += len(batch)
        self._progress.set()
        self._progress = trio.Event()
        for follower in self._followers:
            follower.tell(batch)
        return True

    def _write_batch(self) -> list[bytes]:
        """Write a batch, take it off what is waiting, and return it. In a thread. Raises OSError.

        Both under the lock: a thread that was left behind may yet write its lines, and nobody else may then.
        """
        assert self._file is not None
        with self._lock:
            batch = [self._waiting[i] for i in range(min(_BATCH, len(self._waiting)))]
            lost = self._lost
            told = [_encoded(_lost_line(lost - self._lost_told))] if lost > self._lost_told else []
            self._file.append(b"".join(batch + told))
            self._lost_told = lost
            for _ in batch:
                self._waiting.popleft()
            return batch


def _lost_line(count: int) -> Line:
    detail = f"{count} lines"
    return Line(event="audit.lost", outcome="failure", request_id="", actor=Actor("system"), detail=detail)


def _encoded(line: Line) -> bytes:
    """Return a line of the file. Nothing in a field can end it, whatever its reader takes for a line's end.

    JSON escapes control characters; these three, of Unicode, it doesn't have to.
    """
    text = msgspec.json.encode(line)
    for character in ("\x85", "\u2028", "\u2029"):
        text = text.replace(character.encode(), f"\\u{ord(character):04x}".encode())
    return text + b"\n"
