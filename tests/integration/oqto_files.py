"""A running oqto-files, and its client: for the tests of what it does."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
LIMIT = 2 * 1024 * 1024


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Files:
    """A running oqto-files over a folder of its own."""

    root: Path
    socket: Path
    process: subprocess.Popen[bytes]

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(str(self.socket))
        return client

    def send(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("files")
        connection.sock = self.connect()
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        return self.send("GET", target, **headers)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.root.rglob(".oqto-upload-*")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "root").mkdir()
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").write_text("secret")
    where = folder / "s.sock"
    line = [BIN / "oqto-files", "--root", folder / "root", "--socket", where, "--max-upload-mb", "2"]
    process = subprocess.Popen(line)
    deadline = time.monotonic() + 10
    while not where.exists():
        assert time.monotonic() < deadline
    yield Files(folder / "root", where, process)
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture
def files(served: Files) -> Iterator[Files]:
    yield served
    assert served.leftovers() == []
    for path in sorted(served.root.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            path.rmdir()
        else:
            path.unlink()
