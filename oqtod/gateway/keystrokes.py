"""Tells a person's own messages from what a browser sends by itself, by the first bytes of what arrived.

Pings, pongs and closes are the browser's (RFC 6455 section 5.5); so are a terminal's resize and flow
control, which say nothing about anybody being there. A frame's head is looked for only where a piece begins,
since that is where nearly all of them are: what a person does follows a pause. A message behind a pong in the
same piece, or the later pieces of a long one, are not seen, and the next keystroke is.
"""

from __future__ import annotations

_TERMINAL_INPUT = 0x30  # ttyd's command `0`


def is_input(piece: memoryview) -> bool:
    """Say whether a message with something in it begins here."""
    return len(piece) >= 2 and piece[0] & 0x0F in (1, 2) and piece[1] & 0x7F != 0


def is_typed(piece: memoryview) -> bool:
    """Say whether a terminal's input begins here."""
    if not is_input(piece):
        return False
    short = piece[1] & 0x7F
    start = 4 if short == 126 else 10 if short == 127 else 2
    if piece[1] & 0x80:
        return len(piece) > start + 4 and piece[start] ^ piece[start + 4] == _TERMINAL_INPUT
    return len(piece) > start and piece[start] == _TERMINAL_INPUT
