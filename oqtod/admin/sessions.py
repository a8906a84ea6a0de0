"""`oqtoctl session`: everybody's sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller, Group, confirm
from oqtod.commands.exits import FAILED

_STATUSES = click.Choice(["pending", "starting", "running", "stopping", "stopped", "failed"])


@click.group("session", cls=Group, lazy={"top": "oqtod.admin.session_top:top"})
def session() -> None:
    """Look at sessions, stop them, start them again, forget them.

    A session is named by its readable id or its id.
    """


@session.command(
    "list",
    examples=[
        "oqtoctl session list --status running",
        "oqtoctl session list --user alice --json | jq -r '.[].workspace_path'",
    ],
)
@click.option("--user", metavar="USER", shell_complete=names.user_names, help="This user's only.")
@click.option("--status", type=_STATUSES, help="Those in this state only.")
@click.pass_obj
def list_(caller: Caller, user: str | None, status: str | None) -> None:
    """List sessions, newest first."""
    found = listed(caller, user=user, status=status, usage=caller.as_json)
    if caller.as_json:
        output.document(found)
        return
    usernames = usernames_of(caller)
    output.table(
        ("session", "user", "status", "account", "started", "last activity", "workspace", "reason"),
        (
            (
                x["readable_id"],
                usernames.get(x["user_id"], x["user_id"]),
                f"{x['status']} (busy)" if x["busy"] else x["status"],
                x["linux_user"],
                *(output.moment(x["started_at"]), output.moment(x["last_activity_at"])),
                *(x["workspace_path"], x["error_message"]),
            )
            for x in found
        ),
        empty="There are no such sessions.",
    )


def listed(caller: Caller, *, user: str | None, status: str | None, usage: bool) -> list[dict[str, Any]]:
    """Return sessions as the API shows them; with `usage`, with what they take."""
    asked = {"user": user, "status": status, "usage": "true" if usage else None}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    found: list[dict[str, Any]] = caller.daemon.ask("GET", f"{names.path('sessions')}?{query}")
    return found


def usernames_of(caller: Caller) -> dict[str, str]:
    """Return the name of every user by id: sessions know the id, people the name."""
    return {user["id"]: user["username"] for user in caller.daemon.ask("GET", names.path("users"))}


@session.command("show", examples=["oqtoctl session show brave-otter"])
@names.session
@click.pass_obj
def show(caller: Caller, session: str) -> None:
    """Show a session, its services, and what it takes."""
    found = caller.daemon.ask("GET", names.path("sessions", session))
    if caller.as_json:
        output.document(found)
        return
    usage, limits, previews = found["usage"], found["limits"], found["preview_ports"]
    output.facts(
        [
            ("session", found["readable_id"]),
            ("id", found["id"]),
            ("user", usernames_of(caller).get(found["user_id"], found["user_id"])),
            ("account", found["linux_user"]),
            ("status", found["status"]),
            ("reason", found["error_message"]),
            ("workspace", found["workspace_path"]),
            *((f"service {name}", _service(state)) for name, state in found["services"].items()),
            ("memory", f"{output.size(usage['memory'])} of {limits['memory_max'] or 'no limit'} per user"),
            ("CPU time", f"{usage['cpu']:.1f} s"),
            ("tasks", f"{usage['tasks']} of {limits['tasks_max'] or 'no limit'} per user"),
            ("busy", found["busy"]),
            ("ports", f"{found['agent_port']} to {previews[-1]}" if previews else None),
            ("made", output.moment(found["created_at"])),
            ("started", output.moment(found["started_at"])),
            ("last activity", output.moment(found["last_activity_at"])),
            ("idle for too long", output.moment(found["idle_at"])),
            ("stopped", output.moment(found["stopped_at"])),
        ]
    )


def _service(state: dict[str, str]) -> str:
    return state["state"] if state.get("error") is None else f"{state['state']}: {state['error']}"


@session.command(
    "stop",
    examples=[
        "oqtoctl session stop brave-otter",
        "oqtoctl session list --user alice --json | jq -r '.[].id' | xargs oqtoctl session stop",
    ],
)
@names.sessions
@click.pass_obj
def stop(caller: Caller, sessions: Sequence[str]) -> None:
    """End the processes of sessions. They can be resumed."""
    for key in sessions:
        caller.daemon.ask("POST", names.path("sessions", key, "stop"))
        if not caller.as_json:
            output.say(f"{key} is stopped")


@session.command("resume", examples=["oqtoctl session resume brave-otter"])
@names.session
@click.pass_obj
def resume(caller: Caller, session: str) -> None:
    """Start a stopped or failed session again."""
    found = caller.daemon.ask("POST", names.path("sessions", session, "resume"))
    if caller.as_json:
        output.document(found)
    else:
        output.say(f"{found['readable_id']} is {found['status']}")


@session.command(
    "delete",
    examples=[
        "oqtoctl session delete brave-otter",
        "oqtoctl session delete --yes brave-otter calm-heron",
    ],
)
@names.sessions
@names.yes
@click.pass_obj
def delete(caller: Caller, sessions: Sequence[str], yes: bool) -> None:
    """Forget sessions; those that run are stopped first. Files stay where they are."""
    confirm(f"Forget {', '.join(sessions)}, and end what runs there?", yes=yes)
    for key in sessions:
        caller.daemon.ask("POST", names.path("sessions", key, "delete"))
        if not caller.as_json:
            output.say(f"{key} is forgotten")


@session.command(
    "logs",
    examples=["oqtoctl session logs brave-otter", "oqtoctl session logs brave-otter --service files -n 20"],
)
@names.session
@click.option("--service", metavar="NAME", help="This service's only: terminal, files.")
@click.option(
    "--lines", "-n", metavar="N", type=click.IntRange(min=1), help="At most so many lines of each.  [all]"
)
@click.pass_obj
def logs(caller: Caller, session: str, service: str | None, lines: int | None) -> int:
    """Show what the services of a running session reported of late.

    That is what ttyd or the file server wrote to stdout and stderr, the newest 64 KiB of each. Nothing that
    people typed or saw is in it. What oqtod and the runner say of a session is in the journal:
    journalctl SESSION_ID=ID.
    """
    found = caller.daemon.ask("GET", names.path("sessions", session, "logs"))
    if service is not None:
        if found["status"] == "running" and service not in found["services"]:
            raise click.UsageError(f"there is no service {service!r}: {', '.join(found['services'])}")
        found["services"] = {name: log for name, log in found["services"].items() if name == service}
    if lines is not None:
        found["services"] = {name: log[-lines:] for name, log in found["services"].items()}
    if caller.as_json:
        output.document(found)
        return 0
    for name, log in found["services"].items():
        for line in log:
            output.say(f"{name}: {line}")
    if found["status"] != "running":
        reason = f": {found['error_message']}" if found["error_message"] else ""
        output.warn(f"{session} is {found['status']}{reason}")
        output.warn(f"  see: journalctl SESSION_ID={found['session_id']}")
        return FAILED
    return 0
