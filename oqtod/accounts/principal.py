"""For whom a request acts, and what said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from oqtod.accounts.users import User


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, and the credentials that stand for the user.

    `kind` says which they were: a session token, an API key, a token of the OpenID provider, or a process at
    the admin socket. `credential` identifies them for as long as they last: the token's or the key's id.
    `expires` is in seconds since the epoch. `scopes` bounds what they are good for; None is no bound.
    """

    user: User
    kind: Literal["token", "key", "oidc", "socket"]
    credential: str
    expires: int | None = None
    scopes: frozenset[str] | None = None
    uid: int | None = None

    @property
    def is_admin(self) -> bool:
        """Whether it has the role; the scope is another matter."""
        return self.user.role == "admin"
