"""/api/admin/invite-codes: who may register."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from oqtod.api import views
from oqtod.api.contract import Endpoint
from oqtod.api.requests import body, json, note, principal_of
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway

MAX_BATCH = 1000


class NewInvite(msgspec.Struct):
    """The body of POST /api/admin/invite-codes."""

    code: str | None = None
    max_uses: int = 1
    expires_in_secs: int | None = None
    note: str | None = None


class NewInvites(msgspec.Struct):
    """The body of POST /api/admin/invite-codes/batch."""

    count: int
    uses_per_code: int = 1
    expires_in_secs: int | None = None
    prefix: str | None = None
    note: str | None = None


class AdminInvites:
    """The endpoints. The gate has seen to it that an administrator asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the routes."""
        base, one = "/api/admin/invite-codes", "/api/admin/invite-codes/{invite_id}"
        return [
            Endpoint("GET", base, self.list_invites, answers={200: list[views.Invite]}),
            Endpoint(
                "POST",
                base,
                self.create,
                takes=NewInvite,
                answers={201: views.Invite},
                refuses=["conflict"],
            ),
            Endpoint(
                "POST",
                f"{base}/batch",
                self.create_batch,
                takes=NewInvites,
                answers={201: list[views.Invite]},
                refuses=["conflict"],
            ),
            Endpoint("GET", f"{base}/stats", self.stats, answers={200: views.InviteCounts}),
            Endpoint("GET", one, self.get, answers={200: views.Invite}),
            Endpoint("DELETE", one, self.delete, answers={204: None}),
            Endpoint("POST", f"{one}/revoke", self.revoke, answers={200: views.Invite}),
        ]

    async def list_invites(self, request: Request) -> Response:
        """List all codes, by their beginnings: the whole is known only to who made them."""
        return json([views.invite(invite) for invite in self._gateway.accounts.invites.all()])

    async def stats(self, request: Request) -> Response:
        """Count codes."""
        invites = self._gateway.accounts.invites.all()
        valid = sum(invite.is_valid for invite in invites)
        return json(views.InviteCounts(total=len(invites), valid=valid))

    async def create(self, request: Request) -> Response:
        """Make a code."""
        asked = await body(request, NewInvite)
        ((invite, code),) = await self._gateway.accounts.invites.make(
            principal_of(request).user.id,
            code=asked.code or None,
            max_uses=asked.max_uses,
            expires_in=asked.expires_in_secs,
            note=asked.note,
        )
        note(request, detail=f"invite {invite.id}")
        return json(views.invite(invite, code=code), status=201)

    async def create_batch(self, request: Request) -> Response:
        """Make many codes at once."""
        asked = await body(request, NewInvites)
        if not 1 <= asked.count <= MAX_BATCH:
            raise Refusal("bad_request", f"1 to {MAX_BATCH} codes can be made at once")
        made = await self._gateway.accounts.invites.make(
            principal_of(request).user.id,
            prefix=asked.prefix or None,
            max_uses=asked.uses_per_code,
            expires_in=asked.expires_in_secs,
            note=asked.note,
            count=asked.count,
        )
        note(request, detail=f"{len(made)} invites")
        return json([views.invite(invite, code=code) for invite, code in made], status=201)

    async def get(self, request: Request) -> Response:
        """Return one code."""
        return json(views.invite(self._gateway.accounts.invites.get(request.path_params["invite_id"])))

    async def revoke(self, request: Request) -> Response:
        """Make a code void."""
        invite = await self._gateway.accounts.invites.revoke(request.path_params["invite_id"])
        note(request, detail=f"invite {invite.id}")
        return json(views.invite(invite))

    async def delete(self, request: Request) -> Response:
        """Forget a code; it is void then."""
        invite_id = request.path_params["invite_id"]
        await self._gateway.accounts.invites.delete(invite_id)
        note(request, detail=f"invite {invite_id}")
        return Response(status_code=204)
