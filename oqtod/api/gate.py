"""What every request to the API passes: is it for us, by whom, may they, and what came of it."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute

from oqtod.accounts import access
from oqtod.accounts.authenticator import Asked
from oqtod.accounts.principal import Principal
from oqtod.accounts.trail import Trail, actor_of
from oqtod.api import handover, requests
from oqtod.api.requests import methods_at
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway
from oqtod.telemetry.audit import Line, Outcome
from runner.protocol.rpc import CallFailed

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_PREFLIGHT_AGE = b"600"
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_HEADERS = "authorization, content-type, x-api-key"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KEY = r"(?P<session>[^/]+)"
_AUDITED = [
    (re.compile(methods), re.compile(path), event)
    for methods, path, event in (
        ("POST", "/api/auth/login", "auth.login"),
        ("POST", "/api/auth/logout", "auth.logout"),
        ("POST", "/api/auth/register", "auth.register"),
        ("POST", "/api/auth/change-password", "auth.password_change"),
        ("POST", "/api/auth/ticket", "auth.ticket"),
        ("GET", "/api/auth/oidc/callback", "auth.oidc_login"),
        ("PUT", "/api/me", "account.update"),
        ("POST", "/api/keys|/api/admin/users/[^/]+/keys", "key.create"),
        ("DELETE", "/api/keys/[^/]+|/api/admin/users/[^/]+/keys/[^/]+", "key.revoke"),
        ("POST", "/api/sessions(/get-or-create(-for-workspace)?)?", "session.create"),
        ("POST", f"/api(/admin)?/sessions/{_KEY}/resume", "session.resume"),
        ("POST", f"/api(/admin)?/sessions/{_KEY}/stop", "session.stop"),
        ("DELETE", f"/api/sessions/{_KEY}", "session.delete"),
        ("DELETE", f"/api/admin/sessions/{_KEY}", "session.stop"),
        ("POST", f"/api/admin/sessions/{_KEY}/delete", "session.delete"),
        ("POST", "/api/admin/runners/[^/]+/restart", "runner.restart"),
        ("POST", "/api/admin/users", "user.create"),
        ("POST", "/api/admin/users/[^/]+/(activate|enable)", "user.enable"),
        ("POST", "/api/admin/users/[^/]+/(deactivate|disable)", "user.disable"),
        ("DELETE", "/api/admin/users/[^/]+", "user.delete"),
        ("PUT|POST", "/api/admin/users/.+", "user.update"),
        ("POST", "/api/admin/invite-codes(/batch)?", "invite.create"),
        ("POST|DELETE", "/api/admin/invite-codes/.+", "invite.revoke"),
        ("[A-Z]+", "/api/admin(/.*)?", "admin.request"),
    )
]
"""Which requests are events of the audit log, besides those that are denied."""


class Gate:
    """ASGI: lets requests through to `application`."""

    def __init__(self, gateway: Gateway, application: Application, routes: Sequence[BaseRoute]) -> None:
        self._gateway = gateway
        self.routes = routes
        """What there is under /api."""
        self._application = application
        self._trail = Trail(gateway.audit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        bodiless = scope["method"] == "HEAD"
        scope = handover.described(scope)
        state = scope["state"]
        asked = Asked.of(scope["method"], scope["query_string"], scope["headers"])
        cors = self._cors(asked)
        begun = time.monotonic()
        status = 0

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in cors.items():
                    headers.append(name, value)
                message = {**message, "headers": headers.raw}
            elif bodiless:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._serve(scope, receive, answer, asked)
        except Refusal as refusal:
            state["refusal"] = refusal
            if status:
                raise
            response = requests.error(state["request_id"], refusal)
            await response(scope, receive, answer)
        finally:
            self._record(scope, status, (time.monotonic() - begun) * 1000)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, asked: Asked) -> None:
        path, state = scope["path"], scope["state"]
        authenticator = self._gateway.accounts.authenticator
        trusted = isinstance(state.get("principal"), Principal)  # a process at the admin socket
        if not trusted:
            authenticator.check_host(asked)
        if _CONTROL.search(path):
            raise Refusal("bad_request", "there are control characters in the path")
        if path not in ("/api", "/metrics") and not path.startswith("/api/"):
            await self._application(scope, receive, send)
            return
        if asked.method == "OPTIONS":
            await self._preflight(asked)(scope, receive, send)
            return
        allowed = methods_at(self.routes, scope)
        if allowed and asked.method not in allowed:
            await self._application(scope, receive, send)  # which says so
            return
        need = access.needed(asked.method, path)
        if need.level == "public":
            if asked.method not in ("GET", "HEAD") and not trusted:
                authenticator.check_page(asked)
            await self._application(scope, receive, send)
            return
        try:
            principal = state["principal"] if trusted else await authenticator.authenticate(asked)
        except Refusal as refusal:
            if refusal.code == "unauthorized" and need.level != "admin" and not allowed:
                raise Refusal("not_found", f"there is nothing at {path}") from refusal
            raise
        state["principal"] = principal
        authenticator.authorize(principal, need)
        with ExitStack() as held:
            if asked.method == "GET" and not trusted:
                held.enter_context(self._gateway.accounts.connections.held(principal))
            await self._application(scope, receive, send)

    def _cors(self, asked: Asked) -> dict[str, str]:
        """Return what lets a page of `auth.allowed_origins` read the answer."""
        if asked.origin is None:
            return {}
        if not self._gateway.accounts.origins.is_allowed(asked.origin):
            return {"vary": "Origin"}
        return {
            "vary": "Origin",
            "access-control-allow-origin": asked.origin,
            "access-control-allow-credentials": "true",
            "access-control-expose-headers": "x-request-id, retry-after",
        }

    def _preflight(self, asked: Asked) -> Response:
        """Answer a preflight request (the Fetch standard's CORS protocol)."""
        if asked.origin is None or not self._gateway.accounts.origins.may_act(asked.origin, asked.host):
            raise Refusal("forbidden", "pages of this origin may not do this", "see auth.allowed_origins")
        headers = {
            "access-control-allow-methods": _METHODS,
            "access-control-allow-headers": _HEADERS,
            "access-control-max-age": _PREFLIGHT_AGE.decode(),
        }
        return Response(status_code=204, headers=headers)

    def _record(self, scope: Scope, status: int, duration_ms: float) -> None:
        state, method, path = scope["state"], scope["method"], scope["path"]
        event, session = _event(method, path)
        refusal = state.get("refusal")
        if refusal is not None and _is_sandbox(refusal):
            event = "sandbox.refused"
        if event is None or (status in (401, 403) and not event.startswith("auth.")):
            if status not in (401, 403):
                return
            event = "request.denied"
        principal = state.get("principal")
        outcome: Outcome = "success" if 0 < status < 400 else "failure"
        if status in (401, 403, 429):
            outcome = "denied"
        detail = state.get("audit_detail") or (refusal.message if refusal is not None else None)
        self._trail.write(
            Line(
                event=event,
                outcome=outcome,
                request_id=state["request_id"],
                actor=actor_of(principal, scope["client"][0]),
                user_id=state.get("audit_user") or (principal.user.id if principal is not None else None),
                method=method,
                path=path,
                status=status or None,
                duration_ms=round(duration_ms, 1),
                session_id=state.get("audit_session") or session,
                detail=detail,
            )
        )


def _event(method: str, path: str) -> tuple[str | None, str | None]:
    """Return the event that a request is, and the session it names."""
    for methods, pattern, event in _AUDITED:
        match = pattern.fullmatch(path)
        if match is not None and methods.fullmatch(method):
            return event, match.groupdict().get("session")
    return None, None


def _is_sandbox(refusal: Refusal) -> bool:
    return isinstance(refusal.__cause__, CallFailed) and refusal.__cause__.code == "sandbox_refused"
