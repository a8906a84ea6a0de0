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
from runner.websocket_stream import WebSocketStream

PING_SECONDS: Final = 20.0
SILENT_SECONDS: Final = 80.0
"""A viewer that sent nothing for so long, pongs included, is gone."""

IN_FLIGHT: Final = 2
"""Frames that may be on the way to a viewer that acknowledges."""

_MAX_OUTBOX: Final = 64


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
        self._websocket = WebSocketStream(stream, received)
        self._stage = stage
        self._outbox: deque[bytes] = deque()
        self._wake = trio.Event()
        self._shown = 0  # id of the last frame that was sent
        self._acknowledges = False
        self._on_the_way: deque[tuple[int, float]] = deque()  # ids, and when they were sent
        self._at_best = math.inf  # seconds from a frame to its acknowledgement

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
                nursery.start_soon(self._websocket.keep, PING_SECONDS, SILENT_SECONDS, nursery.cancel_scope)
                await self._follow()
                nursery.cancel_scope.cancel()
        finally:
            if trio.current_effective_deadline() == -math.inf:
                self._websocket.end_with(CloseCode.GOING_AWAY, "the browser's daemon is stopping")
            with trio.CancelScope(shield=True):
                await self._websocket.close()

    # --- to the viewer ------------------------------------------------------------------------------------

    async def _send_all(self, scope: trio.CancelScope) -> None:
        while True:
            while self._outbox:
                if not await self._websocket.send(self._outbox.popleft()):
                    scope.cancel()
                    return
            frame = self._stage.latest
            if frame is not None and frame.id > self._shown and len(self._on_the_way) < IN_FLIGHT:
                self._shown = frame.id
                sent_at = trio.current_time()
                if self._acknowledges:
                    self._on_the_way.append((frame.id, sent_at))
                self._stage.taken(self, frame)
                if not await self._websocket.send(frame.encoded()):
                    scope.cancel()
                    return
                if not self._acknowledges:
                    self._stage.shown(self, trio.current_time() - sent_at)
                continue
            if not self._outbox:
                await self._wake.wait()
                self._wake = trio.Event()

    # --- from the viewer ----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while (event := await self._websocket.next_event()) is not None:
            match event:
                case websocket.Message(data):
                    await self._take(data)
                case websocket.Ping(payload):
                    if len(self._outbox) < _MAX_OUTBOX:
                        self._outbox.append(websocket.pong_frame(payload))
                        self._wake.set()

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
