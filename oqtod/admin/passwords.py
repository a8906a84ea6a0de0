"""Passwords on their way in: asked for on a terminal, a line of standard input otherwise, never in argv."""

from __future__ import annotations

import sys

import click

from oqtod.admin.caller import Command


def asked(*, confirm: bool = True) -> str:
    """Return a password: asked for on a terminal, else read from standard input. Raises UsageError."""
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError("the password is empty")
    return password


def asked_or_none() -> str | None:
    """Return a password from a prompt, None for an empty one. Raises UsageError."""
    password: str = click.prompt(
        "Password (empty for none)", default="", show_default=False, hide_input=True, err=True
    )
    if not password:
        return None
    if click.prompt("Repeat for confirmation", hide_input=True, err=True) != password:
        raise click.UsageError("the two passwords differ")
    return password


@click.command(
    "hash-password",
    cls=Command,
    examples=["oqtoctl hash-password", "pwgen -s 20 1 | tee password | oqtoctl hash-password"],
)
def hash_password() -> None:
    """Print the hash of a password, for auth.dev_users in the configuration.

    The password is asked for on a terminal, and read as one line from standard input otherwise.
    """
    from oqtod.accounts import passwords  # bcrypt, which nothing else here needs

    click.echo(passwords.hashed(asked()))
