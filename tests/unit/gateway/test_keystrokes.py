"""What counts as a person's doing, in what a WebSocket's client sends."""

from __future__ import annotations

import json

import pytest

from oqtod.gateway.keystrokes import watched_of
from oqtod.gateway.viewers import LOOKED_AT
from runner.protocol.messages import ServiceName

MASK = b"\x37\xfa\x21\x3d"


def frame(payload: bytes, *, opcode: int = 1) -> bytes:
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    else:
        head += bytes([0x80 | 126]) + len(payload).to_bytes(2, "big")
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


BROWSER: list[tuple[object, bool]] = [
    ({"type": "ack", "id": 5}, False),
    ({"type": "status"}, False),
    ({"type": "viewport", "width": 800, "height": 600}, False),
    ({"type": "input_mouse", "eventType": "mouseMoved", "x": 1, "y": 2}, True),
    ({"type": "input_text", "text": "x" * 500}, True),
    ({"type": "clipboard", "eventType": "copy"}, True),
    ({"type": "dialog", "accept": True}, True),
    ({"eventType": "keyDown", "type": "input_keyboard"}, True),
    ({"type": "acknowledgement"}, True),
]


@pytest.mark.parametrize(("message", "counts"), BROWSER)
@pytest.mark.parametrize("compact", [True, False])
def test_of_who_watches_a_browser(message: object, counts: bool, compact: bool) -> None:
    text = json.dumps(message, separators=(",", ":") if compact else None).encode()
    assert watched_of("browser")(memoryview(frame(text))) == counts
    cut = frame(text)[: 8 + LOOKED_AT]
    assert watched_of("browser")(memoryview(cut)) == counts


SERVICES: list[ServiceName | None] = ["terminal", "files", "browser", None]


@pytest.mark.parametrize("service", SERVICES)
def test_pings_and_closes_never_count(service: ServiceName | None) -> None:
    for opcode in (8, 9, 10):
        assert not watched_of(service)(memoryview(frame(b"00", opcode=opcode)))


@pytest.mark.parametrize("service", SERVICES)
def test_a_piece_of_any_length_is_looked_at(service: ServiceName | None) -> None:
    whole = frame(b"0" * 200)
    assert [watched_of(service)(memoryview(whole[:length])) for length in range(2)] == [False, False]
    for length in range(2, len(whole)):
        watched_of(service)(memoryview(whole[:length]))


def test_of_a_terminal() -> None:
    assert watched_of("terminal")(memoryview(frame(b"0ls\n", opcode=2)))
    assert watched_of("terminal")(memoryview(frame(b"0" + b"x" * 300, opcode=2)))
    assert not watched_of("terminal")(memoryview(frame(b'1{"columns":80,"rows":24}', opcode=2)))
