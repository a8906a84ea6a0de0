"""/api/admin/users: the platform's users, as administrators see and change them."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from oqtod.accounts import passwords
from oqtod.accounts.users import Changes, NewUser, Role, User, check
from oqtod.api import views
from oqtod.api.account import NewKey
from oqtod.api.contract import RUNNER, Endpoint
from oqtod.api.requests import body, json, note, principal_of, query
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway


class Newcomer(msgspec.Struct):
    """The body of POST /api/admin/users. `provision` makes the Linux account at once."""

    username: str
    email: str | None = None
    password: str | None = None
    display_name: str | None = None
    role: Role = "user"
    provision: bool = False


class Update(msgspec.Struct):
    """The body of PUT /api/admin/users/{id}; what is left out stays."""

    username: str | None = None
    email: str | None = None
    password: str | None = None
    display_name: str | None = None
    avatar_url: str | None = None
    role: Role | None = None
    is_active: bool | None = None


class NewPassword(msgspec.Struct):
    """The body of POST /api/admin/users/{id}/password."""

    password: str


class Deletion(msgspec.Struct):
    """The query of DELETE /api/admin/users/{id}."""

    remove_home: bool = False


class AdminUsers:
    """The endpoints. The gate has seen to it that an administrator asks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the routes. A user is named by id or user name."""
        base, one = "/api/admin/users", "/api/admin/users/{name}"
        user = {200: views.AdminUser}
        return [
            Endpoint("GET", base, self.list_users, answers={200: list[views.AdminUser]}),
            Endpoint(
                "POST",
                base,
                self.create,
                takes=Newcomer,
                answers={201: views.AdminUser},
                refuses=["conflict", *RUNNER],
            ),
            Endpoint("GET", f"{base}/stats", self.stats, answers={200: views.UserCounts}),
            Endpoint("GET", one, self.get, answers={200: views.AdminUser}),
            Endpoint(
                "PUT",
                one,
                self.update,
                takes=Update,
                answers={200: views.AdminUser},
                refuses=["conflict", *RUNNER],
            ),
            Endpoint(
                "DELETE",
                one,
                self.delete,
                asks=Deletion,
                answers={204: None},
                refuses=["conflict", *RUNNER],
            ),
            *(
                Endpoint("POST", f"{one}/{verb}", self.enable, answers=user, refuses=["conflict"])
                for verb in ("activate", "enable")
            ),
            *(
                Endpoint("POST", f"{one}/{verb}", self.disable, answers=user, refuses=["conflict", *RUNNER])
                for verb in ("deactivate", "disable")
            ),
            Endpoint("POST", f"{one}/password", self.set_password, takes=NewPassword, answers={204: None}),
            Endpoint("POST", f"{one}/provision", self.provision, answers=user, refuses=["conflict", *RUNNER]),
            Endpoint("GET", f"{one}/keys", self.keys, answers={200: views.ApiKeys}),
            Endpoint(
                "POST",
                f"{one}/keys",
                self.make_key,
                takes=NewKey,
                answers={201: views.MadeApiKey},
                refuses=["conflict"],
            ),
            Endpoint("DELETE", f"{one}/keys/{{key_id}}", self.revoke_key, answers={204: None}),
        ]

    async def list_users(self, request: Request) -> Response:
        """List all users."""
        return json([self._view(user) for user in self._gateway.accounts.users.all()])

    async def stats(self, request: Request) -> Response:
        """Count users."""
        return json(counted(self._gateway.accounts.users.all()))

    async def get(self, request: Request) -> Response:
        """Return one user, with what identifies the user elsewhere."""
        user = self._named(request)
        identities = [
            views.Identity(issuer=issuer, subject=subject)
            for issuer, subject in self._gateway.accounts.identities.of_user(user.id)
        ]
        return json(replace(self._view(user), identities=identities))

    async def create(self, request: Request) -> Response:
        """Make a user; with `provision` the Linux account too, or neither."""
        asked = await body(request, Newcomer)
        email = asked.email or f"{asked.username}@localhost"
        new = NewUser(
            username=asked.username,
            email=email,
            display_name=asked.display_name or asked.username,
            role=asked.role,
        )
        check(new)
        if asked.password is not None:
            password_hash = await self._hashed(asked.password, new.username, email, new.display_name)
            new = replace(new, password_hash=password_hash)
        user = await self._gateway.accounts.users.add(new)
        note(request, detail=f"{user.id} as {user.role}")
        account = None
        if asked.provision:
            try:
                account = (await self._gateway.sessions.runners.address(user.id)).account
            except Refusal:
                await self._gateway.accounts.users.shut_out(user)
                await self._gateway.departures.leave(user.id, remove_account=True)
                raise
        return json(replace(self._view(user), linux_user=account), status=201)

    async def update(self, request: Request) -> Response:
        """Change a user. Another role or password voids the user's tokens."""
        user = self._named(request)
        asked = await body(request, Update)
        if asked.role not in (None, user.role) or asked.is_active is False:
            self._not_oneself(request, user)
        password_hash = None
        if asked.password:
            password_hash = await self._hashed(
                asked.password,
                user.username,
                asked.email or user.email,
                asked.display_name or user.display_name,
            )
        changes = Changes(
            username=asked.username,
            email=asked.email or None,
            display_name=asked.display_name,
            avatar_url=asked.avatar_url,
            role=asked.role,
            password_hash=password_hash,
        )
        changed = await self._gateway.accounts.users.change(user, changes)
        if changed.generation != user.generation:
            self._gateway.accounts.connections.cut_user(user.id)
        if asked.is_active is True and not user.is_active:
            changed = await self._gateway.accounts.users.enable(changed)
        elif asked.is_active is False and user.is_active:
            changed = await self._disable(changed)
        given = [name for name in Update.__struct_fields__ if getattr(asked, name) is not None]
        note(request, detail=f"{user.id}: {', '.join(given)}")
        return json(self._view(changed))

    async def set_password(self, request: Request) -> Response:
        """Give a user another password, and void all tokens."""
        user = self._named(request)
        asked = await body(request, NewPassword)
        password_hash = await self._hashed(asked.password, user.username, user.email, user.display_name)
        await self._gateway.accounts.users.change(user, Changes(password_hash=password_hash))
        self._gateway.accounts.connections.cut_user(user.id)
        note(request, detail=f"{user.id}: password")
        return Response(status_code=204)

    async def enable(self, request: Request) -> Response:
        """Let a user in again."""
        user = self._named(request)
        note(request, detail=user.id)
        return json(self._view(await self._gateway.accounts.users.enable(user)))

    async def disable(self, request: Request) -> Response:
        """Shut a user out, and end what the user runs."""
        user = self._named(request)
        self._not_oneself(request, user)
        note(request, detail=user.id)
        return json(self._view(await self._disable(user)))

    async def delete(self, request: Request) -> Response:
        """Delete a user with everything but the home, and with `?remove_home=true` the home too."""
        user = self._named(request)
        self._not_oneself(request, user)
        if user.origin == "config" and user.configured is not None:
            raise Refusal(
                "conflict",
                f"{user.username} stands in auth.dev_users of the configuration",
                "take the user out there, and restart oqtod",
            )
        remove_home = query(request, Deletion).remove_home
        note(request, detail=f"{user.id}{', with the home' if remove_home else ''}")
        await self._end(user, remove_account=True, remove_home=remove_home)
        return Response(status_code=204)

    async def provision(self, request: Request) -> Response:
        """Make a user's Linux account now."""
        user = self._named(request)
        if not user.is_active:
            raise Refusal("conflict", f"{user.username} is disabled")
        address = await self._gateway.sessions.runners.address(user.id)
        note(request, detail=f"{user.id}: {address.account}")
        return json(replace(self._view(user), linux_user=address.account, uid=address.uid))

    async def keys(self, request: Request) -> Response:
        """List a user's API keys."""
        keys = self._gateway.accounts.keys.of_user(self._named(request).id)
        return json(views.ApiKeys(keys=[views.api_key(key) for key in keys]))

    async def make_key(self, request: Request) -> Response:
        """Make an API key for a user."""
        user = self._named(request)
        asked = await body(request, NewKey)
        key, text = await self._gateway.accounts.keys.make(
            user.id,
            asked.name,
            scopes=asked.scopes,
            expires_at=asked.expires_at,
            admin=user.role == "admin",
        )
        note(request, detail=f"key {key.id} for {user.id}")
        return json(views.made_api_key(key, text), status=201)

    async def revoke_key(self, request: Request) -> Response:
        """Make a user's API key void."""
        key = await self._gateway.accounts.keys.revoke(self._named(request).id, request.path_params["key_id"])
        self._gateway.accounts.connections.cut(lambda other: other.credential == key.id)
        note(request, detail=f"key {key.id}")
        return Response(status_code=204)

    async def _disable(self, user: User) -> User:
        await self._end(user, remove_account=False, remove_home=False)
        return self._gateway.accounts.users.named(user.id)

    async def _end(self, user: User, *, remove_account: bool, remove_home: bool) -> None:
        """Shut a user out at once, and then end everything of the user's: the only place that does."""
        await self._gateway.accounts.users.shut_out(user)
        self._gateway.accounts.connections.cut_user(user.id)
        await self._gateway.departures.leave(user.id, remove_account=remove_account, remove_home=remove_home)

    async def _hashed(self, password: str, *personal: str) -> str:
        fault = passwords.fault(password, personal=personal)
        if fault is not None:
            raise Refusal("bad_request", fault)
        return await self._gateway.accounts.login.hashed(password)

    def _named(self, request: Request) -> User:
        return self._gateway.accounts.users.named(request.path_params["name"])

    def _not_oneself(self, request: Request, user: User) -> None:
        if principal_of(request).user.id == user.id:
            raise Refusal(
                "conflict",
                "administrators can't shut themselves out",
                "another administrator can, and so can oqtoctl",
            )

    def _view(self, user: User) -> views.AdminUser:
        live = [x for x in self._gateway.sessions.records.of_user(user.id) if x.live]
        linux_user = next((x.linux_user for x in live if x.linux_user is not None), None)
        return views.admin_user(
            user,
            is_leaving=self._gateway.accounts.users.is_leaving(user.id),
            live_sessions=len(live),
            linux_user=linux_user,
        )


def counted(users: list[User]) -> views.UserCounts:
    """Count users by what they may do."""
    return views.UserCounts(
        total=len(users),
        active=sum(user.is_active for user in users),
        admins=sum(user.role == "admin" for user in users),
        users=sum(user.role == "user" for user in users),
        services=sum(user.role == "service" for user in users),
    )
