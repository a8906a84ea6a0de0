"""`oqtoctl status`: whether oqtod is well, and how much there is of everything."""

from __future__ import annotations

import click

from oqtod.admin import output
from oqtod.admin.caller import Caller, Command
from oqtod.commands.exits import FAILED


@click.command(
    "status",
    cls=Command,
    examples=["oqtoctl status", "oqtoctl status --json | jq .health.checks"],
)
@click.pass_obj
def status(caller: Caller) -> int:
    """Show whether oqtod is well: its parts, its users, its sessions.

    Exits with 1 when a part is not well, and with 4 when nobody answers.
    """
    health = caller.daemon.ask("GET", "/api/health?deep=1")
    stats = caller.daemon.ask("GET", "/api/admin/stats")
    if caller.as_json:
        output.document({"health": health, "stats": stats})
    else:
        users, sessions = stats["users"], stats["sessions"]
        live = ", ".join(f"{count} {state}" for state, count in sessions.items() if count)
        output.facts(
            [
                ("oqtod", health["version"]),
                ("status", health["status"]),
                *((name, _told(check)) for name, check in health["checks"].items()),
                ("users", f"{users['total']}, {users['active']} active, {users['admins']} administrators"),
                ("sessions", live or "none"),
            ]
        )
    return 0 if health["status"] == "ok" else FAILED


def _told(check: dict[str, str]) -> str:
    return check["status"] if check.get("error") is None else f"{check['status']}: {check['error']}"
