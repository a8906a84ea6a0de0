"""The command line of a session's browser daemon, and what its sandbox must show for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runner import programs
from runner.protocol.messages import BrowserSpec
from runner.protocol.rpc import CallFailed

DOWNLOADS: Final = "downloads"
"""The folder of the workspace that downloads go to."""

_NAME: Final = "main"
"""Of the one browser in its socket folder. Daemons of another make put a socket of that name there, and a
socket's path has room for 107 bytes."""

_KEPT: Final = ".local/state/oqto/browsers"
"""Where profiles are, below the home: hidden from all sessions, but for its own from its browser."""

PROFILE_MAX: Final = 2 << 30
"""Bytes on the disk above which a profile is begun anew: pages may store as they like."""

_SYSTEM: Final = tuple(map(Path, ("/usr", "/opt", "/nix", "/bin", "/snap")))
_X11: Final = Path("/tmp/.X11-unix")  # noqa: S108  X's own place, Xserver(1)
_DISPLAY: Final = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR")


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a daemon: beside its arguments, what its sandbox shows and what its environment has."""

    argv: list[str]
    programs: list[Path]
    readable: list[Path] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def profile_of(session_id: str, home: Path) -> Path:
    """Return the folder of a session's cookies, storage and cache: it outlives the session's stop."""
    return home / _KEPT / session_id


def prepare_profile(profile: Path) -> bool:
    """Make a profile's folder; say whether it was over PROFILE_MAX, and is empty now. Raises OSError."""
    profile.mkdir(mode=0o700, parents=True, exist_ok=True)
    size = 0
    for folder, _, files in os.walk(profile):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                size += Path(folder, name).lstat().st_blocks * 512
    if size <= PROFILE_MAX:
        return False
    shutil.rmtree(profile)
    profile.mkdir(mode=0o700)
    return True


def launch(
    spec: BrowserSpec,
    *,
    socket: Path,
    profile: Path,
    workspace: Path,
    inherited: Mapping[str, str] = os.environ,
) -> Launch:
    """Return what serves the session's browser on the socket. Raises CallFailed where a part is missing."""
    daemon = programs.browser_daemon(spec.binary)
    other = programs.other_browser_daemon(spec.binary)
    argv = [daemon, "--session", _NAME]
    argv += ["--profile", str(profile), "--downloads", str(workspace / DOWNLOADS)]
    found = Launch(argv, [Path(daemon)])
    if spec.page_memory_mb is not None:
        argv += ["--page-memory-mb", str(spec.page_memory_mb)]
    if spec.executable_path is not None:
        chromium = _there(spec.executable_path, key="agent_browser.executable_path")
        argv += ["--executable-path", str(chromium)]
        if not any(chromium.is_relative_to(folder) for folder in _SYSTEM):
            found.programs.append(chromium.parent)  # it comes with libraries and data beside it
    for extension in spec.extensions:
        folder = _there(extension, key="agent_browser.extensions")
        argv += ["--extension", str(folder)]
        found.readable.append(folder)
    if spec.headed:
        argv.append("--headed")
        _show_display(found, inherited)
    if other is not None:
        argv += ["--binary", other]
        found.programs.append(Path(other))
        found.environment["AGENT_BROWSER_SOCKET_DIR"] = str(socket.parent)
        if spec.stream_port is not None:
            found.environment["AGENT_BROWSER_STREAM_PORT"] = str(spec.stream_port)
    argv += ["serve", "--socket", str(socket)]
    return found


def _there(path: str, *, key: str) -> Path:
    """Return where a path that the configuration names really is."""
    real = Path(os.path.realpath(path))
    if not os.access(real, os.R_OK):
        raise CallFailed(
            "missing_program", f"{path} isn't there, or may not be read", f"put it there, or correct {key}"
        )
    return real


def _show_display(found: Launch, inherited: Mapping[str, str]) -> None:
    """Show the display of whoever started the runner."""
    if not (inherited.get("DISPLAY") or inherited.get("WAYLAND_DISPLAY")):
        raise CallFailed(
            "service_failed",
            "the browser shall have a window, and the runner has no display: agent_browser.headed",
            "set agent_browser.headed = false, or DISPLAY in the environment that the runner starts with",
        )
    found.environment.update({name: inherited[name] for name in _DISPLAY if inherited.get(name)})
    wayland = Path(inherited.get("XDG_RUNTIME_DIR", "/run"), inherited.get("WAYLAND_DISPLAY", ""))
    shown = [_X11, Path(inherited.get("XAUTHORITY", "")), wayland]
    found.readable.extend(
        path for path in shown if path.is_socket() or path.is_file() or (path == _X11 and path.is_dir())
    )
