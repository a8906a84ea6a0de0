"""`oqtoctl sandbox`: what sessions may see and do, asked of oqto-sandbox as the account in question."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller, Group
from oqtod.admin.client import Trouble

_PROGRAM = "oqto-sandbox"
_TIMEOUT = 60.0

_workspace = click.option("--workspace", metavar="DIR", help="The session's workspace.  [the home, or here]")
_user = click.option(
    "--user",
    metavar="USER",
    shell_complete=names.user_names,
    help="As this user's account sees it; for root.",
)


@click.group("sandbox", cls=Group)
def sandbox() -> None:
    """Ask what sessions may see and do.

    The rules are in /etc/oqto/sandbox.toml, and files of people and workspaces only tighten them. Without
    --user, the answers are about your own account.
    """


@sandbox.command("show", examples=["oqtoctl sandbox show --user alice"])
@_user
@_workspace
@click.pass_obj
def show(caller: Caller, user: str | None, workspace: str | None) -> int:
    """Show the rules in force, each with the file and line that it comes from."""
    return _ask(caller, "show", user=user, workspace=workspace)


@sandbox.command("check", examples=["oqtoctl sandbox check", "oqtoctl sandbox check --user alice"])
@_user
@_workspace
@click.pass_obj
def check(caller: Caller, user: str | None, workspace: str | None) -> int:
    """Tell whether the files are in order, and what this host can enforce. Exits with 3 when they aren't."""
    return _ask(caller, "check", user=user, workspace=workspace)


@sandbox.command(
    "explain", examples=["oqtoctl sandbox explain --user alice /home/oqto_alice/.ssh /etc/shadow"]
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@_user
@_workspace
@click.pass_obj
def explain(caller: Caller, paths: Sequence[str], user: str | None, workspace: str | None) -> int:
    """Say whether a session could read or write each path, and which line of which file decided."""
    return _ask(caller, "explain", *paths, user=user, workspace=workspace)


def _ask(caller: Caller, question: str, *paths: str, user: str | None, workspace: str | None) -> int:
    account = None
    if user is not None:
        if os.geteuid() != 0:
            raise click.UsageError(
                "--user needs root: what an account can see, only the account itself knows"
            )
        account = pwd.getpwnam(caller.daemon.ask("GET", names.path("runners", user))["account"])
    beside = Path(sys.argv[0]).absolute().parent / _PROGRAM
    program = str(beside) if beside.is_file() else shutil.which(_PROGRAM)
    if program is None:
        raise Trouble(f"{_PROGRAM} isn't installed", "it comes with oqtod")
    if workspace is None and account is not None:
        workspace = account.pw_dir
    options = [*(["--json"] if caller.as_json else []), *(["--workspace", workspace] if workspace else [])]
    # Everything behind -- is a path, whatever it looks like.
    command = [program, *options, question, *(["--", *paths] if paths else [])]
    if account is None:
        return subprocess.run(command, check=False).returncode
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": account.pw_dir, "LANG": "C.UTF-8"}
    # Away from our terminal: other processes of the account can take this one's descriptors.
    done = subprocess.run(
        command,
        check=False,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT,
        start_new_session=True,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(account.pw_name, account.pw_gid),
    )
    for line in done.stdout.splitlines():
        output.say(line)
    for line in done.stderr.splitlines():
        output.warn(line)
    return done.returncode
