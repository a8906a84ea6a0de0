"""oqto-ttyd as a program: real sockets, real pseudoterminals, real shells."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
)

PATIENCE = 20.0
"""Seconds after which something that takes milliseconds is held to have failed."""

SHELL = ("bash", "--norc", "--noprofile")


class Server:
    """A running oqto-ttyd."""

    def __init__(self, process: trio.Process, address: str) -> None:
        self.process = process
        self.address = address

    async def connect(self) -> trio.SocketStream:
        if self.address.startswith("http://"):
            host, _, port = self.address.removeprefix("http://").rstrip("/").partition(":")
            return await trio.open_tcp_stream(host, int(port))
        return await trio.open_unix_socket(self.address)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def wait_for_no_children(self) -> None:
        with trio.fail_after(PATIENCE):
            while self.children():
                await trio.sleep(0.01)


@asynccontextmanager
async def ttyd(*arguments: str, stop: bool = True) -> AsyncIterator[Server]:
    """Run oqto-ttyd; at the end it must stop orderly at SIGTERM and have written nothing unexpected."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-X", "dev", "-m", "runner.terminal.main", *arguments],
        stderr=subprocess.PIPE,
        env={**os.environ, "PS1": "$ ", "PYTHONWARNINGS": "error"},
    )
    try:
        assert process.stderr is not None
        line = b""
        with trio.fail_after(PATIENCE):
            while not line.endswith(b"\n"):
                received = await process.stderr.receive_some(1)
                assert received, f"oqto-ttyd ended: {line!r}"
                line += received
        yield Server(process, line.decode().strip().rpartition(" ")[2])
        if stop:
            process.send_signal(signal.SIGTERM)
        rest = b""
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
            while received := await process.stderr.receive_some():
                rest += received
        assert rest == b"", rest.decode()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        assert process.stderr is not None
        await process.stderr.aclose()


