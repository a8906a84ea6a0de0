"""GET /api/admin/audit: the audit log's last lines, and those to come as server-sent events.

An event without a name carries a line; `missed` says how many the client was too slow for. A follower is told
of lines that are written down: what becomes of the file meanwhile doesn't matter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import trio
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from oqtod.api.contract import Endpoint, Media
from oqtod.api.requests import json, note, query
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.telemetry.audit import EVENTS, Line
from oqtod.telemetry.audit_reading import Found, Wanted, essence_of, last_lines

MOST_LINES = 1000
"""Lines in one answer."""

_SETTLE = 1.0
_QUIET = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the stream."""


class AuditQuery(msgspec.Struct):
    """The query of GET /api/admin/audit."""

    limit: Annotated[int, msgspec.Meta(ge=0, le=MOST_LINES)] = 100
    user: str | UnsetType = UNSET
    event: (
        Annotated[str, msgspec.Meta(description="One, or all of a kind: `auth.login`, `auth`.")] | UnsetType
    ) = UNSET
    since: Annotated[str, msgspec.Meta(description="A time with its zone, RFC 3339.")] | UnsetType = UNSET
    follow: bool = False


class AuditLines(msgspec.Struct, frozen=True):
    """Lines of the audit log, oldest first; `complete` unless there may be older ones."""

    lines: list[Line]
    complete: bool


class AdminAudit:
    """The endpoint. The gate has seen to it that an administrator asks, and writes that down."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._audit = gateway.audit

    def routes(self) -> list[Endpoint]:
        """Return the route."""
        stream = Media("text/event-stream", "With `follow`: a line an event; `missed` counts lines left out.")
        return [
            Endpoint(
                "GET",
                "/api/admin/audit",
                self.audit,
                asks=AuditQuery,
                answers={200: (AuditLines, stream)},
                refuses=["not_found"],
            )
        ]

    async def audit(self, request: Request) -> Response:
        """Return the last lines of the audit log; with `follow=true` those to come too."""
        path = self._audit.path
        if path is None:
            raise Refusal("not_found", "no audit log is kept", "see logging.audit_enabled")
        asked = query(request, AuditQuery)
        wanted = Wanted(users=self._named(asked.user), event=_event(asked.event), since=_since(asked.since))
        told = {name: getattr(asked, name) for name in ("user", "event", "since", "follow")}
        chosen = [f"{name}={value}" for name, value in told.items() if value]
        note(request, detail=" ".join(["reads the audit log", *chosen]))
        if asked.follow:
            lines = self._followed(path, wanted, asked.limit)
            return StreamingResponse(
                lines, media_type="text/event-stream", headers={"cache-control": "no-store"}
            )
        await self._audit.settle(timeout=_SETTLE)
        found = await self._found(path, wanted, asked.limit)
        return json({"lines": [msgspec.Raw(line) for line in found.lines], "complete": found.complete})

    async def _found(self, path: Path, wanted: Wanted, limit: int) -> Found:
        try:
            return await trio.to_thread.run_sync(last_lines, path, wanted, limit)
        except OSError as error:
            raise Refusal("unavailable", f"the audit log can't be read: {error.strerror}") from error

    async def _followed(self, path: Path, wanted: Wanted, limit: int) -> AsyncIterator[bytes]:
        await self._audit.settle(timeout=_SETTLE)
        with self._audit.follow() as follower:
            try:
                found = await self._found(path, wanted, limit)
            except Refusal as refusal:
                yield b"event: error\ndata: %s\n\n" % msgspec.json.encode({"error": refusal.message})
                return
            for line in found.lines:
                yield b"data: %s\n\n" % line
            known = 2  # what was written while we read is told again, and what is being written may be
            while True:
                lines: list[bytes] = []
                missed = 0
                with trio.move_on_after(_QUIET):
                    lines, missed = await follower.next()
                if not lines:
                    yield b": still there\n\n"
                    continue
                for line in lines:
                    essence = essence_of(line)
                    if essence is None or (known and essence.timestamp <= found.newest):
                        continue
                    if wanted.fits(essence):
                        yield b"data: %s\n" % line  # which ends with a newline itself
                known = max(0, known - 1)
                if missed:
                    yield b'event: missed\ndata: {"lines": %d}\n\n' % missed

    def _named(self, name: str | UnsetType) -> frozenset[str] | None:
        """Return the ids of whom a name may mean: lines of users who are deleted stay."""
        if name is UNSET:
            return None
        try:
            return frozenset({name, self._gateway.accounts.users.named(name).id})
        except Refusal:
            return frozenset({name})


def _event(event: str | UnsetType) -> str | None:
    if event is UNSET:
        return None
    groups = {name.partition(".")[0] for name in EVENTS}
    if event not in EVENTS and event not in groups:
        raise Refusal(
            "bad_request",
            f"there is no event {event[:100]}",
            f"events are: {', '.join(EVENTS)}; or all of {', '.join(sorted(groups))}",
        )
    return event


def _since(text: str | UnsetType) -> str | None:
    if text is UNSET:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        hint = "like 2026-01-31T12:00:00Z; in a URL a + is written %2B"
        raise Refusal("bad_request", "since must be a time with its zone", hint) from error
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
