"""The messages of a ttyd terminal: what a client may say, and how the server answers.

The protocol is that of ttyd 1.7.7. Each WebSocket message is one command: a character, then its argument.
The first message of a client is a bare JSON object instead. Nothing here knows sockets or processes.

    client → server                               server → client
    {"AuthToken":"","columns":C,"rows":R}  hello  0 output
    0 input                                       1 window title
    1 {"columns":C,"rows":R}  resize              2 preferences, a JSON object
    2 pause
    3 resume
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

SUBPROTOCOL: Final = "tty"
DEFAULT_COLUMNS: Final = 80
DEFAULT_ROWS: Final = 24

_MAX_JSON: Final = 4096  # bytes of a hello or resize; the argument of `_size` says what stands in them
_MAX_CELLS: Final = 4096  # columns or rows; a page of that size draws nothing sensible any more


class MalformedMessageError(Exception):
    """A client's message that isn't in the protocol; the text is fit for a WebSocket close reason."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: the client wants to see the terminal, and has this size."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Input:
    """What the person typed or pasted."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """The window's new size; None leaves that side as it is."""

    columns: int | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Don't send output until `Resume`."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Send output again."""


ClientMessage = Hello | Input | Resize | Pause | Resume


def parse(message: bytes) -> ClientMessage | None:
    """Read one message of a client; None for a command that isn't known, which ttyd ignores too.

    Raises MalformedMessageError if it is empty or its JSON can't be used.
    """
    if not message:
        raise MalformedMessageError("empty message")
    match message[:1]:
        case b"0":
            return Input(message[1:])
        case b"1":
            return Resize(*_size(message[1:]))
        case b"2":
            return Pause()
        case b"3":
            return Resume()
        case b"{":
            columns, rows = _size(message)
            return Hello(columns or DEFAULT_COLUMNS, rows or DEFAULT_ROWS)
    return None


def _size(text: bytes) -> tuple[int | None, int | None]:
    """Read columns and rows; a missing one, or the 0 that a hidden page reports, is None."""
    if len(text) > _MAX_JSON:
        raise MalformedMessageError(f"size over {_MAX_JSON} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedMessageError("size is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedMessageError("size is not a JSON object")
    return _cells(value, "columns"), _cells(value, "rows")


def _cells(value: dict[str, object], key: str) -> int | None:
    cells = value.get(key)
    if cells is None:
        return None
    if not isinstance(cells, int) or isinstance(cells, bool) or cells < 0:
        raise MalformedMessageError(f"{key} is not a whole number")
    return min(cells, _MAX_CELLS) or None


def output(data: bytes) -> bytes:
    """What the process wrote."""
    return b"0" + data


def title(text: str) -> bytes:
    """The window's title."""
    return b"1" + text.encode(errors="replace")


def preferences(values: dict[str, object]) -> bytes:
    """Options for the page's terminal, xterm.js options among them."""
    return b"2" + json.dumps(values).encode()
