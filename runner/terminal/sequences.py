"""Control sequences in a terminal's output: taken apart, and judged by what an emulator does with them.

The grammar is that of ECMA-48 and of the VT500 state diagram that emulators follow (xterm.js among them), for
output in UTF-8: a C1 control is a code point there, two bytes beginning with 0xC2, and not a single byte.
What an emulator ignores, a sequence that is broken off by the next one for instance, gives no piece: so the
pieces can be left out one by one without the rest growing together to something new.

Nothing here knows processes or viewers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

_C0: Final = rb"[\x00-\x17\x19\x1c-\x1f\x7f]"  # carried out or ignored inside a sequence, which goes on
_BROKEN_OFF: Final = rb"(?:[\x18\x1a]|(?=[\x1b\x80-\xff]))"
_IN_STRING: Final = rb"[^\x18\x1a\x1b\xc2%s]|\xc2(?![\x80-\x9f])"
# An emulator takes a string for ended by any ESC, also by one that begins something else.
_STRING_END: Final = rb"\x1b\\|\xc2\x9c|(?=\x1b[^\\])|(?=\xc2[\x80-\x9b\x9d-\x9f])|(?P<%s>[\x18\x1a])"

_QUIET: Final = rb"\x1b\[[0-9;:]*+[@-Z`abdefgmrsu]|\x1b\([0B]"  # cursor, colours: most of what there is
_PIECE: Final = re.compile(
    rb"(?P<text>(?:[^\x05\x07\x1b\xc2]++|\xc2[\xa0-\xbf]|" + _QUIET + rb")++)"
    rb"|(?:\x1b" + _C0 + rb"*+\[|\xc2\x9b)(?P<csi>[\x00-\x17\x19\x1c-\x3f\x7f]*+)(?P<final>[@-~])"
    rb"|(?:\x1b" + _C0 + rb"*+\]|\xc2\x9d)"
    rb"(?P<osc>(?:" + _IN_STRING % rb"\x07" + rb")*+)(?:\x07|" + _STRING_END % b"osc_cancel" + rb")"
    rb"|(?:\x1b" + _C0 + rb"*+(?P<opener>[PX^_])|\xc2(?P<c1opener>[\x90\x98\x9e\x9f]))"
    rb"(?P<string>(?:" + _IN_STRING % b"" + rb")*+)(?:" + _STRING_END % b"cancel" + rb")"
    rb"|\x1b" + _C0 + rb"*+(?P<escape>[ -/](?:[ -/]|" + _C0 + rb")*+[0-~]|[0-OQ-WYZ\\`-~])"
    rb"|(?P<control>[\x05\x07])"
    rb"|\xc2(?P<c1>[\x80-\x8f\x91-\x97\x99\x9a\x9c])"
    rb"|(?P<broken>(?:\x1b"
    + _C0
    + rb"*+\[|\xc2\x9b)[\x00-\x17\x19\x1c-\x3f\x7f]*+"
    + _BROKEN_OFF
    + rb"|\x1b(?:"
    + _C0
    + rb")*+(?:[ -/](?:[ -/]|"
    + _C0
    + rb")*+)?"
    + _BROKEN_OFF
    + rb"|\xc2(?=[^\x80-\xbf]))"
)
_IGNORED_INSIDE: Final = bytes((*range(0x20), 0x7F))
_CSI: Final = re.compile(rb"(?P<prefix>[<-?]*)(?P<numbers>[0-9;:]*)(?P<intermediate>[ -/]*)")
_DCS_HEAD: Final = re.compile(rb"[<-?]?[0-9;:]*([ -/]*)([@-~])")
_STRING_OPENERS: Final = {0x90: b"P", 0x98: b"X", 0x9E: b"^", 0x9F: b"_"}
_MOVING_C1: Final = {0x84: b"\x1bD", 0x85: b"\x1bE", 0x88: b"\x1bH", 0x8D: b"\x1bM"}  # IND NEL HTS RI
_WINDOW_REPORTS: Final = frozenset((11, 13, 14, 15, 16, 18, 19, 20, 21))


@dataclass(frozen=True, slots=True)
class Text:
    """What is drawn, with the sequences in it that only move the cursor and choose colours."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Control:
    """BEL or ENQ."""

    raw: bytes

    @property
    def asks(self) -> bool:
        """ENQ wants the answerback message."""
        return self.raw == b"\x05"


