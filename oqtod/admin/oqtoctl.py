"""The command `oqtoctl`: administration of a running oqtod.

Each command is in a module of its own, listed here and imported when it is used:

    @click.command("doctor", cls=Command, examples=["oqtoctl doctor --fix"])
    @click.pass_obj
    def doctor(caller: Caller) -> None: ...

A group is `@click.group("audit", cls=Group)`, and its commands `@audit.command("tail", examples=[…])`. Errors
of the daemon are not caught: `Root` tells them, and exits with their code. Other exit codes are returned.
"""

from __future__ import annotations

import click

from oqtod import __version__
from oqtod.admin.caller import Root

_COMMANDS = {
    "status": "oqtod.admin.status:status",
    "doctor": "oqtod.admin.doctor.command:doctor",
    "user": "oqtod.admin.users:user",
    "session": "oqtod.admin.sessions:session",
    "runner": "oqtod.admin.runners:runner",
    "invite": "oqtod.admin.invites:invite",
    "key": "oqtod.admin.keys:key",
    "port": "oqtod.admin.ports:port",
    "audit": "oqtod.admin.audit:audit",
    "config": "oqtod.admin.configuration:config_group",
    "sandbox": "oqtod.admin.sandbox:sandbox",
    "hash-password": "oqtod.admin.passwords:hash_password",
    "completion": "oqtod.admin.completion:completion",
}
"""Every command: its name, and where it is. The order is that of the help."""


@click.group(cls=Root, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oqtoctl")
def main() -> None:
    """Administer oqtod.

    Talks to the oqtod of this host through its admin socket, which is for root and for members of the group
    oqto-admin; with --server to another one, for which a token is needed.

    Exit codes: 0 done, 1 failed, 2 usage, 3 configuration refused, 4 can't reach the daemon, 5 not permitted.
    """
