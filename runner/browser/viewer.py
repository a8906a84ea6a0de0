"""One viewer's WebSocket: frames and news to it, its input to the page.

Nothing queues for a viewer but a few short messages: of frames it gets the newest when it can take one.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, Protocol

import msgspec
import trio

from runner import websocket
from runner.browser import input as messages
from runner.browser.screencast import Frame
from runner.websocket import CloseCode

PING_SECONDS: Final = 20.0
SILENT_SECONDS: Final = 80.0
"""A viewer that sent nothing for so long, pongs included, is gone."""

IN_FLIGHT: Final = 2
"""Frames that may be on the way to a viewer that acknowledges."""

_MAX_OUTBOX: Final = 64
_LINGER_SECONDS: Final = 1.0
_RECEIVE_SIZE: Final = 1 << 16


class Stage(Protocol):
    """What a viewer watches."""

    @property
    def latest(self) -> Frame | None:
        """The newest frame."""
        ...

    def taken(self, viewer: Viewer, frame: Frame) -> None:
        """The viewer is about to be sent this frame, the latest."""
        ...

    def shown(self, viewer: Viewer, seconds: float) -> None:
        """The viewer has a frame, and took so much longer for it than at best."""
        ...

    async def message(self, viewer: Viewer, message: messages.Message) -> None:
        """Carry out what the viewer sent; raises nothing for it."""
        ...


class Viewer:
    """Serves one upgraded connection; `run` returns when it is closed."""

    def __init__(self, stream: trio.SocketStream, received: bytes, stage: Stage) -> None:
        self._stream = stream
        self._reader = websocket.FrameReader()
        self._reader.feed(received)
        self._stage = stage
        self._outbox: deque[bytes] = deque()
        self._wake = trio.Event()
        self._shown = 0  # id of the last frame that was sent
        self._acknowledges = False
        self._on_the_way: deque[tuple[int, float]] = deque()  # ids, and when they were sent
        self._at_best = math.inf  # seconds from a frame to its acknowledgement
        self._torn = False
        self._peer_closed = False
        self._ending: tuple[int | None, str] | None = None
        self._last_heard = trio.current_time()

    def wake(self) -> None:
        """There is a new frame."""
        self._wake.set()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message, after those before it and before the next frame."""
        if len(self._outbox) < _MAX_OUTBOX:
            self._outbox.append(websocket.text_frame(msgspec.json.encode(message)))
            self._wake.set()

    async def run(self) -> None:
        """Serve until the end; never raises for what the viewer does."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_all, nursery.cancel_scope)
                nursery.start_soon(self._ping, nursery.cancel_scope)
                await self._follow()
                nursery.cancel_scope.cancel()
        finally:
            if trio.current_effective_deadline() == -math.inf:
                self._end_with(CloseCode.GOING_AWAY, "the browser's daemon is stopping")
            with trio.CancelScope(shield=True):
                await self._close()

    # --- to the viewer ------------------------------------------------------------------------------------

    async def _send_all(self, scope: trio.CancelScope) -> None:
        while True:
            while self._outbox:
                if not await self._send(self._outbox.popleft()):
                    scope.cancel()
                    return
            frame = self._stage.latest
            if frame is not None and frame.id > self._shown and len(self._on_the_way) < IN_FLIGHT:
                self._shown = frame.id
                sent_at = trio.current_time()
                if self._acknowledges:
                    self._on_the_way.append((frame.id, sent_at))
                self._stage.taken(self, frame)
                if not await self._send(frame.encoded()):
                    scope.cancel()
                    return
                if not self._acknowledges:
                    self._stage.shown(self, trio.current_time() - sent_at)
                continue
            if not self._outbox:
                await self._wake.wait()
                self._wake = trio.Event()

    async def _ping(self, scope: trio.CancelScope) -> None:
        while True:
            await trio.sleep(PING_SECONDS)
            if trio.current_time() - self._last_heard > SILENT_SECONDS:
                self._torn = True
                scope.cancel()
            elif not self._outbox:
                self._outbox.append(websocket.ping_frame())
                self._wake.set()

    async def _send(self, frame: bytes) -> bool:
        """Send a frame whole; False when the connection can't take any more."""
        if self._torn:
            return False
        rest = memoryview(frame)
        try:
            while rest:
                # All or nothing, other than send_all: only a cancellation in between leaves half a frame.
                rest = rest[await self._stream.socket.send(rest) :]
                self._torn = len(rest) > 0
        except (OSError, trio.ClosedResourceError):
            self._torn = True
        return not self._torn

    # --- from the viewer ----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        try:
            while (event := await self._next_event()) is not None:
                match event:
                    case websocket.Message(data):
                        await self._take(data)
                    case websocket.Ping(payload):
                        if len(self._outbox) < _MAX_OUTBOX:
                            self._outbox.append(websocket.pong_frame(payload))
                            self._wake.set()
                    case websocket.Close(code):
                        self._peer_closed = True
                        self._end_with(code, "")  # RFC 6455, 5.5.1: the answer echoes the code
                        return
        except websocket.RemoteProtocolError as error:
            self._end_with(error.code, error.reason)

    async def _take(self, data: bytes) -> None:
        try:
            message = messages.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.tell({"type": "error", "message": f"not understood: {error}"})
            return
        if isinstance(message, messages.Acknowledge):
            self._acknowledged(message.id)
        else:
            await self._stage.message(self, message)

    def _acknowledged(self, number: int) -> None:
        self._acknowledges = True
        while self._on_the_way and self._on_the_way[0][0] <= number:
            seconds = trio.current_time() - self._on_the_way.popleft()[1]
            self._at_best = min(self._at_best, seconds)
            self._stage.shown(self, seconds - self._at_best)
        self._wake.set()

    async def _next_event(self) -> websocket.Event | None:
        """Return the next frame's event, None at the end of the stream."""
        while (event := self._reader.next_event()) is None:
            try:
                data = await self._stream.receive_some(_RECEIVE_SIZE)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self._torn = True  # nobody is there to read a close frame
                return None
            self._last_heard = trio.current_time()
            self._reader.feed(bytes(data))
        return event

    # --- the end ------------------------------------------------------------------------------------------

    def _end_with(self, code: int | None, reason: str) -> None:
        if self._ending is None:
            self._ending = (code, reason)

    async def _close(self) -> None:
        """Send the close frame, and give the peer a moment for its own, since unread bytes reset a socket."""
        with trio.move_on_after(_LINGER_SECONDS):
            if self._ending is not None and await self._send(websocket.close_frame(*self._ending)):
                try:
                    await self._stream.send_eof()
                    while not self._peer_closed and await self._stream.receive_some(_RECEIVE_SIZE):
                        pass
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # gone already, which is as good
        await trio.aclose_forcefully(self._stream)
