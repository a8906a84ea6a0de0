"""WebSockets through the gateway (RFC 6455), as Autobahn tries them: nothing on the way is changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)

from tests.integration.previews import Preview, Program, Wire, preview, program, session

__all__ = ["preview", "program", "session"]

Whole = TextMessage | BytesMessage

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20]


class Peer:
    """One side of a WebSocket."""

    def __init__(self, wire: Wire, side: ConnectionType) -> None:
        self.wire = wire
        self.protocol = WSConnection(side)
        self._events: Iterator[Event] = iter(())

    def send(self, event: Event) -> None:
        self.wire.send(self.protocol.send(event))

    def next(self) -> Event:
        """Return what comes next. Messages come in pieces."""
        while (event := next(self._events, None)) is None:
            self.protocol.receive_data(self.wire.receive() or None)
            self.wire.forget()
            self._events = self.protocol.events()
        return event

    def message(self) -> Whole:
        """Return the next message, whole."""
        parts: list[Any] = []
        while True:
            event = self.next()
            assert isinstance(event, TextMessage | BytesMessage), event
            parts.append(event.data)
            if event.message_finished:
                if isinstance(event, TextMessage):
                    return TextMessage(data="".join(parts))
                return BytesMessage(data=b"".join(parts))


@dataclass
class Pair:
    """The two sides of a WebSocket through the gateway."""

    client: Peer
    service: Peer

    def both(self) -> Iterator[tuple[Peer, Peer]]:
        """Each direction: who sends, and who receives."""
        yield self.client, self.service
        yield self.service, self.client


def asked(preview: Preview, program: Program) -> Pair:
    """A client that has asked for a WebSocket, and the service that has heard it."""
    client = Peer(preview.connect(), ConnectionType.CLIENT)
    token = [(b"authorization", preview.authorization.partition(b" ")[2])]
    host = f"127.0.0.1:{preview.gateway}"
    client.send(Request(host, preview.path.decode() + "/ws", subprotocols=["a", "b"], extra_headers=token))
    service = Peer(program.accept(), ConnectionType.SERVER)
    wish = service.next()
    assert isinstance(wish, Request)
    assert (wish.target, wish.subprotocols) == ("/ws", ["a", "b"])
    assert b"authorization" not in dict(wish.extra_headers)
    return Pair(client, service)


@pytest.fixture
def pair(preview: Preview, program: Program) -> Pair:
    """Both sides, agreed."""
    pair = asked(preview, program)
    pair.service.send(AcceptConnection(subprotocol="b"))
    accepted = pair.client.next()
    assert isinstance(accepted, AcceptConnection)
    assert accepted.subprotocol == "b"
    return pair


@contextmanager
def meanwhile(work: Callable[..., object], argument: object) -> Iterator[threading.Thread]:
    """Do something in a thread while the block lasts, and to its end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work(argument)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
    assert not failures, failures


def message_of(kind: type[TextMessage] | type[BytesMessage], size: int) -> Whole:
    """Return a message of so many bytes."""
    if kind is BytesMessage:
        return BytesMessage(data=os.urandom(size))
    return TextMessage(data="aé€😀" * (size // 10) + "x" * (size % 10))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [TextMessage, BytesMessage])
def test_messages_of_any_size(pair: Pair, kind: type[TextMessage] | type[BytesMessage], size: int) -> None:
    message = message_of(kind, size)
    for sender, receiver in pair.both():
        with meanwhile(sender.send, message):
            assert receiver.message() == message


def test_many_messages_in_both_directions_at_once(pair: Pair) -> None:
    messages = [message_of((TextMessage, BytesMessage)[size % 2], size) for size in range(1000)]

    def say(peer: Peer) -> None:
        peer.wire.send(b"".join(map(peer.protocol.send, messages)))

    def hear(peer: Peer) -> None:
        for message in messages:
            assert peer.message() == message

    # Each is heard where the other one's are sent from; wsproto keeps the two apart.
    with meanwhile(say, pair.client), meanwhile(say, pair.service), meanwhile(hear, pair.client):
        hear(pair.service)


def test_messages_in_pieces_with_pings_between(pair: Pair) -> None:
    for sender, receiver in pair.both():
        sent = [
            TextMessage(data="one ", message_finished=False),
            Ping(payload=b"in the middle"),
            TextMessage(data="", message_finished=False),
            TextMessage(data="two", message_finished=True),
            BytesMessage(data=b"\0" * 70_000, message_finished=False),
            BytesMessage(data=b"\1", message_finished=True),
        ]
        for event in sent[:4]:
            sender.send(event)
        assert [receiver.next() for _ in sent[:4]] == sent[:4]
        for event in sent[4:]:
            sender.send(event)
        assert receiver.message() == BytesMessage(data=b"\0" * 70_000 + b"\1")


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))], ids=len)
def test_pings_and_pongs(pair: Pair, payload: bytes) -> None:
    for sender, receiver in pair.both():
        sender.send(Ping(payload=payload))
        ping = receiver.next()
        assert ping == Ping(payload=payload)
        receiver.send(ping.response())
        assert sender.next() == Pong(payload=payload)
        sender.send(Pong(payload=payload))  # unasked
        assert receiver.next() == Pong(payload=payload)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("first", ["client", "service"])
