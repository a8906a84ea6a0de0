"""Previews, the programs on the ports of a session: which requests are for one, and where it is."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from oqtod.accounts.authenticator import is_credential
from oqtod.errors import Refusal
from oqtod.sessions import ports
from oqtod.sessions.lifecycle import Lifecycle
from oqtod.sessions.model import Session

POLICY = "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"
"""The Content-Security-Policy of all that a preview sends: it runs, with an origin that nobody else has."""

PATTERN = re.compile(
    rb"(/api/sessions/([A-Za-z0-9_-]{1,64})/ports/([0-9]{1,5}))(/[^?]*)?(?:\?(.*))?", re.DOTALL
)
"""A request's target that is a preview's: what its own paths are below, session, port, path, query."""

_SO_NETNS_COOKIE = 71  # asm-generic/socket.h; Python has no name for it
_COOKIE_SIZE = 8


@dataclass(frozen=True, slots=True)
class Target:
    """A request's target that is a preview's. Its own paths are below `prefix`; `path` has the query, too."""

    session: str
    port: int
    prefix: str
    path: str


def target(uri: bytes) -> Target | None:
    """Return what a request's target asks of a preview; None for others, and where it bears credentials."""
    match = PATTERN.fullmatch(uri)
    if match is None or any(map(is_credential, (match[5] or b"").split(b"&"))):
        return None
    path = (match[4] or b"/") + (b"?" + match[5] if match[5] else b"")
    return Target(match[2].decode(), int(match[3]), match[1].decode(), path.decode("latin-1"))


def check(session: Session, port: int) -> None:
    """Refuse a port that isn't the session's. Raises Refusal."""
    if session.port_base is None or port not in ports.preview_ports(session.port_base):
        raise Refusal(
            "not_found",
            f"port {port} is none of the session's",
            "its ports are in $OQTO_PORTS, and in the session's preview_ports",
        )


async def address(sessions: Lifecycle, session: Session, port: int) -> str:
    """Return host and port of a preview that another process of this host can connect to by itself.

    The account's runner connects first, so whose program it is has been looked at. Raises Refusal: not_found
    for a port of another session, bad_gateway where nothing listens, forbidden where another account does,
    and conflict where only a runner gets to it, in a network of the session's own.
    """
    check(session, port)
    with await sessions.open_port(session, port) as connected:
        if not _is_in_our_network(connected):
            raise Refusal("conflict", f"port {port} is in the sandbox's own network")
        host, number = connected.getpeername()[:2]
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def _is_in_our_network(connected: socket.socket) -> bool:
    """Say whether a socket is of our own network namespace: SO_NETNS_COOKIE, socket(7)."""
    with socket.socket() as ours:
        cookies = {
            found.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE_SIZE) for found in (ours, connected)
        }
    return len(cookies) == 1
