"""The command `oqtoctl doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from oqtod.admin.caller import Caller, Command


@click.command(
    "doctor",
    cls=Command,
    examples=["oqtoctl doctor", "sudo oqtoctl doctor --fix", "oqtoctl doctor --json | jq '.[].subject'"],
)
@click.option(
    "--fix", is_flag=True, help="Repair what is safe to repair, say what, and look again. Root only."
)
@click.option(
    "--personal", is_flag=True, help="Look at your own oqtod (oqtod serve --personal), not the host's."
)
@click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Another configuration file."
)
@click.pass_obj
def doctor(caller: Caller, *, fix: bool, personal: bool, file: Path | None) -> int:
    """Find what is wrong with this host's oqtod, say why it matters and what to do.

    Looks, and changes nothing without --fix; works also when the daemon doesn't. --fix sets owners and modes
    of oqtod's own files, makes missing folders and system accounts, and enables, starts and reloads its
    units. It never touches data, people's accounts, homes or the configuration. Always of this host:
    --server and --admin-socket don't matter.

    Exits with 0 when there is nothing worse than a warning, with 1 when problems are left.
    """
    # What it looks at is all of oqtod: nobody waits for that who only wants the help.
    from oqtod.admin.doctor.visit import visit

    return visit(caller, fix=fix, personal=personal, file=file)
