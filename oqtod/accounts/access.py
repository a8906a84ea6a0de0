"""Which credentials open which route: one table, and what isn't in it is closed to API keys. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

SCOPES = {
    "sessions:read": "see one's sessions and follow their events",
    "sessions:write": "create, stop, resume and delete them",
    "files:read": "list and read files",
    "files:write": "write, move and delete files",
    "terminal": "open a terminal",
    "previews": "reach the ports of a session",
    "browser": "watch and drive a session's browser",
    "projects:read": "see projects and templates",
    "projects:write": "make and change projects",
    "admin": "administer; for administrators only",
}
"""What an API key may be good for."""

DEFAULT_SCOPES = frozenset(SCOPES) - {"admin"}
"""What a key can do whose maker didn't say."""

Level = Literal["public", "anyone", "scoped", "person", "admin"]
"""`public` needs no credentials, `anyone` any of them, `scoped` the scopes where there are scopes, `person`
somebody who logged in, `admin` the role (and the scope)."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a route asks for."""

    level: Level
    scopes: frozenset[str] = frozenset()


PUBLIC = Need("public")
ANYONE = Need("anyone")
PERSON = Need("person")
ADMIN = Need("admin", frozenset({"admin"}))


def _scoped(*scopes: str) -> Need:
    assert set(scopes) <= set(SCOPES)
    return Need("scoped", frozenset(scopes))


_READ = "GET|HEAD"
_ANY = "[A-Z]+"
_SESSION = r"/api/sessions/[^/]+"
_TABLE: list[tuple[str, str, Need]] = [
    (_READ, r"/api/(health|features|openapi\.json)", PUBLIC),
    ("POST", r"/api/auth/(login|register)", PUBLIC),
    (_READ, r"/api/auth/(methods|oidc/login|oidc/callback)", PUBLIC),
    ("POST", r"/api/auth/ticket", ANYONE),
    (_READ, r"/api/gateway/authorize", ANYONE),  # as long as it describes no other request
    (_READ, r"/api/me", ANYONE),
    ("PUT", r"/api/me", PERSON),
    ("POST", r"/api/auth/(logout|change-password)", PERSON),
    (_ANY, r"/api/keys(/.*)?", PERSON),
    (_READ, rf"/api/sessions|{_SESSION}|{_SESSION}/events", _scoped("sessions:read")),
    (
        "POST|DELETE",
        rf"/api/sessions|{_SESSION}|{_SESSION}/(stop|resume|activity)",
        _scoped("sessions:write"),
    ),
    (_ANY, rf"{_SESSION}/terminal(/.*)?", _scoped("terminal")),
    (_READ, rf"({_SESSION}|/api/workspace)/files(/.*)?", _scoped("files:read")),
    (_ANY, rf"({_SESSION}|/api/workspace)/files(/.*)?", _scoped("files:write")),
    (_ANY, rf"{_SESSION}/ports/.*", _scoped("previews")),
    (_ANY, rf"{_SESSION}/browser(/.*)?|/api/session/[^/]+/browser/.*|/api/browser/.*", _scoped("browser")),
    (_READ, r"/api/ws/mux", _scoped("terminal", "files:read", "files:write")),
    (_READ, r"/api/(projects|templates)(/.*)?", _scoped("projects:read")),
    (_ANY, r"/api/(projects|templates)(/.*)?", _scoped("projects:write")),
    (_ANY, r"/api/admin(/.*)?|/metrics", ADMIN),
]
_RULES = [(re.compile(methods), re.compile(path, re.DOTALL), need) for methods, path, need in _TABLE]


def needed(method: str, path: str) -> Need:
    """Return what a request to /metrics or a path under /api needs; `path` is decoded, without the query.

    What nobody thought of is for people who logged in.
    """
    for methods, pattern, need in _RULES:
        if methods.fullmatch(method) and pattern.fullmatch(path):
            return need
    return PERSON
