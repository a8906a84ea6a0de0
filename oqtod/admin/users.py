"""`oqtoctl user`: the platform's users."""

from __future__ import annotations

import sys
from typing import Any

import click

from oqtod.admin import names, output, passwords
from oqtod.admin.caller import Caller, Group, confirm
from oqtod.admin.client import Refused

_ROLES = click.Choice(["user", "admin", "service"])


@click.group("user", cls=Group)
def user() -> None:
    """Make users, look at them, change them, shut them out.

    A user is named by user name or id.
    """


@user.command(
    "create",
    examples=[
        "oqtoctl user create alice --email alice@example.org",
        "pwgen 20 1 | tee alice.txt | oqtoctl user create alice --password-stdin --provision",
        "oqtoctl user create --from students.csv --provision --skip-existing",
    ],
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--email", metavar="ADDRESS", help="E-mail address.  [NAME@localhost]")
@click.option("--display-name", metavar="TEXT", help="What others see.  [NAME]")
@click.option("--role", type=_ROLES, help="What the user may do.  [user]")
@click.option("--password-stdin", is_flag=True, help="Take the password from standard input: one line.")
@click.option("--no-password", is_flag=True, help="Without a password: for who logs in elsewhere.")
@click.option("--provision", is_flag=True, help="Make the Linux account now, not with the first session.")
@click.option(
    "--from",
    "file",
    metavar="FILE",
    type=click.File("r", encoding="utf-8-sig"),
    help="Make the users of this CSV file; - is standard input.",
)
@click.option("--skip-existing", is_flag=True, help="With --from: users who are there already are fine.")
@click.pass_obj
def create(
    caller: Caller,
    name: str | None,
    email: str | None,
    display_name: str | None,
    role: str | None,
    password_stdin: bool,
    no_password: bool,
    provision: bool,
    file: Any,
    skip_existing: bool,
) -> int:
    """Make a user, or all users of a file.

    On a terminal the password is asked for; an empty one means none. With --json nothing is asked.

    The file has a heading with the column username, and may have email, password, display_name and role. Rows
    that fail are reported with their line, the others are made; then the exit code is 1. With
    --skip-existing the same file can be given again, after a failure or with new rows.
    """
    if (name is None) == (file is None):
        raise click.UsageError("give either a NAME or --from FILE")
    if file is not None:
        if email or display_name or role or password_stdin or no_password:
            raise click.UsageError("with --from, what users are is in the file")
        from oqtod.admin import users_file

        return users_file.create(caller, file, provision=provision, skip_existing=skip_existing)
    if skip_existing:
        raise click.UsageError("--skip-existing goes with --from")
    if password_stdin and no_password:
        raise click.UsageError("--password-stdin and --no-password exclude each other")
    password = None
    if password_stdin:
        password = passwords.asked()
    elif not no_password and not caller.as_json and sys.stdin.isatty():
        password = passwords.asked_or_none()
    asked = {
        "username": name,
        "email": email,
        "display_name": display_name,
        "role": role or "user",
        "password": password,
        "provision": provision,
    }
    made = caller.daemon.ask("POST", names.path("users"), asked)
    if caller.as_json:
        output.document(made)
    else:
        account = f", account {made['linux_user']}" if made["linux_user"] else ""
        output.say(f"made {made['username']} (id {made['id']}{account})")
    return 0


@user.command("list", examples=["oqtoctl user list", "oqtoctl user list --json | jq -r '.[].email'"])
@click.pass_obj
def list_(caller: Caller) -> None:
    """List all users."""
    found = caller.daemon.ask("GET", names.path("users"))
    if caller.as_json:
        output.document(found)
        return
    columns = ("user", "id", "role", "active", "e-mail", "from", ">live sessions", "last login")
    output.table(
        columns,
        (
            (
                *(x["username"], x["id"], x["role"], x["is_active"], x["email"], x["origin"]),
                *(x["live_sessions"], output.moment(x["last_login_at"])),
            )
            for x in found
        ),
        empty="There are no users. Make one: oqtoctl user create NAME",
    )


@user.command("show", examples=["oqtoctl user show alice"])
@names.user
@click.pass_obj
def show(caller: Caller, user: str) -> None:
    """Show a user, and the user's Linux account."""
    found = caller.daemon.ask("GET", names.path("users", user))
    if caller.as_json:
        output.document(found)
        return
    try:
        runner = caller.daemon.ask("GET", names.path("runners", found["id"]))
        account = f"{runner['account']} (uid {runner['uid']}, {runner['home']})"
    except Refused as refused:
        if refused.status != 404:
            raise
        account = "none yet: it is made with the first session"
    output.facts(
        [
            ("user", found["username"]),
            ("id", found["id"]),
            ("name", found["display_name"]),
            ("e-mail", found["email"]),
            ("role", found["role"]),
            ("active", found["is_active"]),
            ("being deleted", found["is_leaving"]),
            ("has a password", found["has_password"]),
            ("from", found["origin"]),
            *(("login provider", f"{x['issuer']} as {x['subject']}") for x in found["identities"]),
            ("account", account),
            ("live sessions", found["live_sessions"]),
            ("made", output.moment(found["created_at"])),
            ("last login", output.moment(found["last_login_at"])),
        ]
    )


def _changed(caller: Caller, found: dict[str, Any], what: str) -> None:
    if caller.as_json:
        output.document(found)
    else:
        output.say(f"{found['username']} {what}")


@user.command("disable", examples=["oqtoctl user disable alice"])
@names.user
@click.pass_obj
def disable(caller: Caller, user: str) -> None:
    """Shut a user out at once, and end everything that the user runs. Nothing is deleted."""
    _changed(caller, caller.daemon.ask("POST", names.path("users", user, "disable")), "is shut out")


@user.command("enable", examples=["oqtoctl user enable alice"])
@names.user
@click.pass_obj
def enable(caller: Caller, user: str) -> None:
    """Let a user in again."""
    _changed(caller, caller.daemon.ask("POST", names.path("users", user, "enable")), "may log in again")


@user.command(
    "delete", examples=["oqtoctl user delete alice", "oqtoctl user delete alice --remove-home --yes"]
)
@names.user
@click.option("--remove-home", is_flag=True, help="Delete the home with everything in it, too.")
@names.yes
@click.pass_obj
def delete(caller: Caller, user: str, remove_home: bool, yes: bool) -> None:
    """Delete a user, with sessions, keys and the Linux account; the home stays without --remove-home.

    A home that stays is never given to another user.
    """
    home = "with everything in the home" if remove_home else "the home stays"
    confirm(f"Delete the user {user}, {home}?", yes=yes)
    query = "?remove_home=true" if remove_home else ""
    caller.daemon.ask("DELETE", names.path("users", user) + query)
    if not caller.as_json:
        output.say(f"{user} is deleted, {home if not remove_home else 'and the home'}")


@user.command(
    "set-password",
    examples=["oqtoctl user set-password alice", "pwgen 20 1 | oqtoctl user set-password alice"],
)
@names.user
@click.pass_obj
def set_password(caller: Caller, user: str) -> None:
    """Give a user another password. Whoever is logged in as that user is logged out.

    It is asked for on a terminal, and read as one line from standard input otherwise.
    """
    password = passwords.asked()
    caller.daemon.ask("POST", names.path("users", user, "password"), {"password": password})
    if not caller.as_json:
        output.say(f"{user} has another password, and is logged out everywhere")


@user.command("set-role", examples=["oqtoctl user set-role alice admin"])
@names.user
@click.argument("role", type=_ROLES)
@click.pass_obj
def set_role(caller: Caller, user: str, role: str) -> None:
    """Say what a user may do. Another role logs the user out."""
    _changed(caller, caller.daemon.ask("PUT", names.path("users", user), {"role": role}), f"is {role} now")
