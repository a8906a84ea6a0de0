"""Account names: what useradd takes, told apart for whoever asks, the same every time."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oqtod.supervisor import names

PREFIXES = st.from_regex(r"\A[a-z_][a-z0-9_]{0,15}\Z")
USER_IDS = st.text(min_size=1, max_size=names.MAX_USER_ID)
NASTY = ["-rf", "$(id)", "a\nb", "a\0b", "../../etc", "root", "İ", "ſ", "ß" * 40, " ", ".", "💥", "a" * 256]


def first(prefix: str, user_id: str, count: int = 5) -> list[str]:
    return list(islice(names.candidates(prefix, user_id), count))


@given(prefix=PREFIXES, user_id=USER_IDS)
@example(prefix="oqto_", user_id="İstanbul")
def test_every_candidate_is_a_name_that_useradd_takes(prefix: str, user_id: str) -> None:
    for name in first(prefix, user_id):
        assert name.startswith(prefix)
        assert len(name) > len(prefix)
        assert len(name) <= 32
        # The intersection of what useradd, systemd (User=, slices) and paths take.
        assert re.fullmatch(r"[a-z_][a-z0-9_]*", name)
        assert names.is_account_name(name, prefix)


@pytest.mark.parametrize("user_id", NASTY)
def test_nasty_ids_become_tame_names(user_id: str) -> None:
    assert all(names.is_account_name(name, "oqto_") for name in first("oqto_", user_id))


@given(prefix=PREFIXES, user_id=USER_IDS)
def test_candidates_are_the_same_every_time_and_never_repeat(prefix: str, user_id: str) -> None:
    found = first(prefix, user_id, 20)
    assert found == first(prefix, user_id, 20)
    assert len(set(found)) == 20


@given(prefix=PREFIXES, one=USER_IDS, other=USER_IDS)
def test_different_people_get_different_names(prefix: str, one: str, other: str) -> None:
    """As the supervisor picks them: the first candidate that nobody has."""
    if one == other:
        return
    taken = {first(prefix, one)[0]}
    assert next(name for name in names.candidates(prefix, other) if name not in taken) not in taken
    assert not set(first(prefix, one)[1:]) & set(first(prefix, other)[1:])


def test_the_plain_name_comes_first() -> None:
    assert first("oqto_", "alice")[0] == "oqto_alice"
    assert first("oqto_", "Alice")[0] == "oqto_alice"
    assert first("oqto_", "alice.smith@example.com")[0] == "oqto_alice_smith_example_com"
    assert first("oqto_", "root")[0] == "oqto_root"


def test_long_names_are_cut_and_still_differ() -> None:
    one, other = first("oqto_", "x" * 40 + "1")[0], first("oqto_", "x" * 40 + "2")[0]
    assert one != other
    assert one.startswith("oqto_xxxx")
    assert len(one) == len(other) == 32


@pytest.mark.parametrize(
    "user_id", ["", "x" * 257, "a\nb", "a\0b", "\x1b[2J", " a", "a ", "\u202ea", "\u2028"]
)
def test_what_is_no_user_id(user_id: str) -> None:
    assert not names.is_user_id(user_id)


@pytest.mark.parametrize("user_id", ["a", "x" * 256, "Ünal", "a b", "-rf", "0b9f3c", "alice@example.com"])
def test_what_is_a_user_id(user_id: str) -> None:
    assert names.is_user_id(user_id)


@pytest.mark.parametrize(
    "name", ["alice", "oqto_Alice", "oqto_a-b", "oqto_a.b", "oqto_a\n", "oqto_" + "x" * 28]
)
def test_what_is_no_account_of_ours(name: str) -> None:
    assert not names.is_account_name(name, "oqto_")
