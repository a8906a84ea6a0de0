"""What a terminal has shown, kept so that somebody who connects later sees it: bounded, and safe to repeat.

Two things are kept apart, as a terminal does: the history of the normal screen, and what was drawn on the
alternate screen while a full-screen program shows it. Once such a program has left, its drawing is forgotten.

A replay draws and does nothing else. What a terminal would answer (the answer would be typed into the shell
a second time), bells, notifications and clipboards are left out. Modes that change what keyboard and mouse
send, or that make the emulator report something as soon as they are set, are left out where they occurred;
those in force now are set at the end.
"""

from __future__ import annotations

import re
from typing import Final

from runner.terminal import sequences
from runner.terminal.sequences import Control, Csi, Escape, Osc, Piece, String, Text

HISTORY_LIMIT: Final = 1 << 20
"""Bytes of output kept of the normal screen."""

SCREEN_LIMIT: Final = 1 << 18
"""Bytes of output kept of the alternate screen."""

_FRESH_LIMIT: Final = 1 << 16  # bytes that are gathered before they are looked at
_LOOK_AHEAD: Final = 1 << 14  # bytes in which a cut looks for the beginning of a line
_STRING_LIMIT: Final = 1 << 18  # bytes of a control string, which usually is a picture then
_MAX_MODES: Final = 64
_STATE_LIMIT: Final = 4096  # bytes of one sequence that sets something, a title for instance

_ALTERNATE: Final = frozenset((47, 1047, 1049))
_SYNCHRONIZED: Final = 2026
_KEYPAD: Final = 66
# Keys, mouse, focus, paste, size and colour scheme reports: xterm's ctlseqs, and what came since.
_INPUT_MODES: Final = frozenset(
    (1, 9, 66, 67, *range(1000, 1008), 1015, 1016, *range(1034, 1048), 2004, 2031, 2048, 5522, 9001)
)
_SET_BY_DEFAULT: Final = frozenset((7, 25))
_SOFT_RESET: Final = frozenset((1, 66))

_MODE: Final = re.compile(rb"\x1b\[\?([0-9]+)([hl])")
_STRING_ENDS: Final = re.compile(rb"[\x18\x1a\x1b]|\xc2[\x80-\x9f]")
_OSC_ENDS: Final = re.compile(rb"[\x07\x18\x1a\x1b]|\xc2[\x80-\x9f]")

RESET: Final = b"\x1bc"
"""RIS: whatever an emulator shows and however it is set, after this it is as new."""


