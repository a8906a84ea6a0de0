"""`oqtoctl port`: which ports sessions hold."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller, Group


@click.group("port", cls=Group)
def port() -> None:
    """See which ports of the host belong to sessions, and who listens there."""


@port.command("list", examples=["oqtoctl port list", "oqtoctl port list --listening"])
@click.option("--listening", is_flag=True, help="Only those where somebody listens.")
@click.pass_obj
def list_(caller: Caller, listening: bool) -> None:
    """List the ports of live sessions, and who listens there.

    A session has a block of ports for its agent, its programs and previews of apps, and may have one for its
    browser. A listener that is not the session's account is marked: oqtod lets nobody through to it.
    """
    found = caller.daemon.ask("GET", names.path("ports"))
    if listening:
        found = [each for each in found if each["listener"] is not None]
    if caller.as_json:
        output.document(found)
        return
    usernames = {user["id"]: user["username"] for user in caller.daemon.ask("GET", names.path("users"))}
    output.table(
        ("ports", "for", "session", "user", "account", "listening"),
        (
            (
                f"{first['port']}-{last['port']}" if first != last else first["port"],
                *(first["purpose"], first["readable_id"]),
                *(usernames.get(first["user_id"], first["user_id"]), first["linux_user"], _listener(first)),
            )
            for first, last in _runs(found)
        ),
        empty="No session holds ports.",
    )


def _runs(ports: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the first and the last of each run of ports about which there is the same to say."""
    runs = []
    for _, same in groupby(ports, lambda each: {**each, "port": None}):
        run = list(same)
        runs.append((run[0], run[-1]))
    return runs


def _listener(each: dict[str, Any]) -> str | None:
    listener = each["listener"]
    if listener is None:
        return None
    name = listener["account"] or f"uid {listener['uid']}"
    return f"{name} (not the session's)" if each["foreign"] else name
