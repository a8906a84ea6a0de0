"""Forged, stale and misshapen tokens: none of them is good."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oqtod.accounts.tokens import LIFETIME, MAX_LENGTH, Tokens
from oqtod.accounts.users import NewUser, User, Users
from oqtod.store.database import Database, open_database

SECRET = "a secret of at least thirty-two characters"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with open_database(tmp_path_factory.mktemp("tokens") / "oqto.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def tokens(database: Database) -> Tokens:
    return Tokens(SECRET, database)


USER = User("ann", "ann", "ann@example.com", "Ann", None, "user", True, None, "database", 7, 0, "", None)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {
        "iss": "oqtod",
        "aud": "oqtod",
        "sub": "ann",
        "iat": now,
        "exp": now + 60,
        "jti": "x",
        "generation": 7,
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def signed(payload: object, *, header: object = None, secret: str = SECRET, digest: str = "sha256") -> str:
    """A token whose parts are exactly what is given."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    parts = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in (head, payload)]
    text = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = urlsafe_b64encode(hmac.digest(secret.encode(), text, getattr(hashlib, digest))).rstrip(b"=")
    return (text + b"." + mac).decode()


def test_our_own(tokens: Tokens) -> None:
    found = tokens.check(tokens.issue(USER))
    assert found is not None and (found.sub, found.generation) == ("ann", 7)
    assert found.exp - found.iat == LIFETIME
    assert tokens.check(signed(claims())) is not None


NOW = int(time.time())
BAD: dict[str, dict[str, Any]] = {
    "expired": {"iat": NOW - 100, "exp": NOW - 10},
    "not yet valid": {"nbf": NOW + 3600},
    "from the future": {"iat": NOW + 3600, "exp": NOW + 3700},
    "for ever": {"exp": NOW + 10 * 365 * 86400},
    "no expiry": {"exp": ...},
    "no id": {"jti": ...},
    "no subject": {"sub": ...},
    "no issue": {"iat": ...},
    "no generation": {"generation": ...},
    "another audience": {"aud": "other"},
    "audiences": {"aud": ["oqtod", "other"]},
    "no audience": {"aud": ...},
    "another issuer": {"iss": "https://evil.example/oqtod"},
    "part of an issuer": {"iss": "oqto"},
    "issuers": {"iss": ["oqtod"]},
    "no issuer": {"iss": ...},
    "subject is a number": {"sub": 1},
    "subject is a list": {"sub": ["ann"]},
    "expiry is text": {"exp": "tomorrow"},
    "expiry is infinite": {"exp": float("inf")},
    "expiry is no number": {"exp": float("nan")},
    "expiry is huge": {"exp": 10**400},
    "expiry is true": {"exp": True},
    "generation is text": {"generation": "7"},
    "expiry is a numeral": {"exp": str(NOW + 60)},
    "expiry is a fraction": {"exp": NOW + 60.5},
    "not before is text": {"nbf": "now"},
    "issue is text": {"iat": "now"},
    "issue is after expiry": {"iat": NOW + 30, "exp": NOW + 20},
    "id is a number": {"jti": 1},
    "audience is a list of ours": {"aud": ["oqtod"]},
    "audience is a number": {"aud": 1},
    "issuer with a NUL": {"iss": "oqtod\0"},
}


@pytest.mark.parametrize("changes", list(BAD.values()), ids=list(BAD))
def test_bad_claims(tokens: Tokens, changes: dict[str, Any]) -> None:
    assert tokens.check(signed(claims(**changes))) is None


HEADERS: dict[str, Any] = {
    "none": {"alg": "none"},
    "None": {"alg": "None", "typ": "JWT"},
    "another digest": {"alg": "HS512", "typ": "JWT"},
    "a public key's": {"alg": "RS256", "typ": "JWT"},
    "small letters": {"alg": "hs256", "typ": "JWT"},
    "a key of its own": {"alg": "HS256", "typ": "JWT", "jwk": {"kty": "oct", "k": "eA"}},
    "a key elsewhere": {"alg": "HS256", "typ": "JWT", "jku": "https://evil.example/jwks"},
    "a certificate": {"alg": "HS256", "typ": "JWT", "x5u": "https://evil.example/x"},
    "a key's name": {"alg": "HS256", "typ": "JWT", "kid": "../../../dev/null"},
    "critical": {"alg": "HS256", "typ": "JWT", "crit": ["b64"], "b64": False},
    "another type": {"alg": "HS256", "typ": "at+jwt"},
    "no algorithm": {"typ": "JWT"},
    "a list": ["HS256"],
    "nonsense": b"\xff{",
    "deep": b"[" * 3000,
}


