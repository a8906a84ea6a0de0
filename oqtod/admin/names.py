"""Arguments and options that name something which oqtod knows, completed in the shell from what it knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import click

from oqtod.admin.caller import caller_of
from oqtod.admin.client import Trouble

_COMPLETION_TIMEOUT = 2.0
"""Seconds that somebody who pressed Tab waits at most."""

_DURATION = re.compile(r"([1-9][0-9]*)([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}

Completion = Callable[[click.Context, click.Parameter, str], list[str]]


def path(*segments: str) -> str:
    """Return the path of something in the API for administrators: `path("users", "alice", "keys")`."""
    return "/api/admin/" + "/".join(quote(segment, safe="") for segment in segments)


def _complete(where: str, field: str) -> Completion:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            found: list[dict[str, Any]] = caller_of(context).daemon.ask(
                "GET", path(where), timeout=_COMPLETION_TIMEOUT
            )
        except (Trouble, click.UsageError):
            return []  # no suggestions are better than an error in the middle of a line
        return [str(each[field]) for each in found if str(each[field]).startswith(incomplete)]

    return complete


user_names = _complete("users", "username")
session_names = _complete("sessions", "readable_id")
runner_names = _complete("runners", "account")

user = click.argument("user", metavar="USER", shell_complete=user_names)
session = click.argument("session", metavar="SESSION", shell_complete=session_names)
sessions = click.argument(
    "sessions", metavar="SESSION...", nargs=-1, required=True, shell_complete=session_names
)
runner = click.argument("runner", metavar="RUNNER", shell_complete=runner_names)
yes = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


def _seconds(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration: write 30m, 12h, 7d or 2w")
    return int(found[1]) * _SECONDS[found[2]]


expires = click.option(
    "--expires",
    metavar="DURATION",
    callback=_seconds,
    help="Good for this long: 30m, 12h, 7d, 2w.  [for ever]",
)


def moment_in(seconds: int | None) -> str | None:
    """Return the moment in that many seconds as the API takes it, RFC 3339."""
    if seconds is None:
        return None
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
