"""What the API shows: the shapes of its answers, which the web UI knows.

The API's description is made of these types (`oqtod.api.openapi`), so that what it says and what is sent
can't differ.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from oqtod.accounts import invites, keys, users
from oqtod.sessions import model
from oqtod.sessions.context import Gateway
from oqtod.sessions.ports import PREVIEW_PORTS, preview_ports
from runner.protocol.messages import ServiceStatus, SessionStatus, Usage

_SERVICES = ("terminal", "files", "browser")

Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339, UTC."""

V = TypeVar("V", bound=msgspec.Struct)


class UserInBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A user as the login answers it."""

    id: str
    name: str
    email: str
    role: users.Role


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A token, which the cookie `auth_token` has too, and whose it is."""

    token: str
    user: UserInBrief


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user."""

    id: str
    username: str
    email: str
    display_name: str
    avatar_url: str | None
    role: users.Role
    is_active: bool
    created_at: Time
    last_login_at: Time | None


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a user is at an OpenID provider."""

    issuer: str
    subject: str


class AdminUser(User, frozen=True, kw_only=True):
    """A user as administrators see it; some of it where it was asked for only."""

    origin: Literal["config", "database", "oidc"]
    has_password: bool
    is_leaving: bool
    live_sessions: int
    linux_user: str | None
    identities: list[Identity] | UnsetType = UNSET
    uid: int | UnsetType = UNSET


class UserCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many users there are."""

    total: int
    active: int
    admins: int
    users: int
    services: int


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key, without its text."""

    id: str
    name: str
    key_prefix: str
    scopes: list[str]
    last_used_at: Time | None
    expires_at: Time | None
    created_at: Time
    revoked_at: Time | None


class MadeApiKey(ApiKey, frozen=True, kw_only=True):
    """A key that was just made; its text is nowhere else."""

    api_key: str


class ApiKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's API keys."""

    keys: list[ApiKey]


class OwnApiKeys(ApiKeys, frozen=True, kw_only=True):
    """One's own API keys, and the scopes there are, each with what it is good for."""

    scopes: dict[str, str]


class Invite(msgspec.Struct, frozen=True, kw_only=True):
    """An invite code; once it is made, only the beginning of it is known."""

    id: str
    code: str
    created_by: str
    uses_remaining: int
    max_uses: int
    expires_at: Time | None
    created_at: Time
    is_valid: bool
    revoked_at: Time | None
    note: str | None


class InviteCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many invite codes there are."""

    total: int
    valid: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may take of the host, as systemd writes it; null is no limit."""

    memory_max: str | None
    tasks_max: int | None
    cpu_quota: str | None


