"""The web site that the browser under test visits: the pages beside this, and some that never end."""

from __future__ import annotations

import contextlib
import html
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

PAGES = Path(__file__).with_name("pages")
SMALL = b"small file\n" * 100


class Handler(SimpleHTTPRequestHandler):
    """Files, `/echo`, downloads, and what waits until the server ends."""

    over: threading.Event
    timeout = 1  # for connections that the browser opens in advance and never uses

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/echo":
            said = dict(parse_qsl(urlsplit(self.path).query))
            self._page(f"<title>Echo</title><pre>{html.escape(repr(said))}</pre>")
        elif path == "/cookie":
            self._page("<title>Cookie</title>", ("Set-Cookie", "flavour=oat"))
        elif path == "/silent":
            self.over.wait()
        elif path == "/unfinished":
            self._page("<title>Unfinished</title><h1>Here</h1><img src=/silent>")
        elif path == "/missing":
            self.send_error(404)
        elif path == "/broken":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5")
        elif path == "/download/small":
            self._download("small report.txt", len(SMALL))
            self.wfile.write(SMALL)
        elif path == "/download/endless":
            self._download("endless.bin", None)
            with contextlib.suppress(OSError):
                while not self.over.wait(0.01):
                    self.wfile.write(bytes(1 << 18))
        else:
            super().do_GET()

    def _page(self, text: str, *headers: tuple[str, str]) -> None:
        body = text.encode()
        self.send_response(200)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            *headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _download(self, name: str, size: int | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", f'attachment; filename="{name}"')
        if size is not None:
            self.send_header("Content-Length", str(size))
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the browser closes connections as it likes


@contextlib.contextmanager
def site() -> Iterator[str]:
    """Serve on a free port of loopback; gives `http://localhost:PORT`."""
    over = threading.Event()
    handler = type("Bound", (Handler,), {"over": over})
    server = _Server(("127.0.0.1", 0), partial(handler, directory=str(PAGES)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