@dataclass(frozen=True, slots=True)
class Escape:
    """ESC, intermediates, and a final character."""

    name: bytes

    @property
    def raw(self) -> bytes:
        """The sequence in its usual form."""
        return b"\x1b" + self.name

    @property
    def asks(self) -> bool:
        """DECID."""
        return self.name == b"Z"


@dataclass(frozen=True, slots=True)
class Csi:
    """CSI prefix numbers intermediate final."""

    prefix: bytes
    numbers: bytes
    intermediate: bytes
    final: bytes

    @property
    def raw(self) -> bytes:
        """The sequence in its usual form."""
        return b"\x1b[" + self.prefix + self.numbers + self.intermediate + self.final

    @property
    def first(self) -> int | None:
        """The first number; None if there is none, or one that nothing defines."""
        text = re.split(rb"[;:]", self.numbers, maxsplit=1)[0]
        return int(text) if 0 < len(text) <= 6 else None

    @property
    def asks(self) -> bool:
        """A sequence that the terminal answers, in xterm's list (ctlseqs) or those of its successors."""
        final = self.final
        match self.intermediate:
            case b"":
                if final == b"t":
                    return not self.prefix and self.first in _WINDOW_REPORTS
                return (
                    final in b"cx"  # DA1 to DA3, DECREQTPARM
                    or (final == b"n" and self.prefix != b">")  # DSR; with > it switches a key mode off
                    or (final in b"mgfuS" and self.prefix == b"?")  # key formats, kitty's keys, graphics
                    or (final == b"q" and self.prefix == b">")  # XTVERSION
                )
            case b"$":
                return final in b"puw"  # DECRQM, DECRQTSR, DECRQPSR
            case b"*":
                return final == b"y"  # DECRQCRA
            case b"'":
                return final == b"|"  # DECRQLP
            case b"&":
                return final == b"u"  # DECRQUPSS
            case b"#":
                return final in b"|RS"  # XTREPORTSGR, XTREPORTCOLORS, title modes
        return False

    @property
    def modes(self) -> list[int]:
        """The numbers of the DEC private modes that this sets or resets; empty if it does neither."""
        if self.prefix != b"?" or self.intermediate or self.final not in b"hl":
            return []
        return [int(text) for text in re.split(rb"[;:]", self.numbers) if 0 < len(text) <= 6]


@dataclass(frozen=True, slots=True)
class Osc:
    """An operating system command: a number, and what belongs to it."""

    body: bytes

    @property
    def raw(self) -> bytes:
        """The command, ended in the one way that all emulators take."""
        return b"\x1b]" + self.body + b"\x1b\\"

    @property
    def number(self) -> bytes:
        """What kind of command it is, as it was written, without leading zeros."""
        return self.body.partition(b";")[0].translate(None, _IGNORED_INSIDE).lstrip(b"0") or b"0"

    @property
    def asks(self) -> bool:
        """A question mark stands where a colour, a clipboard's content and the like would be."""
        number = self.number
        if number in (b"0", b"1", b"2", b"7", b"8"):
            return False
        if number == b"1337":
            return b"Report" in self.body or b"Request" in self.body
        fields = self.body.translate(None, _IGNORED_INSIDE).split(b";")[1:]
        return any(field.strip() == b"?" or field.rstrip().endswith(b"=?") for field in fields)

    @property
    def only_draws(self) -> bool:
        """No clipboard, notification or download, which nobody wants to happen once more."""
        return self.number not in (b"9", b"52", b"99", b"777", b"1337", b"5522")


