"""Asking a session's daemon for something, and having one started first where there is none.

A command is short and an agent gives many, so this imports little: no trio, no msgspec.
"""

from __future__ import annotations

import base64
import fcntl
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

START_SECONDS: Final = 15.0
"""For a daemon to listen after its start."""

_MORE_SECONDS: Final = 10.0
"""What the daemon may take longer than the command itself: Chromium's start is bounded there."""
_CHROMIUM_SECONDS: Final = 60.0


class Unreachable(Exception):
    """There is no daemon, and none could be started; the text says why."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = sock


def ask(
    path: Path, arguments: Sequence[str], *, seconds: float, start: Sequence[str] | None
) -> dict[str, Any]:
    """Return the daemon's answer to a command; `start` is the command line that starts one.

    Raises Unreachable.
    """
    sock = connect(path)
    if sock is None and list(arguments) == ["status"]:
        return {"success": True, "data": {"running": False}}
    if sock is None and list(arguments) == ["close"]:
        return {"success": True, "data": {}}
    if sock is None:
        sock = _started(path, start)
    sock.settimeout(seconds + _MORE_SECONDS + _CHROMIUM_SECONDS)
    connection = _Connection(sock)
    body = json.dumps({"args": list(arguments), "timeout": seconds})
    try:
        connection.request("POST", "/command", body, {"Content-Type": "application/json"})
        answered = connection.getresponse()
        answer = json.loads(answered.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"the browser's daemon gave no answer: {error}") from error
    finally:
        connection.close()
    if "success" not in answer:
        return {"success": False, "error": answer.get("error", "no answer"), "code": "usage"}
    result: dict[str, Any] = answer
    return result


def connect(path: Path) -> socket.socket | None:
    """Return a socket connected to the daemon, None where none listens. Raises Unreachable."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise Unreachable(f"the daemon's socket {path} can't be used: {error.strerror}") from error
    return sock


def _started(path: Path, start: Sequence[str] | None) -> socket.socket:
    """Have a daemon started, and connect to it."""
    if starter := os.environ.get("OQTO_BROWSER_START"):
        refusal = _ask_to_start(Path(starter))
        if refusal:
            raise Unreachable(refusal)
    elif start is not None:
        return _start(path, start)
    sock = connect(path)
    if sock is None:
        raise Unreachable(f"no browser runs for this session: nobody listens on {path}")
    return sock


def _ask_to_start(starter: Path) -> str:
    """Ask whoever can start the daemon; return why it can't."""
    sock = connect(starter)
    if sock is None:
        return f"the session's browser can't be started from here: nobody listens on {starter}"
    with sock:
        sock.settimeout(2 * START_SECONDS)
        said = bytearray()
        try:
            while data := sock.recv(4096):
                said += data
        except OSError as error:
            return f"the session's browser was not started: {error}"
    return said.decode(errors="replace").strip()


def _start(path: Path, start: Sequence[str]) -> socket.socket:
    """Start a daemon that lives on after us; of several who try at once, one does."""
    log = path.with_suffix(".log")
    guard = path.with_suffix(".lock")
    guard.touch(mode=0o600)
    log.unlink(missing_ok=True)
    log.touch(mode=0o600)
    with guard.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (sock := connect(path)) is not None:
            return sock
        with log.open("ab") as output:
            child = subprocess.Popen(
                start,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                close_fds=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and child.poll() is None:
            if (sock := connect(path)) is not None:
                child.returncode = 0  # it lives on, and nobody here waits for it
                return sock
            time.sleep(0.01)
        if child.poll() is None:
            child.kill()
            child.wait()
    said = log.read_text(errors="replace").strip().rpartition("\n")[2]
    raise Unreachable(f"the browser's daemon did not start: {said or 'it said nothing'}")


def save(answer: dict[str, Any], file: str | None) -> dict[str, Any]:
    """Write the file that an answer carries, and say where it is instead. Raises OSError."""
    data = answer.get("data")
    if not isinstance(data, dict) or "base64" not in data:
        return answer
    content = base64.b64decode(data.pop("base64"))
    ending = {"image/png": "png", "image/jpeg": "jpg", "application/pdf": "pdf"}[data.pop("media_type")]
    path = Path(file or time.strftime(f"screenshot-%Y%m%d-%H%M%S.{ending}")).absolute()
    path.write_bytes(content)
    return {**answer, "data": {**data, "path": str(path), "bytes": len(content)}}


def print_answer(answer: dict[str, Any]) -> int:
    """Print an answer; return the exit status that goes with it."""
    sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    return 0 if answer.get("success") else 1
