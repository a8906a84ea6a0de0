"""The disk of the database is full: said with 503, nothing half written, and got over once there is space."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.clients import Client, Terminal
from tests.integration.test_personal_mode import BIN, Gateway, environment, start, stop

SPACE = "600k"


@dataclass
class SmallDisk:
    """A gateway whose database has a file system of `SPACE` to itself, in a mount namespace of its own."""

    gateway: Gateway
    folder: Path

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            for size in (4096, 1):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        (self.folder / "ballast").unlink()

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What the database would say after a crash now."""
        (path,) = self.folder.rglob("*.db")
        with tempfile.TemporaryDirectory() as copy:
            for file in path.parent.glob(f"{path.name}*"):
                shutil.copy(file, copy)
            with closing(sqlite3.connect(Path(copy) / path.name)) as connection:
                return connection.execute(query).fetchall()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    data = tmp_path / "data"
    data.mkdir()
    mount = f"mount -t tmpfs -o size={SPACE},mode=700 tmpfs {shlex.quote(str(data))}"
    names = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    gateway = start(tmp_path, prefix=[*names, "sh", "-c", f'{mount} && exec "$@"', "sh"])
    try:
        yield SmallDisk(gateway, Path(f"/proc/{gateway.process.pid}/root{data}"))
    finally:
        stop(gateway)


def sessions(client: Client) -> list[tuple[str, str]]:
    answer = client.send("GET", "/api/sessions")
    assert answer.status == 200
    return [(session["id"], session["status"]) for session in answer.json]


def test_a_full_disk_is_said_and_got_over(small: SmallDisk) -> None:
    client = small.gateway.client()
    session = client.post("/api/sessions").json
    path = f"/api/sessions/{session['id']}"
    terminal = Terminal(client, session["id"])
    assert terminal.ask("echo before") == "before"
    before = small.rows("SELECT id, status FROM sessions"), small.rows("SELECT * FROM ports")

    small.fill()
    refused = [
        client.post("/api/sessions"),
        client.post(f"{path}/stop"),
        client.post("/api/auth/logout"),
        Client(small.gateway.port).log_in(small.gateway.username, small.gateway.password),
    ]
    for answer in refused:
        assert answer.status == 503, answer
        assert "no space left" in answer.json["error"]
        assert str(small.gateway.folder / "data") in answer.json["error"]
    assert (small.rows("SELECT id, status FROM sessions"), small.rows("SELECT * FROM ports")) == before
    assert client.send("GET", "/api/health").status == 200
    assert sessions(client) == [(session["id"], "running")]
    assert terminal.ask("echo during") == "during"
    again = Terminal(client, session["id"])
    again.type("echo op''ened\n")
    again.until(b"opened")
    again.close()
    assert client.send("GET", f"{path}/files/tree?path=.").status == 200

    small.free()
    assert client.post(f"{path}/stop").status == 204
    terminal.close()
    assert client.send("DELETE", path).status == 204
    assert client.post("/api/sessions").status == 201
    assert small.rows("PRAGMA integrity_check") == [("ok",)]


def test_no_space_to_start_with(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    mount = f"mount -t tmpfs -o size=8k tmpfs {shlex.quote(str(data))}"
    script = f"{mount} && exec oqtod serve --personal --port 0"
    done = subprocess.run(
        [*names, "sh", "-c", script],
        env={**environment(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1, done.stderr
    assert "no space left for the database" in done.stderr
    assert "Traceback" not in done.stderr