class Scrollback:
    """The output of one process, as far as it is kept."""

    def __init__(self) -> None:
        self._fresh = bytearray()  # not looked at yet; the beginning of a sequence may remain in it
        self._skipped: bytes | None = None  # the opener of a string that is too long to keep
        self._forget()

    def _forget(self) -> None:
        self._cut_modes: dict[int, bool] = {}  # in force where the history begins
        self._history = bytearray()
        self._screen = bytearray()
        self._screen_mode: int | None = None  # by which the alternate screen was entered
        self._screen_state: dict[object, bytes] = {}  # what outlives the alternate screen, the last of each
        self._input_modes: dict[int, bytes] = {}

    def append(self, data: bytes) -> None:
        """Take what the process wrote, in portions of any size."""
        self._fresh += data
        if len(self._fresh) >= _FRESH_LIMIT:
            self._digest()

    @property
    def full_screen(self) -> bool:
        """Whether a program shows the alternate screen."""
        self._digest()
        return self._screen_mode is not None

    def replay(self) -> tuple[bytes, bytes]:
        """Return what shows an emulator where the terminal stands, and the beginning of an open sequence.

        Both are empty if nothing was written. The first can be followed by anything; the second must be
        followed by what comes next.
        """
        self._digest()
        rest = bytes(self._fresh) if self._skipped is None else self._skipped
        parts = [_mode(number, on) for number, on in self._cut_modes.items()]
        parts += [bytes(self._history), bytes(self._screen), *self._input_modes.values()]
        drawn = b"".join(parts)
        return (RESET + drawn if drawn else b""), rest

    # --- taking in ----------------------------------------------------------------------------------------

    def _digest(self) -> None:
        if self._skipped is not None and not self._skip():
            return
        pieces, rest = sequences.split(bytes(self._fresh))
        self._fresh = bytearray(rest)
        for piece in pieces:
            self._take(piece)
        if len(self._history) > HISTORY_LIMIT:
            self._cut_history()
        if len(self._screen) > SCREEN_LIMIT:
            cut = sequences.safe_cut(self._screen, len(self._screen) - SCREEN_LIMIT * 3 // 4, look_ahead=0)
            del self._screen[:cut]
            entered = _mode(self._screen_mode or 1049, True)
            self._screen[:0] = entered + b"".join(self._screen_state.values())
        if len(rest) > _STRING_LIMIT:
            self._skipped = b"\x1b]" if rest[:2] == b"\x1b]" else b"\x1b_"  # which an emulator ignores
            self._fresh.clear()

    def _skip(self) -> bool:
        """Drop what belongs to a string that is too long; say whether its end was found."""
        end = (_OSC_ENDS if self._skipped == b"\x1b]" else _STRING_ENDS).search(self._fresh)
        if end is None:
            # The first byte of a C1 control may be the last one so far.
            del self._fresh[: len(self._fresh) - (self._fresh[-1:] == b"\xc2")]
            return False
        cut = end.end() if end[0] in (b"\x07", b"\x18", b"\x1a") else end.start()
        del self._fresh[:cut]
        self._skipped = None
        return True

    def _cut_history(self) -> None:
        # More than needed, so that it doesn't happen at every turn.
        least = len(self._history) - HISTORY_LIMIT * 7 // 8
        cut = sequences.safe_cut(self._history, least, look_ahead=_LOOK_AHEAD)
        for mode in _MODE.finditer(self._history, 0, cut):
            number, on = int(mode[1]), mode[2] == b"h"
            self._cut_modes.pop(number, None)
            if on != (number in _SET_BY_DEFAULT) and len(self._cut_modes) < _MAX_MODES:
                self._cut_modes[number] = on
        del self._history[:cut]

    def _take(self, piece: Piece) -> None:
        match piece:
            case Text():
                self._draw(piece.raw)
            case Control():
                return
            case Csi():
                self._take_csi(piece)
            case Escape(b"=" | b">"):
                self._take_mode(_KEYPAD, piece.name == b"=")
            case Escape(b"c"):
                self._forget()
            case Escape() if not piece.asks:
                self._draw(piece.raw)
            case Osc() if piece.only_draws and not piece.asks:
                self._draw(piece.raw)
                self._outlives(piece.number, piece.raw)
            case String(b"P") if not piece.asks:
                self._draw(piece.raw)

    def _take_csi(self, piece: Csi) -> None:
        if piece.asks or (not piece.intermediate and piece.final in (b"t", b"i")):  # windows, printers
            return
        if modes := piece.modes:
            for mode in modes:
                self._take_mode(mode, piece.final == b"h")
            return
        if (piece.intermediate, piece.final) == (b"!", b"p"):
            for mode in _SOFT_RESET:
                self._input_modes.pop(mode, None)
        self._draw(piece.raw)
        if piece.prefix and piece.final != b"u":  # kitty keeps its key modes for each screen
            self._outlives((piece.prefix, piece.first, piece.final), piece.raw)

    def _take_mode(self, number: int, on: bool) -> None:
        if number in _ALTERNATE:
            if on and self._screen_mode is None:
                self._screen_mode = number
                self._screen[:] = _mode(number, True)
            elif not on and self._screen_mode is not None:
                self._screen_mode = None
                self._screen.clear()
                self._history += b"".join(self._screen_state.values())
                self._screen_state.clear()
        elif number in _INPUT_MODES:
            self._input_modes.pop(number, None)
            if on and len(self._input_modes) < _MAX_MODES:
                self._input_modes[number] = b"\x1b=" if number == _KEYPAD else _mode(number, True)
        elif number != _SYNCHRONIZED:  # a replay is as good as one frame
            self._draw(_mode(number, on))
            self._outlives(number, _mode(number, on))

    def _draw(self, raw: bytes) -> None:
        if self._screen_mode is None:
            self._history += raw
        else:
            self._screen += raw

    def _outlives(self, what: object, raw: bytes) -> None:
        if self._screen_mode is None or len(raw) > _STATE_LIMIT:
            return
        if len(self._screen_state) < _MAX_MODES or what in self._screen_state:
            self._screen_state[what] = raw


def _mode(number: int, on: bool) -> bytes:
    return b"\x1b[?%d%c" % (number, b"h" if on else b"l")
