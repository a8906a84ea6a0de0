"""The embedded terminal outlives its viewers: real shells on real pseudoterminals, dropped connections."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import TIMEOUT, Refused, Terminal, WebSocket

OQTO_TTYD = Path(sys.executable).parent / "oqto-ttyd"
SHELL = ("bash", "--norc", "--noprofile", "-i")

# Draws its window's size on the alternate screen whenever that changes.
FULL_SCREEN = r"""
import os, signal, sys
def draw(*_):
    size = os.get_terminal_size()
    sys.stdout.write(f"\x1b[H\x1b[2J[drawn {size.columns}x{size.lines}]")
    sys.stdout.flush()
signal.signal(signal.SIGWINCH, draw)
sys.stdout.write("\x1b[?1049h\x1b[?1002h")
draw()
for line in sys.stdin:
    break
sys.stdout.write("\x1b[?1002l\x1b[?1049l")
"""


@dataclass
class Server:
    """A running oqto-ttyd."""

    process: subprocess.Popen[str]
    socket: Path

    def open(self, columns: int = 100, rows: int = 30) -> Terminal:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.socket))
        return Terminal(WebSocket(connection, "t", "/ws", subprotocols=("tty",)), columns=columns, rows=rows)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start_one(*options: str, command: tuple[str, ...] = SHELL) -> Server:
        path = tmp_path / f"{len(servers)}.sock"
        process = subprocess.Popen(
            [OQTO_TTYD, "-i", path, "-W", "-w", tmp_path, *options, *command],
            env={**os.environ, "PS1": "$ ", "HOME": str(tmp_path), "HISTFILE": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        servers.append(Server(process, path))
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        return servers[-1]

    yield start_one
    for server in servers:
        if server.process.poll() is None:
            server.end()
        assert server.process.stderr is not None
        said = server.process.stderr.read()
        server.process.stderr.close()
        assert "Traceback" not in said, said


def drop(terminal: Terminal) -> None:
    """Lose the connection, without a word."""
    terminal.websocket.sock.close()


def until(terminal: Terminal, pattern: bytes) -> bytes:
    """Read output until the pattern is in it; all that was read."""
    seen = b""
    deadline = time.monotonic() + 2 * TIMEOUT
    while not re.search(pattern, seen, re.DOTALL):
        assert time.monotonic() < deadline, (pattern, seen[-2000:])
        piece = terminal.output()
        assert piece is not None, (pattern, seen[-2000:])
        seen += piece
    return seen


def until_closed(terminal: Terminal) -> bytes:
    seen = b""
    while (piece := terminal.output()) is not None:
        seen += piece
    return seen


def is_quiet(terminal: Terminal, seconds: float) -> bool:
    """Whether nothing comes within this time."""
    return not select.select([terminal.websocket.sock], [], [], seconds)[0]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2 * TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_the_shell_and_what_it_showed_are_still_there(start: Start) -> None:
    server = start()
    first = server.open()
    shell = first.run("echo $$; x=kept; echo 'marked text'").splitlines()[0]
    first.type("echo runn''ing; sleep 1000\n")
    until(first, rb"running\r\n")
    drop(first)
    with server.open() as second:
        seen = until(second, rb"marked text.*running\r\n")
        assert seen.startswith(b"\x1bc")
        second.type("\x03")
        until(second, rb"\^C.*\$ ")  # what is typed before the prompt is back goes with the interrupt
        assert second.run("echo $$ $x") == f"{shell} kept"


def test_the_first_viewer_gets_nothing_but_the_shells_output(start: Start) -> None:
    with start(command=("printf", "%s", "plain")).open() as terminal:
        assert until_closed(terminal) == b"plain"


def test_output_goes_on_while_nobody_watches(start: Start, tmp_path: Path) -> None:
    server = start()
    first = server.open()
    first.run("true")
    # More than any buffer holds.
    first.type("seq 1000000; touch done; echo las''t\n")
    drop(first)
    wait_for((tmp_path / "done").exists)
    with server.open() as second:
        seen = until(second, rb"last\r\n")
        assert len(seen) < 1_200_000
        numbers = [int(x) for x in re.findall(rb"^(\d+)\r$", seen, re.MULTILINE)]
        assert numbers == list(range(numbers[0], 1_000_001))
        assert second.run("echo here") == "here"


def test_a_full_screen_program_draws_anew(start: Start, tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FULL_SCREEN)
    server = start()
    first = server.open(90, 20)
    first.run("echo before")
    first.type(f"{sys.executable} full.py\n")
    until(first, rb"drawn 90x20")
    drop(first)
    with server.open(90, 20) as second:
        seen = until(second, rb"before.*drawn 90x20.*drawn 90x19.*drawn 90x20")
        assert b"\x1b[?1049h" in seen
        assert b"\x1b[?1002h" in seen
        second.type("\n")
        second.run("echo after")
    with server.open(90, 20) as third:
        seen = until(third, rb"after")
        assert b"before" in seen
        assert b"drawn" not in seen
        assert b"1002" not in seen


def test_a_quiet_shell_isnt_disturbed_by_a_viewer(start: Start) -> None:
    server = start()
    with server.open() as first:
        first.run("trap 'echo resized' WINCH; true")
        with server.open() as second:
            assert "resized" not in second.run("true")
            assert "resized" not in second.run("true")


def test_several_watch_and_type(start: Start) -> None:
    server = start()
    with server.open(100, 30) as one, server.open(120, 40) as two:
        two.run("true")
        assert one.run("echo fo''ur; stty size").splitlines() == ["four", "30 100"]
        until(two, rb"four\r?\n30 100\r?\n")
        assert two.run("stty size") == "40 120"
        until(one, rb"40 120\r?\n")
        one.resize(77, 22)
        # Who comes sets the size, and who is left when the last active one goes.
        with server.open(60, 20) as three:
            assert three.run("stty size") == "20 60"
        wait_for(lambda: one.run("stty size") == "22 77")
        assert two.run("stty size") == "40 120"


def test_one_viewer_answers_queries(start: Start) -> None:
    server = start()
    with server.open() as one, server.open() as two:
        one.run("true")
        one.type("printf 'a\\033[6nb\\033]11;?\\007c\\n'; echo do''ne\n")
        assert b"a\x1b[6nb\x1b]11;?\x07c" in until(one, rb"done\r\n")
        assert b"abc\r\n" in until(two, rb"done\r\n")
    with server.open() as three:
        seen = until(three, rb"abc\r\ndone\r\n")
        assert b"\x1b[6n" not in seen


def test_a_slow_viewer_stops_nobody_and_catches_up(start: Start) -> None:
    server = start()
    with server.open() as slow, server.open() as quick:
        slow.run("true")
        quick.run("true")
        # It neither reads nor says anything; the other one sees it all.
        quick.type("seq 600000; echo las''t\n")
        seen = until(quick, rb"last\r\n")
        assert len(re.findall(rb"(\d+)\r\n", seen)) == 600_000
        assert quick.run("echo 'and more'") == "and more"
        late = until(slow, rb"last\r\n.*and more\r\n")
        assert b"\x1bc" in late
        assert len(late) < len(seen)
        assert slow.run("echo here") == "here"


def test_a_paused_viewer_catches_up(start: Start) -> None:
    server = start()
    with server.open() as paused, server.open() as other:
        paused.run("true")
        paused.websocket.send(b"2")
        assert other.run("seq 300000 | tail -c 2000000; echo last").endswith("300000\nlast")
        while not is_quiet(paused, 0.2):
            paused.output()
        paused.websocket.send(b"3")
        until(paused, rb"300000\r\nlast\r\n")


def test_a_single_viewer_slows_the_program_and_misses_nothing(start: Start, tmp_path: Path) -> None:
    server = start()
    with server.open() as terminal:
        terminal.run("true")
        terminal.type("seq 600000; touch done; echo las''t\n")
        first = terminal.output() or b""
        # Its own buffers and ours fill up, and then the program waits.
        assert select.select([], [], [], 1.0) == ([], [], [])
        assert not (tmp_path / "done").exists()
        seen = first + until(terminal, rb"last\r\n")
        assert len(re.findall(rb"(\d+)\r\n", seen)) == 600_000
        assert b"\x1bc" not in seen


def test_a_pause_overridden_by_input_loses_nothing(start: Start) -> None:
    server = start(command=("sh", "-c", "stty raw -echo; echo ready; exec cat"))
    with server.open() as terminal:
        until(terminal, rb"ready")
        terminal.websocket.send(b"2")
        sent = b"".join(b"%07d\n" % number for number in range(400_000))

        def paste() -> None:
            for begin in range(0, len(sent), 100_000):
                terminal.websocket.send(b"0" + sent[begin : begin + 100_000])
            terminal.websocket.send(b"3")

        sender = threading.Thread(target=paste)
        sender.start()
        try:
            assert until(terminal, rb"0399999\n").lstrip() == sent
        finally:
            sender.join()


def test_the_end_of_the_shell_closes_everybody(start: Start) -> None:
    server = start()
    one, two = server.open(), server.open()
    shell = one.run("echo $$")
    one.type("exit 3\n")
    for terminal in (one, two):
        until_closed(terminal)
        assert terminal.websocket.close_code == 1000
        terminal.close()
    with server.open() as again:
        assert again.run("echo $$") != shell
        assert b"exit 3" not in until(again, rb"")


def test_sigterm_ends_shell_and_viewers(start: Start) -> None:
    server = start()
    one, two = server.open(), server.open()
    shell = int(one.run("echo $$"))
    assert server.end() == 0
    for terminal in (one, two):
        until_closed(terminal)
        assert terminal.websocket.close_code == 1001
        terminal.close()
    with pytest.raises(ProcessLookupError):
        os.kill(shell, 0)
    assert not server.socket.exists()


def test_sigterm_ends_a_shell_that_nobody_watches(start: Start) -> None:
    server = start()
    with server.open() as terminal:
        shell = int(terminal.run("echo $$"))
    assert server.end() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(shell, 0)


def test_separate_gives_each_its_own(start: Start) -> None:
    server = start("--separate")
    one = server.open()
    with server.open() as two:
        pid = int(one.run("echo $$"))
        assert int(two.run("echo $$")) != pid
        drop(one)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        assert two.run("echo here") == "here"


@pytest.mark.parametrize("option", ["--once", "--exit-no-conn"])
def test_the_last_client_ends_it(start: Start, option: str) -> None:
    server = start(option)
    one = server.open()
    pid = int(one.run("echo $$"))
    if option == "--once":
        with pytest.raises(Refused):
            server.open()
    drop(one)
    assert server.process.wait(10) == 0
    assert not Path(f"/proc/{pid}").exists()


def test_no_more_clients_than_allowed(start: Start) -> None:
    server = start("-m", "2")
    with server.open() as one, server.open():
        one.run("true")
        with pytest.raises(Refused):
            server.open()
    with server.open() as again:
        again.run("true")


def test_a_stopped_viewer_is_found_out(start: Start) -> None:
    """One that vanished without a word doesn't hold the size, nor the shell, for ever."""
    server = start("-P", "1")  # four seconds of silence: more than a busy machine takes for an answer
    gone = server.open(60, 20)
    gone.run("true")
    # A program of its own: a loop of the shell's can be between two of them when it is interrupted.
    gone.type("sh -c 'while :; do echo working; sleep 0.01; done'\n")
    until(gone, rb"working\r\nworking")
    # Its side is silent from now on: no pong, no window.
    until_gone = time.monotonic() + 20
    with server.open(100, 30) as other:
        other.type("\x03")
        until(other, rb"\^C.*\$ ")
        assert other.run("stty size") == "30 100"
        while time.monotonic() < until_gone:
            try:
                if not gone.websocket.sock.recv(65536):
                    break
            except ConnectionResetError:
                break
        else:
            raise AssertionError("the silent viewer is still connected")
        os.kill(server.process.pid, signal.SIG_DFL)  # it still lives
    gone.websocket.sock.close()
