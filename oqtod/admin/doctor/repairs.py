"""What `--fix` does: owners and modes of our own paths, and a few commands. Never data, accounts, homes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import TypeGuard

from oqtod.admin.doctor.finding import Repair, Run, SetOwner
from oqtod.admin.doctor.host import Host

ORDER = (
    ("systemd-sysusers",),
    ("systemd-tmpfiles", "--create"),
    ("/usr/lib/systemd/systemd-sysctl",),
    ("systemctl", "daemon-reload"),
    ("systemctl", "reset-failed"),
    ("systemctl", "enable"),
    ("systemctl", "start"),
    ("systemctl", "restart"),
)
"""The commands that a repair may be, in the order in which they are run."""

_STARTS = (("systemctl", "start"), ("systemctl", "restart"))
_DAEMONS = ("oqtod.service", "oqtod-gateway.service")
_ALL = Run(("systemctl", "restart", "oqtod.service"))
_TIMEOUT = 90.0
_FIRST = 3
"""Owners are set when users and folders are there, and before anything is started."""


class NotRepaired(Exception):
    """A repair did not work; str() says why."""


def ordered(repairs: Iterable[Repair]) -> list[Repair]:
    """Return the repairs, each once, in the order in which they help each other."""
    found = sorted(dict.fromkeys(repairs), key=_rank)
    if _ALL in found:  # which restarts the gateway too
        return [one for one in found if one == _ALL or not (starts(one) and one.argv[2] in _DAEMONS)]
    return found


def starts(what: Repair) -> TypeGuard[Run]:
    """Say whether a repair starts something."""
    return isinstance(what, Run) and what.argv[:2] in _STARTS


def _rank(repair: Repair) -> int:
    if isinstance(repair, SetOwner):
        return _FIRST
    place = next((i for i, begin in enumerate(ORDER) if repair.argv[: len(begin)] == begin), None)
    if place is None:
        raise ValueError(f"no repair: {repair}")
    return place if place < _FIRST else place + 1


def repair(host: Host, what: Repair) -> None:
    """Carry a repair out. Raises NotRepaired."""
    try:
        if isinstance(what, SetOwner):
            _set_owner(host, what)
            return
        if starts(what):
            # A unit that failed too often must be forgiven before it can be started; one that didn't, can't.
            host.run("systemctl", "reset-failed", *what.argv[2:], timeout=_TIMEOUT)
        answer = host.run(*what.argv, timeout=_TIMEOUT)
        if what.argv[2:] == _DAEMONS[:1]:
            # It comes along, and this waits for it; where it can't, the next look tells.
            host.run("systemctl", "start", _DAEMONS[1], timeout=_TIMEOUT)
        if answer.code != 0:
            raise NotRepaired((answer.error or answer.out).strip() or f"it ended with {answer.code}")
    except OSError as error:
        raise NotRepaired(error.strerror or str(error)) from error


def _set_owner(host: Host, what: SetOwner) -> None:
    """Give one thing its owner and mode: the very thing that was looked at, through its descriptor.

    A file with several names could be somebody else's under another one: it is left alone.
    """
    opened = host.open_for_repair(what.path)
    try:
        found = os.fstat(opened)
        if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink != 1):
            raise NotRepaired(f"{what.path} is a link, or has several names: look at it yourself")
        here = f"/proc/self/fd/{opened}"
        os.chown(here, what.uid, what.gid)
        os.chmod(here, what.mode)  # noqa: PTH101  the descriptor's own entry
    finally:
        os.close(opened)
