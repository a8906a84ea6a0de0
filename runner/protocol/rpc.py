"""Calls over a wire: a greeting with versions, then requests and answers matched by id, many at a time.

The supervisor's broker and the runner speak it alike; what can be called is a `Protocol`, a table of call
types. A call is a msgspec Struct whose `answer` names the type of its result.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
import trio

from runner.protocol.wire import Frame, Peer, Wire, WireError

log = logging.getLogger(__name__)

GREETING_TIMEOUT = 5.0
"""Seconds in which a peer must have said hello."""

MAX_IN_FLIGHT = 64
"""Calls of one connection answered at a time; further ones wait unread."""

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises on bytes that are not what they should be: its own, and two it lets through."""

_SHOWN = 200  # characters of a peer's own words that go into a log line

A = TypeVar("A")


class Call(msgspec.Struct, Generic[A], frozen=True, forbid_unknown_fields=True):
    """Base of everything that can be called; `answer` is the type of the result."""

    answer: ClassVar[Any]


class NeverSpoke(WireError):
    """The peer went without a word: it only looked whether somebody listens."""


class Hello(msgspec.Struct, frozen=True):
    """The first frame of both sides."""

    protocol: str
    version: int
    program: str


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a call failed: a stable code for programs, a message and a hint for people."""

    code: str
    message: str
    hint: str | None = None


_Id = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    id: _Id
    result: msgspec.Raw = msgspec.Raw(b"null")
    fault: Fault | None = None


class _Envelope(msgspec.Struct, frozen=True):
    id: _Id
    call: msgspec.Raw


class CallFailed(Exception):
    """The other side answered that it could not. `code`, `message` and `hint` are its own words."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class ConnectionLost(Exception):
    """No answer will come: the other side closed, spoke nonsense, or is not who it should be."""


class Protocol:
    """A named, versioned table of the calls that one side answers."""

    def __init__(self, name: str, version: int, calls: Sequence[type[Call[Any]]]) -> None:
        self.name = name
        self.version = version
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type=_union(calls))

    def hello(self, program: str) -> bytes:
        """Return the greeting of this side, ready to send."""
        return msgspec.json.encode(Hello(self.name, self.version, program))


def _union(calls: Sequence[type[Call[Any]]]) -> Any:
    union: Any = calls[0]
    for call in calls[1:]:
        union = union | call
    return union


Handler = Callable[[Any, Peer], Awaitable[tuple[Any, Sequence[int]]]]
"""Answers one call of a peer: the result, and descriptors to send along, which are then closed here."""


async def serve(wire: Wire, protocol: Protocol, handler: Handler, *, program: str) -> None:
    """Answer the calls of one connection until it ends. Whatever the peer sends, only WireError comes out.

    A `CallFailed` of the handler becomes the answer. The wire is closed at the end.
    """
    peer = wire.peer
    try:
        await _greet_client(wire, protocol, program)
        slots = trio.Semaphore(MAX_IN_FLIGHT)
        async with trio.open_nursery() as nursery:
            while (frame := await wire.receive()) is not None:
                frame.close()  # no call brings descriptors
                await slots.acquire()
                nursery.start_soon(_answer, wire, protocol, handler, peer, frame.payload, slots)
            nursery.cancel_scope.cancel()  # nobody is left to hear the answers
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the peer went away while we answered: nothing to say to it
    except* WireError as group:
        raise _first(group) from None
    finally:
        wire.close()


def _first(group: BaseExceptionGroup[WireError]) -> WireError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, WireError)
    return error


async def _greet_client(wire: Wire, protocol: Protocol, program: str) -> None:
    with trio.move_on_after(GREETING_TIMEOUT):
        hello = _read_hello(await wire.receive())
        if (hello.protocol, hello.version) != (protocol.name, protocol.version):
            other = _shown(f"{hello.protocol} {hello.version}")
            fault = Fault(
                "wrong_version",
                f"{program} speaks {protocol.name} {protocol.version}, not {other}",
                "restart both sides after an upgrade",
            )
            await wire.send(msgspec.json.encode(_Answer(0, fault=fault)))
            raise WireError(fault.message)
        await wire.send(protocol.hello(program))
        return
    raise WireError(f"no greeting within {GREETING_TIMEOUT:g} seconds")


def _read_hello(frame: Frame | None) -> Hello:
    if frame is None:
        raise NeverSpoke("closed before the greeting")
    frame.close()
    try:
        return msgspec.json.decode(frame.payload, type=Hello)
    except MALFORMED as error:
        raise WireError(f"not a greeting: {error}") from error


