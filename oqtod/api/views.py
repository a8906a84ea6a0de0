"""What the API shows of users and sessions: the shapes that the web UI knows."""

from __future__ import annotations

from oqtod.accounts.invites import Invite
from oqtod.accounts.keys import ApiKey
from oqtod.accounts.users import User
from oqtod.sessions.context import Gateway
from oqtod.sessions.model import Session
from oqtod.sessions.ports import PREVIEW_PORTS, preview_ports
from runner.protocol.messages import ServiceStatus, SessionStatus, Usage

_SERVICES = ("terminal", "files", "browser")


def user_in_brief(user: User) -> dict[str, object]:
    """Return a user as the login answers it."""
    return {"id": user.id, "name": user.display_name, "email": user.email, "role": user.role}


def user(user: User) -> dict[str, object]:
    """Return a user as /api/me answers it."""
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "display_name": user.display_name,
        "avatar_url": user.avatar_url,
        "role": user.role,
        "is_active": user.is_active,
        "created_at": user.created_at,
        "last_login_at": user.last_login_at,
    }


def api_key(key: ApiKey) -> dict[str, object]:
    """Return an API key, without its text."""
    return {
        "id": key.id,
        "name": key.name,
        "key_prefix": key.key_prefix,
        "scopes": key.scopes,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def invite(invite: Invite, *, code: str | None = None) -> dict[str, object]:
    """Return an invite; once it is made, only the beginning of its code is known."""
    return {
        "id": invite.id,
        "code": code or f"{invite.code_prefix}…",
        "created_by": invite.created_by,
        "uses_remaining": invite.uses_remaining,
        "max_uses": invite.max_uses,
        "expires_at": invite.expires_at,
        "created_at": invite.created_at,
        "is_valid": invite.is_valid,
        "revoked_at": invite.revoked_at,
        "note": invite.note,
    }


def session(session: Session, gateway: Gateway, status: SessionStatus | None) -> dict[str, object]:
    """Return a session with its URLs; `status` is what its runner says of it."""
    base = f"/api/sessions/{session.id}"
    ports = session.port_base if session.live else None
    services = status.services if status is not None else {}
    limits = gateway.config.limits
    return {
        "id": session.id,
        "readable_id": session.readable_id,
        "container_id": None,
        "container_name": session.readable_id,
        "user_id": session.user_id,
        "workspace_path": session.workspace_path,
        "agent": None,
        "image": session.image,
        "image_digest": None,
        "agent_port": ports,
        "fileserver_port": ports + 1 if ports is not None else None,
        "ttyd_port": ports + 2 if ports is not None else None,
        "eavs_port": None,
        "agent_base_port": preview_ports(ports)[0] if ports is not None else None,
        "preview_ports": list(preview_ports(ports)) if ports is not None else [],
        "stream_port": session.stream_port if session.live else None,
        "max_agents": PREVIEW_PORTS,
        "eavs_key_id": None,
        "eavs_key_hash": None,
        "status": session.status,
        "runtime_mode": "local",
        "created_at": session.created_at,
        "started_at": session.started_at,
        "stopped_at": session.stopped_at,
        "last_activity_at": gateway.sessions.activity.last(session),
        "idle_at": gateway.reaper.idle_at(session),
        "busy": session.status == "running" and gateway.reaper.busy(session),
        "error_message": session.error_message,
        "linux_user": session.linux_user,
        "services": {name: services.get(name, ServiceStatus("stopped")) for name in _SERVICES},
        "limits": {
            "memory_max": limits.memory_max,
            "tasks_max": limits.tasks_max,
            "cpu_quota": limits.cpu_quota,
        },
        "usage": status.usage if status is not None else Usage(),
        "urls": {
            "agent": None,
            "fileserver": f"{base}/files",
            "files": f"{base}/files",
            "terminal": f"{base}/terminal/",
            "browser": f"{base}/browser/stream" if gateway.config.agent_browser.enabled else None,
        },
    }
