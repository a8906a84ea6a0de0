"""What a later viewer is shown: bounded, without effects, and set as the terminal is now."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.terminal.scrollback import HISTORY_LIMIT, RESET, SCREEN_LIMIT, Scrollback
from tests.unit.terminal.test_terminal_sequences import OUTPUT, QUERIES, questions


def replay(*portions: bytes) -> bytes:
    scrollback = Scrollback()
    for portion in portions:
        scrollback.append(portion)
    return scrollback.replay()[0].removeprefix(RESET)


def test_nothing_written_is_nothing_shown() -> None:
    assert Scrollback().replay() == (b"", b"")


def test_text_is_shown_as_it_was() -> None:
    text = "größe \x1b[1mfett\x1b[0m\r\n$ ".encode()
    scrollback = Scrollback()
    scrollback.append(text)
    assert scrollback.replay() == (RESET + text, b"")


@pytest.mark.parametrize("query", QUERIES)
def test_queries_are_not_asked_again(query: bytes) -> None:
    assert replay(b"one", query, b"two") == b"onetwo"


@pytest.mark.parametrize(
    "effect",
    [
        b"\x07",
        b"\x1b]52;c;c2VjcmV0\x07",
        b"\x1b]9;build done\x07",
        b"\x1b]777;notify;a;b\x1b\\",
        b"\x1b]1337;File=:AAAA\x07",
        b"\x1b[8;10;10t",
        b"\x1b[5i",
        b"\x1b_Ga=T;AAAA\x1b\\",
        b"\x1b^secret\x1b\\",
    ],
)
def test_effects_are_not_repeated(effect: bytes) -> None:
    assert replay(b"one" + effect + b"two") == b"onetwo"


def test_input_modes_are_those_in_force_now() -> None:
    # Focus reports would be sent to the shell as soon as the replay switches them on.
    assert replay(b"\x1b[?1004h\x1b[?1000;1006h$ ", b"\x1b[?1004l\x1b[?1000;1006l") == b"$ "
    assert replay(b"$ \x1b[?2004h") == b"$ \x1b[?2004h"
    assert replay(b"\x1b[?2004h$ ls\r\n\x1b[?2004l", b"a b\r\n") == b"$ ls\r\na b\r\n"
    assert replay(b"\x1b=\x1b[?1hx") == b"x\x1b=\x1b[?1h"
    assert replay(b"\x1b[?1h\x1b=x\x1b[!p") == b"x\x1b[!p"


def test_what_a_full_screen_program_drew_goes_with_it() -> None:
    scrollback = Scrollback()
    scrollback.append(b"$ vi\r\n\x1b[?1049h\x1b[?25l\x1b[?1002hdrawing\x1b]2;vi\x07")
    assert scrollback.full_screen
    shown = scrollback.replay()[0]
    assert shown == RESET + b"$ vi\r\n\x1b[?1049h\x1b[?25ldrawing\x1b]2;vi\x1b\\\x1b[?1002h"
    scrollback.append(b"\x1b[?25h\x1b[?1002l\x1b[?1049l$ ")
    assert not scrollback.full_screen
    assert scrollback.replay()[0] == RESET + b"$ vi\r\n\x1b[?25h\x1b]2;vi\x1b\\$ "


def test_a_busy_full_screen_program_pushes_out_nothing() -> None:
    scrollback = Scrollback()
    scrollback.append(b"precious\r\n\x1b[?1049h")
    frame = b"\x1b[?2026h\x1b[?25l\x1b[H" + b"\x1b[32mcpu\x1b[K\r\n" * 50 + b"\x1b[?25h\x1b[?2026l"
    for _ in range(5 * HISTORY_LIMIT // len(frame)):
        scrollback.append(frame)
    shown = scrollback.replay()[0]
    assert shown.startswith(RESET + b"precious\r\n\x1b[?1049h")
    assert len(shown) < SCREEN_LIMIT + 1000
    scrollback.append(b"\x1b[?1049l$ ")
    assert scrollback.replay()[0] == RESET + b"precious\r\n\x1b[?25h$ "


def test_long_output_is_cut_at_a_line_and_keeps_its_modes() -> None:
    scrollback = Scrollback()
    scrollback.append(b"\x1b[?7l\x1b[?25l\x1b[?25h\x1b[?5h\x1b[?5l")
    for number in itertools.count():
        scrollback.append(b"\x1b[3%dm%06d\x1b[0m\r\n" % (number % 8, number))
        if number * 15 > 3 * HISTORY_LIMIT:
            break
    shown = scrollback.replay()[0]
    assert HISTORY_LIMIT * 3 // 4 < len(shown) <= HISTORY_LIMIT + 100
    head, _, rest = shown.removeprefix(RESET + b"\x1b[?7l").partition(b"\r\n")
    assert head[:3] == b"\x1b[3"
    assert len(head) == 15
    assert rest.endswith(b"%06d\x1b[0m\r\n" % number)


def test_one_endless_line_is_kept_in_part() -> None:
    shown = replay(*["ü".encode() * 50_000] * 40)
    assert HISTORY_LIMIT // 2 < len(shown) <= HISTORY_LIMIT + 1
    assert set(shown.decode()) == {"ü"}


def test_an_open_sequence_is_told_apart() -> None:
    scrollback = Scrollback()
    scrollback.append(b"text\x1b[3")
    assert scrollback.replay() == (RESET + b"text", b"\x1b[3")
    scrollback.append(b"1mred")
    assert scrollback.replay() == (RESET + b"text\x1b[31mred", b"")


def test_an_endless_string_is_forgotten() -> None:
    scrollback = Scrollback()
    scrollback.append(b"before\x1bPq")
    for _ in range(100):
        scrollback.append(b"~" * 100_000)
    assert scrollback.replay() == (RESET + b"before", b"\x1b_")
    scrollback.append(b"~~\x1b\\after")
    assert scrollback.replay() == (RESET + b"beforeafter", b"")
    scrollback.append(b"\x1b]1337;" + b"A" * 1_000_000)
    assert scrollback.replay()[1] == b"\x1b]"
    scrollback.append(b"A\x07 end")
    assert scrollback.replay() == (RESET + b"beforeafter end", b"")


def test_a_reset_begins_anew() -> None:
    scrollback = Scrollback()
    scrollback.append(b"secret\x1b[?1049hx\x1b[?2004h\x1bcnew\x1b[3")
    assert scrollback.replay() == (RESET + b"new", b"\x1b[3")
    assert not scrollback.full_screen


@given(st.lists(OUTPUT, max_size=5))
def test_a_replay_asks_nothing_and_replays_to_itself(portions: list[bytes]) -> None:
    scrollback = Scrollback()
    for portion in portions:
        scrollback.append(portion)
    shown, rest = scrollback.replay()
    assert questions(shown) == []
    again = Scrollback()
    again.append(shown)
    again.append(rest)
    assert again.replay() == (shown, rest)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(OUTPUT, st.integers(1, 8_000)), max_size=4))
def test_it_is_bounded(portions: list[tuple[bytes, int]]) -> None:
    scrollback = Scrollback()
    for portion, times in portions:
        scrollback.append(portion * times)
        shown, rest = scrollback.replay()
        assert len(shown) <= HISTORY_LIMIT + SCREEN_LIMIT + (1 << 19)
        assert len(rest) <= 1 << 19
