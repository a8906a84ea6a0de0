"""Which network a session's previews are in: found whatever else comes and goes in the sandbox."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from runner.sandbox import loopback

PATIENCE = 20.0


def test_a_process_that_has_ended_hides_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    sandboxed = subprocess.Popen(["unshare", "--map-root-user", "--net", "sleep", "60"])
    try:
        theirs = Path(f"/proc/{sandboxed.pid}/ns/net")
        until = time.monotonic() + PATIENCE
        while theirs.stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
            assert sandboxed.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        monkeypatch.setattr(loopback, "descendants", lambda pid: [sandboxed.pid, ended.pid])
        found = loopback.namespace_of(os.getpid())
        assert found is not None
        assert os.fstat(found).st_ino == theirs.stat().st_ino
        os.close(found)
    finally:
        sandboxed.kill()
        sandboxed.wait()
