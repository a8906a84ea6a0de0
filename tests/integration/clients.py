"""Clients that the tests use: JSON over HTTP, and the terminal's WebSocket with wsproto."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
from dataclasses import dataclass, field
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    RejectConnection,
    Request,
    TextMessage,
)

TIMEOUT = 20.0


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Talks to one gateway, logged in or not."""

    port: int
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            if self.token is not None:
                named.setdefault("Authorization", f"Bearer {self.token}")
            connection.request(method, path, body=body, headers={**self.headers, **named})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, content: object = None) -> Answer:
        return self.send("POST", path, json.dumps(content or {}).encode())

    def log_in(self, username: str, password: str) -> Answer:
        answer = self.post("/api/auth/login", {"username": username, "password": password})
        if answer.status == 200:
            self.token = answer.json["token"]
        return answer


class Terminal:
    """A terminal opened through the gateway: ttyd's protocol, subprotocol `tty`."""

    def __init__(self, client: Client, session: str, *, columns: int = 80, rows: int = 24) -> None:
        self._socket = socket.create_connection(("127.0.0.1", client.port), timeout=TIMEOUT)
        self._ws = WSConnection(ConnectionType.CLIENT)
        target = f"/api/sessions/{session}/terminal/ws"
        extra = [(b"authorization", f"Bearer {client.token}".encode())] if client.token else []
        host = f"127.0.0.1:{client.port}"
        self._socket.sendall(
            self._ws.send(Request(host=host, target=target, subprotocols=["tty"], extra_headers=extra))
        )
        self._events: list[Any] = []
        self.output = b""
        first = self._next()
        if isinstance(first, RejectConnection):
            self._socket.close()
            raise PermissionError(first.status_code)
        assert isinstance(first, AcceptConnection), first
        assert first.subprotocol == "tty"
        hello = json.dumps({"AuthToken": "", "columns": columns, "rows": rows})
        self._socket.sendall(self._ws.send(BytesMessage(hello.encode())))

    def _next(self) -> Any:
        while not self._events:
            data = self._socket.recv(65536)
            self._ws.receive_data(data or None)
            self._events += list(self._ws.events())
        return self._events.pop(0)

    def type(self, text: str) -> None:
        self._socket.sendall(self._ws.send(BytesMessage(b"0" + text.encode())))

    def resize(self, columns: int, rows: int) -> None:
        size = json.dumps({"columns": columns, "rows": rows}).encode()
        self._socket.sendall(self._ws.send(BytesMessage(b"1" + size)))

    def until(self, text: bytes) -> bytes:
        """Read output until `text` is in it."""
        while text not in self.output:
            event = self._next()
            if isinstance(event, CloseConnection):
                raise EOFError(self.output)
            if isinstance(event, BytesMessage | TextMessage):
                data = event.data if isinstance(event.data, bytes | bytearray) else event.data.encode()
                if data[:1] == b"0":
                    self.output += data[1:]
        return self.output

    def ask(self, command: str) -> str:
        """Run a command and return what it printed; a terminal may show first what it showed before."""
        self.output = b""
        mark = secrets.token_hex(4)
        self.type(f"echo BE''GIN{mark}; {command}; echo EN''D{mark}\n")
        text = self.until(f"END{mark}\r\n".encode()).decode()
        after = text.partition(f"BEGIN{mark}\r\n")[2]
        return after.rpartition(f"END{mark}")[0].replace("\r\n", "\n").strip()

    def close(self) -> None:
        self._socket.close()
