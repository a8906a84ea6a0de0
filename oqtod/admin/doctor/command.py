"""The command `oqtoctl doctor`."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import click

from oqtod import config
from oqtod.admin import output
from oqtod.admin.caller import Caller, Command
from oqtod.admin.client import Daemon, NotPermitted, Trouble, Where
from oqtod.admin.doctor import repairs, report, setting
from oqtod.admin.doctor.checks import CHECKS, Check
from oqtod.admin.doctor.examination import Told, examine
from oqtod.admin.doctor.finding import Repair
from oqtod.admin.doctor.host import Host, Unreachable
from oqtod.commands.exits import FAILED, FORBIDDEN

_ROUNDS = 3
"""How often what repairs uncovered is repaired too."""

_QUIET = 2.0
_ASKING = 10.0
_STARTING = 5.0


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
    if fix and os.geteuid() != 0 and not personal:
        raise _NeedsRoot("--fix changes what is root's", "sudo oqtoctl doctor --fix")
    host, told = _look(file, personal=personal)
    fixed: list[Told] = []
    if fix:
        told, fixed = _repaired(host, told, lambda: _look(file, personal=personal)[1])
    if caller.as_json:
        output.document(report.document(told, fixed))
    else:
        for line in report.lines(told, fixed, tried=fix):
            click.echo(line)
    return FAILED if any(one.finding.severity == "problem" for one in told) else 0


class _NeedsRoot(Trouble):
    exit_code = FORBIDDEN
    code = "forbidden"


def _look(file: Path | None, *, personal: bool) -> tuple[Host, list[Told]]:
    """Look at everything, with the configuration as it is now."""
    host = setting.host_of(file, personal=personal)
    host = replace(host, ask=_asking(host))
    with _Progress() as progress:
        return host, examine(host, progress=progress)


def _asking(host: Host) -> Callable[[str], object]:
    daemon = Daemon(Where(admin_socket=config.admin_socket(host.config)))

    def ask(path: str) -> object:
        try:
            return daemon.ask("GET", path, timeout=_ASKING)
        except NotPermitted as refused:
            raise PermissionError(errno.EACCES, str(refused)) from refused
        except Trouble as trouble:
            raise Unreachable(str(trouble)) from trouble

    return ask


def _repaired(host: Host, told: list[Told], look: Callable[[], list[Told]]) -> tuple[list[Told], list[Told]]:
    """Repair, look again, and again: what is left, and what was repaired. Says each thing it does."""
    before: list[Told] = []
    done: set[Repair] = set()
    for _ in range(_ROUNDS):
        wanted = [one.finding.repair for one in told if one.finding.repair is not None]
        held = any(one.finding.holds for one in told)
        todo = [
            one for one in repairs.ordered(wanted) if one not in done and not (held and repairs.starts(one))
        ]
        if not todo:
            break
        before += told
        for one in todo:
            done.add(one)
            _announce(host, one)
        if any(repairs.starts(one) for one in todo):
            _wait_for_the_daemon(host)
        told = look()
    bad = ("problem", "warning")
    left = {(one.check, one.finding.subject) for one in told if one.finding.severity in bad}
    could = [one for one in before if one.finding.repair is not None]
    fixed = {(one.check, one.finding.subject, one.finding.found): one for one in could}
    return told, [one for one in fixed.values() if (one.check, one.finding.subject) not in left]


def _wait_for_the_daemon(host: Host) -> None:
    """Wait a while for the gateway's admin socket, which is there a moment after the gateway."""
    end = time.monotonic() + _STARTING
    while time.monotonic() < end:
        try:
            host.ask("/api/health")
        except Unreachable:
            time.sleep(0.1)
        else:
            return


def _announce(host: Host, one: Repair) -> None:
    try:
        repairs.repair(host, one)
    except repairs.NotRepaired as error:
        output.warn(f"FAILED   {one}: {error}")
    else:
        output.warn(f"did      {one}")


class _Progress:
    """Says on a terminal how far it is, when that takes a while."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = False

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, check: Check, left: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._began > _QUIET:
            self._shown = True
            click.echo(
                f"\r\x1b[K{len(CHECKS) - left} of {len(CHECKS)} checks: {check.title}", err=True, nl=False
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
