"""What may be sent to oqto-ttyd, on which socket, with which options: and what it says to all else."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import trio
from wsproto.events import (
    AcceptConnection,
    RejectConnection,
    RejectData,
)

from tests.integration.ttyd import PATIENCE, SHELL, Server, Terminal, socket_path, ttyd


async def http(server: Server, request: bytes) -> bytes:
    """Send bytes, say no more, and return all that comes back."""
    stream = await server.connect()
    async with stream:
        await stream.send_all(request)
        answer = b""
        with trio.fail_after(PATIENCE):
            try:
                while data := await stream.receive_some():
                    answer += data
                    if b"Connection: close" not in request and answer.count(b"HTTP/1.1 200") == 2:
                        break
            except trio.BrokenResourceError:
                pass
    return answer


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_the_page_and_its_files(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), *SHELL) as server:
        page = await http(server, get("/?a=b"))
        assert page.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nContent-Security-Policy: default-src 'self'; style-src 'self' 'unsafe-inline';" in page
        assert b'<script src="static/terminal.js" defer>' in page
        assert b"FitAddon" in await http(server, get("/static/addon-fit.js"))
        assert (await http(server, get("/token"))).endswith(b'\r\n\r\n{"token": ""}')
        for missing in (
            "/static/",
            "/static/../main.py",
            "/static/%2e%2e/main.py",
            "/index.html",
            "/x",
            "//",
        ):
            assert (await http(server, get(missing))).startswith(b"HTTP/1.1 404 "), missing
        head = await http(server, get("/").replace(b"GET", b"HEAD"))
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.endswith(b"\r\n\r\n")
        two = get("/token").replace(b"Connection: close\r\n", b"")
        assert (await http(server, two + two)).count(b'{"token": ""}') == 2


async def test_a_page_of_ones_own(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>mine</p>")
    async with ttyd("-i", socket_path(tmp_path), "-I", str(page), *SHELL) as server:
        assert (await http(server, get("/"))).endswith(b"\r\n\r\n<p>mine</p>")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x00\x01\x02\xff garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000, 431),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (get("/ws"), 426),
        (get("/ws", "Upgrade: websocket", "Sec-WebSocket-Version: 13"), 426),
    ],
)
async def test_bad_requests(tmp_path: Path, request_bytes: bytes, status: int) -> None:
    async with ttyd("-i", socket_path(tmp_path), *SHELL) as server:
        assert (await http(server, request_bytes)).startswith(f"HTTP/1.1 {status} ".encode())
        assert (await http(server, get("/token"))).startswith(b"HTTP/1.1 200 ")
        assert not server.children()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x05hello", 1002),  # no mask
        (b"\xf2\x80\0\0\0\0", 1002),  # reserved bits
        (b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
        (b"\x82\x82\0\0\0\0{]", 1007),
        (b"\x82\x80\0\0\0\0", 1007),
    ],
)
async def test_hostile_frames_end_only_their_own_terminal(tmp_path: Path, frame: bytes, code: int) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-W", *SHELL) as server:
        neighbour = await Terminal.open(server)
        for with_process in (False, True):
            terminal = Terminal(await server.connect())
            await terminal.handshake()
            if with_process:
                await terminal.send(b"{}")
            await terminal.stream.send_all(frame + b"and more" * 1000)
            assert (await terminal.until_closed()).code == code
            await terminal.stream.aclose()
        await neighbour.type("echo $((6*7))\n")
        await neighbour.until("42\r\n")
        await neighbour.stream.aclose()


async def test_tcp_checks_where_a_page_came_from() -> None:
    async with ttyd("-p", "0", "-W", *SHELL) as server:
        own = server.address.removeprefix("http://").rstrip("/")
        cases = [
            ({"host": own, "origin": f"http://{own}"}, True),
            ({"host": own}, True),
            ({"host": own, "origin": "http://evil.example"}, False),
            ({"host": own, "origin": "null"}, False),
            ({"host": own, "origin": f"http://{own.partition(':')[0]}:1"}, False),
            ({"host": f"evil.example:{own.partition(':')[2]}"}, False),
        ]
        for headers, welcome in cases:
            terminal = Terminal(await server.connect())
            event = await terminal.handshake(**headers)
            assert isinstance(event, AcceptConnection if welcome else RejectConnection), headers
            if isinstance(event, RejectConnection):
                assert event.status_code == 403
                assert isinstance(await terminal.next_event(), RejectData)
            await terminal.stream.aclose()


async def fails(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "runner.terminal.main", *arguments]
    result = await trio.run_process(command, capture_stderr=True, check=False)
    return result.returncode, result.stderr.decode()


async def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(path)
    assert Path(path).exists()
    async with ttyd("-i", path, *SHELL) as server:
        status, text = await fails("-i", path, *SHELL)
        assert status == 1
        assert path in text
        assert "another server" in text
        assert (await http(server, get("/token"))).startswith(b"HTTP/1.1 200 ")


async def test_what_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    path.write_text("precious")
    status, text = await fails("-i", str(path), *SHELL)
    assert (status, path.read_text()) == (1, "precious")
    assert "isn't a socket" in text
    status, text = await fails("-i", str(tmp_path / "no" / "t.sock"), *SHELL)
    assert status == 1
    assert "make the directory first" in text
    status, text = await fails("-i", str(tmp_path / ("n" * 120)), *SHELL)
    assert status == 1
    assert "107 bytes" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("-p", "70000", "bash"),
        ("-t", "nothing", "bash"),
        ("-w", "/nonexistent", "bash"),
        ("-I", "/nonexistent", "bash"),
        ("-i", "eth7", "bash"),
        ("-m", "-1", "bash"),
        (),
    ],
)
async def test_wrong_options(arguments: tuple[str, ...]) -> None:
    status, text = await fails(*arguments)
    assert status == 2
    assert "Traceback" not in text
