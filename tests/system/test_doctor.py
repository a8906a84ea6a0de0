"""oqtoctl doctor on a booted Debian 13: a healthy one, and one that was broken, again and again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Host, prepare
from tests.system.machine import Machine

CRASHING = "/etc/systemd/system/oqtod-gateway.service.d"
GATEWAY_PID = "$(systemctl show -P MainPID oqtod-gateway)"


@dataclass(frozen=True)
class Fault:
    """What somebody did, and what the doctor must say: the check, and a part of "subject: found".

    Without `undo`, `--fix` must repair it.
    """

    name: str
    broken: str
    check: str
    said: str
    undo: str | None = None


FAULTS = [
    # What --fix repairs.
    Fault(
        "config open to all",
        "chmod 0666 /etc/oqto/config.toml",
        "permissions",
        "/etc/oqto/config.toml: root:oqtod 0666",
    ),
    Fault("config of somebody", "chown games:games /etc/oqto/config.toml", "permissions", "games:games 0640"),
    Fault(
        "sandbox.toml unreadable",
        "chmod 0600 /etc/oqto/sandbox.toml",
        "permissions",
        "sandbox.toml: root:root 0600",
    ),
    Fault("/run/oqto deleted", "rm -r /run/oqto", "permissions", "/run/oqto: missing"),
    Fault("socket deleted", "rm /run/oqto/supervisor.sock", "permissions", "supervisor.sock: missing"),
    Fault(
        "socket open",
        "chmod 0666 /run/oqto/oqtoctl.sock",
        "permissions",
        "oqtoctl.sock: oqtod:oqto-admin 0666",
    ),
    Fault(
        "runner's socket",
        "chmod 0600 /run/oqto/runner-sockets/oqto_alice/*",
        "accounts",
        "oqto_alice:oqtod 0600",
    ),
    Fault(
        "state open",
        "chmod 0755 /var/lib/oqtod-supervisor",
        "permissions",
        "oqtod-supervisor: root:root 0755",
    ),
    Fault(
        "data of root", "chown -R root:root /var/lib/oqtod", "permissions", "/var/lib/oqtod: root:root 0700"
    ),
    Fault("stopped", "systemctl stop oqtod", "units", "oqtod.service: inactive"),
    Fault("disabled", "systemctl disable oqtod", "units", "oqtod.service: not enabled"),
    Fault("gateway stopped", "systemctl stop oqtod-gateway", "units", "oqtod-gateway.service: inactive"),
    Fault(
        "gateway killed for good",
        f"mkdir -p {CRASHING}; printf '[Service]\\nRestart=no\\n' >{CRASHING}/x.conf; "
        "systemctl daemon-reload; "
        f"kill -9 {GATEWAY_PID}; rm -r {CRASHING}; while systemctl -q is-active oqtod-gateway; do :; done",
        "units",
        "oqtod-gateway.service: failed, result signal",
    ),
    Fault(
        "user removed", "systemctl stop oqtod; userdel -f oqtod", "system-accounts", "oqtod (user): not in"
    ),
    Fault("group removed", "groupdel oqto-admin", "system-accounts", "oqto-admin (group): not in /etc/group"),
    Fault("code unreadable", "chmod 0700 /usr/share/oqtod", "package", "/usr/share/oqtod: root 0700"),
    Fault("program not executable", "chmod 0644 /usr/bin/oqtod", "package", "/usr/bin/oqtod: root 0644"),
    Fault(
        "changed on disk",
        "mkdir -p /run/systemd/system/oqtod.service.d; echo >/run/systemd/system/oqtod.service.d/x.conf",
        "units",
        "oqtod.service: its files changed",
    ),
    # What only an administrator can decide.
    Fault(
        "masked",
        "systemctl mask oqtod-gateway; systemctl stop oqtod-gateway",
        "units",
        "oqtod-gateway.service: masked",
        "systemctl unmask oqtod-gateway; systemctl start oqtod-gateway",
    ),
    Fault(
        "crash loop",
        f"mkdir -p {CRASHING}; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >{CRASHING}/x.conf; "
        "systemctl daemon-reload; systemctl restart oqtod-gateway || true",
        "units",
        "oqtod-gateway.service: starts /bin/false",
        f"rm -r {CRASHING}; systemctl daemon-reload; systemctl reset-failed; systemctl restart oqtod-gateway",
    ),
    Fault(
        "unit with a mistake",
        f"mkdir -p {CRASHING}; printf '[Service]\\nProtectSytem=no\\n' >{CRASHING}/x.conf; "
        "systemctl daemon-reload",
        "units",
        "Unknown key 'ProtectSytem'",
        f"rm -r {CRASHING}; systemctl daemon-reload",
    ),
    Fault(
        "configuration with a mistake",
        "cp -a /etc/oqto/config.toml /root/; sed -i 's/^port = 8080/prot = 8080/' /etc/oqto/config.toml",
        "configuration",
        "server.prot: /etc/oqto/config.toml: server.prot: unknown key",
        "cp -a /root/config.toml /etc/oqto/; touch -d '1 hour ago' /etc/oqto/config.toml",
    ),
    Fault(
        "bwrap gone", "mv /usr/bin/bwrap /root/", "programs", "bwrap: not found", "mv /root/bwrap /usr/bin/"
    ),
    Fault(
        "database damaged",
        "systemctl stop oqtod; cp -a /var/lib/oqtod /root/; head -c 8192 /dev/urandom >/root/noise; "
        "dd if=/root/noise of=/var/lib/oqtod/oqto.db conv=notrunc status=none",
        "database",
        "file is not a database",
        "rm -r /var/lib/oqtod; cp -a /root/oqtod /var/lib/; systemctl start oqtod oqtod-gateway",
    ),
    Fault(
        "account gone",
        "cp -a /etc/passwd /root/; sed -i /^oqto_alice:/d /etc/passwd",
        "accounts",
        "oqto_alice: in the registry (uid",
        "cp -a /root/passwd /etc/",
    ),
    Fault(
        "home gone",
        "mv /home/oqto_alice /root/",
        "accounts",
        "/home/oqto_alice: missing",
        "mv /root/oqto_alice /home/",
    ),
    Fault(
        "lock left",
        "touch -d '1 hour ago' /etc/passwd.lock",
        "system-accounts",
        "passwd.lock: a lock",
        "rm /etc/passwd.lock",
    ),
    Fault(
        "home noexec",
        "mount -t tmpfs -o noexec,mode=755 x /home",
        "disks",
        "/home (homes): mounted noexec",
        "umount /home",
    ),
    Fault(
        "disk full",
        "mount -t tmpfs -o size=8M x /var/log; dd if=/dev/zero of=/var/log/x bs=1M status=none || true",
        "disks",
        "/var/log (journal): 0 MB of 8 MB are free",
        "umount /var/log",
    ),
    Fault(
        "gateway suspended",
        f"kill -STOP {GATEWAY_PID}",
        "processes",
        "is stopped by a signal",
        f"kill -CONT {GATEWAY_PID}",
    ),
    Fault(
        "module gone",
        "mv /usr/lib/python3/dist-packages/h11 /root/",
        "versions",
        "No module named 'h11'",
        "mv /root/h11 /usr/lib/python3/dist-packages/",
    ),
    Fault(
        "loopback down",
        "ip link set lo down",
        "ports",
        "lo: the loopback interface is down",
        "ip link set lo up",
    ),
    Fault(
        "D-Bus stopped",
        "systemctl mask dbus.socket dbus.service; systemctl stop dbus.socket dbus.service",
        "systemd",
        "D-Bus: dbus.socket is inactive (masked)",
        "systemctl unmask dbus.socket dbus.service; systemctl start dbus.socket; systemctl start oqtod; "
        "systemctl start oqtod-gateway",
    ),
]


@pytest.fixture(scope="module")
def machine(boot: Callable[[str], Machine], deb: Path) -> Iterator[Machine]:
    """A machine with our package, two people, and a session of one of them."""
    machine = prepare(boot("doctor"), deb).machine
    answer = Host(machine).login("alice").post("/api/sessions/get-or-create", {})
    assert answer.status == 200, answer
    yield machine


def doctor(machine: Machine, *options: str, user: str = "root") -> tuple[int, list[dict[str, Any]]]:
    done = machine.run("oqtoctl", "doctor", "--json", *options, user=user, check=False, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def problems(found: list[dict[str, Any]]) -> list[str]:
    return [f"{x['subject']}: {x['found']}" for x in found if x["severity"] == "problem" and not x["fixed"]]


def test_a_healthy_host_has_no_problem(machine: Machine) -> None:
    code, found = doctor(machine)
    assert problems(found) == []
    assert code == 0
    # What this kind of machine can't have.
    assert {x["subject"] for x in found if x["severity"] == "warning"} <= {"control groups"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_what_is_broken_is_found_and_repaired(machine: Machine, fault: Fault) -> None:
    machine.sh(fault.broken)
    try:
        code, found = doctor(machine, *([] if fault.undo else ["--fix"]))
        fitting = [
            one
            for one in found
            if one["check"] == fault.check and fault.said in f"{one['subject']}: {one['found']}"
        ]
        assert fitting, problems(found)
        assert all(one["matters"] and one["advice"] for one in fitting)
        if fault.undo is None:
            assert [one["fixed"] for one in fitting] == [True] * len(fitting), problems(found)
            assert (code, problems(found)) == (0, [])
    finally:
        if fault.undo is not None:
            machine.sh(fault.undo)
            machine.sh("systemctl reset-failed 'oqto*' || true; systemctl start oqtod oqtod-gateway")
    machine.sh("rm -rf /run/systemd/system/oqtod.service.d; systemctl daemon-reload")


def test_a_database_deleted_in_use_is_saved_as_the_doctor_says(machine: Machine) -> None:
    machine.sh("rm /var/lib/oqtod/oqto.db /run/oqto/oqtoctl.sock")
    _, found = doctor(machine, "--fix")
    (lost,) = [one for one in found if one["found"].startswith("deleted or replaced")]
    machine.sh(lost["advice"].partition("save it first: ")[2].replace("; then: ", "; "))
    machine.run("systemctl", "start", "oqtod-gateway")
    code, found = doctor(machine, "--fix")
    assert (code, problems(found)) == (0, [])
    assert Host(machine).login("alice").get("/api/sessions").json()


def test_somebody_else_is_told_what_could_not_be_looked_at(machine: Machine) -> None:
    machine.run("useradd", "--groups", "oqto-admin", "carol")
    code, found = doctor(machine, user="carol")
    assert (code, problems(found)) == (0, [])
    assert any(one["subject"] == "/etc/oqto/config.toml" and "not looked at" in one["found"] for one in found)
    assert machine.run("oqtoctl", "doctor", "--fix", user="carol", check=False).returncode == 5


def test_everything_broken_at_once_is_still_told(machine: Machine) -> None:
    """Nothing there to ask: each check goes on with what can be seen."""
    machine.sh(
        "systemctl stop oqtod; rm -rf /run/oqto /var/lib/oqtod /var/lib/oqtod-supervisor /etc/oqto; "
        "userdel oqtod; "
        "chmod 0600 /etc/nsswitch.conf; rm /usr/lib/systemd/system/oqtod*.service; systemctl daemon-reload"
    )
    code, found = doctor(machine)
    assert code == 1
    told = {f"{one['subject']}: {one['found']}" for one in found}
    assert "/run/oqto: missing" in told
    assert "/etc/oqto: missing" in told
    assert "oqtod.service: systemd knows no such unit" in told
    assert not any("Error" in one["found"] for one in found if one["check"] != "versions"), told
