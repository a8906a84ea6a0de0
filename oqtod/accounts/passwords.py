"""Passwords: which ones are good enough, their bcrypt hashes, and checking one in a time that tells nothing.

The rules are those of NIST SP 800-63B section 5.1.1.2: a length, and no password that everybody tries first.
Nothing is asked of what it is made of.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from importlib import resources

import bcrypt

COST = 12
"""The work factor of new hashes; a login with an older, cheaper one renews it."""

MIN_LENGTH = 8
MAX_LENGTH = 1024
"""Characters of a password."""

_BCRYPT_BYTES = 72
_DUMMY_SALT = "abcdefghijklmnopqrstuu"
_SERVICE_NAMES = ("oqto", "oqtod", "octo")


def fault(password: str, *, personal: tuple[str, ...] = ()) -> str | None:
    """Say why a password can't be taken, for people, or None when it can.

    `personal` is what is known of its owner: user name, e-mail address, display name.
    """
    password = unicodedata.normalize("NFKC", password)
    if len(password) < MIN_LENGTH:
        return f"the password is shorter than {MIN_LENGTH} characters: take a few words, for example"
    if len(password) > MAX_LENGTH:
        return f"the password is longer than {MAX_LENGTH} characters"
    folded = password.casefold()
    if _is_common(folded) or _is_simple(folded):
        return "the password is one of those that everybody tries first: take another"
    names = {name.casefold() for name in (*personal, *_SERVICE_NAMES)}
    names |= {name.partition("@")[0] for name in names}
    letters = folded.strip("0123456789!?.,-_*#+ ")
    if folded in names or letters in names:
        return "the password is made of a name: take one that says nothing about you or this service"
    return None


def _is_common(folded: str) -> bool:
    listed = (resources.files("oqtod.accounts") / "common_passwords.txt").read_bytes()
    return b"\n" + folded.encode() + b"\n" in b"\n" + listed


def _is_simple(folded: str) -> bool:
    """One to three characters over and over, or a run like abcdefgh or 87654321."""
    for length in (1, 2, 3):
        if folded == (folded[:length] * len(folded))[: len(folded)]:
            return True
    steps = {ord(after) - ord(before) for before, after in itertools.pairwise(folded)}
    return steps in ({1}, {-1})


def hashed(password: str) -> str:
    """Return the bcrypt hash of a password. Takes about a quarter of a second of CPU."""
    return bcrypt.hashpw(_material(password), bcrypt.gensalt(COST)).decode()


def cost_of(password_hash: str) -> int:
    """Return the work factor of a bcrypt hash."""
    return int(password_hash[4:6])


def check(password: str, expected: str | None, *, cost: int) -> bool:
    """Say whether a password has this hash; without one, it never has.

    Does the work of a hash of factor `cost` in either case. A cheaper hash is checked, and the rest of that
    work is done for nothing: each factor is twice the one before, so 2^c + 2^c + 2^(c+1) + … = 2^cost.
    """
    material = _material(password)
    if expected is None:
        _work(material, cost)
        return False
    right = bcrypt.checkpw(material, expected.encode())
    for factor in range(cost_of(expected), cost):
        _work(material, factor)
    return right


def _work(material: bytes, cost: int) -> None:
    bcrypt.hashpw(material, f"$2b${cost:02}${_DUMMY_SALT}".encode())


def _material(password: str) -> bytes:
    """bcrypt takes 72 bytes and no NUL: what is longer goes in as its digest, not cut."""
    raw = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    if len(raw) <= _BCRYPT_BYTES and b"\0" not in raw:
        return raw
    return hashlib.sha256(raw).hexdigest().encode()
