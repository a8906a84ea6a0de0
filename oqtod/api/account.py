"""/api/me and /api/keys: what people see and change of themselves."""

from __future__ import annotations

from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from oqtod.accounts.access import SCOPES
from oqtod.accounts.users import Changes
from oqtod.api import views
from oqtod.api.contract import Endpoint
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

    def routes(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint("GET", "/api/me", self.me, answers={200: views.User}),
            Endpoint(
                "PUT",
                "/api/me",
                self.update,
                takes=Profile,
                answers={200: views.User},
                refuses=["conflict", "not_found"],
            ),
            Endpoint("GET", "/api/keys", self.keys, answers={200: views.OwnApiKeys}),
            Endpoint(
                "POST",
                "/api/keys",
                self.make_key,
                takes=NewKey,
                answers={201: views.MadeApiKey},
                refuses=["conflict"],
            ),
            Endpoint("DELETE", "/api/keys/{key_id}", self.revoke_key, answers={204: None}),
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
        return json(views.OwnApiKeys(keys=[views.api_key(key) for key in keys], scopes=SCOPES))

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
        return json(views.made_api_key(key, text), status=201)

    async def revoke_key(self, request: Request) -> Response:
        """Make an API key void."""
        key = await self._gateway.accounts.keys.revoke(
            principal_of(request).user.id, request.path_params["key_id"]
        )
        self._gateway.accounts.connections.cut(lambda other: other.credential == key.id)
        note(request, detail=f"key {key.id}")
        return Response(status_code=204)
