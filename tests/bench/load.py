"""The load: small requests, bulk, WebSockets; at its simplest, so that the proxy is what is measured."""

from __future__ import annotations

import itertools
import re
import select
import socket
import statistics
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 20.0
"""Seconds that any one answer may take."""

_PAYLOAD = b"thirty-two bytes, and no more..."
_MASK = b"\x12\x34\x56\x78"
_FRAME = b"\x82" + bytes([0x80 | len(_PAYLOAD)]) + _MASK
_FRAME += bytes(byte ^ _MASK[place % 4] for place, byte in enumerate(_PAYLOAD))
_ECHO = 2 + len(_PAYLOAD)
"""Bytes of what comes back for a frame."""


@dataclass(frozen=True)
class Address:
    """Where a peer listens: a TCP port on loopback, or a Unix socket; `headers` go with each request."""

    place: int | str
    headers: Mapping[str, str] = field(default_factory=dict)

    def connect(self) -> socket.socket:
        """Return a new connection."""
        if isinstance(self.place, str):
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(PATIENCE)
            connected.connect(self.place)
            return connected
        connected = socket.create_connection(("127.0.0.1", self.place), timeout=PATIENCE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def head(self, path: str, **more: str) -> bytes:
        """Return the head of a GET request."""
        host = f"127.0.0.1:{self.place}" if isinstance(self.place, int) else "localhost"
        named = {"Host": host, **self.headers, **{name.replace("_", "-"): more[name] for name in more}}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    def upgrade(self, path: str, *, subprotocol: str | None = None) -> bytes:
        """Return the head of a WebSocket handshake."""
        named = {"Sec_WebSocket_Protocol": subprotocol} if subprotocol is not None else {}
        return self.head(
            path,
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
            **named,
        )


def small_requests(address: Address, path: str, connections: int, seconds: float, folder: Path) -> float:
    """Return the requests a second that wrk gets through on kept connections."""
    script = folder / "headers.lua"
    script.write_text("".join(f'wrk.headers["{n}"] = "{value}"\n' for n, value in address.headers.items()))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{address.place}{path}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + PATIENCE,
    )
    found = re.search(r"^Requests/sec: +([0-9.]+)", done.stdout, re.MULTILINE)
    if found is None or "Non-2xx" in done.stdout or re.search(r"(connect|read|write) [1-9]", done.stdout):
        raise RuntimeError(f"not all requests were answered: {done.stdout}{done.stderr}")
    return float(found[1])


def bulk(address: Address, path: str, streams: int, seconds: float) -> tuple[int, float]:
    """Read a big file again and again on so many connections; return the bytes that came, and seconds."""
    ready = threading.Barrier(streams)

    def read() -> tuple[int, float, float]:
        buffer = bytearray(256 * 1024)
        count = 0
        with address.connect() as connected:
            ready.wait(PATIENCE)
            begun = time.perf_counter()
            until = begun + seconds
            while time.perf_counter() < until:
                connected.sendall(address.head(path))
                left = _length_of_answer(connected, path)
                while left and time.perf_counter() < until:
                    got = connected.recv_into(buffer, min(left, len(buffer)))
                    if not got:
                        raise RuntimeError(f"{path} ended {left} bytes early")
                    left -= got
                    count += got
        return count, begun, time.perf_counter()

    with ThreadPoolExecutor(streams) as threads:
        readers = [threads.submit(read) for _ in range(streams)]
    counts, begins, ends = zip(*(reader.result() for reader in readers), strict=True)
    return sum(counts), max(ends) - min(begins)


def _length_of_answer(connected: socket.socket, path: str) -> int:
    head = _head(connected, path)
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length is None or not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{path} is not the file: {head!r}")
    return int(length[1])


