"""A hostile program on a preview port: tells what it was sent, and answers with what it may not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE = 20.0

POLICY = "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"
"""The Content-Security-Policy that oqtod gives all that it sends."""


class App(BaseHTTPRequestHandler):
    """Answers a request; one for /slow only once `go_on` is set."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        told = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        for name, value in {
            "Content-Length": str(len(body)),
            "Set-Cookie": "auth_token=mine",
            "Clear-Site-Data": '"*"',
            "Service-Worker-Allowed": "/",
            "Strict-Transport-Security": "max-age=0",
            "X-Accel-Redirect": "/api/health",
            "X-Oqto-Policy": "default-src *",
            "X-Oqto-Upstream": "127.0.0.1:1",
            "X-Content-Type-Options": "maybe",
            "Content-Security-Policy": "img-src 'none'",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.path == "/slow":
            self.wfile.write(body[:1])
            self.wfile.flush()
            assert self.go_on.wait(PATIENCE)
            body = body[1:]
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  names of http.server

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    """Ends with its connections: whoever keeps one for later must not keep the program."""

    daemon_threads = False

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def server_close(self) -> None:
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already
        super().server_close()


@contextmanager
def app(port: int) -> Iterator[None]:
    """Run the program outside of the sandbox, as the same account: whose it is, is what counts."""
    with serve(port, App):
        yield


@contextmanager
def serve(port: int, handler: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    """Run a program of Python's own server, in the same way."""
    with _Server(port, handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
