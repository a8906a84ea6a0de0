"""`oqtoctl runner`: the runner of each account."""

from __future__ import annotations

from typing import Any

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller, Group, confirm
from oqtod.commands.exits import FAILED


@click.group("runner", cls=Group)
def runner() -> None:
    """See how the runners of the accounts fare, and start them anew.

    A runner starts when its person needs it and ends when idle: inactive is nothing to worry about. It is
    named by its Linux account, or by its user.
    """


@runner.command("list", examples=["oqtoctl runner list"])
@click.pass_obj
def list_(caller: Caller) -> None:
    """List the runners of all accounts."""
    found = caller.daemon.ask("GET", names.path("runners"))
    if caller.as_json:
        output.document(found)
        return
    output.table(
        ("account", "user", ">uid", "socket", "service", "last end", "since", ">live sessions"),
        (
            (
                *(x["account"], x["username"] or x["user_id"], x["uid"], x["socket"], x["service"]),
                *(x["result"], output.moment(x["started_at"]), x["live_sessions"]),
            )
            for x in found
        ),
        empty="There are no accounts yet: they are made with the first session of their user.",
    )


@runner.command("status", examples=["oqtoctl runner status alice", "oqtoctl runner status oqto_alice"])
@names.runner
@click.pass_obj
def status(caller: Caller, runner: str) -> int:
    """Show how a runner is. Exits with 1 where its unit has failed."""
    found = caller.daemon.ask("GET", names.path("runners", runner))
    if caller.as_json:
        output.document(found)
    else:
        _show(found)
    return FAILED if "failed" in (found["socket"], found["service"]) else 0


def _show(found: dict[str, Any]) -> None:
    account = found["account"]
    journal = f"journalctl -u oqto-runner@{account}" if found["user_id"] is not None else None
    output.facts(
        [
            ("account", f"{account} (uid {found['uid']}, {found['home']})"),
            ("user", found["username"] or found["user_id"]),
            ("socket", f"{found['socket']}, {found['socket_path']}"),
            ("service", found["service"]),
            ("process", found["pid"]),
            ("started", output.moment(found["started_at"])),
            ("last end", found["result"]),
            ("live sessions", found["live_sessions"]),
            *([("its log", journal)] if journal is not None else []),
        ]
    )


@runner.command("restart", examples=["oqtoctl runner restart alice"])
@names.runner
@names.yes
@click.pass_obj
def restart(caller: Caller, runner: str, yes: bool) -> None:
    """End a runner and start the next one, which takes its sessions over.

    In personal mode sessions end with their runner; so you are asked there.
    """
    found = caller.daemon.ask("GET", names.path("runners", runner))
    if found["user_id"] is None and found["live_sessions"]:
        confirm(f"{found['live_sessions']} sessions will end, as this is personal mode. Go on?", yes=yes)
    found = caller.daemon.ask("POST", names.path("runners", found["account"], "restart"))
    if caller.as_json:
        output.document(found)
    else:
        output.say(f"the runner of {found['account']} was restarted: {found['live_sessions']} live sessions")
