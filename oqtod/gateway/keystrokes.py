"""Tells a person's own messages from what a browser sends by itself, in a WebSocket's bytes from the client.

Frames are only stepped over (RFC 6455 section 5.2), never kept or changed. Pings, pongs and closes are the
browser's; so are a terminal's resize and flow control, which say nothing about anybody being there, and what
a viewer of a session's browser sends without anybody's doing.
"""

from __future__ import annotations

from oqtod.gateway import viewers
from runner.protocol.messages import ServiceName

_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_TERMINAL_INPUT = ord("0")


class Keystrokes:
    """The bytes of one connection, fed in pieces of any size."""

    def __init__(self, service: ServiceName | None) -> None:
        """Of a terminal only ttyd's input messages count, of a browser's viewer only input, else all data."""
        self._service = service
        self._looks = {"terminal": 1, "browser": viewers.LOOKED_AT}.get(service or "", 0)
        self._head = bytearray()
        self._skip = 0

    def seen(self, data: bytes) -> bool:
        """Step over the next bytes; say whether a message of the person's began among them."""
        found = False
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            self._head.append(data[position])
            position += 1
            length = _head_length(self._head)
            if length is None or len(self._head) < length:
                continue
            payload = _payload_length(self._head)
            looked_at = min(self._looks, payload) if self._head[0] & 0x0F in (_TEXT, _BINARY) else 0
            if len(self._head) < length + looked_at:
                continue  # its first bytes say what it is
            found = self._is_input(length, payload) or found
            self._skip = payload - looked_at
            self._head.clear()
        return found

    def _is_input(self, length: int, payload: int) -> bool:
        kind = self._head[0] & 0x0F
        if kind not in (_TEXT, _BINARY) or payload == 0:
            return False
        beginning = self._head[length:]
        if self._head[1] & 0x80:
            mask = self._head[length - 4 : length]
            beginning = bytearray(byte ^ mask[i % 4] for i, byte in enumerate(beginning))
        if self._service == "terminal":
            return beginning[0] == _TERMINAL_INPUT
        return self._service != "browser" or viewers.is_input(bytes(beginning))


def _head_length(head: bytearray) -> int | None:
    if len(head) < 2:
        return None
    extended = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    return 2 + extended + (4 if head[1] & 0x80 else 0)


def _payload_length(head: bytearray) -> int:
    short = head[1] & 0x7F
    if short == 126:
        return int.from_bytes(head[2:4], "big")
    return int.from_bytes(head[2:10], "big") if short == 127 else short
