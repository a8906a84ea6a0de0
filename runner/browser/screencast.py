"""The one screencast that all viewers share: runs while somebody watches, and keeps the newest frame.

Chromium sends a frame, and the next only when it is told that one was taken; it is told so when the first
viewer takes it. So what no viewer could show is never captured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from runner import websocket
from runner.browser.tab import Tab

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

    def __init__(self, *, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._tab: Tab | None = None
        self._watched = False
        self._running: Tab | None = None
        self._waiting: list[int] = []
        self._count = 0
        self.latest: Frame | None = None
        self.quality = 80
        self.scale = 1.0
        self.size = (1280, 720)

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
        self._adjust()

    def resize(self, width: int, height: int) -> None:
        """Capture at most this many pixels from now on."""
        self.size = (width, height)
        self._restart()

    def pace(self, viewer: int, seconds: float) -> None:
        """Note how long a viewer took for a frame, and follow it with quality and size."""

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
            width, height = (round(side * self.scale) for side in self.size)
            wanted.post(
                "Page.startScreencast",
                {
                    "format": "jpeg",
                    "quality": self.quality,
                    "maxWidth": width,
                    "maxHeight": height,
                    "everyNthFrame": 1,
                },
            )
        if not self._watched:
            self.latest = None

    def _stop(self) -> None:
        if self._running is not None and not self._running.closed:
            self._running.post("Page.stopScreencast", {})
        self._running = None
        self._waiting.clear()

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
        self._wake()

    def taken(self) -> None:
        """A viewer has taken the latest frame: the next may come."""
        if self._running is not None:
            for cast in self._waiting:
                self._running.post("Page.screencastFrameAck", {"sessionId": cast})
        self._waiting.clear()
