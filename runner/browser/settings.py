"""What the command line and the environment decide about a daemon."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SESSION: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_SOCKET_PATH_MAX: Final = 107  # sun_path in unix(7), less its NUL


class SettingsError(Exception):
    """An option or a variable can't be used; the text names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A daemon's settings. Sizes are bytes; a stream port of 0 is none."""

    session: str
    socket: Path
    profile: Path
    downloads: Path
    headed: bool = False
    executable: str | None = None
    extensions: tuple[str, ...] = ()
    binary: str | None = None
    """Another daemon, which does the work."""
    download_limit: int = 512 << 20
    page_memory: int = 2048 << 20
    stream_port: int = 0
    ends_on_close: bool = False

    @property
    def token(self) -> Path:
        """The file with the secret of the stream's TCP port."""
        return self.socket.with_suffix(".token")


def session_name(name: str) -> str:
    """Check a session's name. Raises SettingsError."""
    if not _SESSION.fullmatch(name):
        raise SettingsError(f"--session {name!r}: give 1 to 64 letters, digits, - or _")
    return name


def socket_path(session: str) -> Path:
    """Return where the daemon of a session listens, in a folder that is the account's alone.

    Raises SettingsError.
    """
    given = os.environ.get("OQTO_BROWSER_SOCKET")
    path = Path(given) if given else _folder() / f"{session}.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise SettingsError(f"{path} is too long for a Unix socket; set AGENT_BROWSER_SOCKET_DIR")
    return path


def _folder() -> Path:
    given = os.environ.get("AGENT_BROWSER_SOCKET_DIR")
    if given:
        folder = Path(given)
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(runtime) / "oqto-browser"
    else:
        folder = Path.home() / ".oqto-browser"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise SettingsError(f"the socket folder {folder} can't be used: {error.strerror}") from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise SettingsError(f"the socket folder {folder} is open to others; it must be yours, with mode 0700")
    return folder


def stream_port() -> int:
    """Return AGENT_BROWSER_STREAM_PORT, 0 where it isn't set. Raises SettingsError."""
    text = os.environ.get("AGENT_BROWSER_STREAM_PORT") or "0"
    if not text.isdecimal() or int(text) > 65535:
        raise SettingsError(f"AGENT_BROWSER_STREAM_PORT={text!r}: give a port number")
    return int(text)
