"""A real session behind a real gateway, and programs on its preview port that say what the test says."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h11
import pytest

from tests.integration import accounts
from tests.integration.clients import Client

PATIENCE = 20.0
"""Seconds in which what a test waits for must come."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire:
    """One end of a connection, blocking. `seen` is all that was read of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.seen = bytearray()
        self._read = 0
        sock.settimeout(PATIENCE)

    def send(self, data: bytes) -> Self:
        self.sock.sendall(data)
        return self

    def finish(self) -> Self:
        """Say that no more comes."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def receive(self) -> bytes:
        """Return what comes next; b"" at the end. Raises OSError."""
        if self._read == len(self.seen):
            self.seen += self.sock.recv(65536)
        data = bytes(self.seen[self._read :])
        self._read = len(self.seen)
        return data

    def until(self, mark: bytes) -> bytes:
        """Return what comes up to a mark, and the mark; what came with it is left for later."""
        while (found := self.seen.find(mark, self._read)) < 0:
            more = self.sock.recv(65536)
            assert more, f"it ended before {mark!r}: {bytes(self.seen[self._read :])!r}"
            self.seen += more
        data = bytes(self.seen[self._read : found + len(mark)])
        self._read = found + len(mark)
        return data

    def head(self) -> bytes:
        return self.until(b"\r\n\r\n")

    def rest(self) -> bytes:
        """Return what comes until the end. Raises OSError when the other side breaks it off."""
        data = b""
        while piece := self.receive():
            data += piece
        return data

    def forget(self) -> None:
        """Keep nothing of what was read."""
        del self.seen[: self._read]
        self._read = 0

    def wait_for_end(self) -> None:
        """Return when the other side has closed, in order or not."""
        try:
            self.rest()
        except ConnectionResetError:
            pass

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close it so that the other side sees that something is missing."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Program:
    """A program on a port that takes connections one by one, and leaves the talking to the test."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(PATIENCE)
        self._wires: list[Wire] = []

    def accept(self) -> Wire:
        sock, _ = self._listener.accept()
        self._wires.append(Wire(sock))
        return self._wires[-1]

    def close(self) -> None:
        self._listener.close()
        for wire in self._wires:
            wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def serving(port: int, serve: Callable[[Wire], None]) -> Iterator[list[Wire]]:
    """Have each connection to a port served in a thread; yield them. What failed in a thread fails here."""
    wires: list[Wire] = []
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def one(wire: Wire) -> None:
        try:
            serve(wire)
        except OSError:
            pass  # the gateway has enough: what it said so far is in `seen`
        except BaseException as error:
            failures.append(error)
        finally:
            _end(wire)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # it was shut down
            wires.append(Wire(sock))
            threads.append(threading.Thread(target=one, args=[wires[-1]]))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield wires
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for wire, thread in zip(wires, threads, strict=True):
                _end(wire)
                thread.join()
                wire.close()
    if failures:
        raise failures[0]


def _end(wire: Wire) -> None:
    """End a connection; what has arrived can still be read."""
    try:
        wire.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other side has


@dataclass
class Heard:
    """A request as a server of the same language understands it."""

    method: bytes
    target: bytes
    body: bytes


def talk(wire: Wire, answer: Callable[[h11.Request, bytes], bytes], heard: list[Heard]) -> None:
    """Answer the requests of a connection, of which h11 says what they are, until one that is none."""
    protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    request, body = None, b""
    while True:
        try:
            event = protocol.next_event()
        except h11.RemoteProtocolError:
            return
        match event:
            case h11.NEED_DATA:
                protocol.receive_data(wire.receive())
            case h11.Request():
                request, body = event, b""
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                assert request is not None
                heard.append(Heard(request.method, request.target, body))
                wire.send(answer(request, body))
                protocol.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                protocol.send(h11.EndOfMessage())
                if protocol.our_state is not h11.DONE:
                    return
                protocol.start_next_cycle()
            case _:
                return


@contextmanager
def answering(port: int) -> Iterator[tuple[list[Wire], list[Heard]]]:
    """Run a server that answers all requests alike; yield its connections, and what it heard."""
    heard: list[Heard] = []

    def answer(request: h11.Request, _: bytes) -> bytes:
        return OK.removesuffix(b"ok") if request.method == b"HEAD" else OK

    with serving(port, lambda wire: talk(wire, answer, heard)) as wires:
        yield wires, heard


@dataclass
class Preview:
    """A port of a session, and the way to it through the gateway."""

    gateway: int
    pid: int
    token: str
    session: str
    port: int
    spare: int
    """Another port of the session."""
    folder: Path
    """The session's workspace."""
    given: list[Wire] = field(default_factory=list)

    @property
    def path(self) -> bytes:
        return f"/api/sessions/{self.session}/ports/{self.port}".encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway}{self.path.decode()}"

    @property
    def files(self) -> str:
        return f"http://127.0.0.1:{self.gateway}/api/sessions/{self.session}/files/file"

    @property
    def authorization(self) -> bytes:
        return b"Authorization: Bearer " + self.token.encode()

    def request(
        self, path: bytes = b"/", *fields: bytes, method: bytes = b"GET", version: bytes = b"1.1"
    ) -> bytes:
        """Return the head of a request of its owner."""
        line = method + b" " + self.path + path + b" HTTP/" + version
        host = b"Host: 127.0.0.1:%d" % self.gateway
        return b"\r\n".join([line, host, self.authorization, *fields, b"", b""])

    def connect(self) -> Wire:
        """Connect to the gateway, until the test ends."""
        self.given.append(Wire(socket.create_connection(("127.0.0.1", self.gateway))))
        return self.given[-1]

    def leave(self) -> None:
        """Break off what is left of the clients' connections: the gateway forgets them before what comes."""
        while self.given:
            self.given.pop().reset()

    def most_memory(self) -> int:
        """Return how many bytes the gateway has had in memory at most, since `forget_memory`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def forget_memory(self) -> int:
        """Count the most memory from now on; return what there is now: clear_refs in proc(5)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.most_memory()


