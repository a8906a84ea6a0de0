"""What a runner is told of a session's browser: the section `agent_browser`, and the memory it may take."""

from __future__ import annotations

import os
from pathlib import Path

from oqtod.config import Config
from oqtod.sessions.model import Session
from runner import programs
from runner.protocol.messages import BrowserSpec
from runner.protocol.rpc import CallFailed

_MIB = 1024 * 1024
_UNITS = {"K": 1024, "M": _MIB, "G": 1024 * _MIB, "T": 1024 * 1024 * _MIB}

LEAST_MEMORY = 512 * _MIB
"""With less, Chromium shows no page at all."""

MOST_PAGE_MEMORY_MB = 2048


def spec(config: Config, session: Session) -> BrowserSpec | None:
    """Return the browser of a session, None where sessions have none."""
    settings = config.agent_browser
    if not settings.enabled:
        return None
    memory = memory_max(
        config.limits.memory_max, total=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )
    return BrowserSpec(
        binary=settings.binary,
        headed=settings.headed,
        executable_path=settings.executable_path,
        extensions=settings.extensions,
        stream_port=session.stream_port,
        memory_max=memory,
        page_memory_mb=min(memory // _MIB // 2, MOST_PAGE_MEMORY_MB),
    )


def troubles(config: Config) -> list[str]:
    """Return what will keep the browsers of sessions from starting, as far as this process can see."""
    settings = config.agent_browser
    if not settings.enabled:
        return []
    found = []
    try:
        programs.browser_daemon(settings.binary)
        other = programs.other_browser_daemon(settings.binary)
    except CallFailed as failed:
        return [f"{failed.message}: {failed.hint}"]
    if settings.executable_path is not None:
        if not os.access(settings.executable_path, os.X_OK):
            found.append(f"agent_browser.executable_path: {settings.executable_path} can't be executed")
    elif other is None and programs.chromium() is None:
        names = ", ".join(programs.CHROMIUM)
        found.append(f"none of {names} is on PATH: install chromium, or set agent_browser.executable_path")
    for extension in settings.extensions:
        if not (Path(extension) / "manifest.json").is_file():
            found.append(f"agent_browser.extensions: {extension} holds no unpacked extension")
    return found


def memory_max(limit: str | None, *, total: int) -> int:
    """Return the bytes that one browser may take: half of what its person may, `limits.memory_max`.

    Where that is unlimited, half of the host's `total`.
    """
    if limit is None or limit == "infinity":
        allowed = total
    elif limit.endswith("%"):
        allowed = total * int(limit[:-1]) // 100
    else:
        allowed = int(limit.rstrip("KMGT")) * _UNITS.get(limit[-1], 1)
    return max(min(allowed, total) // 2, LEAST_MEMORY)
