"""Queries in output are found whatever stands around them; everything else passes as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.terminal.sequences import Csi, Osc, QueryFilter, Text, safe_cut, split

QUERIES = [
    b"\x1b[c",
    b"\x1b[0c",
    b"\x1b[>c",
    b"\x1b[>0c",
    b"\x1b[=c",
    b"\x1bZ",
    b"\x05",
    b"\x1b[5n",
    b"\x1b[6n",
    b"\x1b[?6n",
    b"\x1b[?996n",
    b"\x1b[?2026$p",
    b"\x1b[4$p",
    b"\x1b[>q",
    b"\x1b[>0q",
    b"\x1b[?u",
    b"\x1b[14t",
    b"\x1b[18t",
    b"\x1b[21t",
    b"\x1b[x",
    b"\x1b[1x",
    b"\x1b[1;1;1;1;10;10*y",
    b"\x1b[1$w",
    b"\x1b[?1;1;0S",
    b"\x1b[?4m",
    b"\x1b[#|",
    b"\x1bP$qm\x1b\\",
    b"\x1bP$q q\x1b\\",
    b"\x1bP+q544e\x1b\\",
    b"\x1b]10;?\x07",
    b"\x1b]11;?\x1b\\",
    b"\x1b]012;?\x07",
    b"\x1b]4;1;?\x07",
    b"\x1b]4;1;rgb:00/00/00;2;?\x07",
    b"\x1b]52;c;?\x07",
    b"\x1b]21;foreground=?\x1b\\",
    b"\x1b]1337;ReportCellSize\x07",
    b"\x1b_Gi=1,a=q;AAAA\x1b\\",
    b"\xc2\x9b6n",
    b"\xc2\x9d11;?\xc2\x9c",
    b"\xc2\x90$qm\xc2\x9c",
    b"\x1b\n[6n",
    b"\x1b[6\rn",
    b"\x1b]1\x001;?\x07",
]
OTHERS = [
    b"plain text\r\n",
    "größer ²".encode(),
    b"\x1b[31m",
    b"\x1b[38:2::1:2:3m",
    b"\x1b[2J",
    b"\x1b[1;2r",
    b"\x1b[?25l",
    b"\x1b[?1049h",
    b"\x1b[4 q",
    b"\x1b[!p",
    b"\x1b[>4;2m",
    b"\x1b[>1u",
    b"\x1b[22;0t",
    b"\x1b7",
    b"\x1b(0",
    b"\x1b=",
    b"\x07",
    b"\x1b]0;is this a title?\x1b\\",
    b"\x1b]2;?\x1b\\",
    b"\x1b]8;;http://example.com/?a=?\x1b\\",
    b"\x1b]11;#123456\x1b\\",
    b"\x1bPq#0;2;0;0;0#0~~\x1b\\",
]


def dispatched(data: bytes) -> Iterator[tuple[str, str]]:
    """What an emulator carries out: the VT500 state diagram, one code point after the other.

    Written from the diagram and not from our patterns. Strings end as they do in xterm.js.
    """
    state, seen = "ground", ""
    for character in data.decode(errors="replace"):
        code = ord(character)
        if state in ("osc", "string"):
            ended = code in (0x18, 0x1A, 0x1B) or 0x80 <= code < 0xA0 or (state == "osc" and code == 7)
            if not ended:
                seen += character
                continue
            # C1 controls other than ST break it off, CAN and SUB too.
            if code in (0x07, 0x1B, 0x9C):
                yield state, seen
            state, seen = "ground", ""
            if code in (0x07, 0x18, 0x1A, 0x9C):
                continue
        if code in (0x18, 0x1A):
            state = "ground"
        elif code == 0x1B:
            state, seen = "escape", ""
        elif 0x80 <= code < 0xA0:
            named = {0x9B: "csi", 0x9D: "osc", 0x90: "string", 0x98: "string", 0x9E: "string", 0x9F: "string"}
            state, seen = named.get(code, "ground"), {0x90: "P", 0x9F: "_"}.get(code, "")
        elif code < 0x20 or code == 0x7F:
            if code == 5:
                yield "control", character
        elif code >= 0xA0:
            state = "ground"
        elif state == "escape":
            if not seen and character in "[]PX^_":
                state = {"[": "csi", "]": "osc"}.get(character, "string")
                seen = character if character in "P_" else ""
            elif character < "0":
                seen += character
            else:
                yield "escape", seen + character
                state = "ground"
        elif state == "csi":
            seen += character
            if character >= "@":
                yield "csi", seen
                state = "ground"


def questions(data: bytes) -> list[tuple[str, str]]:
    """The queries among them, by the simplest rules that could be meant."""
    found = []
    for kind, text in dispatched(data):
        plain = "".join(c for c in text if " " <= c != "\x7f")
        match kind:
            case "control":
                asks = True
            case "escape":
                asks = plain == "Z"
            case "csi":
                head, final = plain[:-1], plain[-1]
                malformed = head.lstrip("<=>?").lstrip("0123456789;:").strip(" !\"#$%&'()*+,-./") != ""
                digits = head.split(";")[0].split(":")[0]
                asks = not malformed and (
                    (final == "c" and not head.strip("<=>?0123456789;:"))
                    or (final == "n" and ">" not in head and not head.strip("<=?0123456789;:"))
                    or (final == "p" and head.endswith("$") and head.count("$") == 1 and "#" not in head)
                    or (final == "q" and head[:1] == ">" and not head.strip(">0123456789;:"))
                    or (
                        final == "t" and digits.lstrip("0") in ("14", "18") and not head.strip("0123456789;:")
                    )
                )
                if final in "pq" and any(x in head for x in "!\"#%&'()*+,-./ "):
                    asks = False
            case "osc":
                number, _, rest = plain.partition(";")
                asks = number.lstrip("0") in ("4", "10", "11", "52") and "?" in rest.split(";")
            case _:
                asks = text.startswith("P") and plain[1:].startswith(("$q", "+q"))
        if asks:
            found.append((kind, text))
    return found


PIECES = st.sampled_from(
    [
        *QUERIES,
        *OTHERS,
        *(b"\x1b", b"[", b"]", b"P", b"6n", b"\\", b"\xc2", b"\x9b", b"\x9c", b"\x18", b"\xe2", b"\x82"),
        *(b"0", b";", b"?", b"$", b"q", b"c", b"\n", b"\x7f", b"\xff", b"11;?", b"\x1b[", b"\x1b]"),
    ]
)
OUTPUT = st.lists(PIECES | st.binary(max_size=3), max_size=12).map(b"".join)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_left_out(query: bytes) -> None:
    seen = QueryFilter()
    assert seen.feed(b"before" + query + b"after") == b"beforeafter"
    assert seen.held == b""


@pytest.mark.parametrize("other", OTHERS)
def test_everything_else_passes(other: bytes) -> None:
    assert QueryFilter().feed(b"before" + other + b"after") == b"before" + other + b"after"


@given(OUTPUT)
@example(b"\x1b\x1b[6n[6n")
@example(b"\x1b]0;a\x1b[6n\x07")
@example(b"\x1b[\x1b[c3\x1b[cn")
def test_nothing_that_asks_comes_through(data: bytes) -> None:
    passed = QueryFilter().feed(data)
    assert questions(passed + b"\x18") == []
    # The first half of a sequence isn't let through either: not even with its second half does it ask.
    for completion in (b"6n", b"c", b"[6n", b"\x1b\\", b"\x07", b"?\x07"):
        assert questions(passed + completion) == questions(completion)


@given(OUTPUT)
def test_what_is_drawn_stays_the_same(data: bytes) -> None:
    def harmless(output: bytes) -> list[tuple[str, str]]:
        asked = questions(output)
        moves = [x for x in dispatched(output) if x[0] == "csi" and x[1][-1] in "mJHA" and "?" not in x[1]]
        return [x for x in moves if x not in asked]

    assert harmless(QueryFilter().feed(data + b"\x18")) == harmless(data + b"\x18")


@given(OUTPUT, st.data())
def test_portions_make_no_difference(data: bytes, chosen: st.DataObject) -> None:
    whole, parts = QueryFilter(), QueryFilter()
    position, passed = 0, b""
    while position < len(data):
        size = chosen.draw(st.integers(1, 5))
        passed += parts.feed(data[position : position + size])
        position += size
    assert passed == whole.feed(data)
    assert parts.held == whole.held


@given(OUTPUT)
def test_cancel_completes_everything(data: bytes) -> None:
    """No input can get the pattern stuck: after CAN nothing is held."""
    assert split(data + b"\x18").rest == b""


@given(OUTPUT, st.integers(0, 80))
def test_a_cut_is_between_sequences_and_characters(data: bytes, least: int) -> None:
    complete = QueryFilter().feed("²ä€".encode() + data + b"\x18")
    cut = safe_cut(complete, min(least, len(complete)), look_ahead=20)
    assert min(least, len(complete)) <= cut <= len(complete)
    first, second = split(complete[:cut]), split(complete[cut:])
    assert first.rest == second.rest == b""

    def drawn(parts: list[object]) -> list[object]:
        return [x for x in parts if not isinstance(x, Text)]

    assert drawn([*first.pieces, *second.pieces]) == drawn([*split(complete).pieces])


def test_a_cut_prefers_the_beginning_of_a_line() -> None:
    text = b"one\r\n\x1b[1mtwo\r\nthree\x1b[0m\r\n"
    assert text[safe_cut(text, 2, look_ahead=100) :] == b"\x1b[1mtwo\r\nthree\x1b[0m\r\n"
    assert text[safe_cut(text, 6, look_ahead=100) :] == b"three\x1b[0m\r\n"
    assert text[safe_cut(text, 6, look_ahead=2) :] == b"two\r\nthree\x1b[0m\r\n"
    euro = "€€€".encode()
    assert euro[safe_cut(euro, 4, look_ahead=100) :] == "€".encode()


def test_a_long_string_is_let_through_in_the_end() -> None:
    seen = QueryFilter()
    picture = b"\x1bPq" + b"~" * (QueryFilter.HOLD_LIMIT + 1)
    assert seen.feed(picture[:1000]) == b""
    assert seen.feed(picture[1000:]) == picture
    assert seen.feed(b"~\x1b\\text") == b"~text"


def test_what_a_sequence_says() -> None:
    assert split(b"\x1b[?1049;25h").pieces == [Csi(b"?", b"1049;25", b"", b"h")]
    assert Csi(b"?", b"1049;25", b"", b"h").modes == [1049, 25]
    assert Csi(b"?", b"99999999999999", b"", b"h").modes == []
    assert split(b"\xc2\x9d2;t\xc2\x9c").pieces == [Osc(b"2;t")]
