"""WebSocket framing: wsproto as the peer, in any chunking, and frames that no client may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as WsprotoPing
from wsproto.events import Pong as WsprotoPong

from runner import websocket
from runner.websocket import (
    Close,
    CloseCode,
    Event,
    FrameReader,
    Message,
    Ping,
    Pong,
    RemoteProtocolError,
)


def events_of(reader: FrameReader, *chunks: bytes) -> list[Event]:
    events = []
    for chunk in chunks:
        reader.feed(chunk)
        while (event := reader.next_event()) is not None:
            events.append(event)
    return events


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into chunks of these sizes, in turn, the rest being the last."""
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


def masked(first: int, payload: bytes, *, length: bytes | None = None, mask: bytes = b"\1\2\3\4") -> bytes:
    """A client's frame, byte by byte, so that it may be wrong."""
    body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes((first,)) + (length or bytes((0x80 | len(payload),))) + mask + body


client_events = st.lists(
    st.one_of(
        st.builds(BytesMessage, data=st.binary(max_size=300), message_finished=st.booleans()),
        st.builds(BytesMessage, data=st.integers(60_000, 70_000).map(bytes)),
        st.builds(TextMessage, data=st.text(max_size=100), message_finished=st.booleans()),
        st.builds(WsprotoPing, payload=st.binary(max_size=125)),
        st.builds(WsprotoPong, payload=st.binary(max_size=125)),
    ),
    max_size=12,
)


@given(events=client_events, sizes=st.lists(st.integers(1, 400), max_size=30), close=st.booleans())
def test_reads_what_wsproto_sends(events: list[object], sizes: list[int], close: bool) -> None:
    peer = Connection(ConnectionType.CLIENT)
    wire = b""
    expected: list[Event] = []
    kind: type | None = None  # of the message that isn't finished
    parts: list[bytes] = []
    for event in events:
        if isinstance(event, (BytesMessage, TextMessage)):
            if kind not in (None, type(event)):
                continue
            data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
            parts.append(data)
            kind = type(event)
            if event.message_finished:
                expected.append(Message(b"".join(parts), kind is TextMessage))
                kind, parts = None, []
            wire += peer.send(event)
        elif isinstance(event, (WsprotoPing, WsprotoPong)):
            ours = Ping if isinstance(event, WsprotoPing) else Pong
            expected.append(ours(bytes(event.payload)))
            wire += peer.send(event)
    if close:
        expected.append(Close(1001, "so long"))
        wire += peer.send(CloseConnection(code=1001, reason="so long"))
        wire += b"what follows is not looked at"
    assert events_of(FrameReader(), *cut(wire, sizes)) == expected


@given(
    payload=st.one_of(
        st.binary(max_size=130), st.sampled_from([125, 126, 127, 65535, 65536, 100_000]).map(bytes)
    )
)
def test_wsproto_reads_what_we_send(payload: bytes) -> None:
    peer = Connection(ConnectionType.CLIENT)
    small = payload[:125]
    peer.receive_data(
        websocket.binary_frame(payload)
        + websocket.ping_frame(small)
        + websocket.pong_frame(small)
        + websocket.close_frame(CloseCode.TOO_BIG, "große Worte " * 20)
    )
    received, data, finished = list(peer.events()), b"", False
    while not finished:
        part = received.pop(0)
        assert isinstance(part, BytesMessage)
        data, finished = data + bytes(part.data), part.message_finished
    ping, pong, close = received
    assert data == payload
    assert isinstance(ping, WsprotoPing)
    assert isinstance(pong, WsprotoPong)
    assert (bytes(ping.payload), bytes(pong.payload)) == (small, small)
    assert isinstance(close, CloseConnection)
    assert close.code == 1009
    assert close.reason != "große Worte " * 20
    assert ("große Worte " * 20).startswith(close.reason or "-")


def test_a_close_may_be_empty() -> None:
    assert events_of(FrameReader(), masked(0x88, b"")) == [Close(None, "")]
    assert websocket.close_frame(None) == b"\x88\x00"