async def _answer(
    wire: Wire, protocol: Protocol, handler: Handler, peer: Peer, payload: bytes, slots: trio.Semaphore
) -> None:
    descriptors: Sequence[int] = ()
    try:
        envelope = _open_envelope(payload)
        try:
            call = protocol.decoder.decode(envelope.call)
            result, descriptors = await handler(call, peer)
            answer = _Answer(envelope.id, result=msgspec.Raw(msgspec.json.encode(result)))
        except MALFORMED as error:
            answer = _Answer(envelope.id, fault=Fault("bad_request", str(error)))
        except CallFailed as failure:
            answer = _Answer(envelope.id, fault=Fault(failure.code, failure.message, failure.hint))
        except Exception:
            # A fault of ours in one call must not take the others' connection, or the program, with it.
            log.exception("a call failed")
            answer = _Answer(envelope.id, fault=Fault("internal", "something went wrong; the log says what"))
        await wire.send(msgspec.json.encode(answer), descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        slots.release()


def _open_envelope(payload: bytes) -> _Envelope:
    try:
        return msgspec.json.decode(payload, type=_Envelope)
    except MALFORMED as error:
        raise WireError(f"not a request: {error}") from error


class _Pending:
    """One call that waits for its answer."""

    __slots__ = ("answer", "descriptors", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: _Answer | None = None
        self.descriptors: list[int] = []


class Client:
    """The calling side of one connection; made by `connect`. Calls may run concurrently."""

    def __init__(self, wire: Wire, hello: Hello) -> None:
        self._wire = wire
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0
        self.hello = hello
        """What the other side said of itself."""
        self.lost: str | None = None
        """Why the connection is of no more use; None while it is good."""

    async def call(self, call: Call[A], *, timeout: float) -> A:
        """Make a call and return its result.

        `timeout` is in seconds. Raises CallFailed with the other side's reason, ConnectionLost, or
        trio.TooSlowError.
        """
        result, descriptors = await self.call_for_descriptors(call, timeout=timeout)
        for descriptor in descriptors:
            os.close(descriptor)
        return result

    async def call_for_descriptors(self, call: Call[A], *, timeout: float) -> tuple[A, list[int]]:
        """Like `call`, and hand over the descriptors that came with the answer: the caller closes them."""
        if self.lost is not None:
            raise ConnectionLost(self.lost)
        self._last_id += 1
        number = self._last_id
        pending = self._pending[number] = _Pending()
        try:
            with trio.fail_after(timeout):
                envelope = _Envelope(number, msgspec.Raw(msgspec.json.encode(call)))
                try:
                    await self._wire.send(msgspec.json.encode(envelope))
                except (trio.BrokenResourceError, trio.ClosedResourceError, WireError) as error:
                    raise ConnectionLost(self.lost or str(error)) from error
                await pending.done.wait()
            answer = pending.answer
            if answer is None:
                raise ConnectionLost(self.lost or "the connection closed before the answer")
            if answer.fault is not None:
                raise CallFailed(answer.fault.code, answer.fault.message, answer.fault.hint)
            try:
                result: A = msgspec.json.decode(answer.result, type=call.answer)
            except MALFORMED as error:
                raise ConnectionLost(f"an answer that is none: {error}") from error
            descriptors, pending.descriptors = pending.descriptors, []
            return result, descriptors
        finally:
            self._pending.pop(number, None)
            for descriptor in pending.descriptors:
                os.close(descriptor)

    async def read_answers(self) -> None:
        """Hand answers to the calls that wait for them, until the connection ends."""
        try:
            while (frame := await self._wire.receive()) is not None:
                self._take(frame)
            self.lost = "the other side closed the connection"
        except (WireError, *MALFORMED) as error:
            self.lost = str(error)
        except trio.ClosedResourceError:
            self.lost = "the connection was closed"
        finally:
            self.lost = self.lost or "the connection was closed"
            for pending in self._pending.values():
                pending.done.set()
            self._wire.close()

    def _take(self, frame: Frame) -> None:
        """Hand one answer to its call, with its descriptors; close those that nobody waits for."""
        try:
            answer = msgspec.json.decode(frame.payload, type=_Answer)
            pending = self._pending.get(answer.id)
            if pending is not None and not pending.done.is_set():
                pending.answer, pending.descriptors = answer, frame.descriptors
                frame.descriptors = []
                pending.done.set()
        finally:
            frame.close()


async def dial(path: str, protocol: Protocol, *, program: str, uid: int, timeout: float) -> Client:
    """Connect to the Unix socket at `path`, greet, and return a client whose answers somebody must read.

    `uid` is whom the other side must run as: the kernel attaches the sender's credentials to its greeting
    (SO_PASSCRED). SO_PEERCRED alone would name systemd where systemd made the listener.
    Raises ConnectionLost, trio.TooSlowError, OSError.
    """
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wire = Wire(sock)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with trio.fail_after(timeout):
            await sock.connect(path)
            try:
                await wire.send(protocol.hello(program))
                frame = await wire.receive()
            except (WireError, trio.BrokenResourceError) as error:
                raise ConnectionLost(str(error)) from error
        if wire.sender is None or wire.sender.uid != uid:
            found = "nobody" if wire.sender is None else f"uid {wire.sender.uid}"
            raise ConnectionLost(f"{path} is answered by {found}, not by uid {uid}")
        return Client(wire, _greeting_of_server(frame, protocol))
    except BaseException:
        wire.close()
        raise


def _greeting_of_server(frame: Frame | None, protocol: Protocol) -> Hello:
    try:
        hello = _read_hello(frame)
    except WireError as error:
        try:
            refusal = msgspec.json.decode(frame.payload if frame else b"", type=_Answer)
        except MALFORMED:
            raise ConnectionLost(str(error)) from error
        raise ConnectionLost(_shown(refusal.fault.message) if refusal.fault else str(error)) from error
    if (hello.protocol, hello.version) != (protocol.name, protocol.version):
        raise ConnectionLost(f"it speaks {_shown(f'{hello.protocol} {hello.version}')}")
    return hello


def _shown(text: str) -> str:
    """Return a peer's words as they may stand in a log: one line, and not a long one."""
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"


@asynccontextmanager
async def connect(
    path: str, protocol: Protocol, *, program: str, uid: int, timeout: float
) -> AsyncIterator[Client]:
    """`dial`, with the reading of answers in a nursery of its own, closed at the end of the block."""
    client = await dial(path, protocol, program=program, uid=uid, timeout=timeout)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.read_answers)
        yield client
        nursery.cancel_scope.cancel()
