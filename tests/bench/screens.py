"""Two ways to watch a page, as lean as can be: the stream of oqto-browserd, and Chromium's own screencast."""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from runner.browser.pace import LEVELS
from runner.browser.screencast import SIZE
from tests.bench.load import PATIENCE, Address, open_websocket

_NUMBER = re.compile(rb'"id":(\d+)\}\Z')
_CAST = re.compile(rb'"sessionId":(\d+)\},"sessionId"')
_TAIL = 400
"""Bytes at the end of a frame's message that hold its numbers."""

_CHUNK = 1 << 20
_LENGTH_FOLLOWS = {126: 2, 127: 8}  # RFC 6455, 5.2


class Stream:
    """A viewer. What comes is looked at by `frame` alone."""

    def __init__(self, path: Path) -> None:
        self._sock = open_websocket(Address(str(path)), "/stream")
        self._file = self._sock.makefile("rb", _CHUNK)
        self.number = 0
        """Of the last frame; the daemon counts those that Chromium sent it."""

    def frame(self, *, acknowledge: bool = True) -> bytes:
        """Return the next frame's message."""
        while not (message := self._message()).startswith(b'{"type":"frame"'):
            pass
        found = _NUMBER.search(message, len(message) - _TAIL)
        assert found is not None, message[-_TAIL:]
        self.number = int(found[1])
        if acknowledge:
            self.acknowledge()
        return message

    def acknowledge(self) -> None:
        """Say that the last frame is on the screen."""
        self._send({"type": "ack", "id": self.number})

    def click(self, x: int, y: int) -> None:
        """Press and release the left button."""
        for kind in ("mousePressed", "mouseReleased"):
            self._send({"type": "input_mouse", "eventType": kind, "x": x, "y": y, "button": "left"})

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self._sock.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        assert len(data) < min(_LENGTH_FOLLOWS)
        self._sock.sendall(bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data)  # a mask that changes nothing

    def _message(self) -> bytes:
        head = self._file.read(2)
        if len(head) < 2 or head[0] & 0x0F == 8:
            raise RuntimeError("the stream is closed")
        length = head[1]
        if (more := _LENGTH_FOLLOWS.get(length)) is not None:
            length = int.from_bytes(self._file.read(more), "big")
        message: bytes = self._file.read(length)
        return message


class Pipe:
    """A Chromium of our own with one page, at the other end of --remote-debugging-pipe."""

    def __init__(self, process: subprocess.Popen[bytes], reader: int, writer: int) -> None:
        self.process = process
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._received = bytearray()
        self._session: str | None = None
        (page,) = (
            target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page"
        )
        attach = {"targetId": page["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", **attach)["sessionId"]
        self.call("Page.enable")
        width, height = SIZE
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def open(self, url: str) -> None:
        """Show a page, and wait until it has loaded."""
        self._post("Page.navigate", url=url)
        while not self._message().startswith(b'{"method":"Page.loadEventFired"'):
            pass

    def start(self) -> None:
        """Have frames sent, such as the daemon asks for."""
        width, height = SIZE
        more = {"quality": LEVELS[0][0], "maxWidth": width, "maxHeight": height, "everyNthFrame": 1}
        self.call("Page.startScreencast", format="jpeg", **more)

    def stop(self) -> None:
        """Have no more sent."""
        self.call("Page.stopScreencast")

    def frame(self) -> bytes:
        """Return the next frame's message, which is acknowledged."""
        while not (message := self._message()).startswith(b'{"method":"Page.screencastFrame"'):
            pass
        found = _CAST.search(message, len(message) - _TAIL)
        assert found is not None, message[-_TAIL:]
        self._post("Page.screencastFrameAck", sessionId=int(found[1]))
        return message

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a call, and let go of everything that comes before."""
        answer = b'{"id":%d,' % self._post(method, **parameters)
        while not (message := self._message()).startswith(answer):
            pass
        decoded = json.loads(message)
        if "result" not in decoded:
            raise RuntimeError(f"{method}: {decoded['error']}")
        result: dict[str, Any] = decoded["result"]
        return result

    def _post(self, method: str, **parameters: Any) -> int:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        return number

    def _message(self) -> bytes:
        seen = 0
        while (end := self._received.find(0, seen)) < 0:
            seen = len(self._received)
            ready, _, _ = select.select([self._reader], [], [], PATIENCE)
            data = os.read(self._reader, _CHUNK) if ready else b""
            if not data:
                raise RuntimeError("Chromium says nothing, or has ended")
            self._received += data
        message = bytes(self._received[:end])
        del self._received[: end + 1]
        return message


@contextmanager
def chromium(command: Sequence[str], profile: Path) -> Iterator[Pipe]:
    """Run a Chromium as somebody else runs one, but with a profile of its own."""
    mine = [f"--user-data-dir={profile}" if x.startswith("--user-data-dir=") else x for x in command]
    reader, theirs_out = os.pipe()
    theirs_in, writer = os.pipe()
    script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *mine],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(profile.parent)},
        pass_fds=(theirs_in, theirs_out),
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Pipe(process, reader, writer)
    finally:
        started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(PATIENCE)
        psutil.wait_procs(started, PATIENCE)
        os.close(reader)
        os.close(writer)
