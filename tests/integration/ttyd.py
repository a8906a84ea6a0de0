"""A running oqto-ttyd, and its clients: real sockets, wsproto as the WebSocket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
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
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    async def wait_for_no_children(self) -> None:
        wait = partial(psutil.wait_procs, self.children(), timeout=PATIENCE)
        _, alive = await trio.to_thread.run_sync(wait)
        assert alive == []


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
