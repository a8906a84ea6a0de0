"""The Chrome DevTools Protocol on a pair of pipes: calls, their answers, and events.

Messages are JSON, each ended by a NUL (``--remote-debugging-pipe``). Calls and events of a page carry its
session. Frames of a screencast are most of what arrives, and are handed on as they came: nothing here parses
them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import trio

from runner.browser.errors import Failed

Parameters = Mapping[str, Any]
OnEvent = Callable[[str, dict[str, Any], str | None], None]
"""Called with an event's method, parameters and session."""

Done = Callable[[dict[str, Any] | None], None]
"""Called with a call's result; with None when it failed, or Chromium ended."""

CALL_SECONDS: Final = 60.0
"""The longest that any call may take that isn't bounded by its caller."""

MAX_MESSAGE: Final = 256 << 20
"""Bytes of one message: a screenshot of a long page, a PDF."""

_MAX_UNSENT: Final = 64 << 20
_PIPE_SIZE: Final = 1 << 20
_FRAME: Final = b'{"method":"Page.screencastFrame"'
_GONE: Final = "Chromium has ended"


class _Pending:
    """A call that waits for its answer."""

    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: dict[str, Any] | None = None


class DevTools:
    """A connection. `run` must run for as long as it is used, and ends when Chromium closes its side.

    on_event is called for each event, on_frame with the bytes of each frame of a screencast; neither may
    raise.
    """

    def __init__(
        self, reader: int, writer: int, *, on_event: OnEvent, on_frame: Callable[[bytes], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._on_frame = on_frame
        self._pending: dict[int, _Pending | Done] = {}
        self._last_id = 0
        self._unsent = bytearray()
        self._more = trio.Event()
        self.closed = False
        for pipe in (reader, writer):
            os.set_blocking(pipe, False)
            try:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            except PermissionError:
                pass  # over the account's share, pipe(7): then frames arrive in more pieces

    async def run(self) -> None:
        """Receive and send until Chromium closes its side; then every call that waits fails."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send)
                await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            self.closed = True
            for pending in self._pending.values():
                if isinstance(pending, _Pending):
                    pending.done.set()
                else:
                    pending(None)
            self._pending.clear()
            os.close(self._reader)
            os.close(self._writer)

    async def call(
        self, method: str, parameters: Parameters | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Return the answer's result.

        Raises Failed: "failed" with Chromium's words, "timeout" after CALL_SECONDS, "crashed" when it ends.
        """
        pending = _Pending()
        number = self._post(method, parameters, session, pending)
        with trio.move_on_after(CALL_SECONDS):
            try:
                await pending.done.wait()
            finally:
                self._pending.pop(number, None)
        return _result(method, pending)

    def post(
        self,
        method: str,
        parameters: Parameters | None = None,
        session: str | None = None,
        *,
        done: Done | None = None,
    ) -> None:
        """Send a call that nobody waits for; `done` is called when the answer has come, or never will."""
        self._post(method, parameters, session, done or _ignore)

    def _post(
        self,
        method: str,
        parameters: Parameters | None,
        session: str | None,
        pending: _Pending | Done,
    ) -> int:
        if self.closed:
            raise Failed("crashed", _GONE)
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        data = msgspec.json.encode(message) + b"\0"
        if len(self._unsent) + len(data) > _MAX_UNSENT:
            raise Failed("crashed", "Chromium doesn't read what it is told")
        self._pending[self._last_id] = pending
        if not self._unsent:
            data = data[self._write(data) :]
        if data:
            self._unsent += data
            self._more.set()
        return self._last_id

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._writer, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            return len(data)  # the end of the other pipe is about to be read

    async def _send(self) -> None:
        """Send what did not fit into the pipe at once."""
        while True:
            await self._more.wait()
            while self._unsent:
                await trio.lowlevel.wait_writable(self._writer)
                del self._unsent[: self._write(self._unsent)]
            self._more = trio.Event()

    async def _receive(self) -> None:
        buffer = bytearray()
        while True:
            await trio.lowlevel.wait_readable(self._reader)
            try:
                data = os.read(self._reader, _PIPE_SIZE)
            except BlockingIOError:
                continue
            if not data or len(buffer) > MAX_MESSAGE:
                return
            # Only what is new can hold the end of a message.
            end = data.find(0)
            if end < 0:
                buffer += data
                continue
            start = 0
            if buffer:
                buffer += data[:end]
                self._take(bytes(buffer))
                buffer.clear()
                start = end + 1
                end = data.find(0, start)
            while end >= 0:
                self._take(data[start:end])
                start = end + 1
                end = data.find(0, start)
            buffer += data[start:]

    def _take(self, message: bytes) -> None:
        if message.startswith(_FRAME):
            self._on_frame(message)
            return
        decoded = msgspec.json.decode(message)
        number = decoded.get("id")
        if number is None:
            self._on_event(decoded["method"], decoded.get("params", {}), decoded.get("sessionId"))
            return
        pending = self._pending.pop(number, None)
        if isinstance(pending, _Pending):
            pending.answer = decoded
            pending.done.set()
        elif pending is not None:
            pending(decoded.get("result"))


def _ignore(result: dict[str, Any] | None) -> None:
    pass


def _result(method: str, pending: _Pending) -> dict[str, Any]:
    if pending.answer is not None:
        if (error := pending.answer.get("error")) is not None:
            raise Failed("failed", f"{method}: {error.get('message')} {error.get('data', '')}".rstrip())
        result: dict[str, Any] = pending.answer.get("result", {})
        return result
    if pending.done.is_set():
        raise Failed("crashed", _GONE)
    raise Failed("timeout", f"{method}: Chromium has not answered within {CALL_SECONDS:.0f} s")
