"""Running all checks: side by side, each in bounded time, and none at the mercy of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio
from msgspec import Struct

from oqtod.admin.doctor.checks import CHECKS, Check
from oqtod.admin.doctor.finding import Finding, not_looked_at, problem
from oqtod.admin.doctor.host import Host

PATIENCE = 45.0
"""Seconds for one check. What hangs is left behind: a disk that doesn't answer can't be interrupted."""

_AT_ONCE = 4

Progress = Callable[[Check, int], None]
"""Called as checks end: which, and how many haven't."""


class Told(Struct, frozen=True):
    """A finding, and the check that made it."""

    check: str
    finding: Finding


def examine(
    host: Host,
    *,
    checks: Sequence[Check] = CHECKS,
    progress: Progress = lambda *_: None,
    patience: float = PATIENCE,
) -> list[Told]:
    """Run the checks, and return what they found, in the order of the table."""
    return trio.run(_examine, host, checks, progress, patience)


async def _examine(host: Host, checks: Sequence[Check], progress: Progress, patience: float) -> list[Told]:
    found: dict[str, list[Finding]] = {check.name: [] for check in checks}
    slots = trio.CapacityLimiter(_AT_ONCE)
    waiting = {check.name for check in checks}

    async def run(check: Check) -> None:
        async with slots:
            findings = found[check.name]
            with trio.move_on_after(patience) as limit:
                await trio.to_thread.run_sync(
                    partial(_run, check, host, findings.append),
                    abandon_on_cancel=True,
                    limiter=trio.CapacityLimiter(1),
                )
            if limit.cancelled_caught:
                # A copy: the thread that was left behind may yet add to its own.
                found[check.name] = [*findings, _unfinished(check, patience)]
        waiting.discard(check.name)
        progress(check, len(waiting))

    async with trio.open_nursery() as nursery:
        for check in checks:
            nursery.start_soon(run, check)
    return [
        Told(check.name, finding)
        for check in checks
        for finding in found[check.name] or [Finding("ok", check.title, "nothing wrong was found")]
    ]


def _run(check: Check, host: Host, tell: Callable[[Finding], None]) -> None:
    """Run the parts of a check, in a thread. Whatever is raised in one becomes its finding."""
    for look in check.parts:
        try:
            for finding in look(host):
                tell(finding)
        except Exception as error:
            tell(not_looked_at(check.title, error))


def _unfinished(check: Check, patience: float) -> Finding:
    return problem(
        check.title,
        f"the check did not end within {patience:g} seconds",
        "what it looks at doesn't answer, as a network file system or a service that hangs",
        "ps -eo pid,stat,wchan:30,args | awk '$2 ~ /D/' shows what waits for a disk; journalctl -k",
    )
