"""What counts as a person's doing, in what a WebSocket's client sends."""

from __future__ import annotations

import json

import pytest

from oqtod.gateway.keystrokes import Keystrokes
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
    assert Keystrokes("browser").seen(frame(text)) == counts
    pieces = Keystrokes("browser")
    assert (sum(pieces.seen(bytes([byte])) for byte in frame(text)) > 0) == counts


SERVICES: list[ServiceName | None] = ["terminal", "files", "browser", None]


@pytest.mark.parametrize("service", SERVICES)
def test_pings_and_closes_never_count(service: ServiceName | None) -> None:
    for opcode in (8, 9, 10):
        assert not Keystrokes(service).seen(frame(b"00", opcode=opcode))


def test_one_after_another() -> None:
    watched = Keystrokes("browser")
    acknowledged = frame(b'{"type":"ack","id":1}')
    assert not watched.seen(acknowledged * 3)
    assert watched.seen(acknowledged + frame(b'{"type":"input_text","text":"a"}') + acknowledged)
    assert not watched.seen(acknowledged)


def test_of_a_terminal() -> None:
    assert Keystrokes("terminal").seen(frame(b"0ls\n", opcode=2))
    assert not Keystrokes("terminal").seen(frame(b'1{"columns":80,"rows":24}', opcode=2))
