"""What is asked of sessions' browsers: commands to their daemons, and which of them nobody uses."""

from __future__ import annotations

import logging
import socket
from typing import Any, TypeVar

import h11
import msgspec
import trio

from oqtod.errors import Refusal
from oqtod.sessions.lifecycle import Lifecycle, fields
from oqtod.sessions.model import Session
from oqtod.store.database import StorageError

log = logging.getLogger(__name__)

A = TypeVar("A")

COMMAND_TIMEOUT = 30.0
"""Seconds that a browser may take for one command."""

_MARGIN = 10.0
"""Seconds beyond that until its daemon is given up."""

_STATUS_TIMEOUT = 5.0
_MAX_ANSWER = 1024 * 1024

_REFUSALS = {"usage": "bad_request", "no_browser": "unavailable", "crashed": "unavailable"}
"""Codes of the daemon that aren't about the page."""


class CommandFailed(Refusal):
    """The browser runs, and could not do it; `reason` is the daemon's code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(_REFUSALS.get(reason, "unprocessable"), message)
        self.reason = reason


class _Answer(msgspec.Struct):
    success: bool
    data: dict[str, Any] = {}
    error: str = "the browser's daemon doesn't say why"
    code: str = "failed"


class Browsers:
    """The browsers of the sessions of `lifecycle`."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        settings = lifecycle.config.sessions
        self._idle_timeout = settings.idle_timeout_minutes * 60
        self._interval = settings.idle_check_interval_seconds

    async def command(self, session: Session, *arguments: str) -> dict[str, Any]:
        """Have a session's browser do something, started first if need be; return the data of its answer.

        Raises Refusal; CommandFailed where the browser itself refuses.
        """
        return await self._command(await self._lifecycle.open(session, "browser"), arguments)

    async def close(self, session: Session) -> None:
        """Have a session's browser ended, if it has one. Raises Refusal."""
        connected = await self._lifecycle.open_running(session, "browser")
        if connected is not None:
            await self._command(connected, ("close",))

    async def keep(self) -> None:
        """End the browsers that nobody uses, for ever: `sessions.idle_timeout_minutes`."""
        if not (
            self._lifecycle.config.agent_browser.enabled and self._idle_timeout > 0 and self._interval > 0
        ):
            await trio.sleep_forever()
        while True:
            await trio.sleep(self._interval)
            try:
                await self.look()
            except StorageError as error:
                log.error("idle browsers can't be looked for: %s", error)

    async def look(self) -> None:
        """Look once at every browser that runs. Raises StorageError."""
        running = [session for session in self._lifecycle.records.live() if session.status == "running"]
        async with trio.open_nursery() as nursery:
            for user_id in {session.user_id for session in running}:
                nursery.start_soon(self._look_at, user_id, [x for x in running if x.user_id == user_id])

    async def _look_at(self, user_id: str, sessions: list[Session]) -> None:
        try:
            known = await self._lifecycle.runners.statuses(user_id)
            for session in sessions:
                browser = known[session.id].services.get("browser") if session.id in known else None
                if browser is not None and browser.state == "running":
                    await self._end_if_idle(session)
        except Refusal as refusal:
            log.warning("the idle browsers of %s stay for now: %s", user_id, refusal)

    async def _end_if_idle(self, session: Session) -> None:
        connected = await self._lifecycle.open_running(session, "browser")
        if connected is None:
            return
        answer = await _exchange(connected, "GET", "/status", timeout=_STATUS_TIMEOUT)
        idle = _decoded(answer, _Answer).data.get("idle_seconds")
        if isinstance(idle, float | int) and idle >= self._idle_timeout:
            await self._lifecycle.stop_service(session, "browser")
            log.info("browser stopped: nobody used it for %d s", idle, extra=fields(session))

    async def _command(self, connected: socket.socket, arguments: tuple[str, ...]) -> dict[str, Any]:
        body = msgspec.json.encode({"args": arguments, "timeout": COMMAND_TIMEOUT, "person": True})
        timeout = COMMAND_TIMEOUT + _MARGIN
        answer = _decoded(await _exchange(connected, "POST", "/command", body, timeout=timeout), _Answer)
        if not answer.success:
            raise CommandFailed(answer.code, answer.error)
        return answer.data


def _decoded(text: bytes, kind: type[A]) -> A:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("bad_gateway", f"the browser's daemon answers nonsense: {error}") from error


async def _exchange(
    connected: socket.socket, method: str, path: str, body: bytes = b"", *, timeout: float
) -> bytes:
    """Make one request over a connection to a daemon, and close it. Raises Refusal.

    The daemon is a program of the session's account: everything about its answer is bounded.
    """
    connected.setblocking(False)
    http = h11.Connection(h11.CLIENT)
    head = [("Host", "browser"), ("Connection", "close"), ("Content-Type", "application/json")]
    request = h11.Request(method=method, target=path, headers=[*head, ("Content-Length", str(len(body)))])
    try:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(connected)) as stream:
            with trio.fail_after(timeout):
                events = (request, h11.Data(data=body), h11.EndOfMessage())
                await stream.send_all(b"".join(http.send(event) or b"" for event in events))
                return await _response(http, stream)
    except trio.TooSlowError as error:
        raise Refusal("bad_gateway", f"the browser did not answer within {timeout:g} seconds") from error
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise Refusal("bad_gateway", f"the browser's daemon went away: {error}", "try again") from error


async def _response(http: h11.Connection, stream: trio.SocketStream) -> bytes:
    received = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            raise Refusal("bad_gateway", f"the browser's daemon answered with status {event.status_code}")
        elif isinstance(event, h11.Data):
            received += event.data
            if len(received) > _MAX_ANSWER:
                raise Refusal("bad_gateway", f"the browser's answer is over {_MAX_ANSWER} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return received
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("it closed before it answered")
