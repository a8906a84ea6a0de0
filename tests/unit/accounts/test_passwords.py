"""What makes a password good enough, and that checking one always does the same work."""

from __future__ import annotations

import bcrypt
import pytest

from oqtod.accounts import passwords


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "aBc-9!x%",
        "пароль из слов",
        "x" * 63 + "y",
        "        nine spaces",
        "ab" + "c" * 7,
    ],
)
def test_good_ones(password: str) -> None:
    assert passwords.fault(password, personal=("alice", "alice@example.com")) is None


@pytest.mark.parametrize(
    "password",
    [
        "",
        "1234567",
        "password",
        "Password1",
        "12345678",
        "qwertyuiop",
        "aaaaaaaa",
        "abababab",
        "abcabcabc",
        "abcdefgh",
        "87654321",
        "alice2024!",
        "ALICE-ALICE"[:5] * 1 + "123",
        "oqto12345",
        "x" * 1025,
        "alice@example.com",
    ],
)
def test_bad_ones(password: str) -> None:
    assert passwords.fault(password, personal=("alice", "alice@example.com")) is not None


@pytest.mark.parametrize("password", ["short", "é" * 100, "nul\0inside", "x" * 200, "\ud800"])
def test_what_is_hashed_is_known_again(password: str) -> None:
    hashed = passwords.hashed(password)
    assert passwords.cost_of(hashed) == 12
    assert passwords.check(password, hashed, cost=12)
    assert not passwords.check(password + "x", hashed, cost=12)


def test_long_ones_are_not_cut() -> None:
    hashed = passwords.hashed("x" * 72 + "a")
    assert not passwords.check("x" * 72 + "b", hashed, cost=12)


def test_two_ways_to_write_one_character_are_one() -> None:
    assert passwords.check("cafe\u0301 au lait", passwords.hashed("caf\u00e9 au lait"), cost=12)


@pytest.mark.parametrize("own", [4, 8, 10, None])
def test_the_work_is_always_the_same(own: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bcrypt.hashpw(b"right", bcrypt.gensalt(own)).decode() if own is not None else None
    work = 2**own if own is not None else 0
    real = bcrypt.hashpw

    def counting(material: bytes, salt: bytes) -> bytes:
        nonlocal work
        work += 2 ** int(salt[4:6])
        return real(material, salt)

    monkeypatch.setattr(bcrypt, "hashpw", counting)
    assert not passwords.check("wrong", expected, cost=10)
    assert work == 2**10
