"""oqtod's units: there, enabled, running, not overridden for the worse, and not in a crash loop."""

from __future__ import annotations

import re
from collections.abc import Iterator

from oqtod.admin.doctor import units
from oqtod.admin.doctor.finding import Finding, Run, each, note, problem, warning
from oqtod.admin.doctor.host import Host

RUNNERS = ("oqto-runner@.service", "oqto-runner@.socket")
_SHIPPED = "/usr/lib/systemd/system"
_HARDENED = {
    units.SUPERVISOR: {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateDevices": "yes",
        "PrivateNetwork": "yes",
        "MemoryDenyWriteExecute": "yes",
    },
    units.GATEWAY: {
        "User": "oqtod",
        "Group": "oqtod",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateDevices": "yes",
        "CapabilityBoundingSet": "",
        "MemoryDenyWriteExecute": "yes",
    },
}
"""What a local change may not take away, as the packaged units have it."""

_RUNNER = {"NoNewPrivileges": "yes", "KillMode": "process", "Delegate": "yes", "CapabilityBoundingSet": ""}
_PROGRAMS = ("/usr/bin/oqtod", "/usr/bin/oqto-runner")
_OUR_DROP_IN = "/50-oqtod.conf"
_MANY_RESTARTS = 3
_EXIT_REFUSED = "3"


def daemons(host: Host) -> Iterator[Finding]:
    """Look at the two daemons' units."""
    if host.personal:
        return
    for unit in units.show(host, [units.SUPERVISOR, units.GATEWAY]):
        yield from each([unit], lambda one: _definition(host, one), lambda one: one.name)
        yield from each([unit], lambda one: _running(host, one), lambda one: one.name)


def _definition(host: Host, unit: units.Unit) -> Iterator[Finding]:
    name = unit.name
    if unit["LoadState"] == "masked":
        yield problem(
            name,
            f"masked ({unit['FragmentPath'] or 'a link to /dev/null'})",
            "systemd refuses to start it, whoever asks",
            f"systemctl unmask {name} && systemctl start oqtod.service",
        )
        return
    if unit["LoadState"] == "not-found":
        yield problem(
            name,
            "systemd knows no such unit",
            "oqtod can't be started",
            "systemctl daemon-reload; if that doesn't help: apt-get install --reinstall oqtod",
            Run(("systemctl", "daemon-reload")),
        )
        return
    if unit["LoadState"] not in ("loaded", ""):
        yield problem(
            name,
            f"systemd can't use it ({unit['LoadState']}): {unit['LoadError'] or 'see the journal'}",
            "oqtod can't be started",
            f"systemd-analyze verify {name} says which line; correct it, then: systemctl daemon-reload",
        )
    if unit["NeedDaemonReload"] == "yes":
        yield warning(
            name,
            "its files changed since systemd read them",
            "what runs is not what the files say, as after an upgrade that was interrupted",
            "systemctl daemon-reload && systemctl restart oqtod",
            Run(("systemctl", "daemon-reload")),
        )
    if name == units.SUPERVISOR and unit["UnitFileState"] not in ("enabled", "enabled-runtime", "masked"):
        yield problem(
            name,
            f"not enabled ({unit['UnitFileState'] or 'unknown'})",
            "oqtod is not there after the next boot",
            f"systemctl enable {name}",
            Run(("systemctl", "enable", name)),
        )
    yield from _overridden(unit)
    yield from _syntax(host, unit)


def _overridden(unit: units.Unit) -> Iterator[Finding]:
    fragment = unit["FragmentPath"]
    if fragment and not fragment.startswith((_SHIPPED, "/lib/systemd/system")):
        yield warning(
            unit.name,
            f"{fragment} stands in for the packaged unit",
            "upgrades no longer reach it",
            f"move what you need to a drop-in (systemctl edit {unit.name}), then: rm {fragment}",
        )
    where = unit["DropInPaths"] or fragment
    local = [path for path in unit["DropInPaths"].split() if not path.startswith(("/usr/lib/", "/lib/"))]
    if local and (mine := [path for path in local if not path.endswith(_OUR_DROP_IN)]):
        yield note(
            unit.name,
            f"local changes: {', '.join(mine)}",
            "they are yours, and worth a look when something is odd",
            f"systemctl cat {unit.name}",
        )
    started = re.search(r"path=(\S+)", unit["ExecStart"])
    if unit["LoadState"] == "loaded" and (started is None or started[1] not in _PROGRAMS):
        yield problem(
            unit.name,
            f"starts {started[1] if started else 'nothing'}: {where}",
            "the package has it start /usr/bin/oqtod or /usr/bin/oqto-runner",
            f"take ExecStart= out of {where}, then: systemctl daemon-reload && systemctl restart oqtod",
        )
    for key, wanted in _HARDENED.get(unit.name, _RUNNER).items():
        if key in unit.properties and unit[key] != wanted and unit["LoadState"] == "loaded":
            yield problem(
                unit.name,
                f"{key}={unit[key] or '(nothing)'}, where the package has {wanted or '(nothing)'}: {where}",
                "a wall that the daemon's safety rests on is lower than it should be",
                f"take {key}= out of {where}, then: systemctl daemon-reload && systemctl restart oqtod",
            )