def _head(connected: socket.socket, path: str) -> bytes:
    """Read the head of an answer, and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        seen = connected.recv(65536, socket.MSG_PEEK)
        if not seen:
            raise RuntimeError(f"{path}: the connection closed after {head!r}")
        end = (head + seen).find(b"\r\n\r\n")
        head += connected.recv(end + 4 - len(head) if end >= 0 else len(seen))
    return head


def open_websocket(address: Address, path: str, *, subprotocol: str | None = None) -> socket.socket:
    """Return a connection after its handshake."""
    connected = address.connect()
    connected.sendall(address.upgrade(path, subprotocol=subprotocol))
    head = _head(connected, path)
    if not head.startswith(b"HTTP/1.1 101"):
        raise RuntimeError(f"no upgrade: {head!r}")
    return connected


@contextmanager
def websockets(address: Address, path: str, count: int) -> Iterator[list[socket.socket]]:
    """Hold so many WebSockets open."""
    held: list[socket.socket] = []
    try:
        held += (open_websocket(address, path) for _ in range(count))
        yield held
    finally:
        for connected in held:
            connected.close()


def round_trips(address: Address, path: str, seconds: float) -> list[float]:
    """Send messages on one WebSocket, each after the last came back; return the seconds that each took."""
    with websockets(address, path, 1) as (connected,):
        _echo(connected)
        taken = []
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until:
            _echo(connected)
            taken.append(time.perf_counter() - begun)
    return taken


def _echo(connected: socket.socket) -> None:
    connected.sendall(_FRAME)
    left = _ECHO
    while left:
        got = len(connected.recv(left))
        if not got:
            raise RuntimeError("the WebSocket closed")
        left -= got


def round_trips_of_many(
    address: Address, path: str, connections: int, rate: float, seconds: float
) -> list[float]:
    """Send `rate` messages a second on each WebSocket, evenly spread; return the seconds that each took.

    Messages are sent when they are due, whether or not earlier ones have come back.
    """
    with websockets(address, path, connections) as held:
        for connected in held:
            _echo(connected)
            connected.setblocking(False)
        sent: dict[int, deque[float]] = {connected.fileno(): deque() for connected in held}
        halves = dict.fromkeys(sent, 0)
        by_number = {connected.fileno(): connected for connected in held}
        turns = itertools.cycle(held)
        taken: list[float] = []
        with select.epoll() as poll:
            for number in sent:
                poll.register(number, select.EPOLLIN)
            begun = time.perf_counter()
            pause, count, total = 1 / (connections * rate), 0, round(connections * rate * seconds)
            while len(taken) < total:
                now = time.perf_counter()
                if now > begun + seconds + PATIENCE:
                    raise RuntimeError(f"{total - len(taken)} of {total} messages did not come back")
                while count < total and now >= begun + count * pause:
                    connected = next(turns)
                    sent[connected.fileno()].append(time.perf_counter())
                    connected.sendall(_FRAME)
                    count += 1
                due = begun + count * pause - time.perf_counter() if count < total else 1.0
                # epoll itself waits in whole milliseconds.
                select.select([poll.fileno()], [], [], max(0.0, due))
                for number, _ in poll.poll(0):
                    got = len(by_number[number].recv(65536))
                    came = time.perf_counter()
                    if not got:
                        raise RuntimeError("a WebSocket closed")
                    whole, halves[number] = divmod(halves[number] + got, _ECHO)
                    taken += (came - sent[number].popleft() for _ in range(whole))
        return taken


def upgrades(address: Address, path: str, at_once: int, seconds: float) -> float:
    """Connect, upgrade and reset, so many at once; return how many a second."""
    request = address.upgrade(path)
    done = 0
    heads: dict[int, tuple[socket.socket, bytes]] = {}
    with select.epoll() as poll:

        def start() -> None:
            connected = address.connect()
            connected.sendall(request)
            heads[connected.fileno()] = (connected, b"")
            poll.register(connected, select.EPOLLIN)

        begun = time.perf_counter()
        until = begun + seconds
        for _ in range(at_once):
            start()
        while heads:
            ready = poll.poll(PATIENCE)
            if not ready:
                raise RuntimeError(f"{len(heads)} upgrades were not answered")
            for number, _ in ready:
                connected, head = heads.pop(number)
                head += connected.recv(65536)
                if not head.startswith(b"HTTP/1.1 101"):
                    raise RuntimeError(f"no upgrade: {head!r}")
                if not head.endswith(b"\r\n\r\n"):
                    heads[number] = (connected, head)
                    continue
                # A reset, so that no port lingers.
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connected.close()
                if (now := time.perf_counter()) < until:
                    done += 1
                    start()
        return done / (max(now, until) - begun)


def keystrokes(address: Address, path: str, count: int) -> list[float]:
    """Type at a terminal's prompt, one key after the other; return the seconds until each was seen."""
    with open_websocket(address, path, subprotocol="tty") as connected:
        hello = b'{"AuthToken":"","columns":80,"rows":24}'
        connected.sendall(_masked(hello))
        _settle(connected)
        taken = []
        for number in range(count):
            connected.sendall(_masked(b"0" + (b"a", b"\x7f")[number % 2]))
            begun = time.perf_counter()
            while not _output(connected):
                pass
            taken.append(time.perf_counter() - begun)
            _settle(connected, 0.002)
        return taken


def _settle(connected: socket.socket, quiet: float = 0.5) -> None:
    """Read until nothing came for a while: the prompt is there, the key's echo is over."""
    while select.select([connected], [], [], quiet)[0]:
        _output(connected)


def _output(connected: socket.socket) -> bool:
    """Read a frame; say whether it is a terminal's output."""
    head = _exactly(connected, 2)
    length = head[1] & 0x7F
    if length == 126:
        length = int.from_bytes(_exactly(connected, 2), "big")
    elif length == 127:
        length = int.from_bytes(_exactly(connected, 8), "big")
    return _exactly(connected, length)[:1] == b"0"


def _exactly(connected: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connected.recv(length - len(data))
        if not piece:
            raise RuntimeError("the WebSocket closed")
        data += piece
    return data


def _masked(payload: bytes) -> bytes:
    data = bytes(byte ^ _MASK[place % 4] for place, byte in enumerate(payload))
    return b"\x82" + bytes([0x80 | len(payload)]) + _MASK + data


def percentile(found: Sequence[float], percent: int) -> float:
    """Return a percentile."""
    return statistics.quantiles(found, n=100, method="inclusive")[percent - 1]