def test_a_control_frame_of_ours_has_a_limit() -> None:
    with pytest.raises(ValueError, match="125"):
        websocket.ping_frame(bytes(126))


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"\x82\x00", CloseCode.PROTOCOL_ERROR, id="no mask"),
        pytest.param(masked(0xC2, b""), CloseCode.PROTOCOL_ERROR, id="rsv1"),
        pytest.param(masked(0xA2, b""), CloseCode.PROTOCOL_ERROR, id="rsv2"),
        pytest.param(masked(0x92, b""), CloseCode.PROTOCOL_ERROR, id="rsv3"),
        pytest.param(masked(0x83, b""), CloseCode.PROTOCOL_ERROR, id="opcode 3"),
        pytest.param(masked(0x8B, b""), CloseCode.PROTOCOL_ERROR, id="opcode 11"),
        pytest.param(masked(0x80, b""), CloseCode.PROTOCOL_ERROR, id="continuation of nothing"),
        pytest.param(masked(0x02, b"a") + masked(0x82, b"b"), CloseCode.PROTOCOL_ERROR, id="interleaved"),
        pytest.param(masked(0x09, b""), CloseCode.PROTOCOL_ERROR, id="ping in pieces"),
        pytest.param(b"\x89\xfe\x00\x7e", CloseCode.PROTOCOL_ERROR, id="long ping"),
        pytest.param(b"\x82\xfe\x00\x7d", CloseCode.PROTOCOL_ERROR, id="125 in two bytes"),
        pytest.param(b"\x82\xff" + (65535).to_bytes(8, "big"), CloseCode.PROTOCOL_ERROR, id="65535 in eight"),
        pytest.param(b"\x82\xff" + b"\xff" * 8, CloseCode.PROTOCOL_ERROR, id="sign bit"),
        pytest.param(b"\x82\xff" + (1 << 62).to_bytes(8, "big"), CloseCode.TOO_BIG, id="huge"),
        pytest.param(b"\x82\xfe\x03\xe9", CloseCode.TOO_BIG, id="one over the frame limit"),
        pytest.param(
            masked(0x02, bytes(900), length=b"\xfe\x03\x84") + b"\x80\xfe\x02\x59",
            CloseCode.TOO_BIG,
            id="one over the message limit",
        ),
        pytest.param(masked(0x81, b"\xff\xfe"), CloseCode.INVALID_DATA, id="text not UTF-8"),
        pytest.param(masked(0x01, b"\xe2") + masked(0x80, b"x"), CloseCode.INVALID_DATA, id="text cut badly"),
        pytest.param(masked(0x88, b"\x03"), CloseCode.PROTOCOL_ERROR, id="half a close code"),
        pytest.param(masked(0x88, b"\x03\xe7"), CloseCode.PROTOCOL_ERROR, id="close 999"),
        pytest.param(masked(0x88, b"\x03\xee"), CloseCode.PROTOCOL_ERROR, id="close 1006"),
        pytest.param(masked(0x88, b"\x13\x88"), CloseCode.PROTOCOL_ERROR, id="close 5000"),
        pytest.param(masked(0x88, b"\x03\xe8\xff"), CloseCode.INVALID_DATA, id="close reason not UTF-8"),
    ],
)
def test_refuses(wire: bytes, code: CloseCode) -> None:
    """Each is refused with its code, whether it comes at once or byte by byte, and ends the reading."""
    for chunks in ([wire], [bytes((byte,)) for byte in wire]):
        reader = FrameReader(max_frame=1000, max_message=1500)
        with pytest.raises(RemoteProtocolError) as caught:
            events_of(reader, *chunks)
        assert caught.value.code == code
        assert len(caught.value.reason) < 100
        assert events_of(reader, masked(0x82, b"more")) == []


def test_a_message_in_pieces_with_a_ping_between() -> None:
    wire = masked(0x02, b"ab") + masked(0x89, b"?") + masked(0x00, b"") + masked(0x80, b"cd")
    assert events_of(FrameReader(), wire) == [Ping(b"?"), Message(b"abcd", False)]


def test_the_limits_are_inclusive() -> None:
    reader = FrameReader(max_frame=4, max_message=6)
    events = events_of(reader, masked(0x02, b"abcd") + masked(0x80, b"ef") + masked(0x82, b"abcd"))
    assert events == [Message(b"abcdef", False), Message(b"abcd", False)]


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=10))
def test_garbage_is_read_or_refused_and_never_kept(data: bytes, sizes: list[int]) -> None:
    reader = FrameReader(max_frame=100, max_message=100)
    try:
        for event in events_of(reader, *cut(data, sizes)):
            assert isinstance(event, (Message, Ping, Pong, Close))
    except RemoteProtocolError:
        assert reader.next_event() is None


def test_the_accept_key_is_the_rfcs() -> None:
    assert (
        websocket.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    )  # RFC 6455, 1.3


@pytest.mark.parametrize(
    "key", [b"", b"short", b"dGhlIHNhbXBsZSBub25j", b"dGhlIHNhbXBsZSBub25jZQ==\n", b"\xff" * 24]
)
def test_a_wrong_key_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="Sec-WebSocket-Key"):
        websocket.accept_key(key)
