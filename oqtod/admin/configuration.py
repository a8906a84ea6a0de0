"""`oqtoctl config`: the configuration on this host. No daemon is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from oqtod import config
from oqtod.admin import output
from oqtod.admin.caller import Caller, Group
from oqtod.admin.client import Trouble
from oqtod.commands import config as commands
from oqtod.commands.exits import REFUSED


class _RefusedConfiguration(Trouble):
    """The configuration has problems."""

    exit_code = REFUSED
    code = "configuration_refused"

    def __init__(self, refused: config.ConfigRefused) -> None:
        count = len(refused.problems)
        super().__init__(f"the configuration is refused: {count} problem{'' if count == 1 else 's'}")
        self._problems = [str(problem) for problem in refused.problems]

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON, with every problem."""
        return super().body | {"problems": self._problems}


@click.group("config", cls=Group)
def config_group() -> None:
    """Check the configuration of this host, and show what is in force."""


@config_group.command(
    "check",
    examples=["oqtoctl config check", "oqtoctl config check --config new.toml && systemctl reload oqtod"],
)
@commands.config_option
@click.pass_obj
def check(caller: Caller, config_file: Path | None) -> None:
    """Tell whether the configuration can be used; exit with 3 and every problem when not.

    The same as oqtod config check.
    """
    if not caller.as_json:
        _callback(commands.check)(config_file)
        return
    loaded = _loaded(config_file)
    output.document({"status": "ok", "file": None if loaded.path is None else str(loaded.path)})


@config_group.command(
    "show", examples=["oqtoctl config show --sources", "oqtoctl config show | grep timeout"]
)
@commands.config_option
@click.option("--sources", is_flag=True, help="Say where each value comes from.")
@click.pass_obj
def show(caller: Caller, config_file: Path | None, sources: bool) -> None:
    """Show the value that counts for every key. Secrets are shown as "(set)".

    It is what the files and this environment say now; a running oqtod may not have read it yet.
    """
    if caller.as_json:
        _loaded(config_file)
    _callback(commands.show)(config_file, sources=sources, as_json=caller.as_json)


def _loaded(config_file: Path | None) -> config.Loaded:
    try:
        return config.load(config_file)
    except config.ConfigRefused as refused:
        raise _RefusedConfiguration(refused) from refused


def _callback(command: click.Command) -> Any:
    assert command.callback is not None
    return command.callback
