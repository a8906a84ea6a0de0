"""Browsers as the gateway asks for them: what their daemons answer, and which are ended for being idle."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
import trio

from oqtod.config import Config
from oqtod.errors import Refusal
from oqtod.placements.browser import memory_max, spec, troubles
from oqtod.sessions import model
from oqtod.sessions.browsers import Browsers, CommandFailed
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.sessions.model import Session
from runner.protocol.messages import ServiceStatus, SessionStatus

GIB = 1024**3


def session(name: str) -> Session:
    made = model.new(user_id="alice", workspace_path="/w", image="", environment={})
    return msgspec.structs.replace(made, id=name, status="running", stream_port=30007)


@dataclass
class Daemons:
    """What `Lifecycle` is to Browsers, with daemons that answer `answer` to any request."""

    config: Config
    answer: Callable[[bytes], bytes]
    sessions: list[Session]
    nursery: trio.Nursery
    running: set[str] = field(default_factory=set)
    requests: list[bytes] = field(default_factory=list)

    @property
    def records(self) -> Daemons:
        return self

    @property
    def runners(self) -> Daemons:
        return self

    def live(self) -> list[Session]:
        return self.sessions

    async def statuses(self, user_id: str) -> dict[str, SessionStatus]:
        states = {x.id: "running" if x.id in self.running else "stopped" for x in self.sessions}
        return {
            key: SessionStatus(key, "/w", {"browser": ServiceStatus(cast(Any, state))})
            for key, state in states.items()
        }

    async def open(self, asked: Session, service: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.nursery.start_soon(self._serve, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        return theirs

    async def open_running(self, asked: Session, service: str) -> socket.socket | None:
        return await self.open(asked, service) if asked.id in self.running else None

    async def stop_service(self, asked: Session, service: str) -> None:
        assert service == "browser"
        self.running.discard(asked.id)

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received or len(received) < _length(received):
                data = await stream.receive_some(65536)
                if not data:
                    return
                received += data
            self.requests.append(received)
            await stream.send_all(self.answer(received))


def _length(received: bytes) -> int:
    head, _, _ = received.partition(b"\r\n\r\n")
    (length,) = [
        int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length")
    ]
    return len(head) + 4 + length


def ok(content: object) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def idle_for(**seconds: float) -> Callable[[bytes], bytes]:
    """Daemons are asked one after another, in the order of `seconds`."""
    left = list(seconds.values())
    return lambda request: ok({"success": True, "data": {"idle_seconds": left.pop(0)}})


def daemons(nursery: trio.Nursery, answer: Callable[[bytes], bytes], **settings: object) -> Daemons:
    chosen = {"agent_browser": {"enabled": True}, **settings}
    return Daemons(msgspec.convert(chosen, Config), answer, [session("one"), session("two")], nursery)


def browsers_of(found: Daemons) -> Browsers:
    return Browsers(cast(Lifecycle, found))


async def test_a_browser_that_nobody_uses_is_ended_and_no_other() -> None:
    async with trio.open_nursery() as nursery:
        minutes = {"idle_timeout_minutes": 30}
        found = daemons(nursery, idle_for(one=1801, two=1799), sessions=minutes)
        found.running = {"one", "two"}
        await browsers_of(found).look()
        assert found.running == {"two"}
        assert all(request.startswith(b"GET /status ") for request in found.requests)


async def test_one_that_does_not_run_is_not_asked() -> None:
    async with trio.open_nursery() as nursery:
        found = daemons(nursery, lambda request: b"")
        await browsers_of(found).look()
        assert found.requests == []


@pytest.mark.parametrize("data", [{}, {"idle_seconds": None}, {"idle_seconds": "long"}])
async def test_one_that_does_not_say_stays(data: dict[str, object]) -> None:
    async with trio.open_nursery() as nursery:
        found = daemons(nursery, lambda request: ok({"success": True, "data": data}))
        found.running = {"one"}
        await browsers_of(found).look()
        assert found.running == {"one"}


async def test_a_command_and_its_answer() -> None:
    async with trio.open_nursery() as nursery:
        found = daemons(nursery, lambda request: ok({"success": True, "data": {"url": "x"}}))
        assert await browsers_of(found).command(session("one"), "open", "x") == {"url": "x"}
        (request,) = found.requests
        assert request.startswith(b"POST /command ")
        assert json.loads(request.partition(b"\r\n\r\n")[2])["args"] == ["open", "x"]


@pytest.mark.parametrize(
    ("code", "status"), [("navigation", 422), ("usage", 400), ("no_browser", 503), ("of a new kind", 422)]
)
async def test_a_command_that_fails(code: str, status: int) -> None:
    async with trio.open_nursery() as nursery:
        answer = {"success": False, "error": "why", "code": code}
        found = daemons(nursery, lambda request: ok(answer))
        with pytest.raises(CommandFailed, match="why") as failed:
            await browsers_of(found).command(session("one"), "open", "x")
        assert (failed.value.status, failed.value.reason) == (status, code)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        ok(["not", "an", "answer"]),
        b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"[" * 500_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b" " * 2_000_000,
    ],
    ids=["nothing", "no HTTP", "half", "500", "another shape", "nested", "too long"],
)
async def test_a_daemon_that_answers_nonsense(answer: bytes) -> None:
    async with trio.open_nursery() as nursery:
        found = daemons(nursery, lambda request: answer)
        with pytest.raises(Refusal) as refused:
            await browsers_of(found).command(session("one"), "reload")
        assert refused.value.status == 502
        nursery.cancel_scope.cancel()


async def test_a_daemon_that_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        found = daemons(nursery, lambda request: b"")
        ours, theirs = socket.socketpair()
        with ours:

            async def opened(asked: Session, service: str) -> socket.socket:
                return theirs

            found.open = opened  # type: ignore[method-assign]  # this once
            with pytest.raises(Refusal, match="did not answer within 40 seconds"):
                await browsers_of(found).command(session("one"), "reload")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, 8 * GIB),
        ("infinity", 8 * GIB),
        ("25%", 2 * GIB),
        ("4G", 2 * GIB),
        ("1T", 8 * GIB),
        ("3000M", 1500 * 1024**2),
        ("2147483648", GIB),
        ("256M", GIB // 2),
    ],
)
def test_a_browser_may_take_half_of_what_its_person_may(limit: str | None, expected: int) -> None:
    assert memory_max(limit, total=16 * GIB) == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"binary": "/no/such/daemon"}, "agent_browser.binary"),
        ({"executable_path": "/no/such/chrome"}, "agent_browser.executable_path"),
        ({"extensions": ["/no/such/extension"]}, "agent_browser.extensions"),
    ],
)
def test_what_is_missing_is_told_at_the_start(settings: dict[str, object], said: str) -> None:
    asked = {"enabled": True, "executable_path": "/bin/sh", **settings}
    (trouble,) = troubles(msgspec.convert({"agent_browser": asked}, Config))
    assert said in trouble
    assert troubles(msgspec.convert({"agent_browser": {**asked, "enabled": False}}, Config)) == []


def test_every_setting_reaches_the_runner() -> None:
    settings = {
        "enabled": True,
        "binary": "/opt/other",
        "headed": True,
        "executable_path": "/opt/chrome/chrome",
        "extensions": ["/opt/extension"],
    }
    found = spec(
        msgspec.convert({"agent_browser": settings, "limits": {"memory_max": "2G"}}, Config), session("one")
    )
    assert found is not None
    assert (found.binary, found.headed, found.executable_path) == ("/opt/other", True, "/opt/chrome/chrome")
    assert (found.extensions, found.stream_port) == (["/opt/extension"], 30007)
    assert (found.memory_max, found.page_memory_mb) == (GIB, 512)
    assert spec(Config(), session("one")) is None
