"""The web site that the browser under test visits: the pages beside this, and some that never end."""

from __future__ import annotations

import contextlib
import html
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

PAGES = Path(__file__).with_name("pages")
SMALL = b"small file\n" * 100


class Handler(SimpleHTTPRequestHandler):
    """Files, `/echo`, downloads, and what never ends."""

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
            time.sleep(3600)
        elif path == "/unfinished":
            self._page("<title>Unfinished</title><h1>Here</h1><img src=/silent>")
        elif path == "/missing":
            self.send_error(404)
        elif path == "/broken":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello")
        elif path == "/download/small":
            self._download("small report.txt", len(SMALL))
            self.wfile.write(SMALL)
        elif path == "/download/endless":
            self._download("endless.bin", None)
            with contextlib.suppress(OSError):
                while True:
                    time.sleep(0.01)
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
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the browser closes connections as it likes


@contextlib.contextmanager
def site() -> Iterator[str]:
    """Serve on a free port of loopback, in a process of its own; gives `http://localhost:PORT`."""
    command = [sys.executable, "-m", "tests.browserd.server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PAGES.parents[2])
    assert process.stdout is not None
    try:
        yield f"http://localhost:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    with _Server(("127.0.0.1", 0), partial(Handler, directory=str(PAGES))) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
