"""WebSocket framing for the server's side (RFC 6455), without I/O.

A `FrameReader` is fed whatever bytes arrived and gives back whole messages and control frames; the functions
at the end make frames to send. Nothing here knows sockets, HTTP or terminals.

The reader is strict where the RFC lets a server be lenient, because every client that we serve is a browser
or a library: an unmasked frame, a reserved bit, a length that isn't in its shortest form, or a control frame
in pieces fails the connection. What a peer can make us hold is bounded by `max_frame` and `max_message`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_MAX_CONTROL: Final = 125  # RFC 6455, 5.5: payload bytes of a control frame

DEFAULT_MAX_FRAME: Final = 1 << 20
DEFAULT_MAX_MESSAGE: Final = 1 << 20


class Opcode(IntEnum):
    """RFC 6455, 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """The codes of RFC 6455, 7.4.1, that this side sends."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011


class RemoteProtocolError(Exception):
    """The peer broke the protocol; the connection is to be closed with `code` and `reason`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(f"{reason} ({code.value})")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Message:
    """A whole text or binary message, put together from its fragments."""

    data: bytes
    is_text: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with `pong_frame(payload)`."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """An answer to a ping of ours, or an unsolicited sign of life."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's last frame; `code` is None if it gave none."""

    code: int | None
    reason: str


Event = Message | Ping | Pong | Close


class FrameReader:
    """Turns received bytes into events.

    Usage: `feed()` what arrived, then call `next_event()` until it returns None. After a `Close` and after a
    `RemoteProtocolError` the reader gives nothing more.

    max_frame and max_message are bytes of payload, of one frame and of all fragments of one message.
    """

    def __init__(self, *, max_frame: int = DEFAULT_MAX_FRAME, max_message: int = DEFAULT_MAX_MESSAGE) -> None:
        self._max_frame = max_frame
        self._max_message = max_message
        self._buffer = bytearray()
        self._fragments: bytearray | None = None  # a message whose final frame hasn't come
        self._fragments_are_text = False
        self._finished = False  # after Close or an error: what follows isn't looked at

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the socket. What comes after the end is dropped."""
        if not self._finished:
            self._buffer += data

    def next_event(self) -> Event | None:
        """Return the next event, or None when more bytes are needed.

        Raises RemoteProtocolError for anything that RFC 6455 forbids a client or that passes a limit.
        """
        try:
            while not self._finished:
                frame = self._next_frame()
                if frame is None:
                    return None
                event = self._event(*frame)
                if event is not None:
                    return event
        except RemoteProtocolError:
            self._finish()
            raise
        return None

    def _finish(self) -> None:
        self._finished = True
        self._buffer.clear()
        self._fragments = None

    def _next_frame(self) -> tuple[Opcode, bool, bytes] | None:
        """Cut one frame off the buffer: its opcode, whether it is final, its unmasked payload."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        # Everything that can be judged from these two bytes is, before more is waited for.
        opcode, final = _check_first_byte(first)
        if not second & 0x80:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "frame without a mask")  # 5.1
        length = second & 0x7F
        if opcode >= Opcode.CLOSE and (length > _MAX_CONTROL or not final):
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "control frame too long or in pieces")  # 5.5
        self._check_sequence(opcode)

        start = 2
        if length >= 126:
            size = 2 if length == 126 else 8
            start += size
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start], "big")
            if length < (126 if size == 2 else 1 << 16) or length >= 1 << 63:  # 5.2: shortest form, 63 bits
                raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "frame length not in its shortest form")
        if length > self._max_frame:
            raise RemoteProtocolError(CloseCode.TOO_BIG, f"frame over {self._max_frame} bytes")
        if opcode < Opcode.CLOSE and length + len(self._fragments or b"") > self._max_message:
            raise RemoteProtocolError(CloseCode.TOO_BIG, f"message over {self._max_message} bytes")

        end = start + 4 + length
        if len(buffer) < end:
            return None
        mask = bytes(buffer[start : start + 4])
        payload = _unmask(bytes(buffer[start + 4 : end]), mask)
        del buffer[:end]
        return opcode, final, payload

    def _check_sequence(self, opcode: Opcode) -> None:
        """RFC 6455, 5.4: fragments of one message aren't interleaved with those of another."""
        if opcode == Opcode.CONTINUATION and self._fragments is None:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "continuation of nothing")
        if opcode in (Opcode.TEXT, Opcode.BINARY) and self._fragments is not None:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "new message inside a fragmented one")

    def _event(self, opcode: Opcode, final: bool, payload: bytes) -> Event | None:
        match opcode:
            case Opcode.PING:
                return Ping(payload)
            case Opcode.PONG:
                return Pong(payload)
            case Opcode.CLOSE:
                close = _parse_close(payload)
                self._finish()
                return close
        if opcode != Opcode.CONTINUATION:
            self._fragments_are_text = opcode == Opcode.TEXT
            if final:
                return _message(payload, is_text=self._fragments_are_text)
            self._fragments = bytearray(payload)
            return None
        assert self._fragments is not None
        self._fragments += payload
        if not final:
            return None
        data, self._fragments = bytes(self._fragments), None
        return _message(data, is_text=self._fragments_are_text)


