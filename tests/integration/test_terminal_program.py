"""What runs in oqto-ttyd, and whoever types: real pseudoterminals, real shells."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import trio
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
)

from tests.integration.ttyd import PATIENCE, SHELL, Terminal, socket_path, ttyd


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
        await terminal.until("$ ")
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
        ("yes & sleep 0.1; echo last words; exit 0", "exited with status 0"),
    ],
)
async def test_the_end_of_the_process_closes_the_connection(tmp_path: Path, script: str, reason: str) -> None:
    async with ttyd("-i", socket_path(tmp_path), "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        close = await terminal.until_closed()
        assert (close.code, close.reason) == (1000, reason)
        assert b"last words\r\n" in terminal.output
        await terminal.stream.aclose()


async def test_a_background_job_that_outlives_the_shell_does_not_keep_the_connection(tmp_path: Path) -> None:
    script = "trap '' HUP; sleep 1000 & echo job=$!; echo last words"
    async with ttyd("-i", socket_path(tmp_path), "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        assert (await terminal.until_closed()).code == 1000
        assert b"last words\r\n" in terminal.output
        job = int(terminal.output.partition(b"job=")[2].split()[0])
        assert psutil.Process(job).status() != psutil.STATUS_ZOMBIE
        os.kill(job, signal.SIGKILL)
        await terminal.stream.aclose()


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


async def test_a_paused_client_that_pastes_a_lot_does_not_lock_up(tmp_path: Path) -> None:
    script = (
        "stty raw -echo; echo ready; head -c 1; head -c 500000 /dev/zero; exec head -c 1999999 > /dev/null"
    )
    async with ttyd("-i", socket_path(tmp_path), "-W", "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        await terminal.until("ready")
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


@pytest.mark.parametrize(
    ("script", "leave"),
    [
        ("exec sleep 1000", vanish),
        ("exec sleep 1000", say_goodbye),
        ("trap '' HUP; echo deaf; while :; do read -t 1000; done", vanish),
    ],
    ids=["vanishes", "says goodbye", "is deaf"],
)
async def test_a_client_that_leaves_takes_a_process_of_its_own_with_it(
    tmp_path: Path, script: str, leave: Callable[[Terminal], Awaitable[None]]
) -> None:
    async with ttyd("-i", socket_path(tmp_path), "--separate", "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        while len(terminal.others) < 2:
            await terminal.receive()
        if "deaf" in script:
            await terminal.until("deaf")
        assert server.children()
        await leave(terminal)
        await server.wait_for_no_children()


async def test_a_client_that_vanishes_behind_a_full_input_queue_is_noticed(tmp_path: Path) -> None:
    script = "stty raw -echo; echo ready; exec sleep 1000"
    async with ttyd("-i", socket_path(tmp_path), "-W", "--separate", "bash", "-c", script) as server:
        terminal = await Terminal.open(server)
        await terminal.until("ready")
        with trio.move_on_after(1):
            while True:
                await terminal.send(b"0" + b"x" * 1_000_000)
        await terminal.stream.aclose()
        await server.wait_for_no_children()


async def test_a_silent_network_is_noticed_by_pings(tmp_path: Path) -> None:
    async with ttyd("-i", socket_path(tmp_path), "-P", "0.1", "--separate", "sleep", "1000") as server:
        terminal = await Terminal.open(server)
        pings = 0
        while not isinstance(event := await terminal.next_event(), CloseConnection):
            pings += isinstance(event, Ping)  # and isn't answered
        assert event.code == 1006  # as wsproto calls an end without a close frame
        assert 3 <= pings <= 5
        await server.wait_for_no_children()
        await terminal.stream.aclose()
