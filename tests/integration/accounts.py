"""A gateway with people: `oqtod serve` in personal mode, with a configuration that the test writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import bcrypt

from tests.integration.clients import Answer, Client

PASSWORD = "a horse and four staples"
_HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
SECRET = "0123456789abcdef0123456789abcdef"

_ADDRESSES = count(1)

CONFIG = f"""
[local]
enabled = true
single_user = true
[server]
port = 0
trusted_proxies = ["127.0.0.1"]
[auth]
jwt_secret = "{SECRET}"
allowed_origins = ["https://ui.example"]
[[auth.dev_users]]
id = "root"
name = "The Administrator"
email = "root@example.com"
password_hash = "{_HASH}"
role = "admin"
[[auth.dev_users]]
id = "dev"
name = "Developer"
email = "dev@example.com"
password_hash = "{_HASH}"
"""


@dataclass
class Host:
    """A running gateway."""

    process: subprocess.Popen[str]
    port: int
    folder: Path
    admins: list[Client] = field(default_factory=list)

    def client(self, **headers: str) -> Client:
        """Somebody who isn't logged in, at an address of their own."""
        number = next(_ADDRESSES)
        return Client(
            self.port, headers={"X-Forwarded-For": f"10.1.{number // 250}.{number % 250}", **headers}
        )

    def logged_in(self, username: str = "dev", password: str = PASSWORD) -> Client:
        client = self.client()
        answer = client.log_in(username, password)
        assert answer.status == 200, answer.body
        return client

    @property
    def admin(self) -> Client:
        if not self.admins:
            self.admins.append(self.logged_in("root"))
        return self.admins[0]

    def user(self, username: str, **fields: Any) -> Client:
        """Make a user, and log in."""
        made = self.admin.post("/api/admin/users", {"username": username, "password": PASSWORD, **fields})
        assert made.status == 201, made.body
        return self.logged_in(username)

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log so far: what is asked for after a line is written is behind it."""
        path = self.folder / "state/oqto/audit.log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def audited(self, request_id: str) -> dict[str, Any]:
        """The line of the audit log about a request: it is there soon after the answer."""
        until = time.monotonic() + 20
        while True:
            for line in self.audit():
                if line["request_id"] == request_id:
                    return line
            assert time.monotonic() < until, "nothing was written"
            time.sleep(0.02)


def start(folder: Path, config: str = CONFIG, **environment: str) -> Host:
    file = folder / "config.toml"
    file.write_text(config)
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "oqtod"), "serve", "--config", str(file)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_STATE_HOME": str(folder / "state"),
            "OQTO__LOCAL__WORKSPACE_DIR": str(folder / "work"),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    text = ""
    assert process.stdout is not None
    for line in process.stdout:
        text += line
        if found := re.search(r"serving http://127.0.0.1:(\d+)/", text):
            return Host(process, int(found[1]), folder)
    process.wait(10)
    process.stdout.close()
    raise AssertionError(f"it ended with {process.returncode}: {text}")


def stop(host: Host) -> str:
    """End it; return what it said since it was ready."""
    host.process.send_signal(signal.SIGTERM)
    said = host.process.communicate(timeout=20)[0]
    assert host.process.returncode == 0, said
    return said


@contextmanager
def running(folder: Path, config: str = CONFIG, **environment: str) -> Iterator[Host]:
    host = start(folder, config, **environment)
    try:
        yield host
    finally:
        if host.process.poll() is None:
            stop(host)


def put(client: Client, path: str, content: object) -> Answer:
    return client.send("PUT", path, json.dumps(content).encode())


def delete(client: Client, path: str) -> Answer:
    return client.send("DELETE", path)
