"""`oqtoctl session top`: what sessions take of the host, most of it first."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from oqtod.admin import output
from oqtod.admin.caller import Caller, Command
from oqtod.admin.sessions import listed, usernames_of

_ONCE = 1.0
"""Seconds over which CPU use is measured where the figures are shown once."""

_COLUMNS = ("session", "user", ">memory", ">cpu %", ">tasks", "last activity", "busy")


@click.command(
    "top",
    cls=Command,
    examples=["oqtoctl session top", "oqtoctl session top --json | jq '.[0]'"],
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.5),
    default=2.0,
    help="Between two looks.  [2]",
)
@click.option("--once", is_flag=True, help="Show it once, on a terminal too.")
@click.pass_obj
def top(caller: Caller, interval: float, once: bool) -> None:
    """Show memory, CPU use and tasks of the running sessions, until Ctrl-C.

    Where the output is no terminal, and with --json, they are measured for a second and shown once. 100 % is
    one CPU.
    """
    if once or caller.as_json or not sys.stdout.isatty():
        _show_once(caller)
        return
    from rich.console import Console  # slow, and only people need it
    from rich.live import Live

    usernames, before = usernames_of(caller), _Look(caller)
    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        live.update("measuring…", refresh=True)
        try:
            while True:
                time.sleep(interval)
                now = _Look(caller)
                measured = now.since(before)
                live.update(output.rich_table(_COLUMNS, _rows(measured, usernames)), refresh=True)
                before = now
        except KeyboardInterrupt:
            return


def _show_once(caller: Caller) -> None:
    before = _Look(caller)
    time.sleep(_ONCE)
    measured = _Look(caller).since(before)
    if caller.as_json:
        output.document(measured)
    else:
        rows = _rows(measured, usernames_of(caller))
        output.table(_COLUMNS, rows, empty="No sessions run.")


class _Look:
    """The running sessions at one moment."""

    def __init__(self, caller: Caller) -> None:
        self.sessions = listed(caller, user=None, status="running", usage=True)
        self.moment = time.monotonic()

    def since(self, earlier: _Look) -> list[dict[str, Any]]:
        """Return what each session takes, the one that uses most CPU, and then most memory, first."""
        spent = {session["id"]: session["usage"]["cpu"] for session in earlier.sessions}
        passed = self.moment - earlier.moment
        measured = []
        for session in self.sessions:
            usage = session["usage"]
            used = max(0.0, usage["cpu"] - spent.get(session["id"], usage["cpu"]))
            measured.append(
                {
                    "id": session["id"],
                    "readable_id": session["readable_id"],
                    "user_id": session["user_id"],
                    "linux_user": session["linux_user"],
                    "memory": usage["memory"],
                    "cpu_percent": round(used / passed * 100, 1),
                    "tasks": usage["tasks"],
                    "last_activity_at": session["last_activity_at"],
                    "busy": session["busy"],
                }
            )
        return sorted(measured, key=lambda each: (-each["cpu_percent"], -each["memory"], each["readable_id"]))


def _rows(measured: Sequence[dict[str, Any]], usernames: dict[str, str]) -> list[Sequence[object]]:
    return [
        (
            *(x["readable_id"], usernames.get(x["user_id"], x["user_id"])),
            *(output.size(x["memory"]), f"{x['cpu_percent']:.1f}", x["tasks"]),
            *(output.moment(x["last_activity_at"]), x["busy"]),
        )
        for x in measured
    ]
