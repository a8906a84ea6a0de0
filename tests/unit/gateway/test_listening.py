"""What the service manager is given to keep, and what is taken from it again; a manager that listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oqtod.gateway.listening import NAME, PortTaken, listen
from oqtod.telemetry.readiness import Readiness

# Says on which port it listens, with the descriptors that it was started with from 3 on.
AGAIN = """
import os, sys, trio
from oqtod.gateway.listening import listen
from oqtod.telemetry.readiness import Readiness
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
listeners = trio.run(listen, "127.0.0.1", int(sys.argv[1]), Readiness())
print(*[x.fileno() for x in listeners], *sorted(x for x in os.environ if x.startswith("LISTEN")))
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        path = tmp_path / "notify"
        listening.bind(str(path))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield listening


@pytest.fixture
def readiness(manager: socket.socket) -> Iterator[Readiness]:
    made = Readiness()
    yield made
    made._notifier.socket.close()


def told(manager: socket.socket) -> list[tuple[str, list[int]]]:
    """What the manager was told, and the descriptors that came with it."""
    found = []
    while True:
        try:
            data, descriptors, *_ = socket.recv_fds(manager, 4096, 8)
        except BlockingIOError:
            return found
        found.append((data.decode(), descriptors))


def started_again(kept: socket.socket, port: int, *, names: str = NAME, other_pid: int = 0) -> list[str]:
    """What it says when it is started with a socket that was kept."""
    environment = os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": names}
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(port), str(other_pid)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        close_fds=False,
        preexec_fn=lambda: os.dup2(kept.fileno(), 3),
    )
    return done.stdout.split()


async def test_what_listens_is_kept_and_taken_again(manager: socket.socket, readiness: Readiness) -> None:
    (listener,) = await listen("127.0.0.1", 0, readiness)
    with listener:
        port = listener.getsockname()[1]
        (forgotten, none), (stored, descriptors) = told(manager)
        assert (forgotten, none) == (f"FDSTOREREMOVE=1\nFDNAME={NAME}", [])
        assert stored == f"FDSTORE=1\nFDNAME={NAME}"
        with socket.socket(fileno=descriptors[0]) as kept:
            assert kept.getsockname() == listener.getsockname()
        assert started_again(listener, port) == ["3"]
        assert told(manager) == []


async def test_what_was_kept_for_another_address_is_given_up(
    manager: socket.socket, readiness: Readiness
) -> None:
    (listener,) = await listen("127.0.0.1", 0, readiness)
    with listener:
        for _, descriptors in told(manager):
            for descriptor in descriptors:
                os.close(descriptor)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        assert started_again(listener, port) != ["3"]
        messages = told(manager)
        assert [text.partition("=")[0] for text, _ in messages] == ["FDSTOREREMOVE", "FDSTORE"]
        with socket.socket(fileno=messages[1][1][0]) as stored:
            assert stored.getsockname()[1] == port


async def test_what_is_not_ours_is_not_taken(manager: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as another:
        port = another.getsockname()[1]
        for names, other_pid in (("something", 0), (NAME, 1)):
            with pytest.raises(subprocess.CalledProcessError) as caught:
                started_again(another, port, names=names, other_pid=other_pid)
            assert "PortTaken" in caught.value.stderr


async def test_a_port_that_is_taken(readiness: Readiness) -> None:
    with socket.create_server(("127.0.0.1", 0)) as another:
        port = another.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken by .*pid {os.getpid()}"):
            await listen("127.0.0.1", port, readiness)
