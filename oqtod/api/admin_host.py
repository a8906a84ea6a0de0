"""/api/admin/sessions, /stats and /metrics: what runs on the host, and how the host is."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import trio
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from oqtod import __version__
from oqtod.api import host_use, known, views
from oqtod.api.admin_users import counted
from oqtod.api.contract import RUNNER, Endpoint, Media
from oqtod.api.host_use import HostUse
from oqtod.api.requests import json, note, query
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import STATUSES, Session, Status


class Picked(msgspec.Struct):
    """The query of GET /api/admin/sessions."""

    user: str | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    usage: bool = False


class AdminHost:
    """The endpoints. The gate has seen to it that an administrator asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._host = HostUse(gateway)

    def routes(self) -> list[Endpoint]:
        """Return the routes."""
        one = "/api/admin/sessions/{key}"
        return [
            Endpoint(
                "GET",
                "/api/admin/sessions",
                self.list_sessions,
                asks=Picked,
                answers={200: list[views.Session]},
                refuses=["not_found"],
            ),
            Endpoint("GET", one, self.get, answers={200: views.Session}),
            Endpoint("DELETE", one, self.stop, answers={204: None}, refuses=RUNNER),
            Endpoint("POST", f"{one}/stop", self.stop, answers={204: None}, refuses=RUNNER),
            Endpoint("POST", f"{one}/resume", self.resume, answers={200: views.Session}, refuses=RUNNER),
            Endpoint("POST", f"{one}/delete", self.delete, answers={204: None}, refuses=RUNNER),
            Endpoint("GET", f"{one}/logs", self.logs, answers={200: views.SessionLogs}, refuses=RUNNER),
            Endpoint("GET", "/api/admin/stats", self.stats, answers={200: views.Stats}),
            Endpoint(
                "GET",
                "/api/admin/metrics",
                self.metrics,
                answers={
                    200: Media(
                        "text/event-stream", "A snapshot of the host, and of who uses it, every two seconds."
                    )
                },
            ),
        ]

    async def list_sessions(self, request: Request) -> Response:
        """List everybody's sessions, newest first; `?user=` and `?status=` pick some.

        With `?usage=true` the runners are asked what each takes, and how its services are.
        """
        asked = query(request, Picked)
        wanted = self._gateway.accounts.users.named(asked.user).id if asked.user is not UNSET else None
        sessions = [
            session
            for session in self._all()
            if wanted in (None, session.user_id) and asked.status in (UNSET, session.status)
        ]
        running = [x.user_id for x in sessions if x.status == "running"] if asked.usage else []
        statuses = await known.of_users(self._gateway, running)
        return json([views.session(x, self._gateway, statuses.get(x.id)) for x in sessions])

    async def get(self, request: Request) -> Response:
        """Return anybody's session, and what its runner says of it."""
        session = self._session(request)
        statuses = await known.of_user(self._gateway, session.user_id) if session.live else {}
        session = self._gateway.sessions.records.get(session.id)
        return json(views.session(session, self._gateway, statuses.get(session.id)))

    async def delete(self, request: Request) -> Response:
        """Forget anybody's session; a live one is stopped first.

        DELETE only stops: that is what the web UI's button sends.
        """
        session = self._session(request)
        note(request, detail=f"of {session.user_id}")
        session = await self._gateway.sessions.stop(session, reason="deleted by an administrator")
        await self._gateway.sessions.delete(session)
        return Response(status_code=204)

    async def logs(self, request: Request) -> Response:
        """Return what the services of a running session wrote to stdout and stderr of late, in lines.

        That is ttyd's or the file server's own reports; what people type or see is not in it.
        """
        session = self._session(request)
        logs = await self._gateway.sessions.runners.logs(session) if session.status == "running" else {}
        return json(
            views.SessionLogs(
                session_id=session.id,
                status=session.status,
                error_message=session.error_message,
                services={name: text.splitlines() for name, text in logs.items()},
            )
        )

    async def stop(self, request: Request) -> Response:
        """Stop anybody's session."""
        session = self._session(request)
        note(request, detail=f"of {session.user_id}")
        await self._gateway.sessions.stop(session, reason="stopped by an administrator")
        return Response(status_code=204)

    async def resume(self, request: Request) -> Response:
        """Start anybody's stopped session again."""
        session = self._session(request)
        note(request, detail=f"of {session.user_id}")
        return json(self._view(await self._gateway.sessions.resume(session)))

    async def stats(self, request: Request) -> Response:
        """Count users and sessions."""
        by_status = Counter(session.status for session in self._all())
        return json(
            views.Stats(
                version=__version__,
                users=counted(self._gateway.accounts.users.all()),
                sessions={status: by_status[status] for status in STATUSES},
                audit=self._gateway.audit.trouble or "ok",
            )
        )

    async def metrics(self, request: Request) -> Response:
        """Stream snapshots of the host and of who uses it, as server-sent events."""
        headers = {"cache-control": "no-store"}
        return StreamingResponse(self._snapshots(), media_type="text/event-stream", headers=headers)

    async def _snapshots(self) -> AsyncIterator[bytes]:
        while True:
            yield b"data: %s\n\n" % msgspec.json.encode(await self._host.snapshot())
            await trio.sleep(host_use.INTERVAL)

    def _all(self) -> list[Session]:
        records = self._gateway.sessions.records
        found = [
            session for user in self._gateway.accounts.users.all() for session in records.of_user(user.id)
        ]
        return sorted(found, key=lambda session: session.created_at, reverse=True)

    def _session(self, request: Request) -> Session:
        key = request.path_params["key"]
        for session in self._all():
            if key in (session.id, session.readable_id):
                return session
        raise Refusal("not_found", f"there is no session {key}")

    def _view(self, session: Session) -> views.Session:
        return views.session(session, self._gateway, None)
