"""The command `oqtoctl`: administration. So far, making the hash of a password."""

from __future__ import annotations

import sys

import click

from oqtod import __version__
from oqtod.accounts import passwords


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oqtoctl")
def main() -> None:
    """Administer oqtod."""


@click.command()
def hash_password() -> None:
    """Print the hash of a password, for auth.dev_users in the configuration.

    The password is asked for on a terminal, and read as one line from standard input otherwise.
    """
    stdin = sys.stdin
    if stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = stdin.readline().rstrip("\n")
    if not password:
        raise click.UsageError("the password is empty")
    click.echo(passwords.hashed(password))


main.add_command(hash_password)
