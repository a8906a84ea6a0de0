"""The messages of the ttyd protocol."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.terminal import protocol
from runner.terminal.protocol import Hello, Input, MalformedMessageError, Pause, Resize, Resume, parse


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        (b'{"AuthToken":"","columns":100,"rows":30}', Hello(100, 30)),
        (b'{"columns":0,"rows":null}', Hello(80, 24)),
        (b"{}", Hello(80, 24)),
        (b'{"columns":99999999999,"rows":1}', Hello(4096, 1)),
        (b"0ls\r", Input(b"ls\r")),
        (b"0", Input(b"")),
        (b"0\xff\x00", Input(b"\xff\x00")),
        (b'1{"columns":100,"rows":30}', Resize(100, 30)),
        (b'1{"rows":30}', Resize(None, 30)),
        (b"2", Pause()),
        (b"3", Resume()),
        (b"9", None),
        (b"\xff", None),
    ],
)
def test_reads(message: bytes, meaning: object) -> None:
    assert parse(message) == meaning


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"1",
        b"1[]",
        b"1null",
        b"{",
        b'{"columns":"80"}',
        b'{"columns":true}',
        b'{"columns":80.5}',
        b'{"columns":-1}',
        b'{"columns":NaN}',
        b"1" + b"[" * 4000,
        b"1" + b" " * 5000 + b"{}",
        b"1\xff",
    ],
)
def test_refuses(message: bytes) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        parse(message)
    assert len(str(caught.value)) < 100


@given(st.binary(max_size=100))
def test_never_fails_in_another_way(message: bytes) -> None:
    try:
        parse(message)
    except MalformedMessageError:
        assert message == b"" or message[:1] in (b"1", b"{")


def test_writes() -> None:
    assert protocol.output(b"\x00\xff") == b"0\x00\xff"
    assert protocol.title("bash (höst)") == "1bash (höst)".encode()
    assert protocol.title("\udcff") == b"1?"  # an argument that wasn't UTF-8
    assert protocol.preferences({})[:1] == b"2"
    assert json.loads(protocol.preferences({"fontSize": 15, "theme": {"a": "b"}})[1:])["theme"] == {"a": "b"}
