"""The terminal's page in a real browser: it connects again by itself, and shows the same shell."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

OQTO_TTYD = Path(sys.executable).parent / "oqto-ttyd"
CHROMIUM = shutil.which("chromium")


class Line:
    """A TCP port that leads to another one, and can be cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=_copy, args=(source, sink))
                thread.start()
                self._threads.append(thread)

    def cut(self) -> None:
        """End all connections."""
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is gone already

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for end in self._open:
            end.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # cut


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    server = subprocess.Popen(
        [OQTO_TTYD, "-p", "0", "-W", "-w", tmp_path, "bash", "--norc", "--noprofile", "-i"],
        env={**os.environ, "PS1": "$ ", "HOME": str(tmp_path), "HISTFILE": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", server.stderr.readline())
    assert found is not None
    way = Line(int(found[1]))
    yield way
    way.close()
    server.terminate()
    assert server.wait(10) == 0
    server.stderr.close()


@pytest.fixture
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_it_connects_again_to_the_same_shell(line: Line, page: Page) -> None:
    page.goto(f"http://127.0.0.1:{line.port}/")
    rows = page.locator(".xterm-rows")
    expect(rows).to_contain_text("$")
    page.keyboard.type("kept=yes; echo fir''st\n")
    expect(rows).to_contain_text("first")
    line.cut()
    expect(page.locator("#notice-title")).to_have_text("Connection lost")
    expect(page.locator("#notice")).to_be_hidden(timeout=10_000)
    expect(rows).to_contain_text("first")
    page.keyboard.type("echo $kept-seco''nd\n")
    expect(rows).to_contain_text("yes-second")
    page.keyboard.type("exit\n")
    expect(page.locator("#notice-title")).to_have_text("The shell has ended")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_be_hidden()
    expect(rows).not_to_contain_text("second")
