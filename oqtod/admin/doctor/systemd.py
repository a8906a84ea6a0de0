"""systemd itself, the bus that everybody talks over, and the journal."""

from __future__ import annotations

from collections.abc import Iterator

from oqtod.admin.doctor import units
from oqtod.admin.doctor.finding import Finding, note, problem, warning
from oqtod.admin.doctor.host import Host


def answers(host: Host) -> Iterator[Finding]:
    """Ask systemd how it is, and whether the bus that everybody talks over answers."""
    if host.personal:
        return
    state = host.run("systemctl", "is-system-running")
    word = state.out.strip()
    if word in ("", "offline", "unknown"):
        yield problem(
            "systemd",
            f"can't be asked: {state.error.strip() or word or 'no answer'}",
            "nothing of oqtod can be started or stopped",
            "systemctl daemon-reexec; if that doesn't help, restart the host",
        )
        return
    if word in ("maintenance", "stopping"):
        yield problem("systemd", f"the host is {word}", "services don't run", "systemctl default")
    if word == "degraded":
        listed = host.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager").out
        others = [line.split()[0] for line in listed.splitlines() if line and not line.startswith("oqto")]
        if others:
            yield note(
                "systemd",
                f"units failed: {', '.join(others)}",
                "they are none of oqtod's, and may matter to the host",
                f"systemctl status {' '.join(others)}",
            )
    yield from _bus(host)
    for unit in units.show(host, ["systemd-journald.service"]):
        if unit.active != "active":
            yield warning(
                unit.name,
                f"{unit.active}",
                "what the daemons say is lost",
                f"systemctl start systemd-journald.socket {unit.name}",
            )


def _bus(host: Host) -> Iterator[Finding]:
    advice = "systemctl unmask dbus.socket dbus.service; systemctl start dbus.socket dbus.service"
    matters = "the supervisor talks to systemd over it: no runner can be started or stopped"
    states = [unit for unit in units.show(host, ["dbus.socket"]) if unit.active != "active"]
    for unit in states:
        yield problem("D-Bus", f"{unit.name} is {unit.active} ({unit['LoadState']})", matters, advice)
    answer = host.run("busctl", "--system", "--timeout=5", "call", *_GET_ID)
    if answer.code != 0 and not states:
        yield problem("D-Bus", f"doesn't answer: {answer.error.strip()}", matters, advice)


_GET_ID = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
