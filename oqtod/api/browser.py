"""/api/browser: a session's browser is opened at a page, and told where to go.

What it shows, and what the person types, goes over its stream: see `oqtod.gateway.targets`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from oqtod.api import views
from oqtod.api.contract import RUNNER, Endpoint
from oqtod.api.requests import body, json, principal_of
from oqtod.errors import Refusal
from oqtod.sessions.browsers import CommandFailed
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session

_LONGEST_URL = 16_384
_SCHEMES = ("http", "https", "file", "about", "data", "blob")

_THE_PAGES_OWN = ("navigation", "timeout", "dialog")
"""Why a page may not be there, where the browser is, and shows what it has to say about that."""

Pixels = Annotated[float, msgspec.Meta(ge=100, le=4096)]
"""CSS pixels, of which a page may measure fractions; rounded."""


class Start(msgspec.Struct):
    """The body of POST /api/browser/start."""

    url: str
    workspace_path: str | None = None
    session_id: str | None = None
    viewport_width: Pixels | None = None
    viewport_height: Pixels | None = None


class Action(msgspec.Struct):
    """The body of POST /api/browser/action; `url` belongs to `navigate`."""

    session_id: str
    action: Literal["back", "forward", "reload", "close", "navigate"]
    url: str | None = None


class Browser:
    """The endpoints."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the routes."""
        refuses = [*RUNNER, "not_found"]
        return [
            Endpoint(
                "POST",
                "/api/browser/start",
                self.start,
                takes=Start,
                answers={200: views.BrowserStarted},
                refuses=refuses,
            ),
            Endpoint(
                "POST",
                "/api/browser/action",
                self.action,
                takes=Action,
                answers={204: None},
                refuses=refuses,
            ),
            *(
                Endpoint("GET", f"{one}/browser/stream", self.stream, answers={101: None}, refuses=RUNNER)
                for one in ("/api/sessions/{key}", "/api/session/{key}")
            ),
        ]

    async def start(self, request: Request) -> Response:
        """Open a page in a session's browser; the session is found or started by its workspace.

        A page that can't be loaded is told in `error`: the browser is there, and shows it too.
        """
        asked = await body(request, Start)
        url = _checked(asked.url)
        session = await self._session(principal_of(request).user.id, asked)
        if asked.viewport_width is not None and asked.viewport_height is not None:
            size = str(round(asked.viewport_width)), str(round(asked.viewport_height))
            await self._gateway.browsers.command(session, "set", "viewport", *size)
        error: str | msgspec.UnsetType = msgspec.UNSET
        try:
            await self._gateway.browsers.command(session, "open", url)
        except CommandFailed as failed:
            if failed.reason not in _THE_PAGES_OWN:
                raise
            error = failed.message
        return json(views.BrowserStarted(session_id=session.id, error=error))

    async def action(self, request: Request) -> Response:
        """Move in the history, reload, go to a page, or end the browser."""
        asked = await body(request, Action)
        session = self._gateway.sessions.records.find(principal_of(request).user.id, asked.session_id)
        if asked.action == "close":
            await self._gateway.browsers.close(session)
        elif asked.action == "navigate":
            if asked.url is None:
                raise Refusal("bad_request", "navigate needs a url")
            await self._gateway.browsers.command(session, "open", _checked(asked.url))
        else:
            await self._gateway.browsers.command(session, asked.action)
        return Response(status_code=204)

    async def stream(self, request: Request) -> Response:
        """Watch the session's browser and use it, over a WebSocket: JSON texts, see docs/browser.md.

        An upgrade goes to the session's browser; here is who comes without one.
        """
        self._gateway.sessions.records.find(principal_of(request).user.id, request.path_params["key"])
        raise Refusal("bad_request", "this is a WebSocket", "connect with a client that upgrades")

    async def _session(self, user_id: str, asked: Start) -> Session:
        if asked.session_id is not None:
            try:
                found = self._gateway.sessions.records.find(user_id, asked.session_id)
            except Refusal:
                if asked.workspace_path is None:
                    raise
            else:
                return await self._gateway.sessions.resume(found)
        return await self._gateway.sessions.get_or_create(user_id, workspace_path=asked.workspace_path)


def _checked(url: str) -> str:
    """Return a URL that a person may send a browser to. Raises Refusal."""
    scheme = re.match(r"([a-z][a-z0-9+.-]*):", url, re.IGNORECASE)
    if scheme is None or scheme[1].lower() not in _SCHEMES:
        known = ", ".join(_SCHEMES)
        raise Refusal("bad_request", "this is no URL for a browser", f"write it with its scheme: {known}")
    if len(url) > _LONGEST_URL or any(ord(letter) < 32 for letter in url):
        raise Refusal("bad_request", f"a URL has at most {_LONGEST_URL} characters, and none of control")
    return url
