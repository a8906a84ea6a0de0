"""/api/gateway/authorize: a trusted proxy asks whether a request may pass, and where to hand it over.

The proxy describes the request in X-Forwarded-Method and X-Forwarded-Uri and passes its headers on. From then
on it is that request that is looked at: the gate finds out who asks, whether they may, and writes the audit
log, as for any other. docs/decisions/0008-previews-handed-over.md says why only previews are.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oqtod.api.contract import RUNNER, Endpoint
from oqtod.api.requests import principal_of
from oqtod.errors import Refusal
from oqtod.sessions import previews
from oqtod.sessions.context import Gateway

PATH = "/api/gateway/authorize"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_STATE = "handover"


def described(scope: dict[str, Any]) -> dict[str, Any]:
    """Return the request that a proxy asks about in place of the proxy's own; any other one as it is.

    Nobody but a trusted proxy has a scheme to forward. An upgrade is never handed over.
    """
    if scope["path"] != PATH or scope.get("forwarded_scheme") is None:
        return scope
    headers = scope["headers"]
    methods = [value for name, value in headers if name == b"x-forwarded-method"]
    uris = [value for name, value in headers if name == b"x-forwarded-uri"]
    upgrade = any(name == b"upgrade" for name, _ in headers)
    if len(methods) != 1 or len(uris) != 1 or upgrade or methods[0].decode("latin-1") not in METHODS:
        return scope
    target = previews.target(uris[0])
    if target is None:
        return scope
    raw_path, _, query = uris[0].partition(b"?")
    path = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    if not path.isprintable():
        return scope
    scope["state"] |= {_STATE: target, "audit_session": target.session}
    return {
        **scope,
        "method": methods[0].decode(),
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
    }


class Handover:
    """What is answered once the gate has let the described request through."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the route that proxies know."""
        answers = {204: None}
        refuses = (*RUNNER, "not_found")
        return [Endpoint("GET", PATH, self.unasked, answers=answers, refuses=refuses)]

    def previews(self) -> list[Route]:
        """Return the route: the preview's own path, which the byte path takes when a person asks for it."""
        return [Route("/api/sessions/{key}/ports/{rest:path}", self.authorize, methods=METHODS)]

    async def unasked(self, request: Request) -> Response:
        """Ask whether a request to a preview may pass, and where to.

        For reverse proxies that `server.trusted_proxies` names. The request is described in
        `X-Forwarded-Method` and `X-Forwarded-Uri`, and its credentials are passed on.
        """
        raise Refusal(
            "not_found",
            "this is for proxies that describe a request to a preview",
            "see server.trusted_proxies",
        )

    async def authorize(self, request: Request) -> Response:
        """Say with 204 where a request may pass to; after any other answer it is the gateway's to serve."""
        user = principal_of(request).user
        target = request.scope["state"].get(_STATE)
        if not isinstance(target, previews.Target):
            raise Refusal("not_found", f"there is nothing at {request.url.path}")
        session = self._gateway.sessions.records.find(user.id, target.session)
        address = await previews.address(self._gateway.sessions, session, target.port)
        headers = {
            "cache-control": "no-store",
            "x-oqto-upstream": address,
            "x-oqto-path": target.path,
            "x-oqto-prefix": target.prefix,
            "x-oqto-policy": previews.POLICY,
        }
        return Response(status_code=204, headers=headers)
