"""A daemon of another make behind our socket: commands, the stream passed on, its end with ours."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browserd.daemon import Daemon, browserd, until

OTHER = Path(__file__).with_name("other_daemon.py")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class Place:
    """A folder for the daemon and what it leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts = folder / "starts"
        self.port = free_port()

    @property
    def socket(self) -> Path:
        return self.folder / "default.sock"


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    made = Place(folder / "other")
    made.folder.mkdir()
    yield made
    assert not made.socket.exists()
    made.starts.unlink(missing_ok=True)
    made.folder.rmdir()


@pytest.fixture
def other(place: Place) -> Iterator[Daemon]:
    options = ("--executable-path", "/a browser", "--extension", "/x", "--headed", "--binary", str(OTHER))
    variables = {"AGENT_BROWSER_STREAM_PORT": str(place.port), "OTHER_STARTS": str(place.starts)}
    with browserd(place.folder, *options, **variables) as running:
        yield running


def starts(place: Place) -> list[str]:
    return place.starts.read_text().splitlines() if place.starts.exists() else []


def test_commands(other: Daemon, place: Place) -> None:
    assert other.status()["browser"] == "stopped"
    assert starts(place) == [], "status starts nothing"
    assert other.do("open", "https://example.org/") == {"url": "https://example.org/"}
    options = ["--session", "default", "--headed", "--executable-path", "/a browser", "--extension", "/x"]
    assert starts(place) == [str([*options, "open", "https://example.org/"])]
    assert other.do("get", "url") == {"value": "https://example.org/"}
    status = other.status()
    assert (status["running"], status["browser"], status["viewers"]) == (True, "running", 0)
    assert status["binary"] == str(OTHER)
    other.do("close")
    assert other.status()["browser"] == "stopped"
    assert other.do("get", "url") == {}
    assert len(starts(place)) == 2


def test_failures(other: Daemon) -> None:
    assert other.fails("dance") == ("failed", "what is dance?")
    assert other.fails("die") == ("failed", "the disk is on fire")
    assert other.do("babble") == {"text": "well, well,"}
    assert other.fails("hang", timeout=0.5)[0] == "timeout"
    assert other.fails("flood")[0] == "too_big"
    assert other.do("open", "about:blank") == {"url": "about:blank"}


def test_the_stream(other: Daemon, place: Place) -> None:
    """Whoever watches has the browser started; every byte goes on, and no credentials do."""
    key = base64.b64encode(os.urandom(16)).decode()
    fields = {
        "Host": "somewhere",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Cookie": "auth_token=secret",
        "Origin": "https://somewhere",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    glued = b"\x81\x00" + bytes(range(256)) * 1000
    with other.connect() as viewer:
        viewer.sendall(f"GET /stream HTTP/1.1\r\n{head}\r\n".encode() + glued)
        said = b""
        while len(said.partition(b"\r\n\r\n")[2].partition(b"\x81\x00")[2]) < len(glued) - 2:
            data = viewer.recv(1 << 16)
            assert data, said
            said += data
        head_, _, rest = said.partition(b"\r\n\r\n")
        assert head_.startswith(b"HTTP/1.1 101 ")
        names, _, echoed = rest[2:].partition(b"\x81\x00")
        assert names == b"connection,host,sec-websocket-key,sec-websocket-version,upgrade"
        assert b"\x81\x00" + echoed == glued
        assert other.status()["viewers"] == 1
    until(lambda: other.status()["viewers"] == 0, "the viewer has gone")
    assert starts(place)[0].endswith("'open', 'about:blank']")


def test_a_daemon_that_is_not_there(place: Place) -> None:
    missing = place.folder / "missing"
    with browserd(place.folder, "--binary", str(missing), AGENT_BROWSER_STREAM_PORT=str(place.port)) as other:
        code, text = other.fails("open", "about:blank")
        assert code == "no_browser"
        assert text == f"{missing} can't be run: No such file or directory"
        with other.connect() as viewer:
            handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            key = base64.b64encode(os.urandom(16)).decode()
            viewer.sendall(
                f"GET / HTTP/1.1\r\nHost: x\r\n{handshake}Sec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            assert viewer.recv(1 << 16).startswith(b"HTTP/1.1 502 ")
