"""The admin socket: who may administrate through it, as the kernel names them, unix(7)."""

from __future__ import annotations

import grp
import logging
import os
import pwd

import trio

from oqtod.accounts.principal import Principal
from oqtod.accounts.users import User
from oqtod.clock import now

log = logging.getLogger(__name__)

GROUP = "oqto-admin"
"""Whose members may administrate, besides root."""

NOT_AN_ADMINISTRATOR = (
    "the admin socket is for root and for members of the group oqto-admin",
    f"an administrator can add you: adduser NAME {GROUP}",
)
"""What others are told, and what to do about it."""


async def principal_of(uid: int, *, personal: bool) -> Principal | None:
    """Return for whom a process with this uid administrates; None when it may not.

    Membership is looked up for each connection: who was taken out of the group is out at once, even where an
    old login still has it.
    """
    name = await trio.to_thread.run_sync(_administrator, uid, personal)
    if name is None:
        log.warning("refused uid %d at the admin socket: neither root nor in the group %s", uid, GROUP)
        return None
    user = User(
        id=f"uid:{uid}",
        username=name,
        email="",
        display_name=name,
        avatar_url=None,
        role="admin",
        is_active=True,
        password_hash=None,
        origin="config",
        generation=0,
        tokens_since=0,
        created_at=now(),
        last_login_at=None,
    )
    return Principal(user, "socket", f"uid:{uid}", uid=uid)


def _administrator(uid: int, personal: bool) -> str | None:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return "root" if uid == 0 else None
    if uid == 0 or (personal and uid == os.getuid()):
        return entry.pw_name
    try:
        group = grp.getgrnam(GROUP)
    except KeyError:
        return None
    return entry.pw_name if entry.pw_gid == group.gr_gid or entry.pw_name in group.gr_mem else None
