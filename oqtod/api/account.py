"""/api/me and /api/keys: what people see and change of themselves."""

from __future__ import annotations

from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oqtod.accounts.access import SCOPES
from oqtod.accounts.users import Changes
from oqtod.api import views
from oqtod.api.requests import body, json, note, principal_of
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway


class Profile(msgspec.Struct):
    """The body of PUT /api/me; what is left out stays."""

    display_name: str | None = None
    email: str | None = None
    avatar_url: str | None = None


class NewKey(msgspec.Struct):
    """The body of POST /api/keys."""

    name: str
    scopes: list[str] | None = None
    expires_at: datetime | None = None


class Account:
    """The endpoints."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/me", self.me, methods=["GET"]),
            Route("/api/me", self.update, methods=["PUT"]),
            Route("/api/keys", self.keys, methods=["GET"]),
            Route("/api/keys", self.make_key, methods=["POST"]),
            Route("/api/keys/{key_id}", self.revoke_key, methods=["DELETE"]),
        ]

    async def me(self, request: Request) -> Response:
        """Say who is logged in."""
        return json(views.user(principal_of(request).user))

    async def update(self, request: Request) -> Response:
        """Change how somebody is shown."""
        user = principal_of(request).user
        asked = await body(request, Profile)
        if asked.email is not None and user.origin == "oidc" and asked.email != user.email:
            raise Refusal(
                "conflict", "the login provider says what your e-mail address is", "change it there"
            )
        changes = Changes(
            display_name=asked.display_name, email=asked.email or None, avatar_url=asked.avatar_url
        )
        return json(views.user(await self._gateway.accounts.users.change(user, changes)))

    async def keys(self, request: Request) -> Response:
        """List one's API keys."""
        keys = self._gateway.accounts.keys.of_user(principal_of(request).user.id)
        return json({"keys": [views.api_key(key) for key in keys], "scopes": SCOPES})

    async def make_key(self, request: Request) -> Response:
        """Make an API key. Its text is in this answer and nowhere else."""
        principal = principal_of(request)
        asked = await body(request, NewKey)
        key, text = await self._gateway.accounts.keys.make(
            principal.user.id,
            asked.name,
            scopes=asked.scopes,
            expires_at=asked.expires_at,
            admin=principal.is_admin,
        )
        note(request, detail=f"key {key.id}")
        return json({"api_key": text, **views.api_key(key)}, status=201)

    async def revoke_key(self, request: Request) -> Response:
        """Make an API key void."""
        key = await self._gateway.accounts.keys.revoke(
            principal_of(request).user.id, request.path_params["key_id"]
        )
        self._gateway.accounts.connections.cut(lambda other: other.credential == key.id)
        note(request, detail=f"key {key.id}")
        return Response(status_code=204)
