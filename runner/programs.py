"""Finding the programs that a session needs, and saying so clearly when one is missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from runner.protocol.rpc import CallFailed

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""The names of browsers, the preferred one first."""

_BROWSER_DAEMON = "oqto-browserd"


def sibling(name: str) -> str | None:
    """Return the path of one of our own commands, installed beside the one that runs now, or on PATH."""
    for neighbour in (sys.argv[0], sys.executable):
        candidate = Path(neighbour).absolute().parent / name
        if candidate.is_file():
            return str(candidate)
    return shutil.which(name)


def ttyd(binary: str) -> str:
    """Return the terminal program for `local.ttyd_binary`: found on PATH, or else `oqto-ttyd`."""
    return _found(binary, key="local.ttyd_binary", default="ttyd", embedded="oqto-ttyd")


def fileserver(binary: str) -> str:
    """Return the file server for `local.fileserver_binary`; `fileserver` and `oqto-files` are one program."""
    return _found(binary, key="local.fileserver_binary", default="fileserver", embedded="oqto-files")


def browser_daemon(binary: str) -> str:
    """Return our own browser daemon, which also speaks to the one of another make that `binary` may name."""
    own = binary if Path(binary).name == _BROWSER_DAEMON else _BROWSER_DAEMON
    return _found(own, key="agent_browser.binary", default=_BROWSER_DAEMON, embedded=_BROWSER_DAEMON)


def chromium() -> str | None:
    """Return the browser that our daemon takes where `agent_browser.executable_path` names none."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def other_browser_daemon(binary: str) -> str | None:
    """Return the daemon that `agent_browser.binary` names, or None where that is our own."""
    if Path(binary).name == _BROWSER_DAEMON:
        return None
    return _found(binary, key="agent_browser.binary", default="", embedded="")


def bubblewrap() -> str:
    """Return bwrap's path."""
    found = shutil.which("bwrap")
    if found is None:
        raise CallFailed(
            "missing_program",
            "bwrap was not found on PATH, and the sandbox needs it",
            "install the package bubblewrap (only an administrator can turn the sandbox off: "
            "enabled in sandbox.toml)",
        )
    return found


def _found(binary: str, *, key: str, default: str, embedded: str) -> str:
    found = shutil.which(binary)
    if found is None and binary == default:
        found = sibling(embedded)
    if found is None:
        raise CallFailed(
            "missing_program",
            f"{binary} was not found, or may not be executed",
            f"install it, or set {key} to the program's path",
        )
    return found