class Urls(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session's services are; null is not here."""

    agent: str | None
    fileserver: str | None
    files: str | None
    terminal: str | None
    browser: str | None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session with its URLs."""

    id: str
    readable_id: str
    container_id: str | None
    container_name: str
    user_id: str
    workspace_path: str
    agent: str | None
    image: str
    image_digest: str | None
    agent_port: int | None
    fileserver_port: int | None
    ttyd_port: int | None
    eavs_port: int | None
    agent_base_port: int | None
    preview_ports: list[int]
    stream_port: int | None
    max_agents: int
    eavs_key_id: str | None
    eavs_key_hash: str | None
    status: model.Status
    runtime_mode: Literal["container", "local"]
    created_at: Time
    started_at: Time | None
    stopped_at: Time | None
    last_activity_at: Time
    idle_at: Time | None
    busy: bool
    error_message: str | None
    linux_user: str | None
    services: dict[str, ServiceStatus]
    limits: Limits
    usage: Usage
    urls: Urls


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How many users and sessions there are, and whether the audit log is written."""

    version: str
    users: UserCounts
    sessions: dict[model.Status, int]
    audit: str


class SessionLogs(msgspec.Struct, frozen=True, kw_only=True):
    """What the services of a session wrote of late, in lines."""

    session_id: str
    status: model.Status
    error_message: str | None
    services: dict[str, list[str]]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Whether something that oqtod needs is well."""

    status: Literal["ok", "failed"]
    error: str | UnsetType = UNSET


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That the gateway is there; `degraded` when something that was looked at is not well."""

    status: Literal["ok", "degraded"]
    version: str
    checks: dict[str, Check] | UnsetType = UNSET


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What the web UI can count on."""

    session_auto_attach: Literal["off", "attach", "resume"]
    session_auto_attach_scan: bool
    agent_browser_enabled: bool
    websocket_events: bool
    mmry_enabled: bool


class OidcMethod(msgspec.Struct, frozen=True, kw_only=True):
    """The OpenID provider, and where the way to it begins."""

    issuer: str
    login_url: str


class LoginMethods(msgspec.Struct, frozen=True, kw_only=True):
    """How one can log in."""

    password: bool
    register: bool
    oidc: OidcMethod | None


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What opens one WebSocket, as `?ticket=`; `expires_in` is in seconds."""

    ticket: str
    expires_in: int


def user_in_brief(user: users.User) -> UserInBrief:
    """Return a user as the login answers it."""
    return UserInBrief(id=user.id, name=user.display_name, email=user.email, role=user.role)


def user(user: users.User) -> User:
    """Return a user as /api/me answers it."""
    return _picked(User, user)


def admin_user(user: users.User, **more: object) -> AdminUser:
    """Return a user as administrators see it; `more` is what the users' table doesn't know."""
    return _picked(
        AdminUser,
        user,
        has_password=user.password_hash is not None,
        **{"identities": UNSET, "uid": UNSET, **more},
    )


def api_key(key: keys.ApiKey) -> ApiKey:
    """Return an API key, without its text."""
    return _picked(ApiKey, key)


def made_api_key(key: keys.ApiKey, text: str) -> MadeApiKey:
    """Return an API key with its text."""
    return _picked(MadeApiKey, key, api_key=text)


def invite(invite: invites.Invite, *, code: str | None = None) -> Invite:
    """Return an invite; once it is made, only the beginning of its code is known."""
    return _picked(Invite, invite, code=code or f"{invite.code_prefix}…")


class BrowserStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The session whose browser it is; `error` says why the page isn't there, when it isn't."""

    session_id: str
    error: str | UnsetType = UNSET


def session(session: model.Session, gateway: Gateway, status: SessionStatus | None) -> Session:
    """Return a session with its URLs; `status` is what its runner says of it."""
    base = f"/api/sessions/{session.id}"
    ports = session.port_base if session.live else None
    services = status.services if status is not None else {}
    limits = gateway.config.limits
    return Session(
        id=session.id,
        readable_id=session.readable_id,
        container_id=None,
        container_name=session.readable_id,
        user_id=session.user_id,
        workspace_path=session.workspace_path,
        agent=None,
        image=session.image,
        image_digest=None,
        agent_port=ports,
        fileserver_port=ports + 1 if ports is not None else None,
        ttyd_port=ports + 2 if ports is not None else None,
        eavs_port=None,
        agent_base_port=preview_ports(ports)[0] if ports is not None else None,
        preview_ports=list(preview_ports(ports)) if ports is not None else [],
        stream_port=session.stream_port if session.live else None,
        max_agents=PREVIEW_PORTS,
        eavs_key_id=None,
        eavs_key_hash=None,
        status=session.status,
        runtime_mode="local",
        created_at=session.created_at,
        started_at=session.started_at,
        stopped_at=session.stopped_at,
        last_activity_at=gateway.sessions.activity.last(session),
        idle_at=gateway.reaper.idle_at(session),
        busy=session.status == "running" and gateway.reaper.busy(session),
        error_message=session.error_message,
        linux_user=session.linux_user,
        services={name: services.get(name, ServiceStatus("stopped")) for name in _SERVICES},
        limits=_picked(Limits, limits),
        usage=status.usage if status is not None else Usage(),
        urls=Urls(
            agent=None,
            fileserver=f"{base}/files",
            files=f"{base}/files",
            terminal=f"{base}/terminal/",
            browser=f"{base}/browser/stream" if gateway.config.agent_browser.enabled else None,
        ),
    )


def _picked(kind: type[V], source: object, **more: object) -> V:
    """Make a view of `more`, and of what `source` has under the names of its other fields."""
    names = [name for name in kind.__struct_fields__ if name not in more]
    return kind(**{name: getattr(source, name) for name in names}, **more)