@pytest.mark.parametrize("header", list(HEADERS.values()), ids=list(HEADERS))
def test_bad_headers(tokens: Tokens, header: Any) -> None:
    assert tokens.check(signed(claims(), header=header)) is None
    digest = signed(claims(), header=header, digest="sha512")
    assert tokens.check(digest) is None
    assert tokens.check(digest.rpartition(".")[0] + ".") is None


def test_a_name_twice(tokens: Tokens) -> None:
    """What a signed token says twice nobody but us can have written; the header is read before that."""
    now = int(time.time())
    head = b'{"alg": "none", "alg": "HS256", "typ": "JWT"}'
    other = b'{"alg": "HS256", "alg": "none", "typ": "JWT"}'
    body = json.dumps(claims(exp=now - 10)).encode()[:-1] + b', "sub": "root"}'
    assert tokens.check(signed(claims(), header=other)) is None
    forged = signed(claims(), header=head, secret="another secret of thirty-two characters")
    assert tokens.check(forged) is None
    assert tokens.check(signed(body)) is None


def test_other_ways_to_write_a_token_do_not_make_another(tokens: Tokens) -> None:
    """base64url has spare bits and some readers skip what isn't of it: still the same id, for revoking."""
    good = signed(claims(jti="the same"))
    head, payload, mac = good.split(".")
    for other in (f"{head}.{payload}.{mac}=", f"{head}.{payload}.{mac[:9]} {mac[9:]}"):
        found = tokens.check(other)
        assert found is None or found.jti == "the same"
    for broken in (f"{head}=.{payload}.{mac}", f"{head}.{payload}=.{mac}", f"{head}.\n{payload}.{mac}"):
        assert tokens.check(broken) is None


def test_bad_signatures(tokens: Tokens) -> None:
    good = tokens.issue(USER)
    head, payload, mac = good.split(".")
    for bad in (
        signed(claims(), secret="another secret of thirty-two characters"),
        f"{head}.{payload}.",
        f"{head}.{payload}",
        f"{head}.{payload}.{mac}.{mac}",
        f"{head}.{payload}.{mac[:-4]}",
        f" {good}",
        jwt.encode(claims(), None, algorithm="none"),
        good + "=" * MAX_LENGTH,
        signed(claims(x="x" * MAX_LENGTH)),
        signed(b"[" * 2000),
        signed([]),
        signed("ann"),
        "é.é.é",
        "",
        "..",
    ):
        assert tokens.check(bad) is None


@given(st.data())
def test_any_change_of_a_character(tokens: Tokens, data: st.DataObject) -> None:
    good = tokens.issue(USER)
    place = data.draw(st.integers(0, len(good) - 2))  # the last carries bits that aren't part of the value
    character = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    if character != good[place]:
        assert tokens.check(good[:place] + character + good[place + 1 :]) is None


@given(st.text(max_size=200))
def test_any_text(tokens: Tokens, text: str) -> None:
    assert tokens.check(text) is None


async def test_revoked(tokens: Tokens) -> None:
    token = tokens.issue(USER)
    found = tokens.check(token)
    assert found is not None
    await tokens.revoke(found.jti, found.exp)
    assert tokens.check(token) is None
    assert tokens.check(tokens.issue(USER)) is not None


async def test_a_name_that_comes_again_is_another_generation(tmp_path: Path) -> None:
    with open_database(tmp_path / "oqto.db") as database:
        users = Users(database)
        new = NewUser(username="ann", email="ann@example.com", display_name="Ann")
        first = await users.add(new)
        await database.write(lambda x: x.execute("DELETE FROM users"))
        second = await users.add(new)
        assert first.id == second.id
        assert first.generation != second.generation
