"""/api/auth: logging in and out, registering, passwords, tickets, and the way through the OpenID provider."""

from __future__ import annotations

import html
import time

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from oqtod.accounts import passwords, tickets
from oqtod.accounts.authenticator import COOKIE
from oqtod.accounts.invites import bad_code
from oqtod.accounts.oidc_login import LIFETIME as FLOW_LIFETIME
from oqtod.accounts.oidc_login import OidcLogin
from oqtod.accounts.tokens import LIFETIME
from oqtod.accounts.users import Changes, NewUser, User, check
from oqtod.api import views
from oqtod.api.contract import Endpoint, Media
from oqtod.api.requests import address_of, body, json, note, principal_of, query
from oqtod.errors import Refusal
from oqtod.sessions.context import Gateway


class Credentials(msgspec.Struct):
    """The body of POST /api/auth/login."""

    username: str
    password: str


class Registration(msgspec.Struct):
    """The body of POST /api/auth/register."""

    username: str
    email: str
    password: str
    invite_code: str
    display_name: str | None = None


class PasswordChange(msgspec.Struct):
    """The body of POST /api/auth/change-password."""

    current_password: str
    new_password: str


class OidcStart(msgspec.Struct):
    """The query of GET /api/auth/oidc/login."""

    return_to: str = ""


class OidcReturn(msgspec.Struct):
    """The query of GET /api/auth/oidc/callback: RFC 6749, section 4.1.2."""

    state: str = ""
    code: str = ""
    error: str = ""


_SORRY = Media("text/html", "The error, for somebody who looks at it: where `Accept` names text/html.")