class Terminal:
    """A client of one terminal, with wsproto as its WebSocket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.websocket = WSConnection(ConnectionType.CLIENT)
        self.events: list[Event] = []
        self._message = b""
        self.output = b""
        self.others: list[bytes] = []
        self.closed: CloseConnection | None = None

    @classmethod
    async def open(cls, server: Server, columns: int = 80, rows: int = 24) -> Terminal:
        terminal = cls(await server.connect())
        await terminal.handshake()
        await terminal.send(json.dumps({"AuthToken": "", "columns": columns, "rows": rows}).encode())
        return terminal

    async def handshake(self, **extra: str) -> Event:
        host = extra.pop("host", "localhost")
        headers = [(name.encode(), value.encode()) for name, value in extra.items()]
        request = Request(host=host, target="/ws?x=1", subprotocols=["tty"], extra_headers=headers)
        await self.stream.send_all(self.websocket.send(request))
        event = await self.next_event()
        if isinstance(event, AcceptConnection):
            assert event.subprotocol == "tty"
        return event

    async def next_event(self) -> Event:
        with trio.fail_after(PATIENCE):
            while not self.events:
                data = bytes(await self.stream.receive_some(65536))
                self.websocket.receive_data(data or None)
                self.events += self.websocket.events()
                if not data and not self.events:
                    raise EOFError
        return self.events.pop(0)

    async def send(self, message: bytes) -> None:
        await self.stream.send_all(self.websocket.send(BytesMessage(message)))

    async def type(self, text: str) -> None:
        await self.send(b"0" + text.encode())

    async def receive(self) -> None:
        match await self.next_event():
            case BytesMessage(data=data) as event:
                self._message += data
                if event.message_finished:
                    message, self._message = self._message, b""
                    if message[:1] == b"0":
                        self.output += message[1:]
                    else:
                        self.others.append(message)
            case CloseConnection() as close:
                self.closed = close
                await self.stream.send_all(self.websocket.send(close.response()))
            case Ping() as ping:
                await self.stream.send_all(self.websocket.send(ping.response()))
            case event:
                raise AssertionError(f"unexpected {event}")

    async def until(self, text: str) -> None:
        """Receive until the output has the text; what was before it, and it, are dropped then."""
        wanted = text.encode()
        with trio.fail_after(PATIENCE):
            while wanted not in self.output:
                assert self.closed is None, f"closed with {self.closed}, output {self.output!r}"
                await self.receive()
        self.output = self.output.partition(wanted)[2]

    async def until_closed(self) -> CloseConnection:
        while self.closed is None:
            await self.receive()
        return self.closed


def socket_path(tmp_path: Path) -> str:
    return str(tmp_path / "t.sock")


async def test_a_shell_answers(tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    async with ttyd("-i", path, "-W", "-w", str(tmp_path), "-t", "fontSize=17", *SHELL) as server:
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        terminal = await Terminal.open(server)
        await terminal.type("pwd; tty; echo $TERM-${COLUMNS:-unset}; ps -o tpgid= -p $$ | grep -c -- -1\n")
        await terminal.until(f"{tmp_path}\r\n")
        await terminal.until("/dev/pts/")
        await terminal.until("xterm-256color-")
        await terminal.until("0\r\n")  # it has a controlling terminal
        assert terminal.others[0].startswith(b"1bash --norc --noprofile (")
        assert json.loads(terminal.others[1][1:]) == {"fontSize": 17}
        assert terminal.others[1][:1] == b"2"
        assert len(terminal.others) == 2
        await terminal.stream.aclose()
    assert not Path(path).exists()


async def test_job_control_and_ctrl_c_work(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-W", *SHELL) as server:
        terminal = await Terminal.open(server)
        await terminal.type("sleep 1000; echo status=$?\n")
        await terminal.until("$ ")
        with trio.fail_after(PATIENCE):
            while not any(child.name() == "sleep" for child in server.children()):
                await trio.sleep(0.01)
        await terminal.type("\x03")
        await terminal.until("^C")
        await terminal.type("echo alive=$((6*7))\n")
        await terminal.until("alive=42")
        await terminal.stream.aclose()


async def test_the_size_is_the_clients(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-W", *SHELL) as server:
        terminal = await Terminal.open(server, columns=91, rows=33)
        await terminal.type("stty size\n")
        await terminal.until("33 91\r\n")
        await terminal.send(b'1{"columns":120,"rows":40}')
        await terminal.type("stty size\n")
        await terminal.until("40 120\r\n")
        await terminal.send(b'1{"rows":20}')
        await terminal.type("stty size\n")
        await terminal.until("20 120\r\n")
        await terminal.stream.aclose()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo last words", "exited with status 0"),
        ("echo last words; exit 3", "exited with status 3"),
        ("echo last words; kill -9 $$", "ended by SIGKILL"),
        # A background job keeps the terminal open; the connection ends all the same.
        ("trap '' HUP; sleep 1000 & echo last words", "exited with status 0"),
        ("yes & sleep 0.1; echo last words; exit 0", "exited with status 0"),
    ],
)
async def test_the_end_of_the_process_closes_the_connection(
    tmp_path: Path, script: str, reason: str
) -> None:
    async with ttyd("-i", socket_path(tmp_path), "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        close = await terminal.until_closed()
        assert (close.code, close.reason) == (1000, reason)
        assert b"last words\r\n" in terminal.output
        await terminal.stream.aclose()
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["cmdline"] == ["sleep", "1000"]:
            process.kill()


async def test_all_output_arrives_before_the_close(tmp_path: Path) -> None:
    command = ("bash", "-c", "stty -opost; seq 1 200000; echo end")
    async with ttyd("-i", socket_path(tmp_path), *command) as server:
        terminal = await Terminal.open(server)
        assert (await terminal.until_closed()).code == 1000
        expected = "".join(f"{number}\n" for number in range(1, 200001)) + "end\n"
        assert terminal.output == expected.encode()
        await terminal.stream.aclose()


async def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "no-such-program") as server:
        terminal = await Terminal.open(server)
        close = await terminal.until_closed()
        assert (close.code, close.reason) == (1000, "exited with status 127")
        assert b"no-such-program" in terminal.output
        await terminal.stream.aclose()


async def test_a_directory_that_went_away_is_an_internal_error(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    async with ttyd("-i", socket_path(tmp_path), "-w", str(folder), *SHELL) as server:
        folder.rmdir()
        terminal = await Terminal.open(server)
        close = await terminal.until_closed()
        assert close.code == 1011
        assert "gone" in (close.reason or "")
        await terminal.stream.aclose()


async def test_input_is_ignored_without_writable(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "cat") as server:
        terminal = await Terminal.open(server)
        await terminal.type("hello\n")
        await terminal.stream.send_all(terminal.websocket.send(Ping(b"mark")))
        while not isinstance(event := await terminal.next_event(), Pong):
            assert isinstance(event, BytesMessage)
            assert not bytes(event.data).startswith(b"0")
        await terminal.stream.aclose()


async def test_pause_stops_output_and_resume_lets_it_go_on(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-W", *SHELL) as server:
        terminal = await Terminal.open(server)
        await terminal.until("$ ")
        await terminal.send(b"2")
        await terminal.type("echo $((40+2))\n")
        with trio.move_on_after(0.3) as silence:
            await terminal.receive()
        assert silence.cancelled_caught, "there was output in spite of the pause"
        await terminal.send(b"3")
        await terminal.until("42\r\n")
        # A process that ends while paused still says its last words and closes.
        await terminal.until("$ ")
        await terminal.send(b"2")
        await terminal.type("echo by''e; exit 5\n")
        close = await terminal.until_closed()
        assert (close.code, close.reason) == (1000, "exited with status 5")
        assert b"bye\r\n" in terminal.output
        await terminal.stream.aclose()


async def test_a_slow_client_slows_the_process(tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    script = f"i=0; while :; do printf '%4000s\\n' $((i++)); echo $i > {progress}; done"
    async with ttyd("-i", socket_path(tmp_path), "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        await terminal.until(" 1\r\n")
        before, now = -1, 0
        with trio.fail_after(PATIENCE):
            while before != now:  # not read for a while: the process stands still
                before = now
                await trio.sleep(0.5)
                now = int(progress.read_text() or before)
        assert now * 4000 < 4 << 20
        memory = psutil.Process(server.process.pid).memory_info().rss
        assert memory < 100 << 20
        await terminal.until(f" {now}\r\n")
        await terminal.stream.aclose()


async def test_a_paused_client_that_pastes_a_lot_does_not_lock_up(tmp_path: Path) -> None:
    script = "stty raw -echo; head -c 200000 /dev/zero; echo ready; exec head -c 2000000 > /dev/null"
    async with ttyd("-i", socket_path(tmp_path), "-W", "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        await terminal.send(b"2")
        async with trio.open_nursery() as nursery:

            async def paste() -> None:
                for _ in range(20):
                    await terminal.send(b"0" + b"x" * 100_000)
                await terminal.send(b"3")

            nursery.start_soon(paste)
            assert (await terminal.until_closed()).reason == "exited with status 0"
        await terminal.stream.aclose()


async def test_a_large_paste_arrives_whole(tmp_path: Path) -> None:
    script = "stty raw -echo; echo ready; head -c 3000000 | sha256sum"
    data = bytes(range(256)) * 12000
    async with ttyd("-i", socket_path(tmp_path), "-W", "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        await terminal.until("ready")
        async with trio.open_nursery() as nursery:

            async def paste() -> None:
                for start in range(0, 3000000, 500_000):
                    await terminal.send(b"0" + data[start : start + 500_000])

            nursery.start_soon(paste)
            await terminal.until(hashlib.sha256(data[:3000000]).hexdigest())
        await terminal.stream.aclose()


async def vanish(terminal: Terminal) -> None:
    await terminal.stream.aclose()


async def say_goodbye(terminal: Terminal) -> None:
    await terminal.stream.send_all(terminal.websocket.send(CloseConnection(code=1001)))
    with trio.fail_after(PATIENCE):
        event = await terminal.next_event()
        while not isinstance(event, CloseConnection):
            event = await terminal.next_event()
    assert event.code == 1001
    await terminal.stream.aclose()


@pytest.mark.parametrize("leave", [vanish, say_goodbye])
@pytest.mark.parametrize("script", ["exec sleep 1000", "trap '' HUP; echo deaf; while :; do read -t 1000; done"])
async def test_a_client_that_leaves_takes_the_process_with_it(
    tmp_path: Path, script: str, leave: Callable[[Terminal], object]
) -> None:
    async with ttyd("-i", socket_path(tmp_path), "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        while len(terminal.others) < 2:
            await terminal.receive()
        if "deaf" in script:
            await terminal.until("deaf")
        assert server.children()
        await leave(terminal)  # type: ignore[misc]  # both are async functions; Callable can't say so briefly
        await server.wait_for_no_children()


async def test_a_client_that_vanishes_behind_a_full_input_queue_is_noticed(tmp_path: Path) -> None:
    script = "stty raw -echo; echo ready; exec sleep 1000"
    async with ttyd("-i", socket_path(tmp_path), "-W", "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        await terminal.until("ready")
        with trio.move_on_after(1):
            while True:
                await terminal.send(b"0" + b"x" * 1_000_000)
        await terminal.stream.aclose()
        await server.wait_for_no_children()


async def test_a_silent_network_is_noticed_by_pings(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-P", "0.1", "sleep", "1000") as server:
        terminal = await Terminal.open(server)
        pings = 0
        try:
            while True:
                pings += isinstance(await terminal.next_event(), Ping)  # none is answered
        except EOFError:
            pass
        assert 3 <= pings <= 5
        await server.wait_for_no_children()
        await terminal.stream.aclose()


async def test_sigterm_closes_terminals_and_reaps(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-W", *SHELL) as server:
        terminal = await Terminal.open(server)
        await terminal.until("$ ")
        children = server.children()
        server.process.send_signal(signal.SIGTERM)
        assert (await terminal.until_closed()).code == 1001
        await terminal.stream.aclose()
        await server.process.wait()
        assert not any(child.is_running() for child in children)
    assert not Path(socket_path(tmp_path)).exists()


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
        for missing in ("/static/", "/static/../main.py", "/static/%2e%2e/main.py", "/index.html", "/x", "//"):
            assert (await http(server, get(missing))).startswith(b"HTTP/1.1 404 "), missing
        assert (await http(server, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).endswith(b"\r\n\r\n")
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


async def test_limits_on_clients(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-m", "1", "-W", *SHELL) as server:
        first = await Terminal.open(server)
        await first.until("$ ")
        second = Terminal(await server.connect())
        refused = await second.handshake()
        assert isinstance(refused, RejectConnection)
        assert refused.status_code == 503
        await second.stream.aclose()
        await first.type("exit\n")
        await first.until_closed()
        await first.stream.aclose()
        with trio.fail_after(PATIENCE):
            while True:
                third = Terminal(await server.connect())
                accepted = isinstance(await third.handshake(), AcceptConnection)
                await third.stream.aclose()
                if accepted:
                    break


@pytest.mark.parametrize("option", ["--once", "--exit-no-conn"])
async def test_ends_with_its_client(tmp_path: Path, option: str) -> None:
    async with ttyd("-i", socket_path(tmp_path), option, "true", stop=False) as server:
        terminal = await Terminal.open(server)
        assert (await terminal.until_closed()).code == 1000
        await terminal.stream.aclose()


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
    async with ttyd("-i", path, *SHELL) as server:
        server.process.kill()
        await server.process.wait()
        assert Path(path).exists()
        async with ttyd("-i", path, *SHELL):
            status, text = await fails("-i", path, *SHELL)
            assert status == 1
            assert path in text
            assert "another server" in text
            assert Path(path).exists()
        server.process.returncode = 0  # type: ignore[misc]


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