def with_ports_of_its_own(client: Client) -> tuple[dict[str, Any], socket.socket]:
    """Start a session whose ports no other gateway gives away, as it sees that somebody listens at the last.

    Of two that start at once, one goes on to the next ports. We use odd ones, and not the first: the kernel
    gives even ones to who connects.
    """
    while True:
        made = client.post("/api/sessions").json
        try:
            return made, socket.create_server(("127.0.0.1", made["preview_ports"][-1]))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preview]:
    """A gateway without proxies before it, and a session. The gateway must not stumble over anything."""
    folder = tmp_path_factory.mktemp("gateway")
    config = accounts.CONFIG.replace('trusted_proxies = ["127.0.0.1"]', "max_upload_size_mb = 400")
    host = accounts.start(folder, config)
    try:
        client = host.client()
        assert client.log_in("dev", accounts.PASSWORD).status == 200
        assert client.token is not None
        made, guard = with_ports_of_its_own(client)
        with guard:
            _, port, spare, *_ = (port for port in made["preview_ports"] if port % 2)
            yield Preview(host.port, host.process.pid, client.token, made["id"], port, spare, folder / "work")
    finally:
        said = accounts.stop(host)
    assert "Traceback" not in said, said


@pytest.fixture
def preview(session: Preview) -> Iterator[Preview]:
    """The session's port, which is free."""
    yield session
    session.leave()


@pytest.fixture
def program(preview: Preview) -> Iterator[Program]:
    """A program there."""
    with Program(preview.port) as running:
        yield running
        preview.leave()


def stamped(path: Path, size: int) -> None:
    """Make a big file with holes, of which each MiB is another one."""
    with path.open("wb") as file:
        file.truncate(size)
        for position in range(0, size, 1 << 20):
            file.seek(position)
            file.write(position.to_bytes(8, "big") + os.urandom(8))