def test_goodbyes(pair: Pair, code: int, first: str) -> None:
    sides = (pair.client, pair.service) if first == "client" else (pair.service, pair.client)
    goodbye = CloseConnection(code=code, reason="ciao, à bientôt")
    sides[0].send(goodbye)
    heard = sides[1].next()
    assert heard == goodbye
    assert isinstance(heard, CloseConnection)
    sides[1].send(heard.response())
    answer = sides[0].next()
    assert isinstance(answer, CloseConnection)
    assert answer.code == code
    pair.service.wire.close()
    assert pair.client.wire.rest() == b""


def test_goodbyes_without_a_word(pair: Pair) -> None:
    pair.service.wire.send(b"\x88\x00")
    heard = pair.client.next()
    assert isinstance(heard, CloseConnection)
    assert heard.code == 1005
    pair.client.wire.send(b"\x88\x80abcd").finish()
    assert pair.service.wire.rest() == b"\x88\x80abcd"


def test_what_is_no_websocket_is_not_touched(pair: Pair) -> None:
    """Reserved bits, frames that never end, no frames at all: that is for the two sides to judge."""
    noise = b"\xff\xff\xff\xff" + os.urandom(1_000_000)
    for sender, receiver in pair.both():
        with meanwhile(sender.wire.send, noise):
            heard = b""
            while len(heard) < len(noise):
                heard += receiver.wire.receive()
            assert heard == noise


@pytest.mark.parametrize("first", ["client", "service"])
def test_a_side_that_says_no_more_still_hears(pair: Pair, first: str) -> None:
    sides = (pair.client, pair.service) if first == "client" else (pair.service, pair.client)
    sides[0].wire.send(b"last words").finish()
    assert sides[1].wire.rest() == b"last words"
    sides[1].wire.send(b"so are mine").close()
    assert sides[0].wire.rest() == b"so are mine"


@pytest.mark.parametrize("first", ["client", "service"])
def test_a_side_that_breaks_off_takes_the_other_with_it(pair: Pair, first: str) -> None:
    sides = (pair.client, pair.service) if first == "client" else (pair.service, pair.client)
    sides[0].wire.send(b"half a fra").reset()
    sides[1].wire.wait_for_end()


def test_data_behind_the_handshake_in_both_directions(preview: Preview, program: Program) -> None:
    """What comes with a head, in one piece, is the first that the other side gets."""
    fields = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
    client = preview.connect().send(preview.request(b"/ws", *fields) + b"early, " + bytes(10_000))
    service = program.accept()
    service.head()
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    service.send(switch + b"Sec-WebSocket-Accept: y\r\n\r\n" + b"as early, " + bytes(10_000))
    assert client.head().lower() == switch.lower() + b"sec-websocket-accept: y\r\n\r\n"
    client.send(b".").finish()
    assert service.rest() == b"early, " + bytes(10_000) + b"."
    service.send(b".").close()
    assert client.rest() == b"as early, " + bytes(10_000) + b"."


def test_data_of_a_client_that_is_refused_is_its_next_request(preview: Preview, program: Program) -> None:
    """The gateway does not look away only because an upgrade was asked for."""
    fields = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
    nobodys = preview.request(b"/hidden").replace(preview.authorization, b"X: y")
    client = preview.connect().send(preview.request(b"/ws", *fields) + nobodys)
    service = program.accept()
    service.head()
    service.send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
    assert client.head().startswith(b"HTTP/1.1 426 ")
    assert client.head().startswith(b"HTTP/1.1 401 ")
    service.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        service.receive()


def test_a_reader_that_stops_holds_the_other_side_back(pair: Pair, preview: Preview) -> None:
    """Meanwhile the gateway has time for others, and takes no more memory; in the end all is there."""
    much = os.urandom(1 << 20) * 64
    for sender, receiver in pair.both():
        before = preview.forget_memory()
        other = preview.connect()
        with meanwhile(sender.wire.send, much) as sending:
            for _ in range(100):
                other.send(b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert b" 200 " in other.head()
            assert sending.is_alive()
            position = 0
            while position < len(much):
                data = receiver.wire.receive()
                assert data == much[position : position + len(data)]
                assert data
                position += len(data)
                receiver.wire.forget()
        assert preview.most_memory() - before < 4 << 20
