"""systemd's units, asked for: their properties, and what they wrote last."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from oqtod.admin.doctor.host import Host

SUPERVISOR, GATEWAY = "oqtod.service", "oqtod-gateway.service"

_ASKED = (
    *("Id", "LoadState", "LoadError", "ActiveState", "SubState", "Result", "UnitFileState", "FragmentPath"),
    *("DropInPaths", "NeedDaemonReload", "NRestarts", "MainPID", "ExecMainStatus", "ExecMainCode"),
    *("ActiveEnterTimestamp", "User", "Group", "NoNewPrivileges", "ProtectSystem", "ProtectHome"),
    *("CapabilityBoundingSet", "PrivateDevices", "LimitNOFILE", "KillMode", "Delegate"),
    *("RestrictNamespaces", "MemoryDenyWriteExecute", "PrivateNetwork", "ExecStart"),
)
_LAST_LINES = 5


class Unit(Struct, frozen=True):
    """One unit, as systemd has it: the properties of systemctl show."""

    properties: dict[str, str]
    since: float = 0.0
    """When it became active, in seconds since the epoch; 0 where it is not."""

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def name(self) -> str:
        return self["Id"]

    @property
    def active(self) -> str:
        return self["ActiveState"]

    @property
    def pid(self) -> int:
        return int(self["MainPID"] or "0")


def show(host: Host, names: Sequence[str]) -> list[Unit]:
    """Return units by name; systemd says of each, also of one that is not there. Raises OSError."""
    asked = [f"--property={','.join(_ASKED)}", "--timestamp=unix", "--all"]
    answer = host.run("systemctl", "show", "--no-pager", *asked, "--", *names)
    found = []
    for block in answer.out.strip().split("\n\n"):
        lines = [line.partition("=") for line in block.splitlines()]
        unit = Unit(properties={key: value for key, _, value in lines})
        if unit.name:
            stamp = unit["ActiveEnterTimestamp"].removeprefix("@")
            found.append(Unit(unit.properties, float(stamp) if stamp.isdecimal() else 0.0))
    if answer.code != 0 or not found:
        raise OSError(0, f"systemctl show failed: {answer.error.strip() or 'no answer'}")
    return found


def is_active(host: Host, name: str) -> bool:
    """Say whether a unit is active; also where that can't be told, so that others look further."""
    try:
        return show(host, [name])[0].active in ("active", "reloading")
    except OSError:
        return True


def runners(host: Host) -> list[str]:
    """Return the names of the loaded runner units. Raises OSError."""
    asked = ["--plain", "--no-legend", "--no-pager", "--all", "--", "oqto-runner@*"]
    answer = host.run("systemctl", "list-units", *asked)
    return [line.split()[0] for line in answer.out.splitlines() if line.split()]


def last_lines(host: Host, unit: str) -> str:
    """Return what a unit wrote last, on one line; an empty text where the journal can't be read."""
    try:
        asked = [f"--lines={_LAST_LINES}", "--output=cat", "--no-pager", "--quiet", "--boot"]
        shown = host.run("journalctl", "--unit", unit, *asked, timeout=8.0).out
    except OSError:
        return ""
    return " | ".join(line.strip()[:300] for line in shown.strip().splitlines())
