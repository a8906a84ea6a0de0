"""A running oqto-browserd, and its clients: commands over HTTP, viewers with wsproto as the WebSocket."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from PIL import Image
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

PATIENCE = 30.0
"""Seconds after which something that takes milliseconds is held to have failed."""


class _Http(http.client.HTTPConnection):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = sock


class Daemon:
    """A daemon that was started."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self.path = path

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(2 * PATIENCE)
        sock.connect(str(self.path))
        return sock

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        http_ = _Http(self.connect())
        try:
            http_.request(method, path, None if body is None else json.dumps(body))
            answer = http_.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            http_.close()

    def try_(self, *arguments: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The answer to a command."""
        status, answer = self.request("POST", "/command", {"args": arguments, "timeout": timeout})
        assert status == 200, answer
        said: dict[str, Any] = answer
        return said

    def do(self, *arguments: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The data of a command that works."""
        answer = self.try_(*arguments, timeout=timeout)
        assert answer["success"], answer
        data: dict[str, Any] = answer["data"]
        return data

    def fails(self, *arguments: str, timeout: float = PATIENCE) -> tuple[str, str]:
        """Code and text of a command that doesn't."""
        answer = self.try_(*arguments, timeout=timeout)
        assert not answer["success"], answer
        return answer["code"], answer["error"]

    def eval(self, script: str) -> Any:
        return self.do("eval", script)["result"]

    def until(self, script: str, wanted: Any = True) -> None:
        """Wait until a script has this value."""
        until(lambda: self.eval(script) == wanted, f"{script} never was {wanted!r}: {self.eval(script)!r}")

    def status(self) -> dict[str, Any]:
        return self.do("status")

    def chromium(self) -> psutil.Process:
        return psutil.Process(self.status()["pid"])

    def processes(self) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found


class Viewer:
    """Somebody who watches."""

    def __init__(self, sock: socket.socket, *, headers: dict[str, str] | None = None, acks: bool = True):
        self.sock = sock
        self.acks = acks
        self.websocket = WSConnection(ConnectionType.CLIENT)
        self.told: list[dict[str, Any]] = []
        self.frames = 0
        self.frame: dict[str, Any] | None = None
        self.closed: CloseConnection | None = None
        self._text = ""
        extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        sock.sendall(self.websocket.send(Request(host="localhost", target="/stream", extra_headers=extra)))
        self._accepted = False
        while not self._accepted:
            self._receive()

    def send(self, kind: str, **more: Any) -> None:
        self.sock.sendall(self.websocket.send(TextMessage(json.dumps({"type": kind, **more}))))

    def _receive(self) -> None:
        data = self.sock.recv(1 << 18)
        self.websocket.receive_data(data or None)
        for event in self.websocket.events():
            match event:
                case AcceptConnection():
                    self._accepted = True
                case TextMessage(data=text):
                    self._text += text
                    if event.message_finished:
                        message, self._text = json.loads(self._text), ""
                        self._take(message)
                case Ping():
                    self.sock.sendall(self.websocket.send(event.response()))
                case CloseConnection():
                    self.closed = event
                case _:
                    raise AssertionError(f"unexpected {event}")
        assert data or self.closed is not None, "the connection was cut"

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] != "frame":
            self.told.append(message)
            return
        self.frames += 1
        self.frame = message
        if self.acks:
            self.send("ack", id=message["id"])

    def until(self, holds: Callable[[], Any], what: str) -> None:
        """Receive until something holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            left = end - time.monotonic()
            assert left > 0, f"{what}: never; told {self.told[-5:]}"
            self.sock.settimeout(left)
            try:
                self._receive()
            except TimeoutError:
                continue

    def next_told(self, kind: str) -> dict[str, Any]:
        """The next message of a kind."""
        self.until(lambda: any(each["type"] == kind for each in self.told), f"a message {kind}")
        found = next(each for each in self.told if each["type"] == kind)
        self.told.remove(found)
        return found

    def picture(self) -> Image.Image:
        assert self.frame is not None
        return Image.open(io.BytesIO(base64.b64decode(self.frame["data"]))).convert("RGB")

    def shows(self, x: int, y: int, colour: tuple[int, int, int]) -> bool:
        """Whether the last frame has about this colour there."""
        if self.frame is None:
            return False
        picture = self.picture()
        scale = picture.width / self.frame["metadata"]["deviceWidth"]
        found = picture.getpixel((round(x * scale), round(y * scale)))
        assert isinstance(found, tuple)
        return all(abs(one - other) < 60 for one, other in zip(found, colour, strict=True))

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.send("input_mouse", eventType=kind, x=x, y=y, **more)

    def click(self, x: float, y: float, count: int = 1) -> None:
        self.mouse("mouseMoved", x, y)
        for number in range(1, count + 1):
            self.mouse("mousePressed", x, y, button="left", clickCount=number)
            self.mouse("mouseReleased", x, y, button="left", clickCount=number)

    def key(self, key: str, text: str | None = None, **more: Any) -> None:
        down = {} if text is None else {"text": text}
        self.send("input_keyboard", eventType="keyDown", key=key, **down, **more)
        self.send("input_keyboard", eventType="keyUp", key=key, **more)

    def leave(self) -> None:
        self.sock.close()


def until(holds: Callable[[], Any], what: str) -> None:
    """Ask again and again, since nothing tells, until something outside holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@contextmanager
def watching(daemon: Daemon, *, acks: bool = True) -> Iterator[Viewer]:
    viewer = Viewer(daemon.connect(), acks=acks)
    try:
        yield viewer
    finally:
        viewer.leave()


COMMAND = (sys.executable, "-X", "dev", "-m", "runner.browser.main")


@contextmanager
def browserd(
    folder: Path, *options: str, command: Sequence[str] = COMMAND, **environment: str
) -> Iterator[Daemon]:
    """Run a daemon; at the end it must stop orderly at SIGTERM, and leave no process and no socket."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "s.sock"
    command = [*command, "--profile", str(folder / "profile"), "--downloads", str(folder / "downloads")]
    process = subprocess.Popen(
        [*command, *options, "serve", "--socket", str(path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "error", "TMPDIR": str(folder), **environment},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert b"listening" in line, line + process.stderr.read()
        daemon = Daemon(process, path)
        yield daemon
        if process.poll() is None:
            left = daemon.processes()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            _, alive = psutil.wait_procs(left, timeout=5)
            assert not alive, alive
            assert not path.exists()
            said = process.stderr.read().decode()
            assert said == "", said
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()
