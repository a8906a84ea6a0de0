"""The command group `oqtod`: its options and help. What runs for long is imported when it is run."""

from __future__ import annotations

from pathlib import Path

import click

from oqtod import __version__
from oqtod.commands.config import config_group


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="oqtod")
def main() -> None:
    """Terminals, files and browsers for the people and agents of one Debian host.

    On a server, systemd runs it: `systemctl start oqtod`. To try it as yourself, without root:
    `oqtod serve --personal`.

    Exit codes: 0 done, 1 failed, 2 usage, 3 configuration refused, 4 can't reach the daemon,
    5 not permitted.
    """


_config = click.option(
    "--config", "path", metavar="FILE", type=click.Path(path_type=Path), help="Configuration file."
)


@main.command()
@_config
@click.option("--host", metavar="ADDRESS", help="Listen on this address instead of server.host.")
@click.option("--port", metavar="NUMBER", type=int, help="Listen on this port instead of server.port.")
@click.option(
    "--personal", "is_personal", is_flag=True, help="For yourself: no root, no systemd, no accounts."
)
def serve(path: Path | None, host: str | None, port: int | None, is_personal: bool) -> None:
    """Run the gateway: web page, API, and the way to every session.

    On a server, systemd runs this as oqtod-gateway.service. With --personal it runs sessions as yourself, and
    prints a login that is good for this start.
    """
    from oqtod.commands import serve

    serve.serve(path, host, port, is_personal)


@main.command()
@_config
def supervise(path: Path | None) -> None:
    """Run the root side: Linux accounts and the units of their runners.

    systemd runs this as oqtod.service. It answers the gateway on /run/oqto/supervisor.sock, by names only.
    """
    from oqtod.commands import supervise

    supervise.supervise(path)


main.add_command(config_group)