@dataclass(frozen=True, slots=True)
class String:
    """A DCS, SOS, PM or APC string; opener is the character after ESC."""

    opener: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        """The string, ended in the one way that all emulators take."""
        return b"\x1b" + self.opener + self.body + b"\x1b\\"

    @property
    def asks(self) -> bool:
        """DECRQSS, XTGETTCAP, XTGETXRES, and kitty's graphics, all of whose commands are answered."""
        body = self.body.translate(None, _IGNORED_INSIDE)
        if self.opener == b"_":
            return body.startswith(b"G")
        head = _DCS_HEAD.match(body) if self.opener == b"P" else None
        return head is not None and head.groups() in ((b"$", b"q"), (b"+", b"q"), (b"+", b"Q"))


Piece = Text | Control | Escape | Csi | Osc | String


class Parts(NamedTuple):
    """Pieces, and the bytes of a last one that isn't complete."""

    pieces: list[Piece]
    rest: bytes


def split(data: bytes) -> Parts:
    """Take output apart that begins between two sequences."""
    pieces: list[Piece] = []
    position = 0
    while (match := _PIECE.match(data, position)) is not None:
        pieces += _piece(match)
        position = match.end()
        if position == len(data):
            break
    return Parts(pieces, data[position:])


def _piece(match: re.Match[bytes]) -> Iterator[Piece]:
    group = match.group
    match match.lastgroup:
        case "text":
            yield Text(group())
        case "final":
            parts = _CSI.fullmatch(group("csi").translate(None, _IGNORED_INSIDE))
            if parts is not None:  # an emulator ignores the others
                yield Csi(parts["prefix"], parts["numbers"], parts["intermediate"], group("final"))
        case "osc":
            yield Osc(group("osc"))
        case "string":
            opener = group("opener") or _STRING_OPENERS[group("c1opener")[0]]
            yield String(opener, group("string"))
        case "escape":
            name = group("escape").translate(None, _IGNORED_INSIDE)
            if name != b"\\":  # the end of a string that isn't there
                yield Escape(name)
        case "control":
            yield Control(group())
        case "c1":
            if (equal := _MOVING_C1.get(group("c1")[0])) is not None:
                yield Escape(equal[1:])


def safe_cut(data: bytes | bytearray, least: int, *, look_ahead: int) -> int:
    """Return where to cut complete pieces in two, at `least` or later: not inside a sequence or character.

    A line's beginning within the next `look_ahead` bytes is preferred.
    """
    position = 0
    while position < least and (match := _PIECE.match(data, position)) is not None:
        position = match.end()
        if match.lastgroup == "text" and position > least:
            return _cut_in_text(data, least, position, look_ahead)
    return max(position, least) if position >= least else len(data)


def _cut_in_text(data: bytes | bytearray, least: int, end: int, look_ahead: int) -> int:
    # Control characters don't stand inside the sequences of a text, so a line feed is one.
    newline = data.find(b"\n", least, min(end, least + look_ahead))
    if newline >= 0:
        return newline + 1
    last = data.rfind(b"\x1b", 0, least)
    if last >= 0 and (sequence := _QUIET_SEQUENCE.match(data, last)) is not None:
        least = max(least, sequence.end())
    while least < end and data[least] & 0xC0 == 0x80:  # inside a character of UTF-8
        least += 1
    return least


_QUIET_SEQUENCE: Final = re.compile(_QUIET)


class QueryFilter:
    """Leaves the queries out of a stream that comes in any portions.

    `held` is the beginning of a sequence that isn't complete, and has not been let through yet.
    """

    HOLD_LIMIT: Final = 1 << 16
    """Bytes of a string that are waited for; a longer one passes, and is no query."""

    def __init__(self, held: bytes = b"") -> None:
        self.held = held

    def feed(self, data: bytes) -> bytes:
        """Return what may pass of `data`, and of what was held."""
        pieces, self.held = split(self.held + data)
        passed = b"".join(piece.raw for piece in pieces if isinstance(piece, Text) or not piece.asks)
        if len(self.held) > self.HOLD_LIMIT:
            passed, self.held = passed + self.held, b""
        return passed
