"""What goes into the audit log of a request: who did it, and texts of others cut to a length."""

from __future__ import annotations

import msgspec

from oqtod.accounts.principal import Principal
from oqtod.telemetry.audit import Actor, Audit, Line

_LONGEST = 500


class Trail:
    """Writes lines to an audit log."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def write(self, line: Line) -> None:
        """Write a line, with what others chose the length of cut."""
        cut = {
            name: value[:_LONGEST]
            for name in ("path", "detail", "session_id", "method")
            if (value := getattr(line, name)) is not None and len(value) > _LONGEST
        }
        self._audit.write(msgspec.structs.replace(line, **cut) if cut else line)


def actor_of(principal: Principal | None, address: str) -> Actor:
    """Return who does something."""
    if principal is None:
        return Actor("anonymous", ip=address)
    if principal.kind == "socket":
        return Actor("socket", uid=principal.uid)
    return Actor(principal.kind, ip=address)
