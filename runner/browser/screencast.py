"""The one screencast that all viewers share: runs while somebody watches, and keeps the newest frame.

Chromium sends a frame, and the next only when it is told that one was taken; it is told so when the first
viewer takes it. So what no viewer could show is never captured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from runner import websocket
from runner.browser.devtools import Done
from runner.browser.errors import Failed
from runner.browser.pace import LEVELS, Pace
from runner.browser.tab import Tab

SIZE: Final = (1280, 720)
"""Pixels that a picture has at most, until a viewer asks for another size."""

REST_SECONDS: Final = 1.0
"""After which a page that doesn't change is shown as well as can be, whatever the line."""

_RETRY_SECONDS: Final = 0.5
_FIRST_SECONDS: Final = 0.3
"""After the first frame of a page at rest, in which others may follow."""

_DATA: Final = b'"data":"'
_HEAD: Final = b'{"type":"frame","data":"'


class Frame:
    """A frame as Chromium delivered it. `id` counts up."""

    def __init__(self, number: int, message: bytes) -> None:
        self.id = number
        start = message.find(_DATA, 0, 200) + len(_DATA)
        end = message.find(b'"', start)
        # What is left is short: ,"metadata":{…},"sessionId":N},"sessionId":"…"}
        rest = msgspec.json.decode(b'{"params":{' + message[end + 2 :])
        self.session: str | None = rest.get("sessionId")
        self.metadata: dict[str, Any] = rest["params"]["metadata"]
        self.cast: int = rest["params"]["sessionId"]
        self._message = message
        self._start, self._end = start, end
        self._encoded: bytes | None = None

    def encoded(self) -> bytes:
        """The WebSocket frame for viewers, made once."""
        if self._encoded is None:
            data = memoryview(self._message)[self._start : self._end]
            tail = b'","metadata":%s,"id":%d}' % (msgspec.json.encode(self.metadata), self.id)
            head = websocket.text_head(len(_HEAD) + len(data) + len(tail))
            self._encoded = b"".join((head, _HEAD, data, tail))
            self._message = b""
        return self._encoded


class Screencast:
    """Follows one tab at a time. `wake` is called when there is a new frame."""

    def __init__(self, nursery: trio.Nursery, *, wake: Callable[[], None]) -> None:
        self._nursery = nursery
        self._wake = wake
        self._tab: Tab | None = None
        self._watched = False
        self._running: Tab | None = None
        self._waiting: list[int] = []
        self._count = 0
        self._pace = Pace(trio.current_time())
        self._sharp = False
        """Whether the page is at rest, and shown as well as can be."""
        self._sharp_since = math.inf
        self._sharpening = False
        self._arrived_at = 0.0
        self.latest: Frame | None = None
        self.size = SIZE

    @property
    def running(self) -> bool:
        """Whether frames are being captured."""
        return self._running is not None

    def follow(self, tab: Tab | None) -> None:
        """Show this tab from now on."""
        if tab is not self._tab:
            self._tab = tab
            self._adjust()

    def watch(self, *, watched: bool) -> None:
        """Say whether anybody watches."""
        self._watched = watched
        if not watched:
            self._pace, self._sharp = Pace(trio.current_time()), False
        self._adjust()

    def resize(self, width: int, height: int) -> None:
        """Capture at most this many pixels from now on."""
        self.size = (width, height)
        self._restart()

    def shown(self, viewer: object, seconds: float) -> None:
        """A viewer has a frame, and took so much longer for it than at best."""
        if not self._sharp and self._pace.note(viewer, seconds, trio.current_time()):
            if not self._sharpening:
                self._sharpening = True
                self._nursery.start_soon(self._sharpen)
            self._restart()

    def left(self, viewer: object) -> None:
        """A viewer is gone."""
        self._pace.left(viewer)

    async def _sharpen(self) -> None:
        """Show a page at rest as well as can be, while moving ones are not."""
        while self._pace.level > 0:
            rest = self._arrived_at + REST_SECONDS - trio.current_time()
            if rest <= 0 and self.running and not self._sharp:
                self._sharp, self._sharp_since = True, math.inf
                self._restart()
            await trio.sleep(rest if rest > 0 else REST_SECONDS)
        self._sharpening = False

    def _restart(self) -> None:
        self._stop()
        self._adjust()

    def _adjust(self) -> None:
        wanted = self._tab if self._watched else None
        if wanted is self._running:
            return
        self._stop()
        if wanted is not None:
            self._running = wanted
            self._start(wanted)
        if not self._watched:
            self.latest = None

    def _start(self, tab: Tab) -> None:
        quality, scale = LEVELS[0 if self._sharp else self._pace.level]
        width, height = (round(side * scale) for side in self.size)
        more = {"quality": quality, "maxWidth": width, "maxHeight": height, "everyNthFrame": 1}

        def done(result: dict[str, Any] | None) -> None:
            if result is None:
                self._nursery.start_soon(self._start_again, tab)

        self._post(tab, "Page.startScreencast", {"format": "jpeg", **more}, done)

    async def _start_again(self, tab: Tab) -> None:
        """Start what Chromium has refused, as it does while one document takes the place of another."""
        with trio.move_on_after(_RETRY_SECONDS):
            await tab.changed.wait()
        if self._running is tab:
            self._start(tab)

    def _stop(self) -> None:
        if self._running is not None:
            self._post(self._running, "Page.stopScreencast", {})
        self._running = None
        self._waiting.clear()

    def _post(self, tab: Tab, method: str, parameters: dict[str, Any], done: Done | None = None) -> None:
        try:
            if not tab.closed:
                tab.post(method, parameters, done=done)
        except Failed:
            pass  # Chromium has ended, and `lost` is about to be called

    def lost(self) -> None:
        """Chromium has ended."""
        self._tab = self._running = self.latest = None
        self._waiting.clear()

    def arrived(self, message: bytes) -> None:
        """Take a frame."""
        self._count += 1
        frame = Frame(self._count, message)
        if self._running is None or frame.session != self._running.session.id:
            return  # of the tab that was shown before
        self._waiting.append(frame.cast)
        self.latest = frame
        self._arrived_at = trio.current_time()
        self._wake()
        if self._sharp:
            self._sharp_since = min(self._sharp_since, self._arrived_at)
            if self._arrived_at - self._sharp_since > _FIRST_SECONDS:  # it moves again
                self._sharp = False
                self._restart()

    def taken(self) -> None:
        """A viewer has taken the latest frame: the next may come."""
        if self._running is not None:
            for cast in self._waiting:
                self._post(self._running, "Page.screencastFrameAck", {"sessionId": cast})
        self._waiting.clear()
