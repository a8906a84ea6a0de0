"""A daemon of another make, which does the work behind our socket: `agent_browser.binary`.

What it must be: `BINARY --session NAME [--headed] [--executable-path P] [--extension E]… COMMAND [ARG]…`
starts it where it doesn't run, answers with JSON on standard output and exit status 0 or 1, and shows the
browser to WebSockets on AGENT_BROWSER_STREAM_PORT of 127.0.0.1. It is asked for nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any, Final, NoReturn

import trio

from runner.browser.errors import Failed
from runner.browser.settings import Settings

CLOSE_SECONDS: Final = 5.0
"""That its browser may take to end when we do."""

ANSWER_LIMIT: Final = 8 << 20
"""Bytes of an answer."""

_CONNECT_SECONDS: Final = 10.0
_FIRST_SECONDS: Final = 60.0
_RECEIVE_SIZE: Final = 1 << 16


class Other:
    """The daemon that `settings.binary` names."""

    def __init__(self, settings: Settings, binary: str) -> None:
        self._settings = settings
        self._binary = binary
        self._running = False
        self._viewers = 0
        self._started_at = time.time()
        self._last_viewer_at: float | None = None
        self._last_command_at: float | None = None
        self.closing = False
        """A command has closed the browser, and we end with it."""

    async def command(self, arguments: list[str], seconds: float, *, person: bool = False) -> dict[str, Any]:
        """Have a command carried out; return its answer."""
        if arguments == ["status"]:
            return {"success": True, "data": self.status()}
        self._last_command_at = time.time()
        try:
            data = await self._run(arguments, seconds)
        except Failed as error:
            return {"success": False, "error": str(error), "code": error.code}
        finally:
            self._last_command_at = time.time()
        self._running = arguments[0] != "close"
        if not self._running and self._settings.ends_on_close:
            self._settings.socket.unlink(missing_ok=True)
            self.closing = True
        return {"success": True, "data": data}

    def status(self) -> dict[str, Any]:
        """The data of the command `status`: what we know, since asking the daemon may start it."""
        now = time.time()
        if self._viewers:
            self._last_viewer_at = now
        used = (self._last_viewer_at, self._last_command_at, self._started_at)
        return {
            "running": True,
            "browser": "running" if self._running else "stopped",
            "binary": self._binary,
            "headed": self._settings.headed,
            "viewers": self._viewers,
            "stream_port": self._settings.stream_port or None,
            "started_at": self._started_at,
            "last_viewer_at": self._last_viewer_at,
            "last_command_at": self._last_command_at,
            "idle_seconds": round(now - max(at for at in used if at is not None), 3),
        }

    async def watch(self, viewer: trio.SocketStream, handshake: bytes) -> None:
        """Pass a viewer on, to its end. Raises Failed where there is nothing to see."""
        self._viewers += 1
        try:
            stream = await self._connect()
            async with stream:
                await stream.send_all(handshake)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_move, stream, viewer, nursery.cancel_scope)
                    await _move(viewer, stream, nursery.cancel_scope)
        finally:
            self._viewers -= 1
            self._last_viewer_at = time.time()

    async def end(self) -> None:
        """End the browser, and give up where that takes too long."""
        if self._running:
            await self.command(["close"], CLOSE_SECONDS)

    async def _connect(self) -> trio.SocketStream:
        port = self._settings.stream_port
        if not port:
            raise Failed("failed", "this browser can't be watched: AGENT_BROWSER_STREAM_PORT isn't set")
        if not self._running:
            answer = await self.command(["open", "about:blank"], _FIRST_SECONDS)
            if not answer["success"]:
                raise Failed(answer["code"], answer["error"])
        try:
            with trio.fail_after(_CONNECT_SECONDS):
                return await trio.open_tcp_stream("127.0.0.1", port)
        except (OSError, trio.TooSlowError):
            raise Failed("failed", f"{self._binary} shows nothing on port {port}") from None

    async def _run(self, arguments: list[str], seconds: float) -> dict[str, Any]:
        """Run the command line. Raises Failed."""
        settings = self._settings
        line = [self._binary, "--session", settings.session]
        if settings.headed:
            line.append("--headed")
        if settings.executable is not None:
            line += ["--executable-path", settings.executable]
        for extension in settings.extensions:
            line += ["--extension", extension]
        environment = {**os.environ, "AGENT_BROWSER_SOCKET_DIR": str(settings.socket.parent)}
        # Not pipes: a daemon that the command leaves behind may keep them open.
        with _memory("answer") as out, _memory("errors") as err:
            try:
                with trio.fail_after(seconds):
                    done = await trio.run_process(
                        [*line, *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                        check=False,
                        env=environment,
                    )
            except trio.TooSlowError:
                raise Failed("timeout", f"{self._binary} {arguments[0]} took over {seconds:g} s") from None
            except OSError as error:
                raise Failed("no_browser", f"{self._binary} can't be run: {error.strerror}") from None
            said, complaint = _content(out), _content(err)
        return _data(said, complaint, done.returncode)


def _memory(name: str) -> Any:
    return os.fdopen(os.memfd_create(name), "w+b", buffering=0)


def _content(file: Any) -> bytes:
    file.seek(0)
    content: bytes = file.read(ANSWER_LIMIT + 1)
    if len(content) > ANSWER_LIMIT:
        raise Failed("too_big", f"the answer is over {ANSWER_LIMIT >> 20} MiB")
    return content


def _data(said: bytes, complaint: bytes, status: int) -> dict[str, Any]:
    """Return the data of an answer. Raises Failed."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        if status != 0:
            _fail(complaint or said, status)
        text = said.decode(errors="replace").strip()
        return {"text": text} if text else {}  # for people, as some do unless they are told otherwise
    if not isinstance(answer, dict):
        answer = {"data": {"value": answer}}
    if status != 0 or answer.get("success") is False:
        error, code = answer.get("error"), answer.get("code")
        if not isinstance(error, str):
            _fail(complaint, status)
        raise Failed(code if code in ("usage", "not_found", "timeout", "navigation") else "failed", error)
    data = answer.get("data", {} if "success" in answer else answer)
    return data if isinstance(data, dict) else {} if data is None else {"value": data}


def _fail(text: bytes, status: int) -> NoReturn:
    line = text.decode(errors="replace").strip().rpartition("\n")[2]
    raise Failed("failed", line or f"the daemon's command ended with status {status} and said nothing")


async def _move(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(_RECEIVE_SIZE):
            await sink.send_all(data)
    except trio.BrokenResourceError:
        pass  # one of them has gone, which ends it like any end
    scope.cancel()
