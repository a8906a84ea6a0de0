"""A host in a folder: healthy, for tests to break, with programs that answer what a test says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oqtod.admin.doctor.finding import Finding
from oqtod.admin.doctor.host import Answer, Host, Ids
from oqtod.admin.doctor.setting import _AS_PACKAGED
from oqtod.config import load

UID, GID = os.getuid(), os.getgid()
PASSWD = f"""\
root:x:{UID}:{GID}:root:/root:/bin/bash
oqtod:x:{UID}:{GID}::/nonexistent:/usr/sbin/nologin
oqto_alice:x:2000:2000:oqtod:/home/oqto_alice:/bin/bash
"""
GROUP = f"""\
root:x:{GID}:
oqtod:x:{GID}:
oqto-admin:x:{GID}:
oqto:x:990:oqto_alice
oqto_alice:x:2000:
"""
REGISTRY = {
    "version": 1,
    "accounts": [
        {"user_id": "alice", "name": "oqto_alice", "uid": 2000, "state": "active", "remove_home": False}
    ],
}


class Fake:
    """A host whose files are in `root`. `answers` says what programs answer, by how a command begins."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers: dict[tuple[str, ...], Answer] = {}
        self.ran: list[tuple[str, ...]] = []
        self.now = 1_800_000_000.0

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(mode)
        os.utime(file, (self.now - 1000, self.now - 1000))
        return file

    def folder(self, path: str, mode: int = 0o755) -> Path:
        made = self.root / path.lstrip("/")
        made.mkdir(parents=True, exist_ok=True)
        made.chmod(mode)
        return made

    def execute(self, argv: Sequence[str], timeout: float, ids: Ids | None) -> Answer:
        self.ran.append(tuple(argv))
        for begin, answer in self.answers.items():
            if tuple(argv[: len(begin)]) == begin:
                return answer
        raise FileNotFoundError(2, "No such file or directory", argv[0])

    def host(self, **overrides: Any) -> Host:
        loaded = load(Path("/dev/null"), environ={}, overrides=_AS_PACKAGED | overrides)
        return Host(
            config=loaded.config,
            database=loaded.database_path,
            config_file=Path("/etc/oqto/config.toml"),
            root=self.root,
            execute=self.execute,
            clock=lambda: self.now,
        )


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A healthy host, with one account."""
    made = Fake(tmp_path)
    made.folder("/run/oqto/runner-sockets")
    made.folder("/run/oqto/runners")
    made.folder("/etc/oqto")
    made.folder("/home/oqto_alice", 0o700)
    made.folder("/var/lib/oqtod", 0o700)
    made.folder("/var/lib/oqtod-supervisor", 0o700)
    made.write("/var/lib/oqtod-supervisor/accounts.json", msgspec.json.encode(REGISTRY), 0o600)
    made.write("/etc/passwd", PASSWD)
    made.write("/etc/group", GROUP)
    made.write("/etc/shadow", "root:*:1:0:99999:7:::\n", 0o640)
    made.write("/etc/gshadow", "root:*::\n", 0o640)
    made.write("/etc/oqto/config.toml", "", 0o640)
    made.write("/etc/oqto/sandbox.toml", "")
    made.write("/bin/bash", "#!", 0o755)
    return made


def bad(found: Iterable[Finding]) -> list[Finding]:
    """Those that are worse than a note."""
    return [one for one in found if one.severity in ("problem", "warning")]


def only(found: Iterable[Finding]) -> Finding:
    """The one finding there is."""
    (one,) = found
    return one


Look = Callable[[Host], Iterable[Finding]]
__all__ = ["GID", "PASSWD", "REGISTRY", "UID", "Fake", "Look", "bad", "only", "replace"]
