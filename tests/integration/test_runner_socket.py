"""The runner's socket: the real oqto-runner, and peers that are not who or what they should be."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from runner import server
from runner.protocol import messages, rpc

RUNNER = Path(sys.executable).parent / "oqto-runner"
TIMEOUT = 10.0

# Says hello to the socket in its folder, and prints what comes back.
GREETING = """
import socket
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(5)
    client.connect("r.sock")
    try:
        client.sendall(bytes([0, 0, 0, 2, 0]) + b"{}")
        print(client.recv(1000))
    except ConnectionError as error:
        print(b"")
"""


@dataclass
class Running:
    """A runner without systemd."""

    socket: Path
    process: subprocess.Popen[str]

    def client(self, *, uid: int | None = None) -> AbstractAsyncContextManager[rpc.Client]:
        expected = os.getuid() if uid is None else uid
        return rpc.connect(str(self.socket), messages.RUNNER, program="test", uid=expected, timeout=TIMEOUT)

    def raw(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(TIMEOUT)
        client.connect(str(self.socket))
        return client


@asynccontextmanager
async def runner(folder: Path, *arguments: str, expected: int = 0) -> AsyncIterator[Running]:
    """The runner, listening; at the end it is asked to stop, unless it has stopped by itself."""
    path = folder / "r.sock"
    process = subprocess.Popen(
        [RUNNER, "--socket", path, "--linger", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    assert process.stderr is not None
    try:
        await trio.to_thread.run_sync(wait_for_line, process, "ready")
        yield Running(path, process)
        process.terminate()
    finally:
        if sys.exc_info()[0] is not None:
            process.kill()
        with trio.fail_after(TIMEOUT), trio.CancelScope(shield=True):
            printed, _ = await trio.to_thread.run_sync(process.communicate)
    assert process.returncode == expected, printed
    assert not path.exists()


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return
    raise AssertionError(f"the runner ended without saying {text!r}: {seen}")


async def check_that_it_serves(running: Running) -> None:
    async with running.client() as client:
        assert (await client.call(messages.ListSessions(), timeout=TIMEOUT)).sessions == []


def framed(payload: bytes) -> bytes:
    return struct.pack(">IB", len(payload), 0) + payload


HELLO = framed(messages.RUNNER.hello("test"))
BAD = {
    "no frame": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "oversized": struct.pack(">IB", 2**32 - 1, 0),
    "too many descriptors": struct.pack(">IB", 0, 255),
    "no greeting": framed(b"[1, 2, 3]"),
    "nested greeting": framed(b"[" * 500_000),
    "not UTF-8": framed(b'{"protocol":"\xff","version":1,"program":"x"}'),
    "another version": framed(b'{"protocol":"oqto-runner","version":99,"program":"x"}'),
    "another protocol": framed(b'{"protocol":"oqto-broker","version":1,"program":"x"}'),
    "no request": HELLO + framed(b"nonsense"),
    "nested request": HELLO + framed(b'{"id":1,"call":' + b"[" * 500_000),
    "huge id": HELLO + framed(b'{"id":' + b"9" * 5000 + b',"call":{}}'),
}


async def test_garbage_ends_its_own_connection_only(tmp_path: Path) -> None:
    async with runner(tmp_path) as running, running.client() as other:
        for what, said in BAD.items():
            with running.raw() as client:
                try:
                    client.sendall(said)
                    client.shutdown(socket.SHUT_WR)
                    while await trio.to_thread.run_sync(client.recv, 65536):
                        pass
                except ConnectionError:
                    pass  # closed before it was read
            assert running.process.poll() is None, what
            assert (await other.call(messages.ListSessions(), timeout=TIMEOUT)).sessions == [], what


async def test_a_frame_cut_off_anywhere(tmp_path: Path) -> None:
    said = HELLO + framed(b'{"id":1,"call":{"type":"list"}}')
    async with runner(tmp_path) as running:
        for end in range(0, len(said), 7):
            with running.raw() as client:
                client.sendall(said[:end])
        await check_that_it_serves(running)


async def test_silent_clients_keep_nobody_out(tmp_path: Path) -> None:
    async with runner(tmp_path) as running:
        with ExitStack() as held:
            for _ in range(server.MAX_CONNECTIONS - 2):
                held.enter_context(running.raw())
            await check_that_it_serves(running)


async def test_connections_over_the_limit_wait_for_a_place(tmp_path: Path) -> None:
    async with runner(tmp_path) as running:
        with ExitStack() as held:
            for _ in range(server.MAX_CONNECTIONS):
                held.enter_context(running.raw())
            with trio.fail_after(TIMEOUT):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(check_that_it_serves, running)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    held.close()


async def test_another_account_is_turned_away(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("becomes another account: run the tests as root")
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    async with runner(folder) as running:
        assert (running.socket.stat().st_mode & 0o777) == 0o600
        running.socket.chmod(0o666)
        asked = await trio.run_process(
            ["/usr/bin/python3", "-Ic", GREETING], cwd=folder, user=65534, group=65534, capture_stdout=True
        )
        assert asked.stdout == b"b''\n"
        await check_that_it_serves(running)


async def test_who_answers_is_checked(tmp_path: Path) -> None:
    async with runner(tmp_path) as running:
        with pytest.raises(rpc.ConnectionLost, match="not by uid 4711"):
            async with running.client(uid=4711):
                raise AssertionError("it took the runner for somebody else's")


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"id": "../x"}, "bad_request"),
        ({"id": ""}, "bad_request"),
        ({"id": "x\n"}, "bad_request"),
        ({"workspace": "/etc/oqto-elsewhere"}, "bad_workspace"),
        ({"workspace": "ROOT/../../elsewhere"}, "bad_workspace"),
        ({"workspace": "ROOT/a\0b"}, "bad_workspace"),
        ({"workspace": "ROOT/loop/further"}, "bad_workspace"),
        ({"workspace_root": "/proc/nowhere"}, "bad_workspace"),
    ],
)
async def test_a_session_that_can_not_be_is_refused(tmp_path: Path, spec: dict[str, str], code: str) -> None:
    root = tmp_path / "work"
    root.mkdir()
    (root / "loop").symlink_to("loop")
    fields = {"id": "one", "workspace": str(root), "workspace_root": str(root), **spec}
    fields = {name: value.replace("ROOT", str(root)) for name, value in fields.items()}
    async with runner(tmp_path) as running, running.client() as client:
        with pytest.raises(rpc.CallFailed) as failed:
            await client.call(messages.StartSession(messages.SessionSpec(**fields)), timeout=TIMEOUT)
        assert failed.value.code == code
        assert (await client.call(messages.ListSessions(), timeout=TIMEOUT)).sessions == []
    assert not Path("/etc/oqto-elsewhere").exists()


async def test_sessions_that_are_not_there(tmp_path: Path) -> None:
    async with runner(tmp_path) as running, running.client() as client:
        assert await client.call(messages.StopSession("nobody"), timeout=TIMEOUT) is None
        with pytest.raises(rpc.CallFailed) as failed:
            await client.call_for_descriptors(messages.OpenService("nobody", "files"), timeout=TIMEOUT)
        assert failed.value.code == "no_session"


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "r.sock"))
    async with runner(tmp_path) as running:
        second = await trio.run_process(
            [RUNNER, "--socket", running.socket], check=False, capture_stderr=True
        )
        assert second.returncode == 1
        assert b"is in use by another runner" in second.stderr
        await check_that_it_serves(running)


async def test_it_ends_by_itself_when_nobody_needs_it(tmp_path: Path) -> None:
    async with runner(tmp_path, "--linger", "0.05") as running:
        with trio.fail_after(TIMEOUT):
            await trio.to_thread.run_sync(running.process.wait)


async def test_sigterm_is_orderly_while_a_call_is_open(tmp_path: Path) -> None:
    async with runner(tmp_path) as running, running.client() as client:
        await client.call(messages.ListSessions(), timeout=TIMEOUT)
        running.process.send_signal(signal.SIGTERM)
        with trio.fail_after(TIMEOUT):
            await trio.to_thread.run_sync(running.process.wait)
        with pytest.raises(rpc.ConnectionLost):
            await client.call(messages.ListSessions(), timeout=TIMEOUT)


async def test_without_a_listener_it_says_so() -> None:
    done = await trio.run_process([RUNNER], check=False, capture_stderr=True)
    assert done.returncode == 2
    assert b"no listener" in done.stderr
