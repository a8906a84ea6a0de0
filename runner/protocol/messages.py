"""The calls that a runner answers. Version 1.

All of them are idempotent: a caller whose connection broke may simply call again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from runner.protocol.rpc import Call, Protocol

ServiceName = Literal["terminal", "files", "browser"]
ServiceState = Literal["stopped", "starting", "running", "failed"]


class BrowserSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session's browser, as the section `agent_browser` of the configuration wants it."""

    binary: str = "oqto-browserd"
    headed: bool = False
    executable_path: str | None = None
    extensions: list[str] = []
    stream_port: int | None = None
    """Where a daemon of another make streams, on loopback."""
    memory_max: int | None = None
    """Bytes that the browser and its pages may take together, where the kernel can be told."""
    page_memory_mb: int | None = None
    """What one page may take."""


class SessionSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a runner must know of a session to run it."""

    id: str
    workspace: str
    """Absolute path; made when missing. Must be `workspace_root` or beneath it once links are resolved."""
    workspace_root: str
    environment: dict[str, str] = {}
    """What the session's programs see beside the clean environment."""
    ttyd_binary: str = "ttyd"
    fileserver_binary: str = "fileserver"
    max_upload_size_mb: int = 100
    browser: BrowserSpec | None = None
    """None where sessions have no browser."""


class ServiceStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One service of a session; `error` says why it failed."""

    state: ServiceState
    error: str | None = None


class Usage(msgspec.Struct, frozen=True):
    """What a session takes of the host."""

    memory: int = 0
    """Bytes."""
    cpu: float = 0.0
    """CPU seconds since the session started."""
    tasks: int = 0
    """Processes; threads too where the kernel counts tasks."""


class SessionStatus(msgspec.Struct, frozen=True):
    """A session that the runner has, with its services by name."""

    id: str
    workspace: str
    services: dict[str, ServiceStatus]
    usage: Usage = Usage()


class Sessions(msgspec.Struct, frozen=True):
    """All sessions of a runner."""

    runner_id: str
    sessions: list[SessionStatus]


class StartSession(Call[SessionStatus], frozen=True, tag="start"):
    """Make a session ready to open services in. One that is there already is answered as it is."""

    answer = SessionStatus
    session: SessionSpec


class StopSession(Call[None], frozen=True, tag="stop"):
    """End every process of a session. One that isn't there is stopped already."""

    answer = None
    session_id: str


class ListSessions(Call[Sessions], frozen=True, tag="list"):
    """Say which sessions there are."""

    answer = Sessions


class OpenService(Call[ServiceStatus], frozen=True, omit_defaults=True, tag="open"):
    """Start the service if need be, and send a socket that is connected to it.

    Without `start`, one that isn't running stays so, and no socket is sent.
    """

    answer = ServiceStatus
    session_id: str
    service: ServiceName
    start: bool = True


class StopService(Call[None], frozen=True, tag="stop-service"):
    """End every process of one service of a session. The next use starts it again."""

    answer = None
    session_id: str
    service: ServiceName


class ForgetSession(Call[None], frozen=True, tag="forget"):
    """Remove what is kept of a session that has ended: its browser's profile."""

    answer = None
    session_id: str


class OpenPort(Call[None], frozen=True, tag="open-port"):
    """Send a socket that is connected to a program of the session's that listens on this TCP port."""

    answer = None
    session_id: str
    port: int


class Logs(msgspec.Struct, frozen=True):
    """What the services of a session wrote to stdout and stderr of late, by name: no terminal's content."""

    services: dict[str, str]


class SessionLog(Call[Logs], frozen=True, tag="log"):
    """Say what a session's services reported: their newest lines."""

    answer = Logs
    session_id: str


RUNNER = Protocol(
    "oqto-runner",
    1,
    [
        *(StartSession, StopSession, ListSessions, OpenService, StopService, OpenPort, ForgetSession),
        SessionLog,
    ],
)
