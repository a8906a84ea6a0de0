"""`oqtoctl invite`: codes with which people register."""

from __future__ import annotations

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller, Group


@click.group("invite", cls=Group)
def invite() -> None:
    """Make codes with which people can register, and make them void."""


@invite.command(
    "create",
    examples=[
        "oqtoctl invite create --expires 7d --note 'for Alice'",
        "oqtoctl invite create --count 30 --prefix course --expires 2w > codes.txt",
    ],
)
@click.option(
    "--uses", metavar="N", type=click.IntRange(min=1), default=1, help="Good for so many people.  [1]"
)
@names.expires
@click.option("--note", metavar="TEXT", help="What it is for.")
@click.option(
    "--count", metavar="N", type=click.IntRange(min=1, max=1000), default=1, help="Make so many codes.  [1]"
)
@click.option("--prefix", metavar="TEXT", help="What the codes begin with.")
@click.pass_obj
def create(
    caller: Caller, uses: int, expires: int | None, note: str | None, count: int, prefix: str | None
) -> None:
    """Make codes, and print them, a line each. They are shown this once."""
    asked = {
        "count": count,
        "uses_per_code": uses,
        "expires_in_secs": expires,
        "prefix": prefix,
        "note": note,
    }
    made = caller.daemon.ask("POST", names.path("invite-codes", "batch"), asked)
    if caller.as_json:
        output.document(made)
    else:
        for each in made:
            output.say(each["code"])


@invite.command("list", examples=["oqtoctl invite list"])
@click.pass_obj
def list_(caller: Caller) -> None:
    """List all codes, by their beginnings."""
    found = caller.daemon.ask("GET", names.path("invite-codes"))
    if caller.as_json:
        output.document(found)
        return
    output.table(
        ("id", "code", "valid", ">left", ">of", "expires", "made", "by", "note"),
        (
            (
                *(x["id"], x["code"], x["is_valid"], x["uses_remaining"], x["max_uses"]),
                *(output.moment(x["expires_at"]), output.moment(x["created_at"]), x["created_by"], x["note"]),
            )
            for x in found
        ),
        empty="There are no codes. Make one: oqtoctl invite create",
    )


@invite.command("revoke", examples=["oqtoctl invite revoke 1b4e28ba-2fa1-11d2-883f-0016d3cca427"])
@click.argument("id", metavar="ID")
@click.pass_obj
def revoke(caller: Caller, id: str) -> None:  # noqa: A002  what it is called on the command line
    """Make a code void: nobody registers with it any more. Who has, stays."""
    found = caller.daemon.ask("POST", names.path("invite-codes", id, "revoke"))
    if caller.as_json:
        output.document(found)
    else:
        output.say(f"{found['code']} is void")