def _syntax(host: Host, unit: units.Unit) -> Iterator[Finding]:
    """Ask systemd what it ignores in a file that somebody changed."""
    answer = host.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit.name)
    for line in answer.error.splitlines():
        if "oqto" in line:
            yield problem(
                unit.name,
                line.strip(),
                "systemd ignores the line, or refuses the unit at the next start",
                "correct the line, then: systemctl daemon-reload && systemctl restart oqtod",
            )


def _running(host: Host, unit: units.Unit) -> Iterator[Finding]:
    name, state = unit.name, unit.active
    if unit["LoadState"] in ("masked", "not-found"):
        return
    said = units.last_lines(host, name)
    last = f"; last in its journal: {said}" if said else ""
    if state in ("failed", "inactive", "deactivating"):
        ended = f", result {unit['Result']}, status {unit['ExecMainStatus']}" if state == "failed" else ""
        refused = unit["ExecMainStatus"] == _EXIT_REFUSED
        advice = f"systemctl reset-failed {name}; systemctl start {name}; then: journalctl -u {name}"
        if refused:
            advice = f"correct what it says (oqtod config check), then: {advice}"
        yield problem(
            name,
            f"{state}{ended}{last}",
            "nobody can log in or reach a session"
            if name == units.GATEWAY
            else "no account's runner can start",
            advice,
            Run(("systemctl", "start", units.SUPERVISOR if state == "inactive" else name)),
        )
    elif state == "activating" or int(unit["NRestarts"] or "0") >= _MANY_RESTARTS:
        loops = state == "activating" and unit["SubState"] == "auto-restart"
        found = f"{state} ({unit['SubState']}), restarted {unit['NRestarts']} times{last}"
        if state == "activating" and unit["NRestarts"] in ("", "0") and not loops:
            yield warning(name, found, "it has just been started", "oqtoctl doctor again, in a moment")
        elif state == "activating":
            yield problem(
                name,
                found,
                "it ends again as soon as it has started" if loops else "it is not ready",
                f"journalctl -u {name} says why",
            )
        else:
            yield warning(
                name,
                found,
                "each time, people's connections were cut; their sessions went on",
                f"journalctl -u {name} says why",
            )


def accounts_runners(host: Host) -> Iterator[Finding]:
    """Look at the runners' units, and at the templates that they are made from."""
    if host.personal:
        return
    templates = [name.replace("@.", "@doctor.") for name in RUNNERS]
    for unit in units.show(host, templates):
        yield from each([unit], lambda one: _template(one), lambda one: one.name)
    names = units.runners(host)
    if not names:
        return
    for unit in units.show(host, names):
        yield from each([unit], lambda one: _runner(host, one), lambda one: one.name)


def _template(unit: units.Unit) -> Iterator[Finding]:
    shipped = unit.name.replace("@doctor.", "@.")
    if unit["LoadState"] not in ("loaded", ""):
        yield problem(
            shipped,
            f"systemd can't use it: {unit['LoadState']} {unit['LoadError']}".strip(),
            "no account's runner can start",
            f"systemctl unmask {shipped}; if that doesn't help: apt-get install --reinstall oqtod",
        )
    elif unit.name.endswith(".service"):
        yield from _overridden(unit)


def _runner(host: Host, unit: units.Unit) -> Iterator[Finding]:
    if unit.active == "failed":
        said = units.last_lines(host, unit.name)
        yield problem(
            unit.name,
            f"failed, result {unit['Result']}" + (f"; last in its journal: {said}" if said else ""),
            "this account's sessions can't be reached",
            f"systemctl reset-failed {unit.name}; it starts when its person comes; journalctl -u {unit.name}",
            Run(("systemctl", "reset-failed", unit.name)),
        )
    elif unit["LoadState"] == "masked":
        yield problem(
            unit.name, "masked", "this account's runner can't start", f"systemctl unmask {unit.name}"
        )
    elif unit["NeedDaemonReload"] == "yes":
        yield warning(
            unit.name,
            "its files changed since systemd read them",
            "what runs is not what the files say",
            "systemctl daemon-reload",
            Run(("systemctl", "daemon-reload")),
        )
