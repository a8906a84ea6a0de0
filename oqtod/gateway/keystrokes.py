"""Tells a person's own messages from what a browser sends by itself, by the first bytes of what arrived.

Pings, pongs and closes are the browser's (RFC 6455 section 5.5); so are a terminal's resize and flow
control, which say nothing about anybody being there, and what a viewer of a session's browser sends without
anybody's doing. A frame's head is looked for only where a piece begins, where nearly all of them
are: what a person does follows a pause. A message behind another in the same piece, or the later pieces of a
long one, are not seen, and the next keystroke is.
"""

from __future__ import annotations

from collections.abc import Callable

from oqtod.gateway import viewers
from runner.protocol.messages import ServiceName

_TERMINAL_INPUT = 0x30  # ttyd's command `0`


def is_input(piece: memoryview) -> bool:
    """Say whether a message with something in it begins here."""
    return len(piece) >= 2 and piece[0] & 0x0F in (1, 2) and piece[1] & 0x7F != 0


def is_typed(piece: memoryview) -> bool:
    """Say whether a terminal's input begins here."""
    return is_input(piece) and _beginning(piece, 1) == bytes([_TERMINAL_INPUT])


def is_done_to_a_browser(piece: memoryview) -> bool:
    """Say whether what somebody does to a session's browser begins here; watching it is nothing done."""
    return is_input(piece) and viewers.is_input(_beginning(piece, viewers.LOOKED_AT))


def watched_of(service: ServiceName | None) -> Callable[[memoryview], bool]:
    """Return what tells the activity of who uses a service; None is a preview."""
    if service == "terminal":
        return is_typed
    return is_done_to_a_browser if service == "browser" else is_input


def _beginning(piece: memoryview, size: int) -> bytes:
    """Return the first bytes of a message, unmasked: RFC 6455 section 5.3."""
    short = piece[1] & 0x7F
    start = 4 if short == 126 else 10 if short == 127 else 2
    if short < 126:
        size = min(size, short)
    if not piece[1] & 0x80:
        return bytes(piece[start : start + size])
    mask = piece[start : start + 4]
    if len(mask) < 4:
        return b""
    masked = piece[start + 4 : start + 4 + size]
    return bytes(byte ^ mask[i & 3] for i, byte in enumerate(masked))
