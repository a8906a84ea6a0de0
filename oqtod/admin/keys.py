"""`oqtoctl key`: API keys of users."""

from __future__ import annotations

from collections.abc import Sequence

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller, Group


@click.group("key", cls=Group)
def key() -> None:
    """Make API keys for users, and make them void."""


@key.command(
    "create",
    examples=[
        "oqtoctl key create alice --name laptop --expires 90d",
        "(umask 077; oqtoctl key create root --name monitoring --scope admin > token)",
    ],
)
@names.user
@click.option("--name", metavar="TEXT", required=True, help="What it is for.")
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    help="What it is good for; may be given several times.  [all but admin]",
)
@names.expires
@click.pass_obj
def create(caller: Caller, user: str, name: str, scopes: Sequence[str], expires: int | None) -> None:
    """Make a key, and print it. It is shown this once.

    Scopes: sessions:read, sessions:write, files:read, files:write, terminal, previews, browser,
    projects:read, projects:write, and admin for administrators, which is what --server needs.
    """
    asked = {"name": name, "scopes": list(scopes) or None, "expires_at": names.moment_in(expires)}
    made = caller.daemon.ask("POST", names.path("users", user, "keys"), asked)
    if caller.as_json:
        output.document(made)
    else:
        output.say(made["api_key"])


@key.command("list", examples=["oqtoctl key list alice"])
@names.user
@click.pass_obj
def list_(caller: Caller, user: str) -> None:
    """List a user's keys, the void ones too."""
    found = caller.daemon.ask("GET", names.path("users", user, "keys"))
    if caller.as_json:
        output.document(found)
        return
    output.table(
        ("id", "name", "begins with", "scopes", "last used", "expires", "revoked"),
        (
            (
                *(x["id"], x["name"], x["key_prefix"], x["scopes"]),
                *(output.moment(x[when]) for when in ("last_used_at", "expires_at", "revoked_at")),
            )
            for x in found["keys"]
        ),
        empty=f"{user} has no keys.",
    )


@key.command("revoke", examples=["oqtoctl key revoke alice 1b4e28ba-2fa1-11d2-883f-0016d3cca427"])
@names.user
@click.argument("id", metavar="ID")
@click.pass_obj
def revoke(caller: Caller, user: str, id: str) -> None:  # noqa: A002  what it is called on the command line
    """Make a key void at once: what it holds open is cut off."""
    caller.daemon.ask("DELETE", names.path("users", user, "keys", id))
    if not caller.as_json:
        output.say(f"{id} is void")
