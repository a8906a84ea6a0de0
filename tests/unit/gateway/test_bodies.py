"""Bodies: where they end, in whatever pieces they come, and what of a chunked one goes on."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oqtod.gateway.bodies import MAX_LINE, MAX_TRAILERS, BadBody, Chunked, Endless, Length


def fed(framing: Chunked | Length | Endless, data: bytes, size: int = 0) -> tuple[bytes, bytes]:
    """What goes on of the data, and what came after the end, when it is fed in pieces of this size."""
    out = b""
    for start in range(0, len(data), size or len(data) or 1):
        piece = data[start : start + size] if size else data
        out += bytes(framing.feed(memoryview(piece)))
        if framing.done:
            return out, data[start + len(piece) - framing.excess :]
    return out, b""


def test_a_length() -> None:
    for size in range(1, 8):
        length = Length(5)
        assert fed(length, b"hello world", size) == (b"hello", b" world")
    assert Length(0).done
    assert not Length(1).end()
    assert Endless().end()


CLEAR = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\nSet-Cookie: x\r\nX_Forwarded_For: y\r\n\r\nrest"


def test_chunks_in_pieces() -> None:
    for size in range(1, len(CLEAR) + 1):
        again = b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
        assert fed(Chunked(), CLEAR, size) == (again, b"rest")
        assert fed(Chunked(plain=True), CLEAR, size) == (b"hello world", b"rest")


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"g\r\n",
        b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a=\0\r\nhello\r\n0\r\n\r\n",
        b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
        b"10000000000000000\r\n",
        b"5;" + b"a" * MAX_LINE,
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX: y\r\n z\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\n" + (b"X: " + b"y" * 900 + b"\r\n") * (MAX_TRAILERS // 900 + 1),
    ],
)
def test_chunks_that_are_not_clear_are_refused(body: bytes) -> None:
    for size in (0, 1, 7):
        with pytest.raises(BadBody):
            fed(Chunked(), body, size)


PIECES = [
    b"5",
    b"0",
    b"a",
    b"0005",
    b"\r\n",
    b"\n",
    b"\r",
    b"hello",
    b";a=b",
    b";",
    b" ",
    b"X: y\r\n",
    b"0\r\n\r\n",
]


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=10).map(b"".join), st.integers(0, 5)
)
def test_what_h11_refuses_is_refused_and_all_else_is_the_same(body: bytes, size: int) -> None:
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    theirs.next_event()
    data, ended = b"", False
    try:
        while True:
            event = theirs.next_event()
            if isinstance(event, h11.Data):
                data += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                ended = True
                break
            else:
                break
    except h11.RemoteProtocolError:
        # We may want to see more of a line before we say so, but never take it for an end.
        framing = Chunked(plain=True)
        try:
            fed(framing, body, size)
        except BadBody:
            return
        assert not framing.done
        return
    framing = Chunked(plain=True)
    try:
        ours, rest = fed(framing, body, size)
    except BadBody:
        return  # we refuse more
    assert framing.done == ended
    assert ours == data
    if ended:
        assert rest == theirs.trailing_data[0]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=5), st.integers(1, 9))
def test_what_goes_on_says_the_same(chunks: list[bytes], size: int) -> None:
    body = b"".join(b"%x;x=y\r\n%b\r\n" % (len(x), x) for x in chunks if x) + b"0\r\n\r\n"
    again, rest = fed(Chunked(), body, size)
    assert rest == b""
    assert fed(Chunked(plain=True), again) == (b"".join(chunks), b"")
