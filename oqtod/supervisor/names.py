"""From a platform user's id to the name of a Linux account: pure, and the same every time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

MAX_NAME = 32
"""Longest name that useradd(8) takes."""

MAX_USER_ID = 256

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_]*")


def candidates(prefix: str, user_id: str) -> Iterator[str]:
    """Yield names for the account of a platform user, the plainest first, without end.

    Only letters, digits and underscores: a hyphen would nest one account's slice in another's, see
    systemd.slice(5). From the second on, names end in a part of a hash, so that names which are cut or
    cleaned alike still differ.
    """
    clean = re.sub(r"[^a-z0-9_]", "_", user_id.lower()).strip("_")
    plain = prefix + clean
    if clean and len(plain) <= MAX_NAME:
        yield plain
    attempt = 0
    while True:
        digest = hashlib.sha256(f"{user_id}\0{attempt}".encode()).hexdigest()[:8]
        room = MAX_NAME - len(prefix) - len(digest) - 1
        stem = clean[:room].rstrip("_")
        yield f"{prefix}{stem}_{digest}" if stem else f"{prefix}{digest}"
        attempt += 1


def is_account_name(name: str, prefix: str) -> bool:
    """Say whether a name could be one of ours."""
    return name.startswith(prefix) and len(name) <= MAX_NAME and _ACCOUNT.fullmatch(name) is not None


def is_user_id(user_id: str) -> bool:
    """Say whether this is a platform user's id: printable, and 1 to MAX_USER_ID characters long."""
    return 0 < len(user_id) <= MAX_USER_ID and user_id.isprintable() and user_id == user_id.strip()