class Auth:
    """The endpoints."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint("GET", "/api/auth/methods", self.methods, answers={200: views.LoginMethods}),
            Endpoint(
                "POST",
                "/api/auth/login",
                self.log_in,
                takes=Credentials,
                answers={200: views.Login},
                refuses=["unauthorized", "too_many_requests"],
            ),
            Endpoint(
                "POST",
                "/api/auth/register",
                self.register,
                takes=Registration,
                answers={201: views.Login},
                refuses=["conflict", "too_many_requests"],
            ),
            Endpoint("POST", "/api/auth/logout", self.log_out, answers={204: None}),
            Endpoint(
                "POST",
                "/api/auth/change-password",
                self.change_password,
                takes=PasswordChange,
                answers={204: None},
                refuses=["conflict", "too_many_requests"],
            ),
            Endpoint("POST", "/api/auth/ticket", self.ticket, answers={200: views.Ticket}),
            Endpoint(
                "GET",
                "/api/auth/oidc/login",
                self.oidc_begin,
                asks=OidcStart,
                answers={302: None},
                refuses=["not_found", "bad_gateway", "too_many_requests"],
            ),
            Endpoint(
                "GET",
                "/api/auth/oidc/callback",
                self.oidc_finish,
                asks=OidcReturn,
                answers={302: None},
                refuses=["not_found", "unauthorized", "conflict", "bad_gateway", "too_many_requests"],
                failures=dict.fromkeys((400, 401, 403, 404, 409, 429, 502, 503), _SORRY),
            ),
        ]

    async def methods(self, request: Request) -> Response:
        """Say how one can log in here."""
        oidc = None
        if self._gateway.accounts.oidc is not None:
            issuer = self._gateway.config.auth.oidc_issuer or ""
            oidc = views.OidcMethod(issuer=issuer, login_url="/api/auth/oidc/login")
        return json(views.LoginMethods(password=True, register=True, oidc=oidc))

    async def log_in(self, request: Request) -> Response:
        """Exchange username and password for a token and a cookie."""
        asked = await body(request, Credentials)
        known = self._gateway.accounts.users.with_login(asked.username)
        if known is not None:
            note(request, user_id=known.id)
        user = await self._gateway.accounts.login.log_in(
            asked.username, asked.password, address=address_of(request)
        )
        return self._welcome(user, status=200)

    async def register(self, request: Request) -> Response:
        """Make a user of somebody who has an invite code, and log in."""
        asked = await body(request, Registration)
        address = address_of(request)
        self._gateway.accounts.login.throttle_guess("invite code", address)
        if not self._gateway.accounts.invites.is_good(asked.invite_code):
            self._gateway.accounts.login.count_guess(f"invite code from {address}", address)
            raise bad_code()
        display_name = asked.display_name or asked.username
        new = NewUser(username=asked.username, email=asked.email, display_name=display_name)
        check(new)
        fault = passwords.fault(asked.password, personal=(asked.username, asked.email, display_name))
        if fault is not None:
            raise Refusal("bad_request", fault)
        password_hash = await self._gateway.accounts.login.hashed(asked.password)
        user = await self._gateway.accounts.users.add(
            msgspec.structs.replace(new, password_hash=password_hash),
            within=lambda connection: self._gateway.accounts.invites.use(connection, asked.invite_code),
        )
        note(request, user_id=user.id)
        return self._welcome(await self._gateway.accounts.users.note_login(user), status=201)

    async def log_out(self, request: Request) -> Response:
        """Make the token void."""
        principal = principal_of(request)
        expires = principal.expires or int(time.time()) + LIFETIME
        await self._gateway.accounts.tokens.revoke(principal.credential, expires)
        self._gateway.accounts.connections.cut(lambda other: other.credential == principal.credential)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=self._secure)
        return response

    async def change_password(self, request: Request) -> Response:
        """Take another password, and make every token of the user void, this one too."""
        principal = principal_of(request)
        asked = await body(request, PasswordChange)
        user = principal.user
        if user.password_hash is None:
            raise Refusal("conflict", "you log in elsewhere, there is no password here")
        right = await self._gateway.accounts.login.check(
            user, asked.current_password, account=user.id, address=address_of(request)
        )
        if not right:
            raise Refusal("forbidden", "the current password is wrong")
        fault = passwords.fault(asked.new_password, personal=(user.username, user.email, user.display_name))
        if fault is None and asked.new_password == asked.current_password:
            fault = "the new password is the current one"
        if fault is not None:
            raise Refusal("bad_request", fault)
        password_hash = await self._gateway.accounts.login.hashed(asked.new_password)
        await self._gateway.accounts.users.change(user, Changes(password_hash=password_hash))
        self._gateway.accounts.connections.cut_user(user.id)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=self._secure)
        return response

    async def ticket(self, request: Request) -> Response:
        """Give out a ticket for one WebSocket."""
        ticket = self._gateway.accounts.tickets.give(principal_of(request))
        return json(views.Ticket(ticket=ticket, expires_in=tickets.LIFETIME))

    async def oidc_begin(self, request: Request) -> Response:
        """Send the browser to the login provider."""
        url, cookie = await self._flow().begin(
            redirect_uri=self._redirect_uri(request), return_to=query(request, OidcStart).return_to or None
        )
        response = RedirectResponse(url, 302, {"cache-control": "no-store"})
        response.set_cookie(
            self._flow_cookie,
            cookie,
            max_age=FLOW_LIFETIME,
            httponly=True,
            samesite="lax",
            secure=self._secure,
        )
        return response

    async def oidc_finish(self, request: Request) -> Response:
        """Log in whom the login provider sends back, and go on to the page that was asked for."""
        asked = query(request, OidcReturn)
        try:
            user, path = await self._flow().finish(
                cookie=request.cookies.get(self._flow_cookie),
                state=asked.state or None,
                code=asked.code or None,
                error=asked.error or None,
            )
        except Refusal as refusal:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            request.scope["state"]["refusal"] = refusal
            return _sorry(refusal)
        note(request, user_id=user.id)
        user = await self._gateway.accounts.users.note_login(user)
        response = RedirectResponse(path, 302, {"cache-control": "no-store"})
        self._set_cookie(response, self._gateway.accounts.tokens.issue(user))
        response.delete_cookie(self._flow_cookie, httponly=True, samesite="lax", secure=self._secure)
        return response

    def _flow(self) -> OidcLogin:
        if self._gateway.accounts.oidc is None:
            raise Refusal("not_found", "there is no login provider", "set auth.oidc_issuer and oidc_audience")
        return self._gateway.accounts.oidc

    def _redirect_uri(self, request: Request) -> str:
        """Return our own callback, as the browser knows us; the provider knows it too, and refuses others."""
        host = request.headers.get("host", "")
        scheme = request.scope.get("forwarded_scheme") or ("https" if self._secure else "http")
        return f"{scheme}://{host}/api/auth/oidc/callback"

    def _welcome(self, user: User, *, status: int) -> Response:
        token = self._gateway.accounts.tokens.issue(user)
        response = json(views.Login(token=token, user=views.user_in_brief(user)), status=status)
        self._set_cookie(response, token)
        return response

    def _set_cookie(self, response: Response, token: str) -> None:
        response.set_cookie(
            COOKIE, token, max_age=LIFETIME, httponly=True, samesite="lax", secure=self._secure
        )

    @property
    def _secure(self) -> bool:
        return not self._gateway.config.auth.dev_mode

    @property
    def _flow_cookie(self) -> str:
        # With the prefix no neighbouring site can set it for us: RFC 6265bis, section 4.1.3.
        return "__Host-oqto_oidc" if self._secure else "oqto_oidc"


def _sorry(refusal: Refusal) -> Response:
    """Answer a browser that somebody looks at."""
    parts = [refusal.message, refusal.hint or ""]
    text = "".join(f"<p>{html.escape(part)}</p>" for part in parts if part)
    page = f'<!doctype html><meta charset="utf-8"><title>Login</title>{text}<p><a href="/">Back</a></p>'
    return Response(page, refusal.status, {"cache-control": "no-store"}, media_type="text/html")
