"""Somebody who watches a session's browser: looks at pictures, clicks and types, over its stream."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from PIL import Image

from tests.clients import TIMEOUT, Http, WebSocket

Colour = tuple[int, int, int]


def is_near(one: Colour, other: Colour) -> bool:
    """JPEG is not exact."""
    return all(abs(a - b) < 40 for a, b in zip(one, other, strict=True))


class Viewer:
    """One WebSocket. Frames are acknowledged as they are looked at."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.status: dict[str, Any] = {}
        self.others: list[dict[str, Any]] = []
        """Messages that are neither frames nor statuses, in order."""
        self.size = (0, 0)
        """Of the page, in its own pixels."""

    @classmethod
    def of(cls, http: Http, session: str) -> Viewer:
        return cls(http.websocket(f"/api/sessions/{session}/browser/stream"))

    def send(self, **message: Any) -> None:
        self._websocket.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        """The next message, whatever it is. Raises EOFError at the end."""
        text = self._websocket.receive()
        if text is None:
            raise EOFError("the stream is closed")
        message: dict[str, Any] = json.loads(text)
        if message["type"] == "status":
            self.status = message
        elif message["type"] == "frame":
            metadata = message["metadata"]
            self.size = (metadata["deviceWidth"], metadata["deviceHeight"])
            self.send(type="ack", id=message["id"])
        else:
            self.others.append(message)
        return message

    def until(self, wanted: Callable[[], object], *, timeout: float = 2 * TIMEOUT) -> None:
        """Receive until something is true."""
        deadline = time.monotonic() + timeout
        while not wanted():
            assert time.monotonic() < deadline, (self.status, self.others)
            self.receive()

    def image(self) -> Image.Image:
        """The next picture."""
        while (message := self.receive())["type"] != "frame":
            pass
        return Image.open(io.BytesIO(base64.b64decode(message["data"]))).convert("RGB")

    def sees(self, colour: Colour, at: tuple[int, int], *, timeout: float = 2 * TIMEOUT) -> Image.Image:
        """Wait until a place of the page has this colour; return the picture."""
        deadline = time.monotonic() + timeout
        seen: object = None
        while time.monotonic() < deadline:
            image = self.image()
            scale = image.width / self.size[0]
            spot = (round(at[0] * scale), round(at[1] * scale))
            if spot[0] < image.width and spot[1] < image.height:
                seen = image.getpixel(spot)
                if is_near(seen, colour):  # type: ignore[arg-type]  # RGB has three
                    return image
        raise AssertionError(f"the page is {seen} at {at}, never {colour}; {self.status}, {self.others}")

    def click(self, x: float, y: float) -> None:
        for kind, buttons in (("mousePressed", 1), ("mouseReleased", 0)):
            self.send(
                type="input_mouse", eventType=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1
            )

    def type(self, text: str) -> None:
        self.send(type="input_text", text=text)

    def close(self) -> None:
        self._websocket.close()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
