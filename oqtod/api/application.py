"""The API's routes, and the web page beside them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from oqtod.accounts.principal import Principal
from oqtod.accounts.users import User
from oqtod.api import events, handover, known, requests, views
from oqtod.api.account import Account
from oqtod.api.admin_audit import AdminAudit
from oqtod.api.admin_host import AdminHost
from oqtod.api.admin_invites import AdminInvites
from oqtod.api.admin_ports import AdminPorts
from oqtod.api.admin_runners import AdminRunners
from oqtod.api.admin_users import AdminUsers
from oqtod.api.auth import Auth
from oqtod.api.browser import Browser
from oqtod.api.contract import RUNNER, Endpoint, Media
from oqtod.api.gate import Gate
from oqtod.api.health import Health
from oqtod.api.metrics import Metrics
from oqtod.api.openapi import OpenApi
from oqtod.api.proxied import PROXIED
from oqtod.api.requests import body, json, principal_of
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session
from oqtod.store.database import StorageError
from runner.terminal.assets import asset

_MAX_ENVIRONMENT = 100


class NewSession(msgspec.Struct):
    """The body of POST /api/sessions and its get-or-create relatives."""

    workspace_path: str | None = None
    image: str | None = None
    env: dict[str, str] = {}


class Api:
    """The endpoints of one gateway."""

    def __init__(self, gateway: Gateway, frontend: Path | None) -> None:
        self._gateway = gateway
        self._frontend = frontend

    def routes(self) -> list[Endpoint]:
        """Return the routes of the API, its description's too."""
        routes = [
            *Health(self._gateway).routes(),
            Endpoint("GET", "/api/features", self.features, answers={200: views.Features}),
            *Auth(self._gateway).routes(),
            *Account(self._gateway).routes(),
            *AdminUsers(self._gateway).routes(),
            *AdminInvites(self._gateway).routes(),
            *AdminHost(self._gateway).routes(),
            *AdminRunners(self._gateway).routes(),
            *AdminPorts(self._gateway).routes(),
            *Browser(self._gateway).routes(),
            *handover.Handover(self._gateway).routes(),
            *AdminAudit(self._gateway).routes(),
            *Metrics(self._gateway).routes(),
            *self._sessions(),
        ]
        description = OpenApi(routes, PROXIED)
        return routes + description.routes()

    def application(self) -> Gate:
        """Return the ASGI application."""
        routes = [*self.routes(), *handover.Handover(self._gateway).previews()]
        page = _Page("/{path:path}", self.page, methods=["GET"])
        handlers: dict[object, object] = {
            Refusal: requests.refused,
            StorageError: requests.storage_failed,
            HTTPException: requests.http_failed,
            Exception: requests.went_wrong,
        }
        application = Starlette(routes=[*routes, page], exception_handlers=handlers)  # type: ignore[arg-type]  # its handlers' type is narrower than what it calls
        application.router.redirect_slashes = False  # to an address made of the Host header
        return Gate(self._gateway, application, routes)

    def _sessions(self) -> list[Endpoint]:
        base, one = "/api/sessions", "/api/sessions/{key}"
        shown = {200: views.Session}
        events = Media("text/event-stream", "Events `session`, `idle` and `end`.")
        page, asset = Media("text/html", "The terminal's page."), Media("*/*", "What the page is made of.")
        return [
            Endpoint("GET", base, self.list_sessions, answers={200: list[views.Session]}),
            Endpoint(
                "POST",
                base,
                self.create,
                takes=NewSession,
                answers={201: views.Session},
                refuses=RUNNER,
            ),
            *(
                Endpoint(
                    "POST",
                    f"{base}/{name}",
                    self.get_or_create,
                    takes=NewSession,
                    answers=shown,
                    refuses=RUNNER,
                )
                for name in ("get-or-create", "get-or-create-for-workspace")
            ),
            Endpoint("GET", one, self.get, answers=shown),
            Endpoint("DELETE", one, self.delete, answers={204: None}, refuses=RUNNER),
            Endpoint("POST", f"{one}/stop", self.stop, answers={204: None}, refuses=RUNNER),
            Endpoint("POST", f"{one}/resume", self.resume, answers=shown, refuses=RUNNER),
            Endpoint("POST", f"{one}/activity", self.activity, answers={204: None}),
            Endpoint("GET", f"{one}/events", self.events, answers={200: events}),
            Endpoint("GET", f"{one}/terminal", self.terminal_folder, answers={307: None}),
            Endpoint("GET", f"{one}/terminal/", self.terminal_page, answers={200: page}, refuses=RUNNER),
            Endpoint("GET", f"{one}/terminal/static/{{asset}}", self.terminal_asset, answers={200: asset}),
        ]

    async def features(self, request: Request) -> Response:
        """Say what the web UI can count on."""
        sessions = self._gateway.config.sessions
        attach = "resume" if sessions.auto_attach == "on" else sessions.auto_attach
        return json(
            views.Features(
                session_auto_attach=attach,
                session_auto_attach_scan=sessions.auto_attach_scan,
                agent_browser_enabled=self._gateway.config.agent_browser.enabled,
                websocket_events=True,
                mmry_enabled=False,
            )
        )

    async def list_sessions(self, request: Request) -> Response:
        """List the user's own sessions."""
        user = self._principal(request).user
        statuses = await known.of_user(self._gateway, user.id)
        sessions = self._gateway.sessions.records.of_user(user.id)
        return json([views.session(session, self._gateway, statuses.get(session.id)) for session in sessions])

    async def create(self, request: Request) -> Response:
        """Make and start a session."""
        user = self._principal(request).user
        asked = await body(request, NewSession)
        session = await self._gateway.sessions.create(
            user.id,
            workspace_path=asked.workspace_path,
            image=asked.image,
            environment=_environment(asked.env),
        )
        return json(await self._view(session), status=201)

    async def get_or_create(self, request: Request) -> Response:
        """Return the running session, else resume the newest stopped one, else create one."""
        user = self._principal(request).user
        asked = await body(request, NewSession)
        session = await self._gateway.sessions.get_or_create(user.id, workspace_path=asked.workspace_path)
        return json(await self._view(session))

    async def get(self, request: Request) -> Response:
        """Return one session."""
        return json(await self._view(self._session(request)))

    async def delete(self, request: Request) -> Response:
        """Forget a session that is not live."""
        await self._gateway.sessions.delete(self._session(request))
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        """End a session's processes."""
        await self._gateway.sessions.stop(self._session(request))
        return Response(status_code=204)

    async def resume(self, request: Request) -> Response:
        """Start a stopped session again."""
        return json(await self._view(await self._gateway.sessions.resume(self._session(request))))

    async def activity(self, request: Request) -> Response:
        """Note that the person is there."""
        session = self._session(request)
        self._gateway.sessions.activity.note(session.id)
        await self._gateway.sessions.activity.flush()
        self._gateway.sessions.events.ring(session.id)
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        """Stream what becomes of a session, as server-sent events."""
        session = self._session(request)
        return StreamingResponse(
            events.stream(self._gateway, session, self._view),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    async def terminal_folder(self, request: Request) -> Response:
        """Send on to the terminal's page: what that is made of lies beside it."""
        self._session(request)
        return RedirectResponse("terminal/", 307)

    async def terminal_page(self, request: Request) -> Response:
        """Serve the terminal's page, which is ours, once the terminal itself has started."""
        (await self._gateway.sessions.open(self._session(request), "terminal")).close()
        return _asset("index.html")

    async def terminal_asset(self, request: Request) -> Response:
        """Serve what the terminal's page is made of."""
        self._session(request)
        return _asset(request.path_params["asset"])

    async def page(self, request: Request) -> Response:
        """Serve the web page: a file of the frontend's folder, else its index.html."""
        path = request.path_params["path"]
        if self._frontend is None:
            raise Refusal("not_found", f"there is nothing at {request.url.path}")
        root = self._frontend.resolve()
        try:
            file = (root / path).resolve()
            if not file.is_relative_to(root) or not file.is_file():
                file = root / "index.html"
        except OSError:  # too long a name
            file = root / "index.html"
        if not file.is_file():
            raise Refusal("not_found", f"there is no page in {root}", "see server.frontend_dir")
        return FileResponse(file)

    def _principal(self, request: Request) -> Principal:
        return principal_of(request)

    def _session(self, request: Request) -> Session:
        user: User = self._principal(request).user
        return self._gateway.sessions.records.find(user.id, request.path_params["key"])

    async def _view(self, session: Session) -> views.Session:
        if session.status != "running":
            return views.session(session, self._gateway, None)
        statuses = await known.of_user(self._gateway, session.user_id)
        return views.session(
            self._gateway.sessions.records.get(session.id), self._gateway, statuses.get(session.id)
        )


class _Page(Route):
    """Everything but the API."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether a request is for the page."""
        path: str = scope["path"]
        if path == "/api" or path.startswith("/api/"):
            return Match.NONE, {}
        return super().matches(scope)


def _environment(asked: dict[str, str]) -> dict[str, str]:
    for name, value in asked.items():
        if not name.isidentifier() or not name.isascii() or "\0" in value or len(asked) > _MAX_ENVIRONMENT:
            raise Refusal("bad_request", f"{name!r} can't be set in the environment")
    return asked


def _asset(name: str) -> Response:
    found = asset(name)
    if found is None:
        raise Refusal("not_found", f"there is no {name}")
    content, media_type = found
    return Response(content, media_type=media_type)
