"""The command group `oqtod`."""

from __future__ import annotations

import click

from oqtod import __version__
from oqtod.commands.config import config_group
from oqtod.commands.serve import serve
from oqtod.commands.supervise import supervise


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oqtod")
def main() -> None:
    """Terminals, files and browsers for the people and agents of one Debian host.

    On a server, systemd runs it: `systemctl start oqtod`. To try it as yourself, without root:
    `oqtod serve --personal`.

    Exit codes: 0 done, 1 failed, 2 usage, 3 configuration refused, 4 can't reach the daemon,
    5 not permitted.
    """


main.add_command(serve)
main.add_command(supervise)
main.add_command(config_group)
