"""The table of checks: their names, which docs/doctor.md explains, and their functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from oqtod.admin.doctor import (
    accounts,
    audit,
    clocks,
    configuration,
    daemon,
    database,
    disks,
    kernel,
    login,
    places,
    ports,
    processes,
    programs,
    services,
    systemd,
)
from oqtod.admin.doctor.finding import Finding
from oqtod.admin.doctor.host import Host

Look = Callable[[Host], Iterable[Finding]]


class Check(Struct, frozen=True):
    """One check. Its parts are looked at one after the other; a part that fails keeps none from the next."""

    name: str
    title: str
    parts: Sequence[Look]


CHECKS = (
    Check(
        "configuration",
        "configuration and sandbox files",
        (
            configuration.accepted,
            configuration.sandbox,
            configuration.in_force,
            configuration.wise,
        ),
    ),
    Check("systemd", "systemd, D-Bus and the journal", (systemd.answers,)),
    Check("units", "the daemons' units", (services.daemons,)),
    Check("runners", "the runners' units", (services.accounts_runners,)),
    Check("processes", "the daemons' processes", (processes.daemons,)),
    Check(
        "system-accounts", "the system's accounts, groups and their files", (accounts.system, accounts.files)
    ),
    Check("permissions", "owners and modes", (places.permissions, places.reach, places.system)),
    Check("attributes", "immutable files", (places.attributes,)),
    Check("daemon", "the running daemon and its sockets", (daemon.sockets, daemon.health)),
    Check("ports", "TCP ports", (ports.ours,)),
    Check("database", "the database", (database.whole,)),
    Check("accounts", "people's accounts and homes", (accounts.registry,)),
    Check("audit", "the audit log", (audit.log,)),
    Check("disks", "file systems", (disks.file_systems,)),
    Check("programs", "programs", (programs.needed,)),
    Check("versions", "versions", (programs.versions, programs.imports)),
    Check("package", "the package's files", (programs.package,)),
    Check("sandbox", "the sandbox, tried", (kernel.sandbox,)),
    Check(
        "kernel",
        "the kernel's features and limits",
        (kernel.features, kernel.control_groups, kernel.limits, kernel.reserved_ports),
    ),
    Check("memory", "memory", (kernel.memory,)),
    Check("clock", "the clock", (clocks.clock,)),
    Check("login-provider", "the login provider", (login.provider,)),
)
"""Every check, in the order in which findings are told. No two have one name."""
