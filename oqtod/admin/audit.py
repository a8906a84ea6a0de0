"""`oqtoctl audit`: who did what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller, Group
from oqtod.admin.client import Unreachable

_PATIENCE = 60.0
"""Seconds of silence after which a stream is broken: it sends a comment every 15."""

_WIDTHS = (19, 20, 7, 12, 15)


@click.group("audit", cls=Group)
def audit() -> None:
    """Read the audit log: logins, changes, who was refused what."""


def _events(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from oqtod.telemetry.audit import EVENTS  # slow to import, and only for whoever presses Tab

    return [event for event in EVENTS if event.startswith(incomplete)]


@audit.command(
    "tail",
    examples=[
        "oqtoctl audit tail --follow",
        "oqtoctl audit tail --event auth.login --user alice -n 20",
        "oqtoctl audit tail --event request.denied --json | jq -r .actor.ip | sort | uniq -c",
    ],
)
@click.option("--follow", "-f", is_flag=True, help="Go on with lines to come, until Ctrl-C.")
@click.option("--user", metavar="USER", shell_complete=names.user_names, help="Only what this user did.")
@click.option(
    "--event",
    metavar="EVENT",
    shell_complete=_events,
    help="Only this event, or all of a kind: auth.login, session.",
)
@click.option("--since", metavar="TIME", help="Only from then on: 2026-01-31T12:00:00Z.")
@click.option(
    "-n",
    "limit",
    metavar="NUMBER",
    type=click.IntRange(0, 1000),
    default=20,
    help="So many of the last lines.  [20]",
)
@click.pass_obj
def tail(
    caller: Caller, follow: bool, user: str | None, event: str | None, since: str | None, limit: int
) -> None:
    """Show the last events of the audit log, a line each: when, what, outcome, user, from where, on what.

    With --json, the lines as they stand in the log. Reading it is an event too.
    """
    asked = {"user": user, "event": event, "since": since, "limit": limit, "follow": "1" if follow else None}
    path = f"{names.path('audit')}?{urlencode({k: v for k, v in asked.items() if v is not None})}"
    if not follow:
        for line in caller.daemon.ask("GET", path)["lines"]:
            _show(line, as_json=caller.as_json)
        return
    try:
        for line in _followed(caller, path):
            _show(line, as_json=caller.as_json)
    except KeyboardInterrupt:
        return
    raise Unreachable(
        "oqtod ended the stream", "it was stopped or restarted, or you may not read it any more"
    )


def _followed(caller: Caller, path: str) -> Iterator[dict[str, Any]]:
    """Return the lines of an event stream, as the HTML standard writes them (section 9.2)."""
    event = ""
    for text in caller.daemon.stream(path, timeout=_PATIENCE):
        name, _, value = text.partition(b": ")
        if name == b"event":
            event = value.decode()
        elif name == b"data":
            data = json.loads(value)
            if event == "missed":
                output.warn(f"{data['lines']} lines came too fast to be shown: they are in the log")
            elif event == "error":
                raise Unreachable(data["error"])
            else:
                yield data
            event = ""


def _show(line: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(line, separators=(",", ":"), ensure_ascii=False))
    else:
        click.echo(aligned(line))


def aligned(line: dict[str, Any]) -> str:
    """Return an event as a line for people. What others chose in it can't steer a terminal."""
    actor = line["actor"]
    place = actor.get("ip") or (f"uid {actor['uid']}" if "uid" in actor else actor["kind"])
    columns = (
        output.moment(line["timestamp"]),
        line["event"],
        line["outcome"],
        line.get("user_id"),
        place,
    )
    shown = [output.cell(value).ljust(width) for value, width in zip(columns, _WIDTHS, strict=True)]
    rest = [line.get("method"), line.get("path"), line.get("status")]
    shown += [output.cell(value) for value in rest if value is not None]
    if line.get("detail"):
        shown.append(f"({output.cell(line['detail'])})")
    return "  ".join(shown).rstrip()