def _check_first_byte(first: int) -> tuple[Opcode, bool]:
    if first & 0x70:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "reserved bit set; no extension was agreed on")
    try:
        return Opcode(first & 0x0F), bool(first & 0x80)
    except ValueError:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"opcode {first & 0x0F} is not known") from None


def _message(data: bytes, *, is_text: bool) -> Message:
    if is_text:
        try:
            data.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError(CloseCode.INVALID_DATA, "text message is not UTF-8") from None  # 8.1
    return Message(data, is_text)


def _parse_close(payload: bytes) -> Close:
    """RFC 6455, 5.5.1 and 7.4."""
    if not payload:
        return Close(None, "")
    code = int.from_bytes(payload[:2], "big")
    # 1004 to 1006 and 1015 never go over the wire; 1012 to 1014 are registered since, 3000 to 4999 are free.
    if len(payload) == 1 or not (
        code in range(1000, 1004) or code in range(1007, 1015) or 3000 <= code < 5000
    ):
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "close frame without a proper code")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise RemoteProtocolError(CloseCode.INVALID_DATA, "close reason is not UTF-8") from None


def _unmask(payload: bytes, mask: bytes) -> bytes:
    """RFC 6455, 5.3. One XOR of two big integers is what Python does fastest without an extension."""
    size = len(payload)
    if size == 0 or mask == b"\0\0\0\0":
        return payload
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def binary_frame(payload: bytes) -> bytes:
    """One unfragmented binary message."""
    return _frame(Opcode.BINARY, payload)


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text message; `payload` is UTF-8."""
    return _frame(Opcode.TEXT, payload)


def text_head(size: int) -> bytes:
    """What goes before `size` bytes of UTF-8 that make one unfragmented text message."""
    return _head(Opcode.TEXT, size)


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping; payload is at most 125 bytes."""
    return _frame(Opcode.PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping, which carries the ping's payload."""
    return _frame(Opcode.PONG, payload)


def close_frame(code: int | None = CloseCode.NORMAL, reason: str = "") -> bytes:
    """The last frame; a reason that doesn't fit into 123 bytes of UTF-8 is cut. None sends no code."""
    if code is None:
        return _frame(Opcode.CLOSE, b"")
    text = reason.encode()[: _MAX_CONTROL - 2].decode(errors="ignore").encode()
    return _frame(Opcode.CLOSE, code.to_bytes(2, "big") + text)


def _frame(opcode: Opcode, payload: bytes) -> bytes:
    if opcode >= Opcode.CLOSE and len(payload) > _MAX_CONTROL:
        raise ValueError(f"a control frame carries at most {_MAX_CONTROL} bytes, not {len(payload)}")
    return _head(opcode, len(payload)) + payload


def _head(opcode: Opcode, size: int) -> bytes:
    if size <= 125:
        return bytes((0x80 | opcode, size))
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a client's Sec-WebSocket-Key (RFC 6455, 4.2.2).

    Raises ValueError if the key isn't 16 bytes in base64.
    """
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error as error:
        raise ValueError(f"Sec-WebSocket-Key is not base64: {error}") from None
    if len(nonce) != 16:
        raise ValueError(f"Sec-WebSocket-Key has {len(nonce)} bytes instead of 16")
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
